"""Cutting a superpacket into many packets at once: headers as columns of an array, payload in one strided copy.

Says the same as `vpn.dataplane.segment`. A checksum is one sum over the row: an IPv4 header whose own checksum is right
adds nothing to it (it sums to 65535, which is 0 here), and an IPv6 header the same to all.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vpn.dataplane.checksum import MODULUS, complement, ones_sum, pseudo_sum
from vpn.dataplane.offload import CHECKSUM_AT, TCP, Superpacket
from vpn.dataplane.rows import PACKET_AT, Numbers, Rows, RowShape
from vpn.dataplane.segment import CWR, FIN, FLAGS_AT, PSH, payload_octets, segment


def segment_rows(
    superpacket: Superpacket, largest_packet: int | None, shape_of: Callable[[int], RowShape]
) -> Rows | None:
    """All packets, in order; None if there are too many or too few for an array."""
    octets = payload_octets(superpacket, largest_packet)
    payload_at = superpacket.payload_at
    full, rest = divmod(len(superpacket.octets) - payload_at, octets)
    shape = shape_of(payload_at + octets)
    if not 1 < full <= shape.capacity:
        return None
    payload = np.frombuffer(superpacket.octets, np.uint8, full * octets, payload_at).reshape(full, octets)
    shape.array[:full, PACKET_AT + payload_at : PACKET_AT + payload_at + octets] = payload
    head = _common_head(superpacket, octets, rest)
    shape.heads(payload_at)[:full] = np.frombuffer(head, np.uint8)
    if superpacket.version == 4:
        _number_ipv4(shape, full, superpacket, head)
    if superpacket.protocol == TCP:
        _advance_tcp(shape, full, superpacket, octets, rest)
    _sum_rows(shape, full, superpacket, head)
    last = segment(superpacket, octets, full, full + 1) if rest else b""
    return Rows(shape, full, last)


def _common_head(superpacket: Superpacket, octets: int, rest: int) -> bytes:
    """The headers with what all packets have in common; checksums are zero."""
    transport_at, payload_at = superpacket.transport_at, superpacket.payload_at
    head = bytearray(superpacket.octets[:payload_at])
    if superpacket.version == 4:
        head[2:4] = (payload_at + octets).to_bytes(2, "big")
        head[10:12] = b"\0\0"
    else:
        head[4:6] = (payload_at - 40 + octets).to_bytes(2, "big")
    if superpacket.protocol == TCP:
        head[transport_at + FLAGS_AT] &= ~(CWR | FIN | PSH) & 0xFF
    else:
        head[transport_at + 4 : transport_at + 6] = (payload_at - transport_at + octets).to_bytes(2, "big")
    at = transport_at + CHECKSUM_AT[superpacket.protocol]
    head[at : at + 2] = b"\0\0"
    return bytes(head)


def _number_ipv4(shape: RowShape, count: int, superpacket: Superpacket, head: bytes) -> None:
    """Ids that count up, and checksums that count down with them."""
    first = int.from_bytes(head[4:6], "big")
    numbers = shape.counting[:count] + np.uint32(first)
    shape.column(4, ">u2")[:count] = numbers  # the low 16 bits
    total = int.from_bytes(head[: superpacket.transport_at], "big")
    checksums = np.uint32(MODULUS + complement(total)) - shape.counting[:count]
    if first + count > MODULUS:
        checksums += numbers > MODULUS  # from 65536 to 0 is one step up in this arithmetic
    checksums %= MODULUS
    shape.column(10, ">u2")[:count] = checksums


def _advance_tcp(shape: RowShape, count: int, superpacket: Superpacket, octets: int, rest: int) -> None:
    transport_at = superpacket.transport_at
    first = int.from_bytes(superpacket.octets[transport_at + 4 : transport_at + 8], "big")
    shape.column(transport_at + 4, ">u4")[:count] = shape.counting[:count] * np.uint32(octets) + np.uint32(first)
    flags = superpacket.octets[transport_at + FLAGS_AT]
    if flags & CWR:
        shape.array[0, PACKET_AT + transport_at + FLAGS_AT] |= CWR
    if flags & (FIN | PSH) and not rest:
        shape.array[count - 1, PACKET_AT + transport_at + FLAGS_AT] |= flags & (FIN | PSH)


def _sum_rows(shape: RowShape, count: int, superpacket: Superpacket, head: bytes) -> None:
    transport_at, protocol = superpacket.transport_at, superpacket.protocol
    common = pseudo_sum(head, protocol, shape.octets - transport_at)
    if superpacket.version == 6:
        common += MODULUS - ones_sum(head[:transport_at])
    totals = row_sums(shape, count, common)
    checksums = MODULUS - totals
    if protocol == TCP:
        checksums %= MODULUS
    shape.column(transport_at + CHECKSUM_AT[protocol], "=u2")[:count] = checksums


def row_sums(shape: RowShape, count: int, common: int) -> Numbers:
    """The sum of each packet's words and `common`, modulo 65535."""
    sums: Numbers = np.add.reduce(shape.words[:count], axis=1, dtype=np.uint64)
    sums += np.uint64(common)
    sums %= np.uint64(MODULUS)
    return sums
