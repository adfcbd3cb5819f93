"""One direction of an impaired link, without I/O: frames and arrival times in, frames at their departure times out.

    accept ── copied? ── lost? ── room? ── line (rate) ─┬─ delay ± jitter ── in order ─┬── due
                                                        └─ picked to overtake ─────────┘

Time is an argument, in integer nanoseconds of a clock that never goes back; chances come in as `draw`. When and how
often `due` is called changes nothing about what happens to which frame. Both queues are in order of departure by
construction, so that a frame costs no sorting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from testbed.lab.impair.model import Impairment

BLOCK_PACKETS = 1024  # draws come in blocks: one seeding per packet would cost more than the packet
NS_PER_S = 1_000_000_000
_SMALLEST_DRAW = 2.0**-53  # the inverse normal distribution has no value at 0
_NORMAL = NormalDist()
_NO_DRAWS: list[float] = []

Draw = Callable[[str, int], list[float]]  # (purpose, block) -> a draw from 0 to below 1 for each packet of the block


@dataclass(slots=True)
class Counts:
    """What became of the frames so far: accepted + duplicated = delivered + lost + overflowed + still held."""

    accepted: int = 0
    octets: int = 0
    duplicated: int = 0
    reordered: int = 0
    lost: int = 0
    overflowed: int = 0
    delivered: int = 0


@dataclass(slots=True)
class _Chances:
    """The current block's draws of originals, or of copies; a list is empty while its option is off."""

    prefix: str
    loss: list[float]
    reorder: list[float]
    jitter: list[float]


class Shaper:
    """The fate of every frame in one direction. Errors: none; whatever cannot be kept is dropped and counted."""

    def __init__(self, impairment: Impairment, draw: Draw) -> None:
        self.counts = Counts()
        self._draw = draw
        self._block = 0
        self._place = 0  # of the next frame, in its block
        self._copying: list[float] = _NO_DRAWS
        self._own = _Chances("", _NO_DRAWS, _NO_DRAWS, _NO_DRAWS)
        self._copy = _Chances("copy-", _NO_DRAWS, _NO_DRAWS, _NO_DRAWS)
        self._ordered: deque[tuple[int, int, bytes]] = deque()  # departure, serial number, frame
        self._overtaking: deque[tuple[int, int, bytes]] = deque()
        self._ready: list[bytes] = []
        self._serial = 0
        self._now = 0
        self._line_free_at = 0
        self._last_departure_at = 0
        self.impairment = impairment
        self.change(impairment)

    def change(self, impairment: Impairment) -> None:
        """Treat frames from now on as `impairment` says; those already held keep their departure times."""
        self.impairment = impairment
        self._delay_ns = round(impairment.delay_s * NS_PER_S)
        self._jitter_ns = round(impairment.jitter_s * NS_PER_S)
        self._ns_per_octet = 8 * NS_PER_S / impairment.rate_bit_s if impairment.rate_bit_s else 0.0
        self._load_draws()

    def accept(self, frame: bytes, arrived_at: int) -> None:
        """Take a frame off the sender's hands; `arrived_at` before an earlier frame's counts as that one's."""
        if self._place == BLOCK_PACKETS:
            self._block += 1
            self._place = 0
            self._load_draws()
        place = self._place
        self._place = place + 1
        if arrived_at > self._now:
            self._now = arrived_at
        self.counts.accepted += 1
        self.counts.octets += len(frame)
        self._admit(frame, place, self._own)
        if self._copying and self._copying[place] < self.impairment.duplicate:
            self.counts.duplicated += 1
            self._admit(frame, place, self._copy)

    def due(self, now: int) -> list[bytes]:
        """Return the frames whose time has come, in the order in which they leave."""
        self._release(now)
        if not self._ready:
            return self._ready
        ready, self._ready = self._ready, []
        self.counts.delivered += len(ready)
        return ready

    def next_departure_at(self) -> int | None:
        """Return when `due` will have something next, or None while nothing is held."""
        if self._ready:
            return self._now
        heads = [queue[0][0] for queue in (self._ordered, self._overtaking) if queue]
        return min(heads) if heads else None

    @property
    def held(self) -> int:
        """How many frames wait for the line, are delayed, or are ready to be taken by `due`."""
        return len(self._ordered) + len(self._overtaking) + len(self._ready)

    def _admit(self, frame: bytes, place: int, chances: _Chances) -> None:
        impairment = self.impairment
        if chances.loss and chances.loss[place] < impairment.loss:
            self.counts.lost += 1
            return
        if len(self._ordered) + len(self._overtaking) >= impairment.queue_packets:
            self._release(self._now)  # what has left by now takes no room, whether or not anybody asked for it yet
            if len(self._ordered) + len(self._overtaking) >= impairment.queue_packets:
                self.counts.overflowed += 1
                return
        departure = self._now
        if self._ns_per_octet:
            if self._line_free_at > departure:
                departure = self._line_free_at
            departure += round(len(frame) * self._ns_per_octet)
            self._line_free_at = departure
        self._serial += 1
        if chances.reorder and chances.reorder[place] < impairment.reorder:
            self.counts.reordered += 1
            self._overtaking.append((departure, self._serial, frame))
            return
        departure += self._delay_ns
        if chances.jitter:
            departure = max(departure + self._jitter_of(chances.jitter[place]), departure - self._delay_ns)
        if departure < self._last_departure_at:
            departure = self._last_departure_at
        self._last_departure_at = departure
        self._ordered.append((departure, self._serial, frame))

    def _jitter_of(self, draw: float) -> int:
        if self.impairment.jitter_shape == "normal":
            return round(self._jitter_ns * _NORMAL.inv_cdf(max(draw, _SMALLEST_DRAW)))
        return round(self._jitter_ns * (2 * draw - 1))

    def _release(self, now: int) -> None:
        """Move to `_ready`, in order, every frame whose departure is not after `now`."""
        ordered, overtaking, ready = self._ordered, self._overtaking, self._ready
        while overtaking and overtaking[0][0] <= now:
            while ordered and ordered[0] < overtaking[0]:  # by departure, then by serial number
                ready.append(ordered.popleft()[2])
            ready.append(overtaking.popleft()[2])
        while ordered and ordered[0][0] <= now:
            ready.append(ordered.popleft()[2])

    def _load_draws(self) -> None:
        """Fetch the current block's draws for every option that needs them."""
        impairment = self.impairment

        def load(purpose: str, needed: float) -> list[float]:
            return self._draw(purpose, self._block) if needed else _NO_DRAWS

        self._copying = load("duplicate", impairment.duplicate)
        for chances in (self._own, self._copy):
            needed = 1.0 if chances is self._own else impairment.duplicate
            chances.loss = load(f"{chances.prefix}loss", needed and impairment.loss)
            chances.reorder = load(f"{chances.prefix}reorder", needed and impairment.reorder)
            chances.jitter = load(f"{chances.prefix}jitter", needed and impairment.jitter_s)
