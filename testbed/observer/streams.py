"""One direction of a conversation as octets in order, each traceable to its frame; TCP segments put in order.

`Recorder` keeps what arrives, within a limit: where it stands in the capture file, not the octets, if the file can be
read again. `Reassembly` feeds it from TCP segments: out of order, retransmitted, overlapping (what came first stays),
around the wrap of the sequence number, and with holes where a segment was lost or the tap did not see it. A hole is
given up when too much waits behind it, or at the end.

Source: RFC 9293 section 3.4
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from operator import sub
from typing import Any, NamedTuple
from zlib import compress, decompress

from testbed.capture.source import NOWHERE, Store

SEQUENCE_MASK, MASK_64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF
HALF_SEQUENCE = 1 << 31
SEGMENT_COST_OCTETS = 200  # what a waiting segment costs besides its octets
ASKED_AGAIN_OCTETS = 2 << 20  # behind a hole, before what follows it may be skipped as well
NEVER_ASKED = 1 << 62
PIECE_COST_OCTETS = 40  # what a recorded piece costs besides its octets, if these are kept at all


@dataclass(slots=True)
class Budget:
    """What all streams together may still keep, in octets of memory, and where they keep it."""

    octets: int
    store: Store = field(default_factory=Store)
    waiting_octets: int = 64 << 20  # of segments behind holes
    contradictions: Counter[int] = field(default_factory=Counter)  # how many segments, by the first one's frame

    def holds(self, position: int) -> bool:
        """Whether octets at this position of the file have to be held, because they cannot be read again."""
        return position < 0 or self.store.descriptor is None


PIECES = ("offsets", "frames", "times_ns", "handles")
_new = tuple.__new__  # of a named tuple, a third of the time that its class takes
_NOTHING_YET = array("Q")  # of whoever has said nothing; never changed


def pack_numbers(numbers: array[int]) -> bytes:
    """Numbers of eight octets that mostly go up by little, in little room."""
    return compress(array("Q", [(one - other) & MASK_64 for other, one in pairwise((0, *numbers))]).tobytes(), 1)


def unpack_numbers(packed: bytes) -> array[int]:
    return array("Q", [number & MASK_64 for number in accumulate(array("Q", decompress(packed)))])


class Run(NamedTuple):
    """Octets without a hole. Shape: `start` is the offset in the stream of `data`'s first octet."""

    start: int
    data: bytes


class Recorder:
    """Shape: piece i begins at `offsets[i]` of the stream, came in `frames[i]`, and all up to it was there at
    `times_ns[i]`; before each of `gaps` octets are missing."""

    __slots__ = (
        "_joined",
        "_packed",
        "_shown",
        "asked_at",
        "budget",
        "frames",
        "gaps",
        "handles",
        "limit_octets",
        "offsets",
        "passed",
        "ready",
        "size",
        "skips",
        "times_ns",
        "truncated",
    )

    def __init__(self, limit_octets: int, budget: Budget, asked_at: int = NEVER_ASKED) -> None:
        self.limit_octets = limit_octets
        self.budget = budget
        self.size = 0
        self.truncated = False
        self.offsets = self.frames = self.times_ns = _NOTHING_YET
        self.gaps: Sequence[int] = ()
        self.handles = _NOTHING_YET  # of the pieces in the store
        # Frame with which everything up to a piece was there, if it is a later one.
        self.ready: dict[int, int] | None = None
        self.asked_at = asked_at  # the size from which on to ask whether the rest is worth keeping
        self.skips = False  # what comes is not kept, up to the next hole: nobody could read it
        self.passed = 0  # octets that were not kept so; `size` does not count them
        self._joined: bytes | None = None
        self._packed: tuple[bytes, ...] = ()  # the numbers of the pieces, while they are not needed
        self._shown: int | None = None  # octets that `data` gives at least, where it does not give all

    def append(
        self, data: bytes, frame: int, ready: int, time_ns: int, position: int = NOWHERE, length: int | None = None
    ) -> None:
        """Shape: `position` is where the octets stand in the file; then `data` may be left empty and `length` given."""
        if self.truncated:
            return
        budget, size = self.budget, self.size
        if length is None:
            length = len(data)
        if self.skips:
            self.pass_over(length)
            return
        holds = position < 0 or budget.store.descriptor is None
        cost = PIECE_COST_OCTETS + length if holds else PIECE_COST_OCTETS
        if size + self.passed + length > self.limit_octets or cost > budget.octets:
            self.truncated = True
            return
        budget.octets -= cost
        if self.offsets is _NOTHING_YET:
            self._begin()
        if ready != frame:
            self.ready = self.ready or {}
            self.ready[len(self.offsets)] = ready
        self.offsets.append(size)
        self.frames.append(frame)
        self.times_ns.append(time_ns & 0xFFFFFFFFFFFFFFFF)
        self.handles.append(budget.store.keep(data, position) if holds else position)
        self.size = size + length
        self._joined = None

    def skip(self) -> None:
        """Keep no more of this run of octets: where it stands would take room, and it cannot be read."""
        self.skips, self.asked_at = True, NEVER_ASKED  # up to the next hole
        # What is known of the pieces is hardly asked for until the end: thousands, each a little behind the last.
        self._packed = tuple(pack_numbers(getattr(self, name)) for name in PIECES)
        del self.offsets, self.frames, self.times_ns, self.handles

    def __getattr__(self, name: str) -> Any:
        """One of `PIECES` that is packed: all of them are there again."""
        if name not in PIECES or not self._packed:
            raise AttributeError(name)
        for each, packed in zip(PIECES, self._packed, strict=True):
            setattr(self, each, unpack_numbers(packed))
        self._packed = ()
        return getattr(self, name)

    def pass_over(self, octets: int) -> None:
        """Octets came that are not kept; the limit holds for them all the same."""
        if self.size + self.passed + octets > self.limit_octets:
            self.truncated = True
        else:
            self.passed += octets

    def _begin(self) -> None:
        """Have somewhere to enter pieces: many sides never say anything, and need no room."""
        self.offsets, self.frames, self.times_ns, self.handles = array("Q"), array("Q"), array("Q"), array("Q")

    def room(self) -> int:
        """How many more pieces may be kept that stand in the file."""
        return 0 if self.truncated else self.budget.octets // PIECE_COST_OCTETS

    def append_all(self, offsets: bytes, frames: bytes, times_ns: bytes, positions: bytes, size: int) -> None:
        """Many pieces at once that stand in the file, within all limits; the numbers have eight octets each.

        Shape: `offsets` count from the stream's first octet, `size` is what the stream then has
        """
        if self.offsets is _NOTHING_YET:
            self._begin()
        before = len(self.offsets)
        self.offsets.frombytes(offsets)
        self.frames.frombytes(frames)
        self.times_ns.frombytes(times_ns)
        self.handles.frombytes(positions)
        self.budget.octets -= PIECE_COST_OCTETS * (len(self.offsets) - before)
        self.size = size
        self._joined = None

    def gap(self) -> None:
        """Octets are missing here."""
        if not self.truncated and (not self.gaps or self.gaps[-1] != self.size):
            if not isinstance(self.gaps, list):
                self.gaps = []
            self.gaps.append(self.size)
        if self.skips:
            self.skips, self.asked_at = False, self.size + ASKED_AGAIN_OCTETS

    def data(self) -> bytes:
        """Everything in order, or as much as is shown; kept joined until `release`."""
        if self._joined is None:
            self._joined = self.read() if self._shown is None else self.head(0, self._shown)
        return self._joined

    def show(self, octets: int) -> None:
        """Let `data`, and what is made of it, be only the first pieces that have so many octets."""
        self._shown = octets

    def release(self) -> None:
        """Let the octets go; they can be read again."""
        self._joined = self._shown = None

    def read(self) -> bytes:
        """Everything in order, afresh."""
        return self._pieces(0, len(self.offsets))

    def contradicts(self, data: bytes, behind: int) -> bool:
        """Whether octets that came again, the last of them `behind` octets before the end, were others at first.

        False where it cannot be told: of what lies before a hole, or was not kept.
        """
        end = self.size - behind
        start = end - len(data)
        floor = self.gaps[-1] if self.gaps else 0
        if self.truncated or self.skips or self.passed or start < floor or not data:
            return False
        first = bisect_right(self.offsets, start) - 1
        known = self._pieces(first, bisect_left(self.offsets, end))
        start -= self.offsets[first]
        return known[start : start + len(data)] != data

    def head(self, start: int, octets: int) -> bytes:
        """At least so many octets from `start` on, where a piece begins, as whole pieces; less at the end."""
        return self._pieces(bisect_left(self.offsets, start), bisect_left(self.offsets, start + octets))

    def _pieces(self, first: int, behind: int) -> bytes:
        if not first and behind >= len(self.offsets):  # all of it, one piece or two with most short conversations
            lengths = [*map(sub, self.offsets[1:], self.offsets), self.size - self.offsets[-1]] if behind else []
            return self.budget.store.read(self.handles, lengths)
        edges = self.offsets[first : behind + 1]
        if behind >= len(self.offsets):
            edges.append(self.size)
        lengths = [end - start for start, end in pairwise(edges)]
        return self.budget.store.read(self.handles[first:behind], lengths)

    def pieces_between(self, start: int, end: int) -> list[tuple[bytes, int]]:
        """The octets from `start` to `end` as they came, piece by piece with the frame of each."""
        data = self.data()
        first = max(bisect_right(self.offsets, start) - 1, 0)
        found = []
        for index in range(first, len(self.offsets)):
            begin = max(self.offsets[index], start)
            stop = min(self.offsets[index + 1] if index + 1 < len(self.offsets) else len(data), end)
            if begin >= end:
                break
            found.append((data[begin:stop], self.frames[index]))
        return found

    def runs(self) -> list[Run]:
        data = self._joined if self._joined is not None else self.data()
        if not self.gaps:
            return [_new(Run, (0, data))] if data else []
        edges = [0, *(gap for gap in self.gaps if 0 < gap < len(data)), len(data)]
        return [Run(a, data[a:b]) for a, b in pairwise(edges) if b > a]

    def segments_of(self, run: Run) -> list[int]:
        """Where in the run's octets its pieces begin."""
        first = bisect_left(self.offsets, run.start)
        behind = bisect_left(self.offsets, run.start + len(run.data))
        return [offset - run.start for offset in self.offsets[first:behind]]

    def completed(self, end: int) -> tuple[int, int]:
        """The frame at which all octets before `end` had arrived, and its time in nanoseconds."""
        if not self.frames:
            return (0, 0)
        index = max(bisect_right(self.offsets, max(end - 1, 0)) - 1, 0)
        frame = self.frames[index]
        return self.ready.get(index, frame) if self.ready else frame, self.times_ns[index]

    def carrier(self, offset: int) -> int:
        """The frame that carried the octet at `offset`."""
        return self.frames[max(bisect_right(self.offsets, offset) - 1, 0)] if self.frames else 0


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """What a recorder has kept, read from where it stands each time that it is asked for."""

    recorder: Recorder

    def __bytes__(self) -> bytes:
        return self.recorder.read()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recorded) and bytes(self) == bytes(other)

    __hash__ = None  # type: ignore[assignment]  # what is compared may be long

    def __len__(self) -> int:
        return self.recorder.size


class Segment(NamedTuple):
    """Shape: `start` as in `Reassembly`; `data` is empty where the octets stand at `position` of the capture file."""

    start: int
    frame: int
    length: int
    position: int
    data: bytes
    time_ns: int


@dataclass(slots=True)
class Reassembly:
    """Shape: `position` is the sequence number expected next, unwrapped; what is ahead of it waits in a heap."""

    recorder: Recorder
    limit_octets: int
    position: int | None = None
    began_at: int | None = None  # the sequence number of the SYN
    fin_position: int | None = None  # behind the last octet
    fin_frame: int = 0  # at which everything including the FIN was there
    fin_time_ns: int = 0
    waiting: list[Segment] | None = None
    waiting_octets: int = 0

    def syn(self, sequence: int) -> None:
        if self.position is None:
            self.began_at, self.position = sequence, sequence + 1

    def add(self, sequence: int, data: bytes, frame: int, time_ns: int, position: int = NOWHERE) -> None:
        """Shape: `position` is where the octets stand in the capture file."""
        start = self._unwrap(sequence)
        expected = self.position or 0
        if start < expected:
            self._compare(data[: expected - start], max(expected - start - len(data), 0), frame)
        if start <= expected:
            if start + len(data) > expected:  # else all of it has been seen
                self._take(Segment(start, frame, len(data), position, data, time_ns), expected - start, frame, time_ns)
                self._take_waiting(frame, time_ns)
            return
        budget = self.recorder.budget
        kept = data if budget.holds(position) else b""
        self.waiting = self.waiting or []
        heappush(self.waiting, Segment(start, frame, len(data), position, kept, time_ns))
        self.waiting_octets += len(data) + SEGMENT_COST_OCTETS
        budget.waiting_octets -= len(kept) + SEGMENT_COST_OCTETS
        if self.waiting_octets > self.limit_octets or budget.waiting_octets < 0:
            self._skip_hole()

    def _compare(self, again: bytes, behind: int, frame: int) -> None:
        """Note it if octets that are there already come again and are others. One octet alone may be a keep-alive."""
        budget = self.recorder.budget
        if len(again) > 1 and self.recorder.contradicts(again, behind):
            first = min(budget.contradictions, default=frame)  # which need not come first: see `bulk`
            budget.contradictions[min(first, frame)] = budget.contradictions.pop(first, 0) + 1

    def extend(self, sequence: int, data: bytes, start: int, end: int, frame: int, time_ns: int, position: int) -> bool:
        """Take `data[start:end]` if it is exactly what comes next and nothing waits; as `add`, only quicker.

        Shape: `position` is where `data` stands in the file
        Returns False, and has done nothing, in every other case.
        """
        expected = self.position
        if expected is None or expected & SEQUENCE_MASK != sequence or self.waiting or self.fin_position is not None:
            return False
        length = end - start
        self.position = expected + length
        recorder = self.recorder
        if not recorder.truncated:
            piece = data[start:end] if recorder.budget.holds(position) else b""
            recorder.append(piece, frame, frame, time_ns, position + start, length)
        return True

    @property
    def is_midway(self) -> bool:
        """Whether octets came of which nobody saw the beginning."""
        return self.position is not None and self.began_at is None

    @property
    def expected(self) -> int:
        """The sequence number of the octet that comes next, not wrapped."""
        return self.position or 0

    @property
    def is_in_order(self) -> bool:
        """Whether segments that each follow the last can be taken without a look at what waits."""
        return self.position is not None and not self.waiting and self.fin_position is None

    def advance(self, octets: int) -> None:
        """So many octets came in order, and somebody else has recorded them."""
        self.position = self.expected + octets

    def fin(self, sequence: int, frame: int, time_ns: int) -> None:
        self.fin_position = self._unwrap(sequence)
        self._note_fin(frame, time_ns)

    def end(self, frame: int, time_ns: int) -> None:
        """A FIN came behind everything else, and nothing waits."""
        self.fin_position = self.expected
        self._note_fin(frame, time_ns)

    def finish(self) -> None:
        """Give up every hole: nothing more will come."""
        while self.waiting:
            self._skip_hole()

    def _unwrap(self, sequence: int) -> int:
        if self.position is None:
            self.position = sequence  # the capture began in the middle: take it from here
        distance = (sequence - self.position) & SEQUENCE_MASK
        return self.position + (distance - (1 << 32) if distance >= HALF_SEQUENCE else distance)

    def _take(self, segment: Segment, known: int, ready: int, time_ns: int) -> None:
        """Take what comes next; the first `known` octets of the segment are there already."""
        _, frame, length, position, data, _ = segment
        self.position = (self.position or 0) + length - known
        self.recorder.append(data[known:], frame, ready, time_ns, position + known, length - known)
        if self.fin_position is not None:
            self._note_fin(ready, time_ns)

    def _note_fin(self, frame: int, time_ns: int) -> None:
        if not self.fin_frame and self.fin_position == self.position:
            self.fin_frame, self.fin_time_ns = frame, time_ns

    def _take_waiting(self, ready: int, time_ns: int) -> None:
        """Take every waiting segment that now connects."""
        while self.waiting and self.waiting[0].start <= (self.position or 0):
            segment = self._pop(self.waiting)
            known = (self.position or 0) - segment.start
            if known < segment.length:
                self._take(segment, known, ready, time_ns)

    def _skip_hole(self) -> None:
        """Go on behind the hole: what waits there was to be read when it came, by whoever does not wait."""
        if not self.waiting:
            return
        self.recorder.gap()
        self.position = self.waiting[0].start
        ready = time_ns = 0
        while self.waiting and self.waiting[0].start <= (self.position or 0):
            segment = self._pop(self.waiting)
            if segment.frame > ready:
                ready, time_ns = segment.frame, segment.time_ns
            known = (self.position or 0) - segment.start
            if known < segment.length:
                self._take(segment, known, ready, time_ns)

    def _pop(self, waiting: list[Segment]) -> Segment:
        segment = heappop(waiting)
        self.waiting_octets -= segment.length + SEGMENT_COST_OCTETS
        self.recorder.budget.waiting_octets += len(segment.data) + SEGMENT_COST_OCTETS
        return segment
