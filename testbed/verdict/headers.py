"""Where addresses stand in a frame's headers, and where its transport begins: read anew, not by the observer.

`fields` walks a frame from the outside in: Ethernet with VLAN tags or raw IP; ARP; IPv4 and IPv6 with their extension
headers; what stands inside of them, GRE, IP in IP, VXLAN, the packet an ICMP error quotes, neighbour messages.
The search uses it on the frames in which an address's octets stand, to tell a header field from chance. Nothing is
verified: what a header claims is held against the frame's length only.

Source: RFC 791, 792, 826, 2784, 2890, 4443, 4861, 7348, 8200
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

ETHERNET = 1
RAW_LINK_TYPES = frozenset((12, 14, 101, 228, 229))
VLAN_TAGS = frozenset((b"\x81\x00", b"\x88\xa8", b"\x91\x00"))
IPV4, IPV6, ARP, TRANSPARENT_BRIDGING = b"\x08\x00", b"\x86\xdd", b"\x08\x06", b"\x65\x58"
ICMP, IPIP, TCP, UDP, IPV6_IN_IP, GRE, ICMPV6 = 1, 4, 6, 17, 41, 47, 58
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, OPTIONS = 0, 43, 44, 51, 60
VXLAN_PORT = b"\x12\xb5"
ICMP_ERRORS = frozenset((3, 4, 5, 11, 12))
ICMPV6_ERRORS = frozenset((1, 2, 3, 4))
NEIGHBOUR = {135: "neighbour solicitation", 136: "neighbour advertisement", 137: "redirect"}
MOST_LAYERS = 12
MOST_EXTENSIONS = 16


class AddressField(NamedTuple):
    """An address in a header. Shape: the octets are `data[at:at + octets]`; `name` is Wireshark's field."""

    at: int
    octets: int
    name: str
    what: str  # where it stands, in words


class Transport(NamedTuple):
    """What the outermost IP packet carries.

    Shape: of a fragment, `fragment` is the datagram's identification, `offset` where in it the octets belong, and
        `more` whether others follow; `octets` counts the whole IP packet
    """

    source: bytes
    destination: bytes
    protocol: int
    start: int
    end: int
    octets: int
    fragment: bytes | None = None
    offset: int = 0
    more: bool = False


class _Layer(NamedTuple):
    kind: bytes | int  # an Ethertype, or ETHERNET
    at: int
    inside: str  # in words what it stands in; empty for the frame itself


def fields(data: bytes, link_type: int = ETHERNET) -> Iterator[AddressField]:
    """Every address in the frame's headers, from the outside in."""
    layers = [_outermost(data, link_type)]
    for _ in range(MOST_LAYERS):
        if not layers:
            return
        layer = layers.pop()
        if layer.kind == ETHERNET:
            layers.append(_behind_ethertype(data, layer.at + 12, layer.inside))
        elif layer.kind == ARP:
            yield from _arp(data, layer)
        elif layer.kind in (IPV4, IPV6):
            packet = _ip(data, layer.at)
            if packet is not None:
                yield from _own_addresses(layer)
                yield from _targets(data, packet)
                layers += _inside(data, packet)


def transport(data: bytes, link_type: int = ETHERNET) -> Transport | None:
    """The octets behind the outermost IP header, or None for a frame without one."""
    layer = _outermost(data, link_type)
    if layer.kind == ETHERNET:
        layer = _behind_ethertype(data, 12, "")
    return _ip(data, layer.at) if layer.kind in (IPV4, IPV6) else None


def _outermost(data: bytes, link_type: int) -> _Layer:
    if link_type in RAW_LINK_TYPES:
        return _Layer(_by_version(data, 0), 0, "")
    return _Layer(ETHERNET, 0, "")


def _by_version(data: bytes, at: int) -> bytes:
    version = data[at] >> 4 if at < len(data) else 0
    return {4: IPV4, 6: IPV6}.get(version, b"")


def _behind_ethertype(data: bytes, at: int, inside: str) -> _Layer:
    while data[at : at + 2] in VLAN_TAGS:
        at += 4
    return _Layer(data[at : at + 2], at + 2, inside)


def _arp(data: bytes, layer: _Layer) -> Iterator[AddressField]:
    at = layer.at
    if data[at + 4 : at + 6] == b"\x06\x04" and len(data) >= at + 28:
        yield AddressField(at + 14, 4, "arp.src.proto_ipv4", "as sender in the ARP message")
        yield AddressField(at + 24, 4, "arp.dst.proto_ipv4", "as target in the ARP message")


def _own_addresses(layer: _Layer) -> Iterator[AddressField]:
    where = f"in the IP header of the packet {layer.inside}" if layer.inside else "in the IP header"
    if layer.kind == IPV4:
        yield AddressField(layer.at + 12, 4, "ip.src", where)
        yield AddressField(layer.at + 16, 4, "ip.dst", where)
    else:
        yield AddressField(layer.at + 8, 16, "ipv6.src", where)
        yield AddressField(layer.at + 24, 16, "ipv6.dst", where)


def _ip(data: bytes, at: int) -> Transport | None:
    if _by_version(data, at) == IPV4 and len(data) >= at + 20:
        start = at + (data[at] & 15) * 4
        total = int.from_bytes(data[at + 2 : at + 4], "big")
        end = min(at + total, len(data)) if total else len(data)
        piece = int.from_bytes(data[at + 6 : at + 8], "big") & 0x3FFF
        ends, protocol = (data[at + 12 : at + 16], data[at + 16 : at + 20]), data[at + 9]
        if not piece:
            return Transport(*ends, protocol, start, end, end - at)
        offset, more = (piece & 0x1FFF) * 8, bool(piece & 0x2000)
        return Transport(*ends, protocol, start, end, end - at, data[at + 4 : at + 6], offset, more)
    if _by_version(data, at) == IPV6 and len(data) >= at + 40:
        return _ipv6(data, at)
    return None


def _ipv6(data: bytes, at: int) -> Transport:
    length, protocol, start = int.from_bytes(data[at + 4 : at + 6], "big"), data[at + 6], at + 40
    end = min(start + length, len(data)) if length else len(data)
    fragment, offset, more = None, 0, False
    for _ in range(MOST_EXTENSIONS):
        if start + 8 > end:
            break
        if protocol in (HOP_BY_HOP, ROUTING, OPTIONS):
            protocol, start = data[start], start + 8 + data[start + 1] * 8
        elif protocol == AUTHENTICATION:
            protocol, start = data[start], start + 8 + data[start + 1] * 4
        elif protocol == FRAGMENT:
            piece = int.from_bytes(data[start + 2 : start + 4], "big")
            if piece & 0xFFF9:
                fragment, offset, more = data[start + 4 : start + 8], piece & 0xFFF8, bool(piece & 1)
            protocol, start = data[start], start + 8
        else:
            break
    ends = (data[at + 8 : at + 24], data[at + 24 : at + 40])
    return Transport(*ends, protocol, start, end, end - at, fragment, offset, more)


def _targets(data: bytes, packet: Transport) -> Iterator[AddressField]:
    """Addresses that ICMP itself names: a better gateway, a neighbour that is looked for."""
    start = packet.start
    if packet.protocol == ICMP and packet.end >= start + 8 and data[start] == 5:
        yield AddressField(start + 4, 4, "icmp.redir_gw", "as gateway in the ICMP redirect")
    if packet.protocol == ICMPV6 and packet.end >= start + 24 and data[start] in NEIGHBOUR:
        kind = NEIGHBOUR[data[start]]
        name = {135: "icmpv6.nd.ns.target_address", 136: "icmpv6.nd.na.target_address"}.get(
            data[start], "icmpv6.rd.na.target_address"
        )
        yield AddressField(start + 8, 16, name, f"as target in the {kind}")
        if data[start] == 137 and packet.end >= start + 40:
            yield AddressField(start + 24, 16, "icmpv6.rd.na.destination_address", f"as destination in the {kind}")


def _inside(data: bytes, packet: Transport) -> list[_Layer]:
    """What the packet carries, where that has headers with addresses again."""
    start, protocol = packet.start, packet.protocol
    if start >= packet.end:
        return []
    if protocol in (IPIP, IPV6_IN_IP):
        return [_Layer(_by_version(data, start), start, "inside IP")]
    if protocol == GRE and packet.end >= start + 4:
        flags = data[start]
        behind = start + 4 + 4 * (flags >> 7) + 4 * (flags >> 5 & 1) + 4 * (flags >> 4 & 1)
        ethertype = data[start + 2 : start + 4]
        kind = ETHERNET if ethertype == TRANSPARENT_BRIDGING else ethertype
        return [_Layer(kind, behind, "inside GRE")]
    if protocol == UDP and data[start + 2 : start + 4] == VXLAN_PORT:
        return [_Layer(ETHERNET, start + 16, "inside VXLAN")]
    errors = {ICMP: ICMP_ERRORS, ICMPV6: ICMPV6_ERRORS}.get(protocol, frozenset())
    if data[start] in errors:
        return [_Layer(_by_version(data, start + 8), start + 8, "that ICMP quotes")]
    return []
