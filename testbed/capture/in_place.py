"""A block of the packet ring turned into pcapng where it lies, many packets at once, to be written in one go.

    ring:    head i | data i | filler | head i+1 | data i+1 | …                  head: tpacket3_hdr and sockaddr_ll
    pcapng:   … EPB | data i | padding | options, length | EPB | data i+1 | …

What the kernel leaves between two packets is as long as one's head and its filler: room for the rest of an enhanced
packet block and the start of the next. `tap.open_ring` reserves what makes it a multiple of four octets. So all heads
are overwritten with rows of one table, and what is left of a row becomes an option for local use (code 0x8001) of zero
octets, which readers skip. The filler, up to seven octets, is padding and perhaps one such option without a value; a
row begins eight octets before its head, so that it is written with it.

No packet is copied but by `write` itself; heads are read and written as arrays, so a packet costs next to nothing.
Beside busy programs, which empty the processor's caches, an operation on an array costs some microseconds however
short the array is: so there are few, into memory that is there already, and whether all numbers of a column are the
same is asked of their octets. numpy is imported with this module; a tap that has little to do never loads it.

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
    Records = NDArray[np.void]

STATUS_CHECKSUM_NOT_READY, STATUS_VLAN_VALID = 8, 16
BEFORE_OCTETS = 8  # before a header, where the filler is
SEEN_OCTETS = BEFORE_OCTETS + 64  # of the ring's header, as many as are looked at
SEEN = SEEN_OCTETS // 4  # the same in words, and some of these words:
NEXT, SECOND, NANOSECOND, KEPT, LENGTH, STATUS, OFFSETS = range(2, 9)
PACKET_TYPE_OCTET = BEFORE_OCTETS + 58  # sll_pkttype, behind 48 octets of tpacket3_hdr
BLOCK_HEAD_OCTETS = 28  # of an enhanced packet block
LEAST_MAC_OFFSET = 68  # no packet begins nearer to its header
USUAL_MAC_OFFSET = 84
ALIGNMENT = 8  # of headers in the ring
HIGH = 1 if sys.byteorder == "little" else 0  # which half of eight octets
LOWEST_OCTET = 0 if sys.byteorder == "little" else 3  # of four
NANOSECONDS = 1_000_000_000
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
        self._following = memoryview(ring).cast("I")
        self._trains: dict[int, int] = {}  # distances that came often in succession, and how often the last time
        # The same octets as records that begin at any of them: what headers are read and written through.
        self._records = _records(self._octets, SEEN_OCTETS, 1)
        self._offsets = _Alike()
        self._use_mac_offset(USUAL_MAC_OFFSET)

    def rewrite(self, at: int, count: int) -> Rewritten | None:
        """Turn the packets from `at` on into blocks, `MOST_AT_ONCE` at most; None, and nothing done, if one is odd."""
        count = min(count, MOST_AT_ONCE)
        try:
            found = self._find(at, count, guess=True)
        except IndexError:  # after a wrong guess, what packets hold is taken for distances
            found = None
        if found is None and (found := self._find(at, count, guess=False)) is None:
            return None
        step, place, seen = found
        status = int(np.bitwise_or.reduce(seen[STATUS::SEEN]))
        if status & STATUS_VLAN_VALID or not self._begin_alike(seen[OFFSETS::SEEN]):
            return None
        last, kept = seen[-SEEN:], int(seen[KEPT - SEEN])
        step[-1] = total = pcapng.PACKET_OVERHEADS[kept & 3] + kept
        if not self._table.fill(seen, step):
            return None
        unfinished = int(np.count_nonzero(seen[STATUS::SEEN] & STATUS_CHECKSUM_NOT_READY)) if status & 8 else 0
        octets = int(np.add.reduce(seen[LENGTH::SEEN], dtype=np.int64))
        if place is None:
            self._rows(at, int(step[0]), count, self._table.octets)[:] = self._table.rows[:count]
            last_at = at + (count - 1) * int(step[0])
        else:
            self._places[place] = self._table.rows[:count]
            last_at = int(place[-1]) + BEFORE_OCTETS
        direction = 1 + (int(last.view(np.uint8)[PACKET_TYPE_OCTET]) >> 2)
        return Rewritten(
            at + self._mac_offset - BLOCK_HEAD_OCTETS,
            last_at + self._mac_offset + kept,
            pcapng.PACKET_TAILS[kept & 3].pack(2, 4, direction, 0, 0, total),
            count,
            last_at + int(last[NEXT]),
            octets,
            unfinished,
        )

    def _find(self, at: int, count: int, *, guess: bool) -> tuple[Words, Integers | None, Words] | None:
        """How far it is from each packet to the next, where rows go (None: as far everywhere) and what is seen there.

        None if a guess was wrong, or if there are packets of so few octets that rows would overlap.
        """
        steps, lengths = self._walk(at, count - 1, guess)
        if steps and min(steps) < self._table.octets:
            return None
        step, place = np.empty(count, np.uint32), None
        if len(steps) == 1:
            step[:] = steps[0]
            seen = self._rows(at, steps[0], count, SEEN_OCTETS).copy().view(np.uint32)
        else:
            distances = np.repeat(np.array([at - BEFORE_OCTETS, *steps]), np.array([1, *lengths]))
            step[:-1] = distances[1:]
            place = distances.cumsum()
            seen = self._records[place].view(np.uint32)
        if guess and seen[NEXT:-SEEN:SEEN].tobytes() != step[:-1].tobytes():
            return None
        return step, place, seen

    def _walk(self, at: int, count: int, guess: bool) -> tuple[list[int], list[int]]:
        """Distances from packet to packet, and how often each comes in succession.

        Where `guess`, trains are taken to be as long as the last one if that is what it looks like where it would end.
        """
        following, trains, steps, lengths = self._following, self._trains, [], []
        at, before, equal, end, least = at >> 2, -1, 0, len(following), self._table.octets
        while count > 0:
            octets, found = following[at], 1
            words = octets >> 2
            if octets in trains:
                found, before = trains[octets], -1
                behind = at + found * words
                fits = guess and found <= count and behind < end
                if not fits or not following[behind - words] == octets != following[behind]:
                    found = self._count_equal(at, octets, count)
                    if found < EQUAL_BEFORE_MORE:
                        del trains[octets]
                    else:
                        trains[octets] = found
            elif octets == before:
                equal += 1
                if equal == EQUAL_BEFORE_MORE and octets >= least:
                    trains[octets] = 1
            else:
                before, equal = octets, 1
            steps.append(octets)
            lengths.append(found)
            at += found * words
            count -= found
        return steps, lengths

    def _count_equal(self, at: int, step: int, most: int) -> int:
        """How many packets from the word `at` on, many probably, are followed by the next at the same distance."""
        words = step >> 2
        # The distances as one large number: for so few, arrays cost more to make than to compare.
        number = int.from_bytes(self._following[at : at + FIRST_TRIED * words : words].tobytes(), "little")
        if different := number ^ ONES * step:  # also where the ring ended before
            return min(most, (different & -different).bit_length() - 1 >> 5)
        tried, counted, wanted = 4 * FIRST_TRIED, FIRST_TRIED, np.uint32(step)
        at += FIRST_TRIED * words
        while counted < most:
            distances = self._words[at : at + min(tried, most - counted) * words : words]
            first: int = (distances != wanted).tobytes().find(1)
            if first >= 0:
                return counted + first
            counted += len(distances)
            at += len(distances) * words
            tried *= 4
        return most

    def _begin_alike(self, offsets: Words) -> bool:
        """Whether all packets begin as far behind their headers, and where a table can be made for."""
        mac_offset = int(offsets[0]) & 0xFFFF
        if mac_offset & 3 or mac_offset < LEAST_MAC_OFFSET or not self._offsets.are(offsets):
            return False
        if mac_offset != self._mac_offset:
            self._use_mac_offset(mac_offset)
        return True

    def _use_mac_offset(self, mac_offset: int) -> None:
        self._mac_offset, self._table = mac_offset, _Table(mac_offset)
        self._places = _records(self._octets, self._table.octets, 1)

    def _rows(self, at: int, step: int, count: int, octets: int) -> Records:
        """What is around every header `step` from here on, as records."""
        return np.ndarray((count,), f"V{octets}", self._octets, at - BEFORE_OCTETS, (step,))


class _Table:
    """What takes the place of headers, and of eight octets before each, where packets begin `mac_offset` behind them.

    Each row ends the block of the packet before and begins its own. What is the same in all rows stays in them.
    """

    def __init__(self, mac_offset: int) -> None:
        self.octets = BEFORE_OCTETS + mac_offset
        width = (self.octets + 7) // 8 * 2
        cells = np.zeros((MOST_AT_ONCE, width), np.uint32)
        end = self.octets >> 2
        cells[:, 2] = FLAGS_OPTION
        cells[:, 4] = LOCAL_OPTION | mac_offset - LEAST_MAC_OFFSET + 20 << 16
        cells[:, end - 7] = pcapng.ENHANCED_PACKET
        octets = cells.reshape(-1).view(np.uint8)
        self.rows = _records(octets, self.octets, width * 4)
        self._before = cells.view(np.uint64)[:, 0]
        self._direction = octets[12 + LOWEST_OCTET :: width * 4]
        self._total_before, self._total = cells[:, end - 8], cells[:, end - 6]
        self._high, self._low = cells[:, end - 4], cells[:, end - 3]
        self._kept, self._length = cells[:, end - 2], cells[:, end - 1]
        self._mac_offset = mac_offset
        self._high_now = 0  # in all rows; -1 where they differ
        self._seconds, self._fillers = _Alike(), _Alike()

    def fill(self, seen: Words, total: Words) -> bool:
        """A row for each packet; False if one does not end where the next one's header begins."""
        count = len(total)
        kept = seen[KEPT::SEEN]
        self._total[:count] = total
        # One column after the other: assigned two at once, each row would be a loop of its own.
        self._kept[:count] = kept
        self._length[:count] = seen[LENGTH::SEEN]
        if count > 1:
            self._total_before[1:count] = total[:-1]
            types = seen.view(np.uint8)[PACKET_TYPE_OCTET:-SEEN_OCTETS:SEEN_OCTETS]
            direction = self._direction[1:count]
            np.right_shift(types, 2, out=direction)  # PACKET_OUTGOING is 4, what comes in is less
            np.add(direction, 1, out=direction)
        self._fill_times(seen[SECOND::SEEN], seen[NANOSECOND::SEEN])
        return self._fill_before(seen.view(np.uint64)[:: SEEN // 2], self._total[:count] - kept)

    def _fill_times(self, seconds: Words, nanoseconds: Words) -> None:
        count = len(seconds)
        high, low = divmod(int(seconds[0]) * NANOSECONDS, 1 << 32)
        if low + NANOSECONDS > 1 << 32 or not self._seconds.are(seconds):
            time_ns = np.multiply(seconds, np.uint64(NANOSECONDS), dtype=np.uint64)
            time_ns += nanoseconds
            halves = time_ns.view(np.uint32)
            self._high[:count], self._low[:count] = halves[HIGH::2], halves[1 - HIGH :: 2]
            self._high_now = -1
            return
        if high != self._high_now:
            self._high[:] = self._high_now = high
        np.add(nanoseconds, np.uint32(low), out=self._low[:count])

    def _fill_before(self, before: NDArray[np.uint64], filler: Words) -> bool:
        """Nothing of what the ring held before is left between a packet and the header behind it."""
        kept = self._before[: len(before)]
        kept[0] = before[0]
        before, kept, filler = before[1:], kept[1:], filler[:-1]
        if not len(filler):
            return True
        least = int(filler[0]) - self._mac_offset
        if 0 <= least < ALIGNMENT and self._fillers.are(filler):
            np.bitwise_and(before, KEEP[least], out=kept)
            if least >= 4:
                np.bitwise_or(kept, FILLING[least], out=kept)
            return True
        filler -= np.uint32(self._mac_offset)
        if np.maximum.reduce(filler) >= ALIGNMENT:
            return False
        np.bitwise_and(before, KEEP[filler], out=kept)
        np.bitwise_or(kept, FILLING[filler], out=kept)
        return True


class _Alike:
    """Whether all numbers of a column are the same, asked of their octets: quicker than of an array."""

    def __init__(self) -> None:
        self._number, self._octets = -1, b""

    def are(self, column: Words) -> bool:
        number = int(column[0])
        if number != self._number:
            self._number, self._octets = number, struct.pack("=I", number) * MOST_AT_ONCE
        return self._octets.startswith(column.tobytes())


def _records(octets: NDArray[np.uint8], size: int, every: int) -> Records:
    """The same octets as records of `size`, one beginning at each multiple of `every`."""
    return np.ndarray(((len(octets) - size) // every + 1,), f"V{size}", octets, strides=(every,))
