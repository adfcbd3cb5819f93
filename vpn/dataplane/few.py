"""A superpacket of a few TCP segments, cut in the fewest steps.

A stream with a small window, as after a loss, gives superpackets of two to five segments: too few for arrays, whose
fixed cost is that of about as many, and each one waits for the answer to the one before, so that every step delays
the stream. What all segments have in common is summed and taken apart once; then a segment is its payload's sum and
one `pack`. Numbers are in the wire's order here.

`vpn.dataplane.segment` does the same for every kind of superpacket, and says what a segment looks like.
Sources: RFC 1071 section 2; RFC 9293; RFC 3168 section 6.1.2
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from struct import Struct

from vpn.dataplane.checksum import MODULUS, complement
from vpn.dataplane.offload import TCP, Superpacket
from vpn.dataplane.segment import CWR, FIN, PSH, payload_octets
from vpn.dataplane.train import LEAST_TRAIN

MOST_IN_FEW = LEAST_TRAIN - 1  # segments: with one more, arrays are faster
_IPV4_OCTETS, _IPV6_OCTETS = 20, 40
_NEVER_LATER, _NEVER_EARLIER = ~CWR, ~(FIN | PSH)  # than in the first, in the last
_ipv4_header, _ipv6_header = Struct(">2sHH4sH8s").pack, Struct(">4sH34s").pack


def few_segments(superpacket: Superpacket, largest_packet: int | None) -> list[bytes] | None:
    """All packets, in order; None if this is not TCP right behind an IP header without options."""
    whole, at = superpacket.octets, superpacket.transport_at
    if superpacket.protocol != TCP:
        return None
    size = payload_octets(superpacket, largest_packet)
    if whole[0] == 0x45 and at == _IPV4_OCTETS:
        return _ipv4(superpacket, size)
    return _ipv6(superpacket, size) if whole[0] >> 4 == 6 and at == _IPV6_OCTETS else None


def _ipv4(superpacket: Superpacket, size: int) -> list[bytes]:
    whole, header_octets = superpacket.octets, superpacket.payload_at
    begin, middle, addresses = whole[:2], whole[6:10], whole[12:20]
    common = _sum(begin) + _sum(middle) + _sum(addresses) + header_octets
    number = int.from_bytes(whole[4:6], "big")
    packets = []
    for head, payload in _segments(superpacket, size, _sum(addresses)):
        octets = len(payload)
        checksum = complement(common + octets + number)
        front = _ipv4_header(begin, header_octets + octets, number, middle, checksum, addresses)
        packets.append(front + head + payload)
        number = number + 1 & 0xFFFF
    return packets


def _ipv6(superpacket: Superpacket, size: int) -> list[bytes]:
    whole, header_octets = superpacket.octets, superpacket.payload_at - _IPV6_OCTETS
    begin, end = whole[:4], whole[6:_IPV6_OCTETS]
    return [
        _ipv6_header(begin, header_octets + len(payload), end) + head + payload
        for head, payload in _segments(superpacket, size, _sum(whole[8:_IPV6_OCTETS]))
    ]


def _segments(superpacket: Superpacket, size: int, addresses_sum: int) -> Iterator[tuple[bytes, bytes]]:
    """TCP header and payload of each."""
    whole, at, payload_at = superpacket.octets, superpacket.transport_at, superpacket.payload_at
    layout = _tcp_layout(payload_at - at)
    pack = layout.pack
    ports, sequence, ack, flags, window, _, rest = layout.unpack_from(whole, at)
    common = addresses_sum + TCP + payload_at - at + _sum(ports) + _sum(ack) + window + _sum(rest)
    last = len(whole) - size
    for begin in range(payload_at, len(whole), size):
        payload = whole[begin : begin + size]
        own = (flags if begin == payload_at else flags & _NEVER_LATER) & (-1 if begin >= last else _NEVER_EARLIER)
        checksum = complement(common + len(payload) + sequence + own + _sum(payload))
        yield pack(ports, sequence, ack, own, window, checksum, rest), payload
        sequence = sequence + size & 0xFFFFFFFF


def _sum(octets: bytes) -> int:
    """The words' sum modulo 65535. Shape: an odd last octet counts as if a zero followed."""
    number = int.from_bytes(octets, "big")
    return (number << 8 if len(octets) & 1 else number) % MODULUS


@cache
def _tcp_layout(octets: int) -> Struct:
    """Ports, sequence number, acknowledgement, offset and flags, window, checksum, all that follows."""
    return Struct(f">4sI4sHHH{octets - 18}s")
