"""The few rtnetlink messages a tunnel needs, packed by hand: addresses, MTU, up, routes, rules, and questions.

pyroute2 knows all of these, but importing even its message classes alone takes about 130 ms here (it loads all of
pyroute2), more than the rest of the client's start together; the messages below take none. Requests that belong
together go to the kernel in one system call and are acknowledged one by one.

    nlmsghdr  length u32 | type u16 | flags u16 | sequence u32 | port u32      then a fixed part, then attributes
    rtattr    length u16 | type u16 | value, padded to 4 octets                all in the host's byte order

Sources: rtnetlink(7), netlink(7), linux/rtnetlink.h, linux/if_addr.h, linux/fib_rules.h
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network

from vpn.driver.errors import HostError
from vpn.driver.routes import TABLE_MAIN, IpAddress, IpNetwork, KernelRoute, Rule

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBi")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")

_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWLINK, _RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 16, 20, 21, 22
_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_GETROUTE = 24, 25, 26
_RTM_NEWRULE, _RTM_DELRULE = 32, 33
_REQUEST, _ACK, _DUMP, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
_IFF_UP = 0x1
_IFLA_MTU, _IFLA_TXQLEN, _IFLA_GSO_MAX_SIZE = 4, 13, 41
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFA_F_NODAD = 0x02  # nobody else is on a tun device to collide with
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_MARK, _RTA_TABLE = 1, 4, 5, 6, 7, 16, 15
_FRA_PRIORITY, _FRA_FWMARK, _FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK = 6, 10, 14, 15, 16
_FR_ACT_TO_TBL, _FIB_RULE_INVERT = 1, 0x2
_WISHES = 0x4  # RTNH_F_ONLINK: the one flag of a route that is a wish; the others are the kernel's findings
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_NOWHERE = 0, 253, 255
_TYPE_UNICAST, _TYPE_LOCAL, _TYPE_UNREACHABLE = 1, 2, 7
_RECEIVE_OCTETS = 65536
_ANSWER_SECONDS = 5.0  # the kernel answers at once; a bound in case it never does


@dataclass(frozen=True, slots=True)
class Request:
    """One message to the kernel, and what it does, in words for errors."""

    operation: str
    kind: int
    flags: int
    body: bytes


class Netlink:
    """A route netlink socket in the network namespace it was made in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(_ANSWER_SECONDS)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def apply(self, requests: Sequence[Request]) -> list[HostError | None]:
        """Sends all requests at once; one answer each, in order: None, or why it failed."""
        numbered: dict[int, int] = {}
        packed: list[bytes] = []
        for position, request in enumerate(requests):
            self._sequence += 1
            numbered[self._sequence] = position
            packed.append(_pack(request, request.flags | _REQUEST | _ACK, self._sequence))
        answers: list[HostError | None] = [None] * len(requests)
        if packed:
            self._socket.sendmsg(packed)
        waiting = set(numbered)
        while waiting:
            for kind, sequence, body in self._messages():
                if kind == _NLMSG_ERROR and sequence in waiting:
                    waiting.discard(sequence)
                    number = -struct.unpack_from("=i", body)[0]
                    if number:
                        position = numbered[sequence]
                        answers[position] = HostError(requests[position].operation, number)
        return answers

    def require(self, requests: Sequence[Request]) -> None:
        """Applies all; the first failure is raised as HostError."""
        for answer in self.apply(requests):
            if answer is not None:
                raise answer

    def path_to(self, address: IpAddress, mark: int | None = None) -> KernelRoute | None:
        """How the kernel would send a packet there; None if the address is this host's own.

        Errors: HostError if there is no route
        """
        attributes = _attribute(_RTA_DST, address.packed)
        if mark is not None:
            attributes += _attribute(_RTA_MARK, struct.pack("=I", mark))
        head = _ROUTE.pack(_family(address), address.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
        request = Request(f"find the route to {address}", _RTM_GETROUTE, 0, head + attributes)
        for body in self._ask(request, 0):
            route, kind = _parse_route(body)
            return None if kind == _TYPE_LOCAL else route
        raise HostError(request.operation, errno.ENETUNREACH)

    def default_route(self, version: int) -> KernelRoute | None:
        """The default route with the lowest metric in the main table."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        request = Request("list the routes", _RTM_GETROUTE, 0, _ROUTE.pack(family, 0, 0, 0, TABLE_MAIN, 0, 0, 0, 0))
        found: list[KernelRoute] = []
        for body in self._ask(request, _DUMP):
            route, kind = _parse_route(body)
            if (
                kind == _TYPE_UNICAST
                and route.table == TABLE_MAIN
                and route.network.prefixlen == 0
                and body[0] == family
            ):
                found.append(route)
        return min(found, key=lambda route: route.metric or 0, default=None)

    def networks_of(self, device: int) -> tuple[IpNetwork, ...]:
        """The networks an interface's own addresses are in."""
        request = Request("list the addresses", _RTM_GETADDR, 0, _ADDRESS.pack(0, 0, 0, 0, 0))
        found: list[IpNetwork] = []
        for body in self._ask(request, _DUMP):
            _, prefix_length, _, _, index = _ADDRESS.unpack_from(body)
            attributes = dict(_attributes(body[_ADDRESS.size :]))
            if index == device and _IFA_ADDRESS in attributes:
                network = ip_interface((attributes[_IFA_ADDRESS], prefix_length)).network
                if not network.is_link_local:
                    found.append(network)
        return tuple(dict.fromkeys(found))

    def _ask(self, request: Request, flags: int) -> Iterator[bytes]:
        """The bodies of all answers to a question. Errors: HostError."""
        self._sequence += 1
        self._socket.send(_pack(request, request.flags | _REQUEST | flags, self._sequence))
        answers: list[bytes] = []
        while True:
            for kind, sequence, body in self._messages():
                if sequence != self._sequence:
                    continue
                if kind == _NLMSG_ERROR:
                    raise HostError(request.operation, -struct.unpack_from("=i", body)[0])
                if kind == _NLMSG_DONE:
                    return iter(answers)
                answers.append(body)
            if not flags & _DUMP and answers:
                return iter(answers)

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, sequence number and body of every message in the next datagram."""
        try:
            data = self._socket.recv(_RECEIVE_OCTETS)
        except TimeoutError as error:
            raise HostError("wait for the kernel's netlink answer", errno.ETIMEDOUT) from error
        position = 0
        while position + _HEADER.size <= len(data):
            length, kind, _, sequence, _ = _HEADER.unpack_from(data, position)
            yield kind, sequence, data[position + _HEADER.size : position + length]
            position += max(_align(length), _HEADER.size)


def set_link(
    device: int,
    *,
    mtu: int | None = None,
    queue_length: int | None = None,
    superpacket_octets: int | None = None,
    up: bool = True,
) -> Request:
    """Shape: `superpacket_octets` bounds what the kernel gives a device with offload at once."""
    attributes = b""
    if superpacket_octets is not None:
        attributes += _attribute(_IFLA_GSO_MAX_SIZE, struct.pack("=I", superpacket_octets))
    if mtu is not None:
        attributes += _attribute(_IFLA_MTU, struct.pack("=I", mtu))
    if queue_length is not None:
        attributes += _attribute(_IFLA_TXQLEN, struct.pack("=I", queue_length))
    body = _LINK.pack(socket.AF_UNSPEC, 0, device, _IFF_UP if up else 0, _IFF_UP) + attributes
    return Request(
        f"set the tun device {'up' if up else 'down'}" + (f", mtu {mtu}" if mtu else ""), _RTM_NEWLINK, 0, body
    )


def add_address(device: int, own: IPv4Interface | IPv6Interface, peer: IpAddress | None = None) -> Request:
    """An address with its network, or with one `peer` at the other end."""
    return Request(f"add the address {own}", _RTM_NEWADDR, _CREATE | _EXCLUSIVE, _address_body(device, own, peer))


def delete_address(device: int, own: IPv4Interface | IPv6Interface, peer: IpAddress | None = None) -> Request:
    return Request(f"delete the address {own}", _RTM_DELADDR, 0, _address_body(device, own, peer))


def add_route(route: KernelRoute) -> Request:
    """A route that was found in the kernel is put back octet by octet, with all that this program knows nothing of."""
    body = _as_wished(route.as_found) if route.as_found else _route_body(route)
    return Request(f"add the route {route}", _RTM_NEWROUTE, _CREATE | _EXCLUSIVE, body)


def delete_route(route: KernelRoute) -> Request:
    """Protocol and scope are left open, so that a route is found whoever set it."""
    return Request(
        f"delete the route {route}", _RTM_DELROUTE, 0, _route_body(replace(route, protocol=0), _SCOPE_NOWHERE)
    )


def add_rule(rule: Rule) -> Request:
    return Request(f"add the rule {rule}", _RTM_NEWRULE, _CREATE | _EXCLUSIVE, _rule_body(rule))


def delete_rule(rule: Rule) -> Request:
    return Request(f"delete the rule {rule}", _RTM_DELRULE, 0, _rule_body(rule))


def _rule_body(rule: Rule) -> bytes:
    """A fib_rule_hdr has the layout of an rtmsg: its type is the action, its protocol lies in an attribute."""
    family = socket.AF_INET if rule.version == 4 else socket.AF_INET6
    flags = 0 if rule.unless_mark is None else _FIB_RULE_INVERT
    short = rule.table if rule.table < 256 else 0
    body = _ROUTE.pack(family, 0, 0, 0, short, 0, 0, _FR_ACT_TO_TBL, flags)
    numbers = {_FRA_PRIORITY: rule.priority, _FRA_TABLE: rule.table}
    if rule.unless_mark is not None:
        numbers |= {_FRA_FWMARK: rule.unless_mark, _FRA_FWMASK: 0xFFFFFFFF}
    if rule.without_default:
        numbers[_FRA_SUPPRESS_PREFIXLEN] = 0
    return body + b"".join(_attribute(kind, struct.pack("=I", number)) for kind, number in numbers.items())


def _as_wished(found: bytes) -> bytes:
    """The flags of a route the kernel listed, without those that a request must not hold."""
    head = list(_ROUTE.unpack_from(found))
    head[-1] &= _WISHES
    return _ROUTE.pack(*head) + found[_ROUTE.size :]


def _address_body(device: int, own: IPv4Interface | IPv6Interface, peer: IpAddress | None) -> bytes:
    prefix_length = own.network.prefixlen if peer is None else own.max_prefixlen
    flags = _IFA_F_NODAD if own.version == 6 else 0
    body = _ADDRESS.pack(_family(own), prefix_length, flags, _SCOPE_UNIVERSE, device)
    return body + _attribute(_IFA_LOCAL, own.packed) + _attribute(_IFA_ADDRESS, (peer or own).packed)


def _route_body(route: KernelRoute, scope: int | None = None) -> bytes:
    kind = _TYPE_UNREACHABLE if route.unreachable else _TYPE_UNICAST
    on_link = route.gateway is None and route.network.version == 4 and not route.unreachable
    if scope is None:
        scope = _SCOPE_LINK if on_link else _SCOPE_UNIVERSE
    family, length = _family(route.network.network_address), route.network.prefixlen
    short = route.table if route.table < 256 else 0
    body = _ROUTE.pack(family, length, 0, 0, short, route.protocol, scope, kind, 0)
    body += _attribute(_RTA_TABLE, struct.pack("=I", route.table))
    body += _attribute(_RTA_DST, route.network.network_address.packed)
    if not route.unreachable:
        body += _attribute(_RTA_OIF, struct.pack("=i", route.device))
    if route.gateway is not None:
        body += _attribute(_RTA_GATEWAY, route.gateway.packed)
    if route.metric:
        body += _attribute(_RTA_PRIORITY, struct.pack("=I", route.metric))
    if route.source is not None:
        body += _attribute(_RTA_PREFSRC, route.source.packed)
    return body


def _parse_route(body: bytes) -> tuple[KernelRoute, int]:
    """The route and its type."""
    family, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(body)
    attributes = dict(_attributes(body[_ROUTE.size :]))
    empty = bytes(4 if family == socket.AF_INET else 16)
    network = ip_network((attributes.get(_RTA_DST, empty), length))
    gateway = attributes.get(_RTA_GATEWAY)
    source = attributes.get(_RTA_PREFSRC)
    route = KernelRoute(
        network,
        struct.unpack("=i", attributes.get(_RTA_OIF, bytes(4)))[0],
        ip_address(gateway) if gateway else None,
        struct.unpack("=I", attributes[_RTA_PRIORITY])[0] if _RTA_PRIORITY in attributes else None,
        ip_address(source) if source else None,
        protocol=protocol,
        table=struct.unpack("=I", attributes[_RTA_TABLE])[0] if _RTA_TABLE in attributes else table,
        as_found=body,
    )
    return route, kind


def _pack(request: Request, flags: int, sequence: int) -> bytes:
    header = _HEADER.pack(_HEADER.size + len(request.body), request.kind, flags, sequence, 0)
    return header + request.body


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_align(length) - length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, position)
        if length < _ATTRIBUTE.size:
            return
        yield kind & 0x3FFF, data[position + _ATTRIBUTE.size : position + length]
        position += _align(length)


def _align(length: int) -> int:
    return (length + 3) & ~3


def _family(address: IpAddress | IPv4Interface | IPv6Interface) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def device_index(name: str) -> int:
    """The interface's number. Errors: HostError if there is none of that name."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise HostError(f"find the interface {name}", error.errno or errno.ENODEV) from error
