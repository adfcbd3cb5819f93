"""The client asks for a DHCP lease on its link, and a neighbour gives it one: four real packets, then their effect.

The client discovers, is offered, requests and is acknowledged (RFC 2131), from 0.0.0.0 by a packet socket as programs
do that have no address yet. Then it does what DHCP clients do with what came: routes of option 121 are set (RFC 3442),
the resolver becomes the one of option 6. Both ends run here, in the conductor, with a socket in each node: what the
lease says is the scenario's, and the way it takes is the wire's.

Not modelled: leases that end, a second server that answers faster, an address other than the one the client has.
"""

from __future__ import annotations

import secrets
import select
import socket
import struct
import time
from contextlib import closing
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from testbed import dhcp
from testbed.dhcp import DhcpMalformed, DhcpMessage, Route
from testbed.lab import netlink
from testbed.lab.build import Lab
from testbed.lab.errors import LabBuildError
from testbed.lab.model import InterfacePlan
from testbed.lab.node import Node

_ATTEMPTS, _PATIENCE_S = 4, 1.0
_LEASE_S = 3600
_ETHERTYPE_IPV4, _EVERYBODY = 0x0800, b"\xff" * 6
_IPV4, _UDP = struct.Struct("!BBHHHBBH4s4s"), struct.Struct("!HHHH")
_UDP_NUMBER, _UNCHECKED, _TTL = 17, 0, 64
_BROADCAST = "255.255.255.255"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a lease says beside the address. Shape: no route and no resolver leave the client's as they are."""

    routes: tuple[Route, ...] = ()
    resolvers: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ends:
    """The two ends of the link: the client's and the server's."""

    client: Node
    interface: InterfacePlan
    server: Node
    server_interface: InterfacePlan


def take_lease(lab: Lab, client: str, server: str, terms: Terms) -> None:
    """Have the client take a lease from its neighbour and live by it.

    Errors: LabBuildError if the two are no neighbours over IPv4, nobody answers, or the kernel refuses a route
    """
    ends = _link_between(lab, client, server)
    listening = ends.server.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asking = ends.client.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETHERTYPE_IPV4))
    with closing(listening), closing(asking):
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, ends.server_interface.name.encode() + b"\0")
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        listening.bind(("", dhcp.SERVER_PORT))
        asking.bind((ends.interface.name, _ETHERTYPE_IPV4))
        acknowledged = _exchanged(asking, listening, ends, terms)
    _live_by(acknowledged, ends)


def _link_between(lab: Lab, client: str, server: str) -> _Ends:
    near, far = lab.node(client), lab.node(server)
    for interface in near.plan.interfaces:
        if interface.peer == server:
            ends = _Ends(near, interface, far, far.plan.interface(interface.peer_interface))
            if _ipv4(ends.interface) and _ipv4(ends.server_interface):
                return ends
    raise LabBuildError(f"{server} gives no lease: it has no link with the client that carries IPv4")


def _ipv4(interface: InterfacePlan) -> list[IPv4Interface]:
    return [IPv4Interface(address) for address in interface.addresses if ":" not in address]


def _exchanged(asking: socket.socket, listening: socket.socket, ends: _Ends, terms: Terms) -> DhcpMessage:
    """The four packets; returns the last. Lost ones are sent again, as clients do."""
    mac = bytes.fromhex(ends.interface.mac.replace(":", ""))
    number = secrets.randbits(32)
    wishes = {dhcp.WISHES: bytes((dhcp.MASK, dhcp.ROUTES, dhcp.ROUTERS, dhcp.RESOLVERS))}
    offer = _asked(DhcpMessage(dhcp.DISCOVER, number, mac, options=wishes), asking, listening, ends, terms)
    wanted = {dhcp.REQUESTED: offer.given.packed, dhcp.SERVER: offer.options.get(dhcp.SERVER, b""), **wishes}
    return _asked(DhcpMessage(dhcp.REQUEST, number, mac, options=wanted), asking, listening, ends, terms)


def _asked(
    question: DhcpMessage, asking: socket.socket, listening: socket.socket, ends: _Ends, terms: Terms
) -> DhcpMessage:
    """The server's answer to one message of the client's. Errors: LabBuildError after the last attempt."""
    for _attempt in range(_ATTEMPTS):
        to_everybody = (ends.interface.name, _ETHERTYPE_IPV4, 0, 0, _EVERYBODY)
        asking.sendto(_packet(question.build()), to_everybody)
        give_up_at = time.monotonic() + _PATIENCE_S
        while (wait := give_up_at - time.monotonic()) > 0:
            ready, _, _ = select.select([asking, listening], [], [], wait)
            if listening in ready:
                _answer(listening, ends, terms)
            if asking in ready and (answer := _received(asking.recv(2048), question)):
                return answer
    raise LabBuildError(f"{ends.server.name} gave no lease: no answer in {_ATTEMPTS * _PATIENCE_S:g} s")


def _answer(listening: socket.socket, ends: _Ends, terms: Terms) -> None:
    """The server's part: an offer for a discovery, an acknowledgement for a request."""
    try:
        question = DhcpMessage.parse(listening.recv(2048))
    except DhcpMalformed:
        return
    kind = {dhcp.DISCOVER: dhcp.OFFER, dhcp.REQUEST: dhcp.ACKNOWLEDGE}.get(question.kind)
    if kind is None:
        return
    given, own = _ipv4(ends.interface)[0], _ipv4(ends.server_interface)[0].ip
    options = {
        dhcp.SERVER: own.packed,
        dhcp.SECONDS: struct.pack("!I", _LEASE_S),
        dhcp.MASK: given.netmask.packed,
        dhcp.ROUTERS: own.packed,
    }
    if terms.resolvers:
        options[dhcp.RESOLVERS] = b"".join(address.packed for address in terms.resolvers)
    if terms.routes:  # with option 121 a client looks at no other router, so the default route has to be in it
        options[dhcp.ROUTES] = dhcp.build_routes([*terms.routes, (IPv4Network("0.0.0.0/0"), own)])
    answer = DhcpMessage(kind, question.transaction, question.mac, given.ip, options)
    listening.sendto(answer.build(), (_BROADCAST, dhcp.CLIENT_PORT))


def _received(untrusted: bytes, question: DhcpMessage) -> DhcpMessage | None:
    """The answer in an IPv4 packet, if it is one to this question."""
    head_octets = (untrusted[0] & 0x0F) * 4 if untrusted else 0
    if len(untrusted) < head_octets + _UDP.size or untrusted[9] != _UDP_NUMBER:
        return None
    _source, port, _length, _check = _UDP.unpack_from(untrusted, head_octets)
    if port != dhcp.CLIENT_PORT:
        return None
    try:
        answer = DhcpMessage.parse(untrusted[head_octets + _UDP.size :])
    except DhcpMalformed:
        return None
    expected = dhcp.OFFER if question.kind == dhcp.DISCOVER else dhcp.ACKNOWLEDGE
    mine = (answer.kind, answer.transaction, answer.mac) == (expected, question.transaction, question.mac)
    return answer if mine else None


def _live_by(lease: DhcpMessage, ends: _Ends) -> None:
    """What a client does with a lease: routes that it has not yet, and the resolver."""
    name = ends.interface.name
    index = next(link["index"] for link in netlink.links(ends.client.kernel) if link["name"] == name)
    known = {(route["destination"], route["interface"]) for route in ends.client.routes()}
    routes = dhcp.parse_routes(lease.options.get(dhcp.ROUTES, b""))
    ends.client.kernel.send(
        [
            netlink.new_route(index, name, str(network), str(router) if int(router) else None)
            for network, router in routes
            if (str(network), name) not in known
        ]
    )
    if resolvers := dhcp.parse_addresses(lease.options.get(dhcp.RESOLVERS, b"")):
        ends.client.set_resolver(map(str, resolvers))


def _packet(payload: bytes) -> bytes:
    """A datagram from 0.0.0.0 to everybody, with the checksums that a wire would carry."""
    length = _UDP.size + len(payload)
    nobody, everybody = bytes(4), b"\xff" * 4
    pseudo = nobody + everybody + struct.pack("!BBH", 0, _UDP_NUMBER, length)
    udp = _UDP.pack(dhcp.CLIENT_PORT, dhcp.SERVER_PORT, length, 0)
    udp = udp[:6] + struct.pack("!H", _checksum(pseudo + udp + payload) or 0xFFFF)
    total = _IPV4.size + length
    head = _IPV4.pack(0x45, 0, total, 0, 0, _TTL, _UDP_NUMBER, _UNCHECKED, nobody, everybody)
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + udp + payload


def _checksum(octets: bytes) -> int:
    """The Internet's checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + b"\0" * (len(octets) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
