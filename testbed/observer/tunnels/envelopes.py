"""Tunnels in clear, and those that an IP protocol number names: what they are, and where the inner packet begins.

    by protocol number   4 IP in IP · 41 IPv6 in IPv4 or IPv6 · 47 GRE (version 1: PPTP) · 115 L2TPv3 · 97 EtherIP ·
                         50 ESP, opaque · 51 AH, unless what it signs is read as if it were not there
    in UDP, on any port  VXLAN and Geneve (Ethernet behind 8 octets or more) · Teredo (IPv6 with one of its addresses) ·
                         L2TPv2 (control messages; PPP frames) · an IP packet as it is (FOU, an unencrypted VPN)

What is carried in clear is read like anything else, with the layers around it noted. A datagram counts as an envelope
only if the packet in it is whole to the octet.

Source: RFC 4303, RFC 4302, RFC 3931, RFC 3378, RFC 7348, RFC 8926, RFC 4380, RFC 2661
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from testbed.observer.ip import Packet
from testbed.observer.link import after_ethertype
from testbed.observer.tunnels.recognised import Recognised
from testbed.observer.wire.encapsulation import GRE, IPIP, SIX_IN_FOUR, inner_offset

ESP, AH, ETHERIP, L2TPV3 = 50, 51, 97, 115
BY_NUMBER = "none: the IP header itself names the protocol"
WHOLE = "none by chance: a packet that is whole to the octet stands where the header says"
SMALLEST_IP_OCTETS = 20
ARP_OVER_ETHERNET = b"\x08\x06\0\1\x08\0\6\4"  # with the Ethertype before it
TEREDO_PREFIX = b"\x20\x01\x00\x00"
L2TP_CONTROL = b"\xc8\x02"  # control message, with length and sequence numbers, version 2
SMALLEST_L2TP_CONTROL_OCTETS = 20
DATAGRAMS = 4  # of a conversation, looked at
PPP_IP = frozenset((b"\x00\x21", b"\x00\x57"))
MOST_PADDING_OCTETS = 46  # of a short Ethernet frame
L2TP_FROM_INITIATOR = {1: True, 2: False, 3: True}  # by message type: request, reply, connected


def recognise_protocol(packet: Packet, data: bytes) -> Recognised | None:
    """The tunnel that a packet's protocol number names, if it does."""
    number, six = packet.protocol, len(packet.source) == 16
    if number == GRE:
        is_pptp = packet.start + 2 <= packet.end and data[packet.start + 1] & 7 == 1
        return _named("pptp" if is_pptp else "gre", number, "GRE, version 1 (PPTP)" if is_pptp else "GRE")
    if number == SIX_IN_FOUR:
        return _named("6in6" if six else "6in4", number, "IPv6 in IP")
    names = {IPIP: ("ipip", "IPv4 in IP"), L2TPV3: ("l2tpv3", "L2TPv3"), ETHERIP: ("etherip", "Ethernet in IP")}
    if number in names:
        return _named(names[number][0], number, names[number][1])
    if number in (ESP, AH):
        return _named("ipsec", number, "ESP" if number == ESP else "AH")
    return None


def _named(protocol: str, number: int, words: str) -> Recognised:
    return Recognised(protocol, f"IP protocol {number} is {words}", BY_NUMBER)


def inner_offset_of_packet(packet: Packet, data: bytes) -> int:
    """Where in `data` the IP packet begins that `packet` carries in clear, or -1."""
    if packet.protocol == ETHERIP:
        return after_ethertype(data, packet.start + 14)
    if packet.protocol == AH and packet.end - packet.start >= 12 and data[packet.start] in (IPIP, SIX_IN_FOUR):
        return packet.start + 4 * (data[packet.start + 1] + 2)  # tunnel mode: signed, not hidden
    return inner_offset(packet, data)


@dataclass(slots=True)
class EnvelopeDetector:
    packets: int = 0
    six: int = 0  # IPv6 has no checksum: one packet alone would be weak

    @property
    def hopeless(self) -> bool:
        return self.packets >= DATAGRAMS

    def add(self, packet: bytes, from_client: bool) -> Recognised | None:
        self.packets += 1
        if len(packet) < SMALLEST_IP_OCTETS:
            return None
        if packet[:2] == L2TP_CONTROL:
            return _l2tp(packet, from_client)
        if inner_of_vxlan(packet) >= 0:
            return Recognised("vxlan", "a VXLAN header of 8 octets before an Ethernet frame with a whole packet", WHOLE)
        if _is_arp_in_vxlan(packet):
            return Recognised("vxlan", "a VXLAN header of 8 octets before an Ethernet frame with ARP", WHOLE)
        if inner_of_geneve(packet) >= 0:
            return Recognised("geneve", "a Geneve header before a whole packet", WHOLE)
        at = inner_of_teredo(packet)
        if at >= 0 and TEREDO_PREFIX in (packet[at + 8 : at + 12], packet[at + 24 : at + 28]):
            return Recognised("teredo", "a whole IPv6 packet with a Teredo address (2001:0::/32)", WHOLE)
        if not _is_whole(packet, 0, 0):
            return None
        self.six += packet[0] >> 4 == 6
        if packet[0] >> 4 == 4 or self.six > 1:
            return Recognised("ip-in-udp", "each datagram is a whole IP packet, unencrypted", WHOLE)
        return None


def may_be_envelope(packet: bytes) -> bool:
    """Whether a conversation's first datagram begins as one of these could."""
    return packet[0] < 0x50 or packet[0] >> 4 == 6 or packet[:2] == L2TP_CONTROL


def _l2tp(packet: bytes, from_client: bool) -> Recognised | None:
    if len(packet) < SMALLEST_L2TP_CONTROL_OCTETS or int.from_bytes(packet[2:4], "big") != len(packet):
        return None
    if packet[14:18] != b"\0\0\0\0" or packet[13] != 8 or packet[12] & 0x3F:  # first attribute: the message type
        return None
    kind = int.from_bytes(packet[18:20], "big")
    if not 1 <= kind <= 16:
        return None
    names = {1: "Start-Control-Connection-Request", 2: "Start-Control-Connection-Reply"}
    return Recognised(
        "l2tp",
        f"a control message of L2TPv2 ({names.get(kind, f'message type {kind}')}), its length exact",
        "none by chance: more than 60 fixed bits",
        client_was_right=L2TP_FROM_INITIATOR.get(kind, from_client) == from_client,
    )


def inner_of_vxlan(payload: bytes) -> int:
    if payload[:4] != b"\x08\0\0\0" or payload[7:8] != b"\0":
        return -1
    return _if_whole(payload, after_ethertype(payload, 8 + 12), MOST_PADDING_OCTETS)


def _is_arp_in_vxlan(payload: bytes) -> bool:
    """Whether who has an address is asked or said in it, as before most packets; 112 fixed bits."""
    return payload[:4] == b"\x08\0\0\0" and payload[7:8] == b"\0" and payload[20:28] == ARP_OVER_ETHERNET


def inner_of_geneve(payload: bytes) -> int:
    if len(payload) < 8 or payload[0] >> 6 or payload[1] & 0x3F or payload[7]:
        return -1
    at = 8 + 4 * (payload[0] & 0x3F)
    kind = payload[2:4]
    if kind == b"\x65\x58":
        return _if_whole(payload, after_ethertype(payload, at + 12), MOST_PADDING_OCTETS)
    return _if_whole(payload, at) if kind in (b"\x08\0", b"\x86\xdd") else -1


def inner_of_teredo(payload: bytes) -> int:
    """An IPv6 packet, with Teredo's authentication and origin before it or not."""
    at = 0
    if payload[:2] == b"\0\1" and len(payload) > 4:
        at += 13 + payload[2] + payload[3]
    if payload[at : at + 2] == b"\0\0":
        at += 8
    return _if_whole(payload, at) if payload[at : at + 1] and payload[at] >> 4 == 6 else -1


def inner_of_l2tp(payload: bytes) -> int:
    """The IP packet in the PPP frame of a data message."""
    if len(payload) < 6 or payload[0] & 0x80 or payload[1] & 15 != 2:
        return -1
    at = 2 + 2 * bool(payload[0] & 0x40) + 4 + 4 * bool(payload[0] & 0x08)
    if payload[0] & 0x02:
        at += 2 + int.from_bytes(payload[at : at + 2], "big")
    at += 2 if payload[at : at + 2] == b"\xff\x03" else 0
    return at + 2 if payload[at : at + 2] in PPP_IP else -1


def _inner_of_datagram(payload: bytes) -> int:
    return _if_whole(payload, 0)


def _if_whole(data: bytes, at: int, most_padding: int = 0) -> int:
    return at if at >= 0 and _is_whole(data, at, most_padding) else -1


def _is_whole(data: bytes, at: int, most_padding: int) -> bool:
    """Whether exactly one IP packet, with a correct checksum if it is IPv4's, fills the rest."""
    size = len(data) - at
    if size < SMALLEST_IP_OCTETS:
        return False
    if data[at] >> 4 == 6:
        return size >= 40 and 0 <= size - 40 - int.from_bytes(data[at + 4 : at + 6], "big") <= most_padding
    header, total = 4 * (data[at] & 15), int.from_bytes(data[at + 2 : at + 4], "big")
    if data[at] >> 4 != 4 or not 20 <= header <= total or not 0 <= size - total <= most_padding:
        return False
    words = sum(int.from_bytes(data[i : i + 2], "big") for i in range(at, at + header, 2))
    return words % 0xFFFF == 0


CARRIERS: dict[str, Callable[[bytes], int]] = {
    "vxlan": inner_of_vxlan,
    "geneve": inner_of_geneve,
    "teredo": inner_of_teredo,
    "l2tp": inner_of_l2tp,
    "ip-in-udp": _inner_of_datagram,
}
