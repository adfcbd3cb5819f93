"""DHCP messages as they stand on the wire: what a lease needs, and the routes that one may bring.

       0        8        16       24      31
       | op     | htype  | hlen   | hops   |     op 1 from the client, 2 from the server
       | xid: the client's number for this exchange
       | secs             | flags (broadcast)
       | ciaddr, yiaddr, siaddr, giaddr: 4 octets each; yiaddr is the address given
       | chaddr: the client's hardware address, 16 octets
       | sname (64), file (128): not used
       | 99 130 83 99, then options: code, length, value; 255 ends them

Pure: octets in, values out. Nothing is known of relays, of other hardware than Ethernet, of options beyond 255 octets
when building. Sources: RFC 2131 section 2, RFC 2132, RFC 3442 (option 121, classless static routes).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

SERVER_PORT, CLIENT_PORT = 67, 68
DISCOVER, OFFER, REQUEST, ACKNOWLEDGE = 1, 2, 3, 5
MASK, ROUTERS, RESOLVERS, REQUESTED, SECONDS, KIND, SERVER, WISHES, ROUTES = 1, 3, 6, 50, 51, 53, 54, 55, 121
_HEAD = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_FROM_CLIENT, _FROM_SERVER, _ETHERNET, _MAC_OCTETS, _BROADCAST = 1, 2, 1, 6, 0x8000
_MAGIC = bytes((99, 130, 83, 99))
_PAD, _END = 0, 255
_NOWHERE = bytes(4)
NO_ADDRESS = IPv4Address(0)
_LARGEST_OPTION = 255  # octets: the length is one

Route = tuple[IPv4Network, IPv4Address]  # where to, by which router; 0.0.0.0 is the link itself


class DhcpMalformed(ValueError):
    """These octets are no DHCP message, or one with an option that does not add up."""


@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """One message. Shape: `options` by their code, without the kind, which is `kind`."""

    kind: int
    transaction: int
    mac: bytes
    given: IPv4Address = NO_ADDRESS
    options: Mapping[int, bytes] = field(default_factory=dict)

    def build(self) -> bytes:
        """The message's octets. Errors: ValueError if an option is too long for its length octet."""
        sender = _FROM_CLIENT if self.kind in (DISCOVER, REQUEST) else _FROM_SERVER
        head = _HEAD.pack(
            *(sender, _ETHERNET, _MAC_OCTETS, 0, self.transaction, 0, _BROADCAST),
            *(_NOWHERE, self.given.packed, _NOWHERE, _NOWHERE, self.mac, b"", b"", _MAGIC),
        )
        options = {KIND: bytes((self.kind,)), **self.options}
        if any(len(value) > _LARGEST_OPTION for value in options.values()):
            raise ValueError("a lease has room for 255 octets of routes")
        body = b"".join(bytes((code, len(value))) + value for code, value in options.items())
        return head + body + bytes((_END,))

    @classmethod
    def parse(cls, untrusted: bytes) -> DhcpMessage:
        """Errors: DhcpMalformed."""
        if len(untrusted) < _HEAD.size:
            raise DhcpMalformed("shorter than a message's head")
        _op, hardware, length, _hops, number, _secs, _flags, _own, given, _next, _relay, mac, _name, _file, magic = (
            _HEAD.unpack_from(untrusted)
        )
        if magic != _MAGIC or hardware != _ETHERNET or length != _MAC_OCTETS:
            raise DhcpMalformed("no DHCP over Ethernet")
        options = _parse_options(untrusted[_HEAD.size :])
        kind = options.pop(KIND, b"")
        if len(kind) != 1:
            raise DhcpMalformed("does not say which kind of message it is")
        return cls(kind[0], number, mac[:_MAC_OCTETS], IPv4Address(given), options)


def build_routes(routes: Sequence[Route]) -> bytes:
    """Option 121: of each route the prefix length, as many octets of the prefix as that needs, and the router."""
    return b"".join(
        bytes((network.prefixlen,)) + network.network_address.packed[: _octets(network.prefixlen)] + router.packed
        for network, router in routes
    )


def parse_routes(untrusted: bytes) -> list[Route]:
    """Errors: DhcpMalformed."""
    found, at = [], 0
    while at < len(untrusted):
        length = untrusted[at]
        end = at + 1 + _octets(length)
        if length > 32 or end + 4 > len(untrusted):
            raise DhcpMalformed("routes that break off, or a prefix longer than an address")
        prefix = untrusted[at + 1 : end].ljust(4, b"\0")
        found.append((IPv4Network((prefix, length), strict=False), IPv4Address(untrusted[end : end + 4])))
        at = end + 4
    return found


def parse_addresses(untrusted: bytes) -> list[IPv4Address]:
    """Errors: DhcpMalformed."""
    if len(untrusted) % 4:
        raise DhcpMalformed("addresses that break off")
    return [IPv4Address(untrusted[at : at + 4]) for at in range(0, len(untrusted), 4)]


def _octets(prefix_length: int) -> int:
    return (prefix_length + 7) // 8


def _parse_options(untrusted: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    at = 0
    while at < len(untrusted) and untrusted[at] != _END:
        if untrusted[at] == _PAD:
            at += 1
            continue
        end = at + 2 + untrusted[at + 1] if at + 1 < len(untrusted) else len(untrusted) + 1
        if end > len(untrusted):
            raise DhcpMalformed("an option that breaks off")
        options[untrusted[at]] = options.get(untrusted[at], b"") + untrusted[at + 2 : end]  # RFC 3396: parts add up
        at = end
    return options
