"""Packets in packets that nobody encrypted: IP in IP (protocols 4 and 41) and GRE (47), opened.

    GRE:  flags (2) | protocol type (2) | [checksum, reserved (4)] | [key (4)] | [sequence (4)] | packet
    GRE version 1 (PPTP) has a key, [sequence], [acknowledgement] and a PPP frame

GRE may carry IP, Ethernet (0x6558), PPP (0x880b) or MPLS. Returns where the inner IP header begins; the caller parses
it.

Source: RFC 2003, RFC 4213, RFC 2784, RFC 2890, RFC 2637
"""

from __future__ import annotations

from testbed.observer.ip import Packet
from testbed.observer.link import after_ethertype, behind_labels, behind_ppp

IPIP, SIX_IN_FOUR, GRE = 4, 41, 47
ENCAPSULATIONS = frozenset((IPIP, SIX_IN_FOUR, GRE))
MOST_LAYERS = 8
GRE_CHECKSUM, GRE_ROUTING, GRE_KEY, GRE_SEQUENCE, GRE_ACKNOWLEDGEMENT = 0x8000, 0x4000, 0x2000, 0x1000, 0x0080
GRE_IP_TYPES = frozenset((0x0800, 0x86DD))
GRE_MPLS_TYPES = frozenset((0x8847, 0x8848))
GRE_ETHERNET, GRE_PPP = 0x6558, 0x880B


def inner_offset(packet: Packet, data: bytes) -> int:
    """Where in `data` the IP packet begins that `packet` carries in clear, or -1."""
    if packet.protocol in (IPIP, SIX_IN_FOUR):
        return packet.start
    return _behind_gre(data, packet.start, packet.end) if packet.protocol == GRE else -1


def _behind_gre(data: bytes, start: int, end: int) -> int:
    if end - start < 4:
        return -1
    flags = int.from_bytes(data[start : start + 2], "big")
    kind = int.from_bytes(data[start + 2 : start + 4], "big")
    version = flags & 7
    if version > 1 or flags & GRE_ROUTING:
        return -1
    optional = [GRE_CHECKSUM, GRE_KEY, GRE_SEQUENCE] + ([GRE_ACKNOWLEDGEMENT] if version else [])
    at = start + 4 + 4 * sum(1 for flag in optional if flags & flag)
    if at >= end:
        return -1
    if kind in GRE_IP_TYPES:
        return at
    if kind in GRE_MPLS_TYPES:
        return behind_labels(data, at)
    if kind == GRE_ETHERNET:
        return after_ethertype(data, at + 12)
    return behind_ppp(data, at) if kind == GRE_PPP else -1
