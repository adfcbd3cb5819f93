"""A block of the packet ring turned into pcapng where it lies, many packets at once, to be written in one go.

    ring:    head i | data i | filler | head i+1 | data i+1 | …                  head: tpacket3_hdr and sockaddr_ll
    pcapng:   … EPB | data i | padding | options, length | EPB | data i+1 | …

What the kernel leaves between two packets is as long as one's head and its filler: room for the rest of an enhanced
packet block and the start of the next. `tap.open_ring` reserves what makes it a multiple of four octets. So all heads
are overwritten with rows of one table, and what is left of a row becomes an option for local use (code 0x8001) of zero
octets, which readers skip. The filler, up to seven octets, is padding and perhaps one such option without a value.

No packet is copied but by `write` itself; heads are read and written as arrays, so a packet costs next to nothing.
numpy is imported with this module; a tap that has little to do never loads it.

Source: include/uapi/linux/if_packet.h, net/packet/af_packet.c, draft-ietf-opsawg-pcapng sections 3.5 and 4.3
"""

from __future__ import annotations

import mmap
import struct
import sys
from typing import NamedTuple

import numpy as np

from testbed.capture import pcapng

TYPE_CHECKING = False  # typing.TYPE_CHECKING: numpy.typing is start-up time
if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Words = NDArray[np.uint32]

STATUS_CHECKSUM_NOT_READY, STATUS_VLAN_VALID = 8, 16
PACKET_OUTGOING = 4
PACKET_TYPE_OFFSET = 58  # of sll_pkttype, behind 48 octets of tpacket3_hdr
HEAD_OCTETS = 64  # of the ring's header, as many as are looked at
SECONDS, NANOSECOND, KEPT, LENGTH, STATUS, OFFSETS = 1, 2, 3, 4, 5, 6  # its words
BLOCK_HEAD_OCTETS = 28  # of an enhanced packet block
LEAST_MAC_OFFSET = 68  # no packet begins nearer to its header
USUAL_MAC_OFFSET = 84
ALIGNMENT = 8  # of headers in the ring
HIGH = 1 if sys.byteorder == "little" else 0  # which half of eight octets
NANOSECONDS = np.uint64(1_000_000_000)
FLAGS_OPTION = 2 | 4 << 16
LOCAL_OPTION = 0x8001
# By length of the filler: which of the eight octets before a header are data, and what the others become.
KEEP = np.frombuffer(b"".join(b"\xff" * (8 - filler) + bytes(filler) for filler in range(8)), np.uint64)
_EMPTY_OPTION = bytes(4) + struct.pack("=HH", LOCAL_OPTION, 0)
FILLING = np.frombuffer(b"".join(_EMPTY_OPTION if filler >= 4 else bytes(8) for filler in range(8)), np.uint64)

EQUAL_BEFORE_MORE = 4  # distances after which it pays to look at many in the hope that they are equal, too
FIRST_TRIED = 48  # a segmented buffer of a TCP sender is 45 full frames
ONES = int.from_bytes(struct.pack("<I", 1) * FIRST_TRIED, "little")
MOST_AT_ONCE = 2048  # more small packets than that, and the processor's cache has forgotten the first


class Rewritten(NamedTuple):
    """Shape: the file gets `ring[start:stop]` and then `tail`; the next packet's header is at `following`."""

    start: int
    stop: int
    tail: bytes
    packets: int
    following: int
    octets: int  # on the wire
    unfinished_checksums: int


class InPlace:
    def __init__(self, ring: mmap.mmap) -> None:
        self._octets = np.frombuffer(ring, np.uint8)
        self._words = self._octets.view(np.uint32)
        self._eights = self._octets.view(np.uint64)
        self._following = memoryview(ring).cast("I")
        self._trains: set[int] = set()  # distances that came often in succession
        # The same octets as records that begin at any multiple of eight: what headers are read and written through.
        self._heads = self._records(HEAD_OCTETS)
        self._use_mac_offset(USUAL_MAC_OFFSET)

    def rewrite(self, at: int, count: int) -> Rewritten | None:
        """Turn the packets from `at` on into blocks, `MOST_AT_ONCE` at most; None, and nothing done, if one is odd."""
        count = min(count, MOST_AT_ONCE)
        steps, lengths = self._walk(at, count)
        step = np.repeat(np.array(steps, np.uint32), lengths)
        behind = np.cumsum(step, dtype=np.int64) + at
        place = behind - step >> 3
        head = self._rows(at, steps[0], count, HEAD_OCTETS) if len(steps) == 1 else self._gather(place)
        mac_offset, filler = self._filler(head, step)
        status = int(np.bitwise_or.reduce(head[:, STATUS]))
        if mac_offset is None or status & STATUS_VLAN_VALID:
            return None
        if mac_offset != self._mac_offset:
            self._use_mac_offset(mac_offset)
        kept, octets = int(head[-1, KEPT]), int(head[:, LENGTH].sum(dtype=np.int64))
        unfinished = int((head[:, STATUS] & STATUS_CHECKSUM_NOT_READY > 0).sum()) if status & 8 else 0
        step[-1] = pcapng.PACKET_OVERHEADS[kept & 3] + kept
        direction = self._fill_table(head, step)
        self._end_packets(place[1:] - 1, filler[:-1])
        if len(steps) == 1:
            self._rows(at, steps[0], count, mac_offset)[:] = self._table[:count]
        else:
            self._places[place] = self._table_rows[:count]
        return Rewritten(
            at + mac_offset - BLOCK_HEAD_OCTETS,
            int(place[-1]) * ALIGNMENT + mac_offset + kept,
            pcapng.PACKET_TAILS[kept & 3].pack(2, 4, direction, 0, 0, int(step[-1])),
            count,
            int(behind[-1]),
            octets,
            unfinished,
        )

    def _walk(self, at: int, count: int) -> tuple[list[int], list[int]]:
        """How far it is from each packet to the next: distances, and how often each comes in succession."""
        following, trains, steps, lengths = self._following, self._trains, [], []
        at, before, equal = at >> 2, -1, 0
        while count:
            octets = following[at]
            if octets != before:
                steps.append(octets)
                lengths.append(0)
                before, equal = octets, 0
            found = 1
            equal += 1
            if equal == EQUAL_BEFORE_MORE or octets in trains:
                found, equal = self._count_equal(at, octets, count), 0
                if found >= EQUAL_BEFORE_MORE:
                    trains.add(octets)
                else:
                    trains.discard(octets)
            lengths[-1] += found
            at += found * (octets >> 2)
            count -= found
        return steps, lengths

    def _count_equal(self, at: int, step: int, most: int) -> int:
        """How many packets from the word `at` on are followed by the next at the same distance."""
        words = step >> 2
        # The distances as one large number: for so few, arrays cost more to make than to compare.
        tried = self._following[at : at + min(FIRST_TRIED, most) * words : words].tobytes()
        if different := int.from_bytes(tried, "little") ^ ONES * step:  # also where fewer were tried
            return (different & -different).bit_length() - 1 >> 5
        return FIRST_TRIED + self._count_many_equal(at + FIRST_TRIED * words, step, most - FIRST_TRIED)

    def _count_many_equal(self, at: int, step: int, most: int) -> int:
        tried, counted, wanted = 4 * FIRST_TRIED, 0, np.uint32(step)
        while counted < most:
            distances = self._words[at : at + min(tried, most - counted) * (step >> 2) : step >> 2]
            different: int = (distances != wanted).tobytes().find(1)
            if different >= 0:
                return counted + different
            counted += len(distances)
            at += len(distances) * (step >> 2)
            tried *= 4
        return counted

    def _filler(self, head: Words, step: Words) -> tuple[int | None, Words]:
        """Where packets begin behind their headers, None if not all alike; octets between each and the next header."""
        offsets = head[:, OFFSETS]
        mac_offset = int(offsets[0]) & 0xFFFF
        filler = step - head[:, KEPT] - np.uint32(mac_offset)
        filler[-1] = 0
        alike = not mac_offset & 3 and mac_offset >= LEAST_MAC_OFFSET and bool((offsets == offsets[0]).all())
        return mac_offset if alike and filler.max() < ALIGNMENT else None, filler

    def _fill_table(self, head: Words, total: Words) -> int:
        """Each row ends the block of the packet before and begins its own; returns the last packet's direction."""
        table = self._table[: len(head)]
        time_ns = np.multiply(head[:, SECONDS], NANOSECONDS, dtype=np.uint64)
        time_ns += head[:, NANOSECOND]
        halves = time_ns.view(np.uint32)
        direction = (head.view(np.uint8)[:, PACKET_TYPE_OFFSET] == PACKET_OUTGOING).view(np.uint8) + np.uint8(1)
        table[1:, 1] = direction[:-1]
        table[1:, -8] = total[:-1]
        table[:, -6] = total
        # One column after the other: assigned two at once, each row would be a loop of its own.
        table[:, -4], table[:, -3] = halves[HIGH::2], halves[1 - HIGH :: 2]
        table[:, -2], table[:, -1] = head[:, KEPT], head[:, LENGTH]
        return int(direction[-1])

    def _end_packets(self, place: Integers, filler: Words) -> None:
        """Nothing of what the ring held before is left between a packet and the header behind it."""
        eight = self._eights[place]
        eight &= KEEP[filler]
        eight |= FILLING[filler]
        self._eights[place] = eight

    def _use_mac_offset(self, mac_offset: int) -> None:
        """Have a table of what takes the place of headers, where packets begin `mac_offset` octets behind theirs."""
        table = np.zeros((MOST_AT_ONCE, mac_offset >> 2), np.uint32)
        table[:, 0] = FLAGS_OPTION
        table[:, 2] = LOCAL_OPTION | mac_offset - LEAST_MAC_OFFSET + 20 << 16
        table[:, -7] = pcapng.ENHANCED_PACKET
        self._mac_offset, self._table = mac_offset, table
        self._table_rows = table.view(f"V{mac_offset}")[:, 0]
        self._places = self._records(mac_offset)

    def _gather(self, place: Integers) -> Words:
        return self._heads[place].view(np.uint32).reshape(len(place), -1)

    def _rows(self, at: int, step: int, count: int, octets: int) -> Words:
        """What is at the beginning of every `step` from here on, as a table."""
        return np.ndarray((count, octets >> 2), np.uint32, self._octets, at, (step, 4))

    def _records(self, size: int) -> NDArray[np.void]:
        count = (len(self._octets) - size) // ALIGNMENT + 1
        return np.ndarray((count,), f"V{size}", self._octets, strides=(ALIGNMENT,))
