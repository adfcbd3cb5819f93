"""What the steps of a lesson show: packets of the run's captures, opened once each, and the client's own state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from testbed.capture.reader import CaptureReader
from testbed.dissection.capture import CaptureDissector
from testbed.report.packets import PacketView
from testbed.result import ActionRecord, RunResult
from testbed.scenario.lesson_values import Condition, Show

MOST_FRAMES = 5_000
_MARGIN_S = 0.02  # an answer's last packets come when the action has its answer


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet of a capture. Shape: `file` is relative to the run directory; `frame` is 1-based."""

    file: str
    frame: int
    view: PacketView


@dataclass(slots=True)
class Exhibits:
    """Opens captures of one run's directory when they are first asked for."""

    result: RunResult
    directory: Path
    _opened: dict[str, list[Packet]] = field(default_factory=dict)

    def packets(self, where: Show | Condition) -> Iterator[Packet]:
        """The packets that are meant, in the order of the capture. Errors: OSError if the capture cannot be read."""
        variant = self.result.variants[where.variant]
        tap = next((tap for tap in variant.taps if tap.name == where.observer), None)
        if tap is None:
            return
        start, end = _window(variant.actions, where.action)
        for packet in self._all(tap.file):
            if not start <= packet.view.time < end:
                continue
            if where.protocol not in (None, packet.view.protocol):
                continue
            if where.has is None or any(where.has in text for text in _texts(packet.view)):
                yield packet

    def packet(self, show: Show) -> Packet | None:
        """The first packet that is meant, if there is one."""
        return next(self.packets(show), None)

    def interfaces(self, variant: str) -> tuple[dict[str, Any], ...]:
        return self.result.variants[variant].interfaces

    def routes(self, variant: str) -> tuple[dict[str, Any], ...]:
        return self.result.variants[variant].routes

    def _all(self, file: str) -> list[Packet]:
        if file not in self._opened:
            dissector = CaptureDissector()
            with CaptureReader(self.directory / file) as reader:
                self._opened[file] = [
                    Packet(file, frame.number, dissector.open(frame)) for frame in islice(reader, MOST_FRAMES)
                ]
        return self._opened[file]


def _window(actions: Sequence[ActionRecord], action: str | None) -> tuple[float, float]:
    """From when to when an action's packets come: with those right after its end, up to the next one's start."""
    for record, following in zip_longest(actions, actions[1:]):
        if record.id == action:
            return record.started_at, min(record.ended_at + _MARGIN_S, following.started_at if following else math.inf)
    return -math.inf, math.inf


def _texts(view: PacketView) -> Iterator[str]:
    yield view.summary
    for layer in view.layers:
        yield layer.name
        for label, value in layer.fields:
            yield f"{label}: {value}"
