"""Ethernet, ARP, IPv4 and IPv6: the outermost layers, and where the next one begins.

Source: RFC 791, RFC 826, RFC 8200, IEEE 802.1Q
"""

from __future__ import annotations

import ipaddress

from testbed.capture import pcapng
from testbed.dissection.opening import Opening, Reader
from testbed.observer import ip, link

ETHERNET, OTHER_LINK = LINK_LAYERS = ("Ethernet II", "Link layer")
_ETHERTYPES = {0x0800: "IPv4", 0x86DD: "IPv6", 0x0806: "ARP", 0x8100: "802.1Q VLAN", 0x88A8: "802.1ad VLAN"}
_PROTOCOLS = {
    0: "IPv6 hop-by-hop options",
    1: "ICMP",
    2: "IGMP",
    4: "IPv4",
    6: "TCP",
    17: "UDP",
    41: "IPv6",
    43: "IPv6 routing",
    44: "IPv6 fragment",
    47: "GRE",
    50: "ESP",
    51: "AH",
    58: "ICMPv6",
    59: "no next header",
    60: "IPv6 options",
    89: "OSPF",
    132: "SCTP",
}
_ARP_REQUEST, _ARP_REPLY = 1, 2
_IPV4_LEAST, _IPV6_HEADER = 20, 40


def open_link(opening: Opening, link_type: int) -> int:
    """Open what is around the IP packet. Returns where that begins, or -1 if the frame carries none."""
    data = opening.data
    at = link.network_offset(link_type, data)
    if at > len(data):  # cut short within the link layer
        at = -1
    if link_type == pcapng.LINKTYPE_ETHERNET:
        _open_ethernet(opening, at)
    elif at > 0:
        opening.add(OTHER_LINK, 0, at)
    if at < 0 and not opening.summary:
        opening.summary = f"{len(data)} octets without an IP packet"
    return at


def _open_ethernet(opening: Opening, network_at: int) -> None:
    reader = Reader(opening.data, 0, len(opening.data))
    destination, source = mac(reader.take(6)), mac(reader.take(6))
    ethertype = reader.number(2)
    fields: list[tuple[str, object]] = [("destination", destination), ("source", source)]
    while ethertype in (0x8100, 0x88A8) and reader.left >= 4:
        fields.append(("VLAN", reader.number(2) & 0xFFF))
        ethertype = reader.number(2)
    opening.source, opening.destination = source, "Broadcast" if destination == "ff:ff:ff:ff:ff:ff" else destination
    fields.append(("type", f"{_ETHERTYPES.get(ethertype, 'unknown')} (0x{ethertype:04x})"))
    opening.add(ETHERNET, 0, network_at if network_at > 0 else reader.at, *fields)
    opening.say("Ethernet", f"Ethernet type 0x{ethertype:04x}")
    if ethertype == 0x0806:
        _open_arp(opening, reader)


def _open_arp(opening: Opening, reader: Reader) -> None:
    start = reader.at
    reader.take(6)
    operation = reader.number(2)
    sender_mac, sender = mac(reader.take(6)), str(ipaddress.IPv4Address(reader.take(4)))
    reader.take(6)
    target = str(ipaddress.IPv4Address(reader.take(4)))
    if operation == _ARP_REQUEST:
        opening.say("ARP", f"Who has {target}? Tell {sender}")
    else:
        opening.say("ARP", f"{sender} is at {sender_mac}" if operation == _ARP_REPLY else f"operation {operation}")
    words = {_ARP_REQUEST: "request", _ARP_REPLY: "reply"}.get(operation, str(operation))
    fields = (("operation", words), ("sender", f"{sender} ({sender_mac})"), ("target", target))
    opening.add("Address Resolution Protocol", start, reader.at, *fields)


def open_ip(opening: Opening, at: int) -> ip.Packet | None:
    """Open the IP header at `at`. Returns the packet if a transport header follows, else None."""
    packet = ip.parse_ip(opening.data, at)
    if packet is None:
        opening.say("IP", "an IP header that makes no sense")
        opening.add("Data", at, len(opening.data))
        return None
    opening.source = str(ipaddress.ip_address(packet.source))
    opening.destination = str(ipaddress.ip_address(packet.destination))
    name = _PROTOCOLS.get(packet.protocol, str(packet.protocol))
    version = opening.data[at] >> 4
    (_open_ipv4 if version == 4 else _open_ipv6)(opening, at, packet, name)
    opening.say(f"IPv{version}", f"{name}, {packet.end - packet.start} octets")
    if packet.fragment_offset is not None:
        words = f"proto={name} {packet.protocol}, off={packet.fragment_offset}, ID={packet.identification:04x}"
        opening.say(f"IPv{version}", f"Fragmented IP protocol ({words})")
        opening.add("Fragment of a datagram", packet.start, packet.end, ("offset", packet.fragment_offset))
        return None
    return packet


def _open_ipv4(opening: Opening, at: int, packet: ip.Packet, name: str) -> None:
    reader = Reader(opening.data, at, at + _IPV4_LEAST)
    _, service, total, identification = reader.number(1), reader.number(1), reader.number(2), reader.number(2)
    fragment, time_to_live = reader.number(2), reader.number(1)
    fields: list[tuple[str, object]] = [
        *(("source", opening.source), ("destination", opening.destination), ("protocol", name)),
        *(("time to live", time_to_live), ("total length", total), ("identification", f"0x{identification:04x}")),
    ]
    flags = ", ".join(word for bit, word in ((0x4000, "do not fragment"), (0x2000, "more fragments")) if fragment & bit)
    fields += [("flags", flags)] if flags else []
    fields += [("service", f"0x{service:02x}")] if service else []
    opening.add("Internet Protocol Version 4", at, packet.start, *fields)


def _open_ipv6(opening: Opening, at: int, packet: ip.Packet, name: str) -> None:
    reader = Reader(opening.data, at, at + _IPV6_HEADER)
    word, length, _, hop_limit = reader.number(4), reader.number(2), reader.number(1), reader.number(1)
    fields: list[tuple[str, object]] = [
        *(("source", opening.source), ("destination", opening.destination), ("next header", name)),
        *(("hop limit", hop_limit), ("payload length", length), ("flow label", f"0x{word & 0xFFFFF:05x}")),
    ]
    extension_octets = packet.start - at - _IPV6_HEADER
    fields += [("extension headers", f"{extension_octets} octets")] if extension_octets else []
    opening.add("Internet Protocol Version 6", at, packet.start, *fields)


def mac(octets: bytes) -> str:
    return octets.hex(":")
