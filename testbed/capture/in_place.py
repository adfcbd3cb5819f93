"""A block of the packet ring turned into pcapng where it lies, all its packets at once, to be written in one go.

    ring:    head i | data i | filler | head i+1 | data i+1 | …                  head: tpacket3_hdr and sockaddr_ll
    pcapng:   … EPB | data i | padding, options, length | EPB | data i+1 | …

Between two packets the kernel leaves 82 octets or more: room for the rest of one enhanced packet block and the start of
the next. What is left over becomes an option for local use (code 0x8001) of zero octets, which readers skip. No
packet is copied but by `write` itself; the headers are read and written as arrays, so a packet costs next to nothing.

numpy is imported with this module; a tap that has little to do never loads it.

Source: include/uapi/linux/if_packet.h, draft-ietf-opsawg-pcapng sections 3.5 and 4.3
"""

from __future__ import annotations

import mmap
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.capture import pcapng

STATUS_CHECKSUM_NOT_READY, STATUS_VLAN_VALID = 8, 16
PACKET_OUTGOING = 4
PACKET_TYPE_OFFSET = 58  # of sll_pkttype, behind 48 octets of tpacket3_hdr
HEAD_WORDS = 7  # as many of the ring's header as are looked at, and as many as start an enhanced packet block
HEAD_OCTETS = 28
HIGH_THEN_LOW = slice(None, None, -1) if sys.byteorder == "little" else slice(None)
FLAGS_OPTION = 2 | 4 << 16
LOCAL_OPTION = 0x8001
# flags with their value, head of the local option, end of options, length of the block
LEAST_TAIL_OCTETS = 20
FIRST_TRIED = 32  # headers looked at in the hope that they are at equal distances
CLEARED_OCTETS = 48  # at both ends of what lies between two packets

Integers = NDArray[np.int64]


class Rewritten(NamedTuple):
    """Shape: the file gets `ring[start:stop]` and then `tail`."""

    start: int
    stop: int
    tail: bytes
    octets: int  # on the wire
    unfinished_checksums: int


class InPlace:
    def __init__(self, ring: mmap.mmap) -> None:
        octets = np.frombuffer(ring, np.uint8)
        size = len(octets)
        self._following = memoryview(ring).cast("I")
        self._octets = octets
        # The same octets as records that begin at any of them: what they are read and written through.
        self._heads = _records(octets, HEAD_OCTETS, size)
        self._tails = _records(octets, 12, size)
        self._cleared = _records(octets, CLEARED_OCTETS, size)
        self._numbers = np.ndarray((size - 3,), np.uint32, octets, strides=(1,))

    def rewrite(self, first: int, count: int) -> Rewritten | None:
        """Turn the `count` packets from `first` on into blocks; None, and nothing done, if one of them is unusual."""
        at = self._walk(first, count)
        head = np.array(self._heads[at].view(np.uint32).reshape(count, HEAD_WORDS).T, np.int64)
        _, seconds, nanoseconds, kept, length, status, offsets = head
        strange = int(np.bitwise_or.reduce(status))
        if strange & STATUS_VLAN_VALID:
            return None
        data = at + (offsets & 0xFFFF)
        start, padded = data - HEAD_OCTETS, data + (kept + 3 & ~3)
        following, tail = start[1:], padded[:-1]
        between = following - (data + kept)[:-1]
        spare = following - tail - LEAST_TAIL_OCTETS
        if count > 1 and (
            (spare & 3).any() or between.min() < CLEARED_OCTETS or between.max() > 2 * CLEARED_OCTETS or spare.min() < 0
        ):
            return None
        last = int(kept[-1]) & 3
        total = np.append(following - start[:-1], pcapng.PACKET_OVERHEADS[last] + kept[-1])
        outgoing = self._octets[at + PACKET_TYPE_OFFSET] == PACKET_OUTGOING
        direction = np.where(outgoing, pcapng.OUTBOUND, pcapng.INBOUND)
        self._clear((data + kept)[:-1], following)
        self._write_tails(tail, spare, direction[:-1])
        self._numbers[following - 4] = total[:-1]
        self._write_heads(start, total, seconds * 1_000_000_000 + nanoseconds, kept, length)
        return Rewritten(
            int(start[0]),
            int(data[-1] + kept[-1]),
            pcapng.PACKET_TAILS[last].pack(2, 4, int(direction[-1]), 0, 0, int(total[-1])),
            int(length.sum()),
            int((status & STATUS_CHECKSUM_NOT_READY > 0).sum()) if strange & STATUS_CHECKSUM_NOT_READY else 0,
        )

    def _walk(self, at: int, count: int) -> Integers:
        """Where each packet's header is: found one after the other, or at once where a block begins with equal ones."""
        step, equal = self._following[at >> 2], self._of_one_size(at, count)
        first = np.arange(at, at + equal * step, step) if equal else np.empty(0, np.int64)
        following, found, at = self._following, [], at + equal * step
        for _ in range(count - equal):
            found.append(at)
            at += following[at >> 2]
        return np.concatenate((first, np.array(found, np.int64)))

    def _of_one_size(self, at: int, most: int) -> int:
        """How many packets from here on are followed by the next at the same distance."""
        step = self._following[at >> 2]
        if not step:
            return 0
        fitting = min(most, (len(self._octets) - 4 - at) // step + 1)
        distances = np.ndarray((fitting,), np.uint32, self._octets, at, (step,))
        tried = FIRST_TRIED
        while True:
            same = distances[:tried] == step
            if not same.all():
                return int(same.argmin())
            if tried >= fitting:
                return fitting
            tried *= 8

    def _clear(self, end: Integers, following: Integers) -> None:
        """Nothing of the ring's headers reaches the file."""
        nothing = np.zeros(1, self._cleared.dtype)
        self._cleared[end] = nothing
        self._cleared[following - CLEARED_OCTETS] = nothing

    def _write_tails(self, tail: Integers, spare: Integers, direction: Integers) -> None:
        words = np.empty((len(tail), 3), np.uint32)
        words[:, 0] = FLAGS_OPTION
        words[:, 1] = direction
        words[:, 2] = LOCAL_OPTION | spare << 16
        self._tails[tail] = words.view(self._tails.dtype)[:, 0]

    def _write_heads(
        self, start: Integers, total: Integers, time_ns: Integers, kept: Integers, length: Integers
    ) -> None:
        words = np.empty((len(start), HEAD_WORDS), np.uint32)
        words[:, 0] = pcapng.ENHANCED_PACKET
        words[:, 1] = total
        words[:, 2] = 0
        words[:, 3:5] = time_ns.view(np.uint32).reshape(-1, 2)[:, HIGH_THEN_LOW]
        words[:, 5] = kept
        words[:, 6] = length
        self._heads[start] = words.view(self._heads.dtype)[:, 0]


def _records(octets: NDArray[np.uint8], size: int, available: int) -> NDArray[np.void]:
    return np.ndarray((available - size + 1,), f"V{size}", octets, strides=(1,))
