"""Joining the packets of one flow that follow each other into a superpacket, which the kernel takes in one piece.

Rows are joined where nothing but what the kernel restores would be lost by it: the same headers but for length, id and
checksums; of TCP, sequence numbers that follow on, and no flag but ACK, and PSH on the last; every checksum right,
since the kernel is told to trust the joined one. All else is written as it came, in the order it came in.

IPv4 options, fragments and IPv6 extension headers are left alone. Source: the kernel's own conditions,
linux/Documentation/networking/segmentation-offloads.rst; RFC 6864 on ids of unfragmented packets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from vpn.dataplane.checksum import MODULUS, complement, ones_sum, pseudo_sum, stored
from vpn.dataplane.offload import CHECKSUM_AT, PLAIN, TCP, UDP, superpacket_prefix
from vpn.dataplane.rows import PACKET_AT, Numbers, Rows, RowShape
from vpn.dataplane.segment import FLAGS_AT, PSH
from vpn.dataplane.segment_rows import row_sums

Write: TypeAlias = Sequence[bytes | memoryview]
_ACK = 0x10
_ALWAYS_JOINED = 0xFFFF  # the largest IP packet
_MOST_SEGMENTS = 64  # of UDP: the kernel takes no more


class Layout(NamedTuple):
    """Where things are in the packets of a flow. A tuple, since it is the key of what is kept for each layout."""

    version: int
    protocol: int
    transport_at: int
    payload_at: int

    @property
    def checksum_at(self) -> int:
        return self.transport_at + CHECKSUM_AT[self.protocol]


def joined(rows: Rows, *, udp: bool) -> list[Write]:
    """What to write to a tun device with offload, in order. `udp`: it takes superpackets of UDP, too."""
    shape, count = rows.shape, rows.count
    layout = _layout(rows.first) if count > 1 else None
    if layout is None or (layout.protocol == UDP and not udp):
        return _plain(rows)
    breaks = [] if _all_follow(rows, layout) else (np.flatnonzero(~_follows(shape, count, layout)) + 1).tolist()
    writes: list[Write] = []
    begin = 0
    for end in [*breaks, count]:
        last = rows.last if end == count else b""
        writes += _run(shape, begin, end, layout, last)
        begin = end
    return writes


def _plain(rows: Rows) -> list[Write]:
    writes: list[Write] = [(packet,) for packet in rows.shape.prefixed[: rows.count]]
    if rows.last:
        writes.append((PLAIN, rows.last))
    return writes


def _layout(packet: bytes) -> Layout | None:
    """None: a packet that is never joined."""
    if packet[0] == 0x45 and len(packet) > 28 and not packet[6] & 0x3F and not packet[7]:
        version, protocol, transport_at = 4, packet[9], 20
        whole = int.from_bytes(packet[2:4], "big") == len(packet) and ones_sum(packet[:20]) == 0
    elif packet[0] >> 4 == 6 and len(packet) > 48:
        version, protocol, transport_at = 6, packet[6], 40
        whole = int.from_bytes(packet[4:6], "big") == len(packet) - 40
    else:
        return None
    if protocol == TCP and len(packet) > transport_at + 20:
        payload_at = transport_at + (packet[transport_at + 12] >> 4) * 4
        whole = whole and payload_at >= transport_at + 20
    elif protocol == UDP:
        payload_at = transport_at + 8
        length, checksum = packet[transport_at + 4 : transport_at + 6], packet[transport_at + 6 : payload_at]
        whole = whole and int.from_bytes(length, "big") == len(packet) - transport_at and checksum != b"\0\0"
    else:
        return None
    return Layout(version, protocol, transport_at, payload_at) if whole and payload_at < len(packet) else None


def _mask(layout: Layout) -> bytes:
    """Set bits where the headers of one superpacket's segments are alike."""
    mask = bytearray(b"\xff" * layout.payload_at)
    if layout.version == 4:
        mask[4:6] = mask[10:12] = b"\0\0"
    mask[layout.checksum_at : layout.checksum_at + 2] = b"\0\0"
    if layout.protocol == TCP:
        at = layout.transport_at
        mask[at + 4 : at + 8] = bytes(4)
        mask[at + FLAGS_AT] = 0
    return bytes(mask)


def _all_follow(rows: Rows, layout: Layout) -> bool:
    """Whether the rows are all of one stream without a gap, as they mostly are; False if it takes a closer look."""
    shape, count, at = rows.shape, rows.count, layout.transport_at
    mask: int = shape.keep(("whole mask", layout), lambda: int.from_bytes(_mask(layout), "big"))
    if int.from_bytes(rows.varies[: layout.payload_at], "big") & mask or layout.payload_at > len(rows.varies):
        return False
    if layout.protocol == TCP:
        flags = shape.array[:count, PACKET_AT + at + FLAGS_AT].tobytes()
        if flags.count(_ACK, 0, count - 1) < count - 1 or flags[-1] & ~PSH != _ACK:
            return False
        first = int.from_bytes(shape.packets[0][at + 4 : at + 8], "big")
        steps: Numbers = shape.keep(
            ("steps", layout.payload_at), lambda: shape.counting * np.uint32(shape.octets - layout.payload_at)
        )
        if (shape.column(at + 4, ">u4")[:count] != steps[:count] + np.uint32(first)).any():
            return False
    if layout.version == 4 and not shape.array[0, PACKET_AT + 6] & 0x40:
        ids = shape.column(4, ">u2")[:count].astype(np.uint16)
        if (ids[1:] - ids[:-1] != 1).any():
            return False
    return not _sums(shape, count, layout).any()


def _follows(shape: RowShape, count: int, layout: Layout) -> Numbers:
    """For each row but the first, whether it goes on where the one before it ends."""
    mask: Numbers = shape.keep(("mask", layout), lambda: np.frombuffer(_mask(layout), "=u4"))
    heads = shape.words[:count, PACKET_AT // 4 : (PACKET_AT + layout.payload_at) // 4]
    differences = np.bitwise_xor(heads[1:], heads[:-1])
    differences &= mask
    follows: Numbers = np.logical_not(differences.any(axis=1))
    bad = _sums(shape, count, layout)
    if bad.any():
        follows &= (bad[1:] | bad[:-1]) < 1
    if layout.version == 4 and not shape.array[0, PACKET_AT + 6] & 0x40:
        ids = shape.column(4, ">u2")[:count].astype(np.uint16)
        follows &= ids[1:] - ids[:-1] == 1
    if layout.protocol == TCP:
        numbers = shape.column(layout.transport_at + 4, ">u4")[:count].astype(np.uint32)
        follows &= numbers[1:] - numbers[:-1] == shape.octets - layout.payload_at
        flags = shape.column(layout.transport_at + FLAGS_AT, "u1")[:count]
        follows &= (flags[:-1] == _ACK) & (flags[1:] & ~np.uint8(PSH) == _ACK)
    return follows


def _sums(shape: RowShape, count: int, layout: Layout) -> Numbers:
    """0 for rows whose checksums are right: IPv4's, which adds 0 then, and that of TCP or UDP.

    The rows are all alike in what is taken from the first one's header, or it does not matter.
    """
    head = bytes(shape.packets[0][: layout.payload_at])
    common = pseudo_sum(head, layout.protocol, shape.octets - layout.transport_at)
    if layout.version == 6:
        common += MODULUS - ones_sum(head[: layout.transport_at])
    return row_sums(shape, count, common)


def _run(shape: RowShape, begin: int, end: int, layout: Layout, last: bytes) -> list[Write]:
    """The rows from `begin` to `end`, which follow each other, in as few writes as a superpacket's size allows."""
    payload_octets = shape.octets - layout.payload_at
    most = (_ALWAYS_JOINED - layout.payload_at) // payload_octets
    if layout.protocol == UDP:
        most = min(most, _MOST_SEGMENTS)
    writes: list[Write] = []
    while end - begin > most:
        writes.append(_superpacket(shape, begin, begin + most, layout, b""))
        begin += most
    takes_last = bool(last) and end - begin < most and _goes_on(shape, end - 1, layout, last)
    if end - begin + takes_last > 1:
        writes.append(_superpacket(shape, begin, end, layout, last if takes_last else b""))
    else:
        writes.append((shape.prefixed[begin],))
    if last and not takes_last:
        writes.append((PLAIN, last))
    return writes


def _goes_on(shape: RowShape, row: int, layout: Layout, last: bytes) -> bool:
    """Whether the shorter packet goes on where this row ends."""
    before, own = bytes(shape.packets[row]), _layout(last)
    if own != layout or ones_sum(last[layout.transport_at :]) + _pseudo(last, layout) not in (0, MODULUS):
        return False
    lengths = {(2, 4)} if layout.version == 4 else {(4, 6)}
    if layout.protocol == UDP:
        lengths.add((layout.transport_at + 4, layout.transport_at + 6))
    mask = bytearray(_mask(layout))
    for begin, end in lengths:
        mask[begin:end] = bytes(end - begin)
    at = layout.transport_at
    alike = not any((a ^ b) & m for a, b, m in zip(before, last, mask, strict=False))
    if layout.version == 4 and not last[6] & 0x40:
        alike = alike and int.from_bytes(last[4:6], "big") == int.from_bytes(before[4:6], "big") + 1 & 0xFFFF
    if layout.protocol == TCP and alike:
        number = int.from_bytes(before[at + 4 : at + 8], "big") + len(before) - layout.payload_at
        alike = int.from_bytes(last[at + 4 : at + 8], "big") == number & 0xFFFFFFFF
        alike = alike and before[at + FLAGS_AT] == _ACK and last[at + FLAGS_AT] & ~PSH == _ACK
    return alike


def _pseudo(packet: bytes, layout: Layout) -> int:
    return pseudo_sum(packet, layout.protocol, len(packet) - layout.transport_at)


def _superpacket(shape: RowShape, begin: int, end: int, layout: Layout, last: bytes) -> Write:
    transport_at, payload_at = layout.transport_at, layout.payload_at
    payload_octets = shape.octets - payload_at
    head = bytearray(shape.packets[begin][:payload_at])
    total = payload_at + (end - begin) * payload_octets + max(0, len(last) - payload_at)
    if layout.version == 4:
        head[2:4] = total.to_bytes(2, "big")
        head[10:12] = b"\0\0"
        head[10:12] = stored(complement(ones_sum(bytes(head[:20]))))
    else:
        head[4:6] = (total - 40).to_bytes(2, "big")
    if layout.protocol == TCP:
        final = last or shape.packets[end - 1]
        head[transport_at + FLAGS_AT] |= final[transport_at + FLAGS_AT] & PSH
    else:
        head[transport_at + 4 : transport_at + 6] = (total - transport_at).to_bytes(2, "big")
    covered = pseudo_sum(bytes(head), layout.protocol, total - transport_at)
    head[layout.checksum_at : layout.checksum_at + 2] = stored(covered)
    prefix = superpacket_prefix(layout.protocol, layout.version, transport_at, payload_at, payload_octets)
    payloads = shape.payloads(payload_at)[begin:end]
    return [prefix + head, *payloads, *([memoryview(last)[payload_at:]] if last else [])]
