"""Cutting a superpacket into the packets it stands for, one at a time: the plain way, for few.

As the kernel's own segmentation does it: IPv4 ids count up, lengths and checksums are each packet's own, TCP's sequence
numbers advance; FIN and PSH stay on the last segment alone, CWR on the first. Segments may be made smaller than asked
for, which TCP allows at any time; datagrams may not.

Many go through `vpn.dataplane.segment_rows`, which uses this for the last, shorter one. Sources: RFC 9293, RFC 3168
section 6.1.2, linux/Documentation/networking/segmentation-offloads.rst
"""

from __future__ import annotations

from vpn.dataplane.checksum import MODULUS, complement, ones_sum, pseudo_sum, stored
from vpn.dataplane.offload import CHECKSUM_AT, TCP, Superpacket

FIN, PSH, CWR = 0x01, 0x08, 0x80
FLAGS_AT = 13


def payload_octets(superpacket: Superpacket, largest_packet: int | None) -> int:
    """How much each segment carries: what was asked for, or of TCP what fits into the largest packet."""
    asked = superpacket.segment_octets
    if largest_packet is None or superpacket.protocol != TCP:
        return asked
    room = largest_packet - superpacket.payload_at
    return min(asked, room) if room > 0 else asked


def segmented(superpacket: Superpacket, largest_packet: int | None) -> list[bytes]:
    """All packets, in order."""
    octets = payload_octets(superpacket, largest_packet)
    count = -(-(len(superpacket.octets) - superpacket.payload_at) // octets)
    return [segment(superpacket, octets, index, count) for index in range(count)]


def segment(superpacket: Superpacket, octets: int, index: int, count: int) -> bytes:
    """One of `count` packets that carry `octets` each."""
    whole, transport_at, payload_at = superpacket.octets, superpacket.transport_at, superpacket.payload_at
    payload = whole[payload_at + index * octets : payload_at + (index + 1) * octets]
    head = bytearray(whole[:payload_at])
    if superpacket.protocol == TCP:
        advance_tcp(head, transport_at, index * octets, is_first=index == 0, is_last=index == count - 1)
    finish_headers(head, superpacket, payload, index)
    return bytes(head) + payload


def advance_tcp(head: bytearray, transport_at: int, octets: int, *, is_first: bool, is_last: bool) -> None:
    """Sequence number and flags of the segment whose payload begins `octets` into the superpacket's."""
    number = int.from_bytes(head[transport_at + 4 : transport_at + 8], "big") + octets
    head[transport_at + 4 : transport_at + 8] = (number & 0xFFFFFFFF).to_bytes(4, "big")
    head[transport_at + FLAGS_AT] &= ~((0 if is_first else CWR) | (0 if is_last else FIN | PSH)) & 0xFF


def finish_headers(head: bytearray, superpacket: Superpacket, payload: bytes, index: int) -> None:
    """Lengths, id and checksums for this payload."""
    transport_at, protocol = superpacket.transport_at, superpacket.protocol
    if superpacket.version == 4:
        number = int.from_bytes(head[4:6], "big") + index & 0xFFFF
        head[2:4] = (len(head) + len(payload)).to_bytes(2, "big")
        head[4:6] = number.to_bytes(2, "big")
        head[10:12] = b"\0\0"
        head[10:12] = stored(complement(ones_sum(bytes(head[:transport_at]))))
    else:
        head[4:6] = (len(head) - 40 + len(payload)).to_bytes(2, "big")
    octets = len(head) - transport_at + len(payload)
    if protocol != TCP:
        head[transport_at + 4 : transport_at + 6] = octets.to_bytes(2, "big")
    at = transport_at + CHECKSUM_AT[protocol]
    head[at : at + 2] = b"\0\0"
    total = ones_sum(bytes(head[transport_at:])) + ones_sum(payload) + pseudo_sum(bytes(head), protocol, octets)
    checksum = complement(total)
    head[at : at + 2] = stored(checksum if protocol == TCP else checksum or MODULUS)
