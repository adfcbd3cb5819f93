"""The engine: frames of every impaired link from one end through a shaper to the other end, in one process.

    wait (frames, a departure, an order, the parent's end) -> read -> shape -> send what is due -> again

It sleeps until something happens, to the nanosecond as far as the kernel can: `ppoll` takes its timeout in ns where
`poll` and `epoll` of Python know milliseconds, and timers of this process have no slack. Frames read before an order
keep the old options. Arrival times are the kernel's, so a frame that was read late still leaves on time.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from testbed.lab.impair.model import Impairment
from testbed.lab.impair.port import Port
from testbed.lab.impair.shaper import Shaper

_PR_SET_TIMERSLACK = 29
_libc = ctypes.CDLL(None, use_errno=True)


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


@dataclass(slots=True)
class Way:
    """One direction of one link."""

    source: Port
    shaper: Shaper
    target: Port

    def carry(self, real_to_monotonic: int, now: int) -> None:
        """Take in what has arrived and send what is due."""
        accept = self.shaper.accept
        for frame, arrived_at in self.source.receive():
            arrived_at += real_to_monotonic
            # A step of the host's clock must not move a frame into the future.
            accept(frame, arrived_at if arrived_at < now else now)
        if frames := self.shaper.due(now):
            self.target.send(frames)

    def counters(self) -> dict[str, int]:
        return {
            **asdict(self.shaper.counts),
            "held": self.shaper.held,
            "missed": self.source.count_missed(),
            "refused": self.target.refused,
        }


class Waiter:
    """Sleeps until one of some descriptors is ready or a moment has come."""

    def __init__(self, descriptors: Sequence[int]) -> None:
        self._entries = (_PollFd * len(descriptors))(*(_PollFd(fd, select.POLLIN, 0) for fd in descriptors))
        _libc.prctl(_PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0)

    def wait(self, timeout_ns: int | None) -> Iterator[tuple[int, int]]:
        """Yield (descriptor, events) of those that are ready; None waits for ever."""
        limit = None
        if timeout_ns is not None:
            limit = ctypes.byref(_Timespec(*divmod(max(0, timeout_ns), 1_000_000_000)))
        ready = _libc.ppoll(self._entries, ctypes.c_ulong(len(self._entries)), limit, None)
        if ready < 0:
            number = ctypes.get_errno()
            if number == errno.EINTR:
                return
            raise OSError(number, f"ppoll: {os.strerror(number)}")
        if ready:
            for entry in self._entries:
                if entry.revents:
                    yield entry.fd, entry.revents


class Engine:
    """Every impaired link of a lab. `links` are its two ways each: from its first end to its second, and back."""

    def __init__(self, links: Sequence[tuple[Way, Way]], control: socket.socket) -> None:
        self._links = links
        self._ways = [way for link in links for way in link]
        self._ports = {way.source.fileno(): way.source for way in self._ways}
        self._control = control
        self._unread = b""

    def run(self, stops: Sequence[int]) -> None:
        """Carry frames until one of `stops` is readable or nobody holds the other end of the control socket."""
        waiter = Waiter([*self._ports, self._control.fileno(), *stops])
        timeout: int | None = 0
        while True:
            ordered = False
            for descriptor, events in waiter.wait(timeout):
                if descriptor in stops:
                    return
                if descriptor == self._control.fileno():
                    ordered = True
                elif events & select.POLLERR:
                    self._ports[descriptor].take_error()
            self._carry()
            if ordered and not self._obey():
                return
            timeout = self._until_next()

    def _carry(self) -> None:
        now = time.monotonic_ns()
        real_to_monotonic = now - time.time_ns()
        for way in self._ways:
            way.carry(real_to_monotonic, now)

    def _until_next(self) -> int | None:
        """Return the ns until there is something to do, None if only an arrival or an order can bring it."""
        if any(port.waiting() for port in self._ports.values()):
            return 0
        departures = [at for way in self._ways if (at := way.shaper.next_departure_at()) is not None]
        return min(departures) - time.monotonic_ns() if departures else None

    def _obey(self) -> bool:
        """Carry out the orders that have come; false when nobody can give any more."""
        data = self._control.recv(65536)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            answer = self._carry_out(json.loads(line))
            self._control.sendall(json.dumps(answer).encode() + b"\n")
        return bool(data)

    def _carry_out(self, order: dict[str, Any]) -> dict[str, Any]:
        orders: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"set": self._set, "count": self._count}
        return orders[order["order"]](order)

    def _set(self, order: dict[str, Any]) -> dict[str, Any]:
        """Change one direction of a link: {link, direction, options} -> {at, accepted}."""
        shaper = self._links[order["link"]][order["direction"]].shaper
        shaper.change(Impairment(**order["options"]))
        return {"at": time.time(), "accepted": shaper.counts.accepted}

    def _count(self, order: dict[str, Any]) -> dict[str, Any]:
        """Say what became of a link's frames: {link} -> {counters: [one way, the other]}."""
        return {"counters": [way.counters() for way in self._links[order["link"]]]}
