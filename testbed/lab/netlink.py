"""Netlink: messages to the kernel, sent many at a time and acknowledged once, and what it answers.

A batch goes to the kernel in one send. Every message but the last asks for no acknowledgement; an error comes back
nonetheless, with the number of the message it is about. The messages are written by hand: pyroute2 knows them all, but
importing its message classes takes 100 ms, a third of what a lab's front process imports, and each message it encodes
0.1 to 0.3 ms, which for a lab of three nodes is as much as the kernel takes to build it.

Sources: netlink(7), rtnetlink(7), kernel include/uapi/linux/{if_link,rtnetlink,netfilter/nf_tables}.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from testbed.lab.attributes import (
    Attributes,
    build_attributes,
    native32,
    network32,
    number_of,
    parse_attributes,
    text_of,
)
from testbed.lab.errors import LabBuildError
from testbed.lab.namespaces import entered_network
from testbed.lab.nat import Chain, Expression

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_LINK = struct.Struct("=BxHiII")  # family, hardware type, index, flags, which flags to change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, prefix lengths, tos, table, protocol, scope, type, flags
_REQUEST, _ACK, _DUMP, _EXCL, _CREATE, _APPEND = 1, 4, 0x300, 0x200, 0x400, 0x800
_ERROR, _DONE = 2, 3
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR, _NEWROUTE, _GETROUTE = 16, 18, 20, 22, 24, 26
_NFT = 10 << 8
_NFT_NEWTABLE, _NFT_NEWCHAIN, _NFT_NEWRULE = _NFT | 0, _NFT | 3, _NFT | 6
_NFT_BATCH_BEGIN, _NFT_BATCH_END = 16, 17
_NETLINK_NETFILTER = 12
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ERROR_TEXT = 1  # NLMSGERR_ATTR_MSG
_BATCH_OCTETS = 48 * 1024  # below the socket's send buffer on every kernel
_RECEIVE_OCTETS = 1 << 18
_IFF_UP = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 1, 3, 4, 16, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")
_OPERSTATE_UP = 6
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_TABLE = 1, 4, 5, 6, 7, 15
_NFPROTO_INET = 1  # one table for both IP versions
_NFTA_TABLE_NAME = 1
_NFTA_CHAIN_TABLE, _NFTA_CHAIN_NAME, _NFTA_CHAIN_HOOK, _NFTA_CHAIN_TYPE = 1, 3, 4, 7
_NFTA_HOOK_NUMBER, _NFTA_HOOK_PRIORITY = 1, 2
_NFTA_RULE_TABLE, _NFTA_RULE_CHAIN, _NFTA_RULE_EXPRESSIONS = 1, 2, 4
_NFTA_LIST_ELEMENT, _NFTA_EXPRESSION_NAME, _NFTA_EXPRESSION_DATA = 1, 1, 2
_TABLE_MAIN, _PROTO_STATIC, _SCOPE_LINK, _UNICAST = 254, 4, 253, 1
_TENTATIVE, _DAD_FAILED = 0x40, 0x08
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_VERSIONS = {int(socket.AF_INET): 4, int(socket.AF_INET6): 6}
_ANYWHERE = {4: bytes(4), 6: bytes(16)}


@dataclass(frozen=True, slots=True)
class Message:
    """One request without its header, and in words what it is for."""

    kind: int
    flags: int
    body: bytes
    purpose: str


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a link to be: its namespace by descriptor, its index there, and its name."""

    netns_fd: int
    index: int
    name: str
    mac: str


class Netlink:
    """A netlink socket of the network namespace that the calling thread is in."""

    def __init__(self, protocol: int = socket.NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._sequence = 0

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def control(self) -> socket.socket:
        """The socket itself: any socket of a namespace serves for an ioctl on its interfaces."""
        return self._socket

    def close(self) -> None:
        self._socket.close()

    def send(self, messages: Sequence[Message]) -> None:
        """Have the kernel carry out all of `messages`. Errors: LabBuildError names those it refused."""
        batch: list[Message] = []
        size = 0
        for message in messages:
            if size + len(message.body) > _BATCH_OCTETS:
                self._send_batch(batch)
                batch, size = [], 0
            batch.append(message)
            size += _HEADER.size + len(message.body)
        if batch:
            self._send_batch(batch)

    def send_transaction(self, messages: Sequence[Message]) -> None:
        """Have nf_tables carry out all of `messages` or none. Errors: LabBuildError."""
        begin, end = (
            Message(kind, 0, struct.pack("=BBH", 0, 0, socket.htons(_NFT >> 8)), "transaction")
            for kind in (_NFT_BATCH_BEGIN, _NFT_BATCH_END)
        )
        # nf_tables answers per message after the whole transaction; the one before the end carries the acknowledgement.
        self._send_batch([begin, *messages, end], acknowledged=len(messages))

    def ask(self, kind: int, body: bytes, dump: bool) -> Iterator[bytes]:
        """Yield the bodies of the kernel's answers. Errors: OSError as the kernel says it."""
        self._sequence += 1
        header = _HEADER.pack(16 + len(body), kind, _REQUEST | (_DUMP if dump else 0), self._sequence, 0)
        self._socket.send(header + body)
        while True:
            for answer_kind, sequence, answer in self._receive():
                if sequence != self._sequence:
                    continue
                if answer_kind == _DONE:
                    return
                if answer_kind == _ERROR:
                    number = -struct.unpack_from("=i", answer)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    return
                yield answer
                if not dump:
                    return

    def _send_batch(self, batch: Sequence[Message], acknowledged: int | None = None) -> None:
        acknowledged = len(batch) - 1 if acknowledged is None else acknowledged
        first = self._sequence + 1
        parts = []
        for place, message in enumerate(batch):
            self._sequence += 1
            flags = _REQUEST | message.flags | (_ACK if place == acknowledged else 0)
            parts += [_HEADER.pack(16 + len(message.body), message.kind, flags, self._sequence, 0), message.body]
        self._socket.send(b"".join(parts))
        refused = []
        waiting = True
        while waiting:
            for kind, sequence, answer in self._receive():
                if kind != _ERROR or not first <= sequence <= self._sequence:
                    continue
                number = -struct.unpack_from("=i", answer)[0]
                if number:
                    refused.append(f"{batch[sequence - first].purpose}: {_refusal(number, answer)}")
                # A transaction is refused as a whole: then the acknowledged message is an error like the others.
                waiting = waiting and sequence != first + acknowledged
        if refused:
            raise LabBuildError("the kernel refused " + "; ".join(refused))

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(_RECEIVE_OCTETS)
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3


def netfilter_socket(netns_fd: int) -> Netlink:
    """Return a socket that speaks to nf_tables in the network namespace behind `netns_fd`."""
    with entered_network(netns_fd):
        return Netlink(_NETLINK_NETFILTER)


def new_veth(end1: VethEnd, end2: VethEnd, mtu_octets: int) -> Message:
    """Create a link with each end in its namespace from the start; both ends are down."""
    peer = _LINK.pack(0, 0, end2.index, 0, 0) + build_attributes(_link_attributes(end2, mtu_octets))
    info: Attributes = ((_INFO_KIND, "veth"), (_INFO_DATA, ((_VETH_PEER, peer),)))
    body = _LINK.pack(0, 0, end1.index, 0, 0)
    body += build_attributes((*_link_attributes(end1, mtu_octets), (_IFLA_LINKINFO, info)))
    return Message(_NEWLINK, _CREATE | _EXCL, body, f"link {end1.name} - {end2.name}")


def set_up(index: int, name: str) -> Message:
    return Message(_NEWLINK, 0, _LINK.pack(0, 0, index, _IFF_UP, _IFF_UP), f"setting {name} up")


def new_address(index: int, name: str, text: str) -> Message:
    address = ip_interface(text)
    own, network = address.ip.packed, address.network
    attributes: list[tuple[int, bytes]] = [(_IFA_LOCAL, own), (_IFA_ADDRESS, own)]
    if address.version == 4 and network.prefixlen < 31:
        attributes.append((_IFA_BROADCAST, network.broadcast_address.packed))
    body = _ADDRESS.pack(_FAMILIES[address.version], network.prefixlen, 0, 0, index) + build_attributes(attributes)
    return Message(_NEWADDR, _CREATE | _EXCL, body, f"address {text} of {name}")


def new_route(index: int, name: str, destination: str, gateway: str | None) -> Message:
    network = ip_network(destination)
    scope = 0 if gateway else _SCOPE_LINK
    head = _ROUTE.pack(
        _FAMILIES[network.version], network.prefixlen, 0, 0, _TABLE_MAIN, _PROTO_STATIC, scope, _UNICAST, 0
    )
    attributes = [(_RTA_OIF, native32(index))]
    if network.prefixlen:
        attributes.append((_RTA_DST, network.network_address.packed))
    if gateway:
        attributes.append((_RTA_GATEWAY, ip_address(gateway).packed))
    body = head + build_attributes(attributes)
    return Message(_NEWROUTE, _CREATE | _EXCL, body, f"route {destination} via {gateway or name}")


def new_table(name: str) -> Message:
    return Message(_NFT_NEWTABLE, _CREATE, _nft((_NFTA_TABLE_NAME, name)), f"table {name}")


def new_chain(table: str, chain: Chain) -> Message:
    hook = ((_NFTA_HOOK_NUMBER, network32(chain.hook)), (_NFTA_HOOK_PRIORITY, network32(chain.priority)))
    body = _nft(
        (_NFTA_CHAIN_TABLE, table),
        (_NFTA_CHAIN_NAME, chain.name),
        (_NFTA_CHAIN_HOOK, hook),
        (_NFTA_CHAIN_TYPE, chain.kind),
    )
    return Message(_NFT_NEWCHAIN, _CREATE, body, f"chain {chain.name}")


def new_rule(table: str, chain: Chain, expressions: Sequence[Expression]) -> Message:
    written = tuple(
        (_NFTA_LIST_ELEMENT, ((_NFTA_EXPRESSION_NAME, name), (_NFTA_EXPRESSION_DATA, attributes)))
        for name, attributes in expressions
    )
    body = _nft((_NFTA_RULE_TABLE, table), (_NFTA_RULE_CHAIN, chain.name), (_NFTA_RULE_EXPRESSIONS, written))
    return Message(_NFT_NEWRULE, _CREATE | _APPEND, body, f"rule of {chain.name}")


def links(netlink: Netlink) -> Iterator[dict[str, Any]]:
    """Yield each interface: {index, name, state, mtu, mac}."""
    for body in netlink.ask(_GETLINK, _LINK.pack(0, 0, 0, 0, 0), dump=True):
        _family, _type, index, flags, _change = _LINK.unpack_from(body)
        found = parse_attributes(body, _LINK.size)
        mac = found.get(_IFLA_ADDRESS)
        yield {
            "index": index,
            "name": text_of(found.get(_IFLA_IFNAME)),
            "state": _OPERSTATES[found.get(_IFLA_OPERSTATE, b"\0")[0]],
            "up": bool(flags & _IFF_UP),
            "mtu": number_of(found.get(_IFLA_MTU)),
            "mac": mac.hex(":") if mac else None,
        }


def has_carrier(netlink: Netlink, index: int) -> bool:
    """Whether an interface can send. Newer kernels bring the answer up to date before they give it."""
    body = next(iter(netlink.ask(_GETLINK, _LINK.pack(0, 0, index, 0, 0), dump=False)))
    return parse_attributes(body, _LINK.size).get(_IFLA_OPERSTATE) == bytes([_OPERSTATE_UP])


def addresses(netlink: Netlink) -> Iterator[dict[str, Any]]:
    """Yield each address: {index, address, usable}; usable is false while duplicates are being looked for."""
    for body in netlink.ask(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), dump=True):
        _family, prefix_length, flags, _scope, index = _ADDRESS.unpack_from(body)
        found = parse_attributes(body, _ADDRESS.size)
        text = ip_address(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])
        usable = not flags & (_TENTATIVE | _DAD_FAILED)
        yield {"index": index, "address": f"{text}/{prefix_length}", "usable": usable}


def all_addresses_usable(netlink: Netlink) -> bool:
    """Whether no address of the namespace waits for duplicate address detection; as `addresses`, but fast."""
    flags = [_ADDRESS.unpack_from(body)[2] for body in netlink.ask(_GETADDR, _ADDRESS.pack(0, 0, 0, 0, 0), dump=True)]
    return not any(flag & (_TENTATIVE | _DAD_FAILED) for flag in flags)


def routes(netlink: Netlink) -> Iterator[dict[str, Any]]:
    """Yield the unicast routes of the main table: {family, destination, gateway, index, metric, static}."""
    for family, version in _VERSIONS.items():
        for body in netlink.ask(_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0), dump=True):
            _family, length, _source, _tos, table, protocol, _scope, kind, _flags = _ROUTE.unpack_from(body)
            found = parse_attributes(body, _ROUTE.size)
            if (number_of(found.get(_RTA_TABLE)) or table) != _TABLE_MAIN or kind != _UNICAST:
                continue
            yield {
                "family": version,
                "destination": f"{ip_address(found.get(_RTA_DST) or _ANYWHERE[version])}/{length}",
                "gateway": _address_text(found.get(_RTA_GATEWAY)),
                "index": number_of(found.get(_RTA_OIF)),
                "metric": number_of(found.get(_RTA_PRIORITY)) or 0,
                "static": protocol == _PROTO_STATIC,
            }


def lookup(netlink: Netlink, text: str) -> dict[str, Any]:
    """Return which way the kernel would send to an address: {index, gateway, source}. Errors: OSError if none."""
    address = ip_interface(text)
    question = _ROUTE.pack(_FAMILIES[address.version], address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    question += build_attributes([(_RTA_DST, address.ip.packed)])
    found = parse_attributes(next(iter(netlink.ask(_GETROUTE, question, dump=False))), _ROUTE.size)
    return {
        "index": number_of(found.get(_RTA_OIF)),
        "gateway": _address_text(found.get(_RTA_GATEWAY)),
        "source": _address_text(found.get(_RTA_PREFSRC)),
    }


def _link_attributes(end: VethEnd, mtu_octets: int) -> Attributes:
    return (
        (_IFLA_IFNAME, end.name),
        (_IFLA_NET_NS_FD, native32(end.netns_fd)),
        (_IFLA_MTU, native32(mtu_octets)),
        (_IFLA_ADDRESS, bytes.fromhex(end.mac.replace(":", ""))),
    )


def _nft(*attributes: tuple[int, Any]) -> bytes:
    return struct.pack("=BBH", _NFPROTO_INET, 0, 0) + build_attributes(attributes)


def _address_text(octets: bytes | None) -> str | None:
    return None if octets is None else str(ip_address(octets))


def _refusal(number: int, answer: bytes) -> str:
    """Return the kernel's own words where it has any, else the error's."""
    text = text_of(parse_attributes(answer, 4 + _HEADER.size).get(_ERROR_TEXT))
    return os.strerror(number) if text is None else text
