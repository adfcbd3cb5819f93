"""Outer addresses and what the event loop asks of a transport, for UDP and TCP alike."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol, TypeAlias

from vpn.config.model import Family, Remote
from vpn.dataplane.train import Outgoing, Train
from vpn.driver.errors import HostError
from vpn.driver.routes import IpAddress
from vpn.settings import Address, Transport

_FAMILIES = {Family.ANY: socket.AF_UNSPEC, Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A resolved outer address. Shape: `address` is a socket address of `family`."""

    transport: Transport
    family: socket.AddressFamily
    address: Address

    @property
    def ip(self) -> IpAddress:
        return ip_of(self.address)

    @property
    def protocol_name(self) -> str:
        """As openvpn's log spells it: UDPv4, TCPv6_CLIENT is left to the caller."""
        return f"{self.transport.value.upper()}v{4 if self.family == socket.AF_INET else 6}"


Arrived: TypeAlias = tuple[Address, list[bytes] | Train]


class Watcher(Protocol):
    """What a link needs of the event loop: to be called when its descriptors are ready."""

    def watch(self, descriptor: int, events: int = ...) -> None: ...
    def unwatch(self, descriptor: int) -> None: ...


class Link(Protocol):
    """What carries the core's datagrams. `receive` and `send` never block."""

    octets_received: int
    octets_sent: int
    unsent: int  # datagrams or packets for which there was no room

    def receive(self, descriptor: int, *, is_busy: bool = True) -> list[Arrived]:
        """Datagrams that have arrived, grouped by sender in order of arrival. Trains are valid until the next call.

        `is_busy`: more than one is to be expected.
        """

    def send(self, datagrams: Sequence[tuple[Outgoing, Address]]) -> None:
        """Sends in order; what cannot be sent is dropped and counted."""

    def writable(self, descriptor: int) -> None:
        """The descriptor takes octets again (TCP)."""

    def lost(self) -> list[tuple[Address, str]]:
        """Connections that broke since the last call, and why (TCP)."""

    def drop(self, address: Address) -> None:
        """Closes one connection (TCP)."""

    def close(self) -> None: ...


def ip_of(address: Address) -> IpAddress:
    """The IP address of a socket address; an IPv4 address mapped into IPv6 counts as IPv4."""
    parsed: IPv4Address | IPv6Address = ip_address(str(address[0]).partition("%")[0])
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed


def socket_address(found: tuple[str | int | bytes, ...]) -> Address:
    """What getaddrinfo found, as an `Address` (its type also allows what only systems without IPv6 give)."""
    return tuple(part if isinstance(part, str | int) else part.hex() for part in found)


def show_address(address: Address) -> str:
    """As openvpn writes it: `[AF_INET]192.0.2.1:1194`."""
    ip = ip_of(address)
    family = "AF_INET" if ip.version == 4 else "AF_INET6"
    return f"[{family}]{ip}:{address[1]}"


def resolve(remote: Remote) -> list[Endpoint]:
    """All addresses of a remote, in the resolver's order. Errors: HostError if there are none."""
    kind = socket.SOCK_DGRAM if remote.protocol.transport is Transport.UDP else socket.SOCK_STREAM
    try:
        found = socket.getaddrinfo(remote.host, remote.port, _FAMILIES[remote.protocol.family], kind)
    except OSError as error:
        raise HostError(
            f"RESOLVE: Cannot resolve host address: {remote.host}:{remote.port} ({error.strerror})"
        ) from error
    return [Endpoint(remote.protocol.transport, family, socket_address(address)) for family, _, _, _, address in found]
