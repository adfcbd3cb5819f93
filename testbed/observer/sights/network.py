"""What the layers below any message tell: ARP, the packets that ICMP errors quote, the system behind a SYN."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address

from testbed.observer import dns, filters
from testbed.observer.findings import Findings, Place
from testbed.observer.flows import address_text
from testbed.observer.ip import Packet, parse_ip
from testbed.observer.link import arp_offset
from testbed.observer.sights.names import DNS_PORTS, hint_edns, sight_dns
from testbed.observer.wire.encapsulation import MOST_LAYERS, inner_offset
from testbed.observer.wire.icmp import quoted_packet
from testbed.observer.wire.syn import SynShape, read_syn

ICMPV6, TCP, UDP = 58, 6, 17
ARP_IPV4_ETHERNET = b"\x00\x01\x08\x00\x06\x04"
ARP_OCTETS = 28


def sight_arp(link_type: int, data: bytes, place: Place, findings: Findings) -> None:
    """Who has which IPv4 address on this link; nothing if the frame is no ARP."""
    at = arp_offset(link_type, data)
    if at < 0 or len(data) < at + ARP_OCTETS or data[at : at + 6] != ARP_IPV4_ETHERNET:
        return
    hardware, address = data[at + 8 : at + 14].hex(":"), data[at + 14 : at + 18]
    if any(address):  # else a probe: it has none yet
        text = str(IPv4Address(address))
        display_filter = f"arp.src.hw_mac == {hardware} && arp.src.proto_ipv4 == {text}"
        findings.hint("arp", hardware, text, place, display_filter)


def sight_syn(packet: Packet, data: bytes, place: Place, findings: Findings) -> None:
    """Which system opens this connection, where a rule can tell."""
    six = len(packet.source) == 16
    shape = read_syn(data[packet.start : packet.end], packet.ttl)
    if shape.system:
        source = address_text(packet.source)
        display_filter, rule = _told_by(shape, source, six)
        findings.hint("os", shape.system, source, place, display_filter, rule)


@lru_cache(maxsize=1024)
def _told_by(shape: SynShape, source: str, six: bool) -> tuple[str, str]:
    """The filter for SYNs of this shape, and the rule in words."""
    hops = "ipv6.hlim" if six else "ip.ttl"
    display_filter = f"{filters.source(source)} && tcp.flags.syn == 1 && tcp.flags.ack == 0"
    # Several systems may share an address behind NAT: what tells them apart belongs into the filter.
    display_filter += f" && {hops} == {shape.ttl} && tcp.window_size_value == {shape.window}"
    return display_filter, f"TCP options {shape.options}, TTL {shape.ttl}, window {shape.window} in the SYN"


def sight_quoted(packet: Packet, data: bytes, place: Place, findings: Findings) -> tuple[str, ...]:
    """The addresses in the packet that an ICMP error quotes; the name that a quoted DNS message asks for is sighted."""
    quote = quoted_packet(data[packet.start : packet.end], packet.protocol == ICMPV6)
    inner = parse_ip(quote, 0) if quote else None
    addresses: list[str] = []
    while inner is not None and len(addresses) < 2 * MOST_LAYERS:
        addresses += (address_text(inner.source), address_text(inner.destination))
        if inner.fragment_offset:
            break
        _sight_quoted_dns(inner, quote, place, findings)
        inner = parse_ip(quote, inner_offset(inner, quote))
    return tuple(dict.fromkeys(addresses))


def _sight_quoted_dns(inner: Packet, quote: bytes, place: Place, findings: Findings) -> None:
    """What a quoted packet asks for, over UDP, or over TCP if a message begins in it."""
    ports = (int.from_bytes(quote[inner.start + at : inner.start + at + 2], "big") for at in (0, 2))
    via = next((DNS_PORTS[port] for port in ports if port in DNS_PORTS), None)
    octets, field = b"", "udp.payload"
    if inner.protocol == UDP:
        octets = quote[inner.start + 8 : inner.end]
    elif inner.protocol == TCP and inner.end >= inner.start + 20 and via == "dns":
        octets, field = quote[inner.start + 4 * (quote[inner.start + 12] >> 4) + 2 : inner.end], "tcp.payload"
    if via is not None and octets:
        message = _quoted_message(octets)
        sight_dns(message, via, place, findings, field)
        hint_edns(message.edns, address_text(inner.source), place, findings)


def _quoted_message(quote: bytes) -> dns.DnsMessage:
    try:
        return dns.parse_message(quote)
    except dns.Malformed:  # it may be cut off, but the questions come first
        return dns.parse_questions(quote)
