"""One direction of a conversation as octets in order, each traceable to its frame; TCP segments put in order.

`Recorder` keeps what arrives, within a limit. `Reassembly` feeds it from TCP segments: out of order, retransmitted,
overlapping (what came first stays), around the wrap of the sequence number, and with holes where a segment was lost
or the tap did not see it. A hole is given up when too much waits behind it, or at the end.

Source: RFC 9293 section 3.4
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import pairwise
from typing import NamedTuple

SEQUENCE_MASK = 0xFFFFFFFF
HALF_SEQUENCE = 1 << 31
SEGMENT_COST_OCTETS = 200  # what a waiting segment costs besides its octets


@dataclass(slots=True)
class Budget:
    """What all streams together may still keep."""

    octets: int


class Run(NamedTuple):
    """Octets without a hole. Shape: `start` is the offset in the stream of `data`'s first octet."""

    start: int
    data: bytes


@dataclass(slots=True)
class Recorder:
    limit_octets: int
    budget: Budget
    size: int = 0
    truncated: bool = False
    pieces: list[bytes] = field(default_factory=list)
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    frames: array[int] = field(default_factory=lambda: array("Q"))  # that carried the piece
    ready: array[int] = field(default_factory=lambda: array("Q"))  # at which everything up to the piece was there
    times_ns: array[int] = field(default_factory=lambda: array("Q"))  # of the ready frame
    gaps: list[int] = field(default_factory=list)

    def append(self, data: bytes, frame: int, ready: int, time_ns: int) -> None:
        if self.size + len(data) > self.limit_octets or len(data) > self.budget.octets:
            self.truncated = True
        if self.truncated:
            return
        self.budget.octets -= len(data)
        self.offsets.append(self.size)
        self.frames.append(frame)
        self.ready.append(ready)
        self.times_ns.append(time_ns & 0xFFFFFFFFFFFFFFFF)
        self.pieces.append(data)
        self.size += len(data)

    def gap(self) -> None:
        """Octets are missing here."""
        if not self.truncated and (not self.gaps or self.gaps[-1] != self.size):
            self.gaps.append(self.size)

    def data(self) -> bytes:
        """Everything in order. Joined once, then kept as one piece's worth of memory."""
        if len(self.pieces) > 1:
            self.pieces = [b"".join(self.pieces)]
        return self.pieces[0] if self.pieces else b""

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
        data = self.data()
        edges = [0, *(gap for gap in self.gaps if gap), len(data)]
        return [Run(a, data[a:b]) for a, b in pairwise(edges) if b > a]

    def completed(self, end: int) -> tuple[int, int]:
        """The frame at which all octets before `end` had arrived, and its time in nanoseconds."""
        index = max(bisect_right(self.offsets, max(end - 1, 0)) - 1, 0)
        return (self.ready[index], self.times_ns[index]) if self.ready else (0, 0)

    def carrier(self, offset: int) -> int:
        """The frame that carried the octet at `offset`."""
        return self.frames[max(bisect_right(self.offsets, offset) - 1, 0)] if self.frames else 0


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
    waiting: list[tuple[int, int, bytes]] = field(default_factory=list)  # position, frame, octets
    waiting_octets: int = 0

    def syn(self, sequence: int) -> None:
        if self.position is None:
            self.began_at, self.position = sequence, sequence + 1

    def is_over(self, sequence: int) -> bool:
        """Whether a SYN with this number begins another conversation: nobody need have seen the former one's end."""
        return self.position is not None and self.began_at != sequence

    def add(self, sequence: int, data: bytes, frame: int, time_ns: int) -> None:
        position = self._unwrap(sequence)
        expected = self.position or 0
        if position <= expected:
            if position + len(data) > expected:  # else all of it has been seen
                self._take(data[expected - position :], frame, frame, time_ns)
                self._take_waiting(frame, time_ns)
            return
        heappush(self.waiting, (position, frame, data))
        self.waiting_octets += len(data) + SEGMENT_COST_OCTETS
        if self.waiting_octets > self.limit_octets:
            self._skip_hole(frame, time_ns)

    def extend(self, sequence: int, data: bytes, start: int, end: int, frame: int, time_ns: int) -> bool:
        """Take `data[start:end]` if it is exactly what comes next and nothing waits; as `add`, only quicker.

        Returns False, and has done nothing, in every other case.
        """
        position = self.position
        if position is None or position & SEQUENCE_MASK != sequence or self.waiting or self.fin_position is not None:
            return False
        self.position = position + end - start
        recorder = self.recorder
        if not recorder.truncated:
            recorder.append(data[start:end], frame, frame, time_ns)
        return True

    def fin(self, sequence: int, frame: int, time_ns: int) -> None:
        self.fin_position = self._unwrap(sequence)
        self._note_fin(frame, time_ns)

    def finish(self, frame: int, time_ns: int) -> None:
        """Give up every hole: nothing more will come."""
        while self.waiting:
            self._skip_hole(frame, time_ns)

    def _unwrap(self, sequence: int) -> int:
        if self.position is None:
            self.position = sequence  # the capture began in the middle: take it from here
        distance = (sequence - self.position) & SEQUENCE_MASK
        return self.position + (distance - (1 << 32) if distance >= HALF_SEQUENCE else distance)

    def _take(self, data: bytes, frame: int, ready: int, time_ns: int) -> None:
        self.position = (self.position or 0) + len(data)
        self.recorder.append(data, frame, ready, time_ns)
        if self.fin_position is not None:
            self._note_fin(ready, time_ns)

    def _note_fin(self, frame: int, time_ns: int) -> None:
        if not self.fin_frame and self.fin_position == self.position:
            self.fin_frame, self.fin_time_ns = frame, time_ns

    def _take_waiting(self, ready: int, time_ns: int) -> None:
        """Take every waiting segment that now connects."""
        while self.waiting and self.waiting[0][0] <= (self.position or 0):
            position, frame, data = heappop(self.waiting)
            self.waiting_octets -= len(data) + SEGMENT_COST_OCTETS
            known = (self.position or 0) - position
            if known < len(data):
                self._take(data[known:], frame, ready, time_ns)

    def _skip_hole(self, ready: int, time_ns: int) -> None:
        self.recorder.gap()
        self.position = self.waiting[0][0]
        self._take_waiting(ready, time_ns)
