"""When is who due: deadlines of many, the earliest at hand.

A deadline that moves later keeps its old place until that comes up (looking once too early costs nothing); one that
moves earlier gets a new place. So traffic, which moves ping deadlines all the time, does not touch the heap. Pure.
"""

from __future__ import annotations

import heapq


class Agenda:
    """Units: deadlines in the time of `now`."""

    __slots__ = ("_heap", "_listed")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []
        self._listed: dict[int, float] = {}  # the earliest place each has in the heap

    def put(self, number: int, due: float | None) -> None:
        """Note when `number` is due; None takes nothing back, it only adds nothing."""
        if due is None:
            return
        listed = self._listed.get(number)
        if listed is None or due < listed:
            self._listed[number] = due
            heapq.heappush(self._heap, (due, number))

    def next_at(self) -> float | None:
        """The earliest deadline; it may turn out to have moved later."""
        while self._heap:
            due, number = self._heap[0]
            if self._listed.get(number) == due:
                return due
            heapq.heappop(self._heap)
        return None

    def take_due(self, now: float) -> list[int]:
        """Who may be due; put each again with its true next deadline."""
        due = []
        while (at := self.next_at()) is not None and at <= now:
            _, number = heapq.heappop(self._heap)
            del self._listed[number]
            due.append(number)
        return due
