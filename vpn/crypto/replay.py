"""Replay windows: each packet id is accepted once, and not long after its successors.

The width and the time limit are OpenVPN's (`replay-window 64 15`). Look only at packets that have proven authentic.
Source: openvpn-protocol.md section 10.4.
"""

from __future__ import annotations

from collections import deque

from vpn.wire.wrapped import ReplayStamp

_HISTORY_STEP = 1.0  # one remembered moment per second is enough for a limit of 15


class ReplayWindow:
    """Accepts a 32-bit id above 0 once; ids `width` or more behind the highest, or late by `time_limit`, never.

    Units: width in packets; `now` and `time_limit` in seconds. A late id is accepted up to one second longer than the
    limit says, since arrival times are remembered by the second.
    """

    # What each packet touches stands first: with many clients its cost is the memory that has to be fetched.
    __slots__ = (  # noqa: RUF023 -- in the order of use
        "highest",
        "_seen",
        "_first_at",
        "_last_at",
        "_full",
        "_width",
        "_floor",
        "_history",
        "_time_limit",
    )

    def __init__(self, width: int = 64, time_limit: float = 15.0) -> None:
        self.highest = 0
        self._seen = 0  # bit n: highest - n was accepted
        self._width = width
        self._full = (1 << width) - 1
        self._time_limit = time_limit
        self._floor = 0  # ids up to here came too long ago to have predecessors still under way
        self._first_at = self._last_at = float("-inf")  # when ids came in the present second; `highest` is the last
        self._history: deque[tuple[float, int]] = deque()  # of the seconds before: (last time, highest id)

    def accept(self, packet_id: int, now: float) -> bool:
        """Whether the id is good; if so it is used up."""
        highest = self.highest
        if packet_id > highest:
            if now - self._first_at >= _HISTORY_STEP:
                self._begin_second(now)
            self._last_at = now
            self._seen = (self._seen << min(packet_id - highest, self._width) | 1) & self._full
            self.highest = packet_id
            return True
        behind = highest - packet_id
        if packet_id <= 0 or behind >= self._width or self._seen >> behind & 1:
            return False
        self._expire(now)
        if packet_id <= self._floor:
            return False
        self._seen |= 1 << behind
        return True

    def accept_run(self, first: int, count: int, now: float) -> bool:
        """The same for ids without a gap, all above the highest; False, and nothing has changed, if they are not."""
        highest, last = self.highest, first + count - 1
        if first <= highest:
            return False
        if now - self._first_at >= _HISTORY_STEP:
            self._begin_second(now)
        self._last_at = now
        self._seen = (self._seen << min(last - highest, self._width) | (1 << count) - 1) & self._full
        self.highest = last
        return True

    def _begin_second(self, now: float) -> None:
        """Before `highest` changes: what it is belongs to the second that is over."""
        self._expire(now)
        if self.highest > self._floor:
            self._history.append((self._last_at, self.highest))
        self._first_at = now

    def _expire(self, now: float) -> None:
        history = self._history
        while history and now - history[0][0] > self._time_limit:
            self._floor = history.popleft()[1]
        if now - self._last_at > self._time_limit:
            self._floor, self._first_at = self.highest, float("-inf")


class StampWindow:
    """The same for ids with a time: a later time begins a new count, an earlier one is refused."""

    __slots__ = ("_time", "_time_limit", "_width", "_window")

    def __init__(self, width: int = 64, time_limit: float = 15.0) -> None:
        self._time = -1
        self._width = width
        self._time_limit = time_limit
        self._window = ReplayWindow(width, time_limit)

    def accept(self, stamp: ReplayStamp, now: float) -> bool:
        if stamp.counter == 0 or stamp.time < self._time:
            return False
        if stamp.time > self._time:
            self._time = stamp.time
            self._window = ReplayWindow(self._width, self._time_limit)
        return self._window.accept(stamp.counter, now)
