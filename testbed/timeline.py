"""Does what a scenario's `events` say, while the workload runs, and records when it really happened.

The conductor waits for the workload's words with `next_line`, which does what falls due in between: one thread, so that
events happen in order and between two words. An event that fails stops nothing; it is told with the run's warnings. So
is one that did not happen because the workload had ended.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from testbed.children import Child, child_environment
from testbed.internet import CLIENT
from testbed.lab.build import Direction, Lab
from testbed.lab.errors import LabBuildError
from testbed.lab.impair.model import Impairment
from testbed.lease import Terms, take_lease
from testbed.report.text import visible
from testbed.scenario.faults import event_in_words
from testbed.scenario.values import Event, LinkOptions, Variant
from testbed.tunnels.start import Tunnel, TunnelFailed

_MBIT, _PERCENT = 1e6, 100.0
_END_PATIENCE_S = 2.0
_LOOK_EVERY_S = 0.002
_DIRECTIONS: tuple[Direction, Direction] = ("a_to_b", "b_to_a")


@dataclass(slots=True)
class _Entry:
    """An event and what became of it. Units: `time` in Unix seconds, None until it happens."""

    event: Event
    time: float | None = None
    error: str = ""
    process: subprocess.Popen[bytes] | None = None


class Timeline:
    """The events of one variant."""

    def __init__(
        self,
        events: Sequence[Event],
        lab: Lab,
        tunnel: Tunnel | None,
        log_dir_fd: int,
        tell: Callable[[str], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Shape: `meanwhile` is called again and again while there are events and a tunnel that they may concern."""
        self._entries = [_Entry(event) for event in sorted(events, key=lambda event: event.at)]
        self._lab = lab
        self._tunnel = tunnel
        self._log_dir_fd = log_dir_fd
        self._tell = tell
        self._meanwhile = meanwhile if events and tunnel is not None else None
        self._began_at: float | None = None  # Unix seconds

    def begin(self, at: float) -> None:
        """The workload began at this Unix time."""
        self._began_at = at

    def next_line(self, child: Child, silence: float) -> dict[str, Any] | None:
        """The workload's next line, as `Child.read_line`; events that fall due until then happen meanwhile."""
        give_up_at = time.monotonic() + silence
        while True:
            self._do_due()
            if self._meanwhile is not None:
                self._meanwhile()
            wait = give_up_at - time.monotonic()
            pause = min(wait, self._until_next())
            if child.has_line(pause) or pause == wait:
                return child.read_line(max(wait, 0.0))

    def _until_next(self) -> float:
        """How long the workload may be waited for without something else being late. Units: seconds"""
        look = math.inf if self._meanwhile is None else _LOOK_EVERY_S
        next_one = next((entry for entry in self._entries if entry.time is None), None)
        if next_one is None or self._began_at is None:
            return look
        return min(look, self._began_at + next_one.event.at - time.time())

    def close(self) -> list[dict[str, Any]]:
        """End what events started; returns what the result says of each: {at, after, time, words, ok, error}."""
        for number, entry in enumerate(self._entries):
            if entry.process is not None:
                entry.error = entry.error or _ended(entry.process, f"see logs/event-{number + 1}.log")
            if entry.time is None:
                entry.error = "did not happen: the workload ended before its time"
        return [
            {
                "at": entry.event.at,
                "after": self._seconds_after(entry),
                "time": entry.time,
                "words": event_in_words(entry.event),
                "ok": not entry.error,
                "error": entry.error,
            }
            for entry in self._entries
        ]

    def _seconds_after(self, entry: _Entry) -> float | None:
        """When it really happened, counted as `at` is."""
        if entry.time is None or self._began_at is None:
            return None
        return round(entry.time - self._began_at, 6)

    def _do_due(self) -> None:
        for number, entry in enumerate(self._entries):
            if self._began_at is None or entry.time is not None or entry.event.at > time.time() - self._began_at:
                continue
            entry.time = time.time()
            self._tell(event_in_words(entry.event))
            try:
                self._do(number, entry)
            except (TunnelFailed, LabBuildError, KeyError, ValueError, OSError) as error:
                entry.error = str(error)

    def _do(self, number: int, entry: _Entry) -> None:
        event = entry.event
        if event.verb == "link":
            entry.time = self._set_link(event)
        elif event.verb == "run":
            entry.process = self._run(number, event)
        elif event.verb == "lease":
            take_lease(self._lab, CLIENT, event.target, _terms(event))
        elif self._tunnel is None:
            raise ValueError("there is no tunnel")
        elif event.verb == "kill":
            self._tunnel.signal(event.target.removeprefix("vpn-"), event.signal)
        else:
            self._tunnel.start(event.target.removeprefix("vpn-"))

    def _set_link(self, event: Event) -> float:
        """Have the link as it was planned but for the event's options; returns the Unix time of the change."""
        if event.link is None:
            raise ValueError("names no link")
        for link in self._lab.plan.links:
            there = f"{link.node1}-{link.node2}" == event.target
            if link.impairments is None or not (there or f"{link.node2}-{link.node1}" == event.target):
                continue
            changed_at = time.time()
            for sender, direction, planned in zip((link.node1, link.node2), _DIRECTIONS, link.impairments, strict=True):
                if event.sender in ("", sender):
                    impairment = _changed(planned, event.link, event.down)
                    changed_at = self._lab.set_link(link.node1, link.node2, direction, impairment)
            return changed_at
        raise ValueError(f"no link that can be changed is called {event.target}")

    def _run(self, number: int, event: Event) -> subprocess.Popen[bytes]:
        flags = os.O_CREAT | os.O_WRONLY | os.O_EXCL | os.O_CLOEXEC
        log_fd = os.open(f"event-{number + 1}.log", flags, 0o644, dir_fd=self._log_dir_fd)
        try:
            node = self._lab.node(event.node)
            return node.spawn(event.argv, env=child_environment(), stdout=log_fd, stderr=log_fd, cwd="/")
        finally:
            os.close(log_fd)


def described(variant: Variant) -> str:
    """What is to happen and when, as lines for people; nothing where no action and no event has a time of its own."""
    events = [(event.at, 0, f"event   {event_in_words(event)}") for event in variant.events]
    actions = [
        (action.at, 1, f"action  {action.id}: {action.verb} {action.target}")
        for action in variant.workload
        if action.at is not None
    ]
    if not events and not actions:
        return ""
    lines = [f"  {f'{at:g} s':>8}  {words}" for at, _rank, words in sorted(events + actions, key=lambda one: one[:2])]
    untimed = [action.id for action in variant.workload if action.at is None]
    if untimed:
        lines.append(f"  one after the other: {', '.join(untimed)}")
    return "\n".join(["timeline, from the start of the workload", *map(visible, lines), ""])


def _terms(event: Event) -> Terms:
    routes = tuple((IPv4Network(prefix), IPv4Address(router)) for prefix, router in event.routes)
    return Terms(routes, tuple(map(IPv4Address, event.resolvers)))


def _changed(planned: Impairment, link: LinkOptions, down: bool) -> Impairment:
    """What is wrong with one direction from now on. Units: the scenario's Mbit/s, seconds, percent and packets."""
    changed = {
        "rate_bit_s": link.bw and link.bw * _MBIT,
        "delay_s": link.delay,
        "jitter_s": link.jitter,
        "loss": 1.0 if down else None if link.loss is None else link.loss / _PERCENT,
        "duplicate": None if link.duplicate is None else link.duplicate / _PERCENT,
        "reorder": None if link.reorder is None else link.reorder / _PERCENT,
        "queue_packets": link.max_queue_packets,
    }
    return replace(planned, **{key: value for key, value in changed.items() if value is not None})  # type: ignore[arg-type]


def _ended(process: subprocess.Popen[bytes], where: str) -> str:
    """What was wrong with a program; one that still runs with the workload over is ended, which is nothing wrong."""
    code = process.poll()
    if code is not None:
        return "" if code == 0 else f"ended with code {code}; {where}"
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_PATIENCE_S)
            break
    return ""
