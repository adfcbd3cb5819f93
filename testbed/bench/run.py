"""Runs a benchmark: every contender once a round, in turn, each in a bubble of its own."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from testbed.bench.contenders import Contender
from testbed.bench.forecast import Forecast, in_words
from testbed.bench.keys import make_keys
from testbed.bench.machine import describe_machine
from testbed.bench.model import BASELINE, GROUP_OF, BenchResult, Samples
from testbed.bench.stage import Round
from testbed.bench.story import expected_seconds, longest_seconds, played, stories
from testbed.lab.bubble import Bubble
from testbed.lab.errors import LabFailed
from testbed.tunnels.programs import find_program

IPERF = {"iperf3": "iperf3"}
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure. Shape: `groups` are keys of `model.GROUPS`. Units: `seconds` of each TCP measurement;
    `limit_s` is when no further contender is begun, if it is expected to be done later than that."""

    contenders: tuple[Contender, ...]
    groups: tuple[str, ...]
    rounds: int
    seconds: int
    limit_s: float | None = None


def missing_packages(contender: Contender) -> list[str]:
    """The packages of the programs that this contender needs and that are not here."""
    return sorted({package for program, package in contender.packages.items() if find_program(program) is None})


def bench(order: Order, progress: Progress) -> BenchResult:
    """Measure. What is not installed is left out and named; what fails is named, and the others are measured.

    Errors: HostCannot, LabFailed if no lab can be built here
    """
    missing = {entry.name: missing_packages(entry) for entry in order.contenders}
    present = [entry for entry in order.contenders if not missing[entry.name]]
    with tempfile.TemporaryDirectory(prefix="testbed-bench-") as folder:
        keys = make_keys({entry.keys for entry in present}, Path(folder))
        turns = _Turns(order, [Round(entry, keys, order.groups, order.seconds) for entry in present])
        turns.take(progress)
    cells = turns.samples.cells()
    return BenchResult(
        contenders=tuple(entry.name for entry in present if entry.name in cells),
        titles={entry.name: entry.title for entry in order.contenders},
        cells=cells,
        machine=describe_machine([*IPERF, *(program for entry in present for program in entry.packages)]),
        rounds=order.rounds,
        seconds=order.seconds,
        rivals={entry.name: entry.rivals for entry in present},
        missing=tuple(
            f"{name}: not installed; sudo apt-get install {' '.join(packages)}"
            for name, packages in missing.items()
            if packages
        ),
        problems=tuple(turns.problems),
        notes=tuple(turns.notes),
    )


class _Turns:
    """All contenders, one after the other, as often as there are rounds."""

    def __init__(self, order: Order, entries: list[Round]) -> None:
        self._order, self._entries = order, entries
        self._stories = stories(order.groups)
        self._forecast = Forecast(
            {entry.contender.name: self._sum(expected_seconds, entry) for entry in entries},
            {entry.contender.name: self._sum(longest_seconds, entry) for entry in entries},
            order.rounds,
        )
        self.samples = Samples()
        self.problems: list[str] = []
        self.notes: list[str] = []

    def _sum(self, seconds: Callable[[Any, Round], float], entry: Round) -> float:
        return sum(seconds(story, entry) for story in self._stories)

    def take(self, progress: Progress) -> None:
        began, forecast = time.monotonic(), self._forecast
        progress(
            f"{len(self._entries)} contenders, {_counted(self._order.rounds, 'round')}: about "
            f"{in_words(forecast.remaining())}, never more than {in_words(forecast.longest_at_all())}"
        )
        for number in range(1, self._order.rounds + 1):
            for entry in self._entries:
                name = entry.contender.name
                if name in forecast.given_up:
                    continue
                expected = time.monotonic() - began + forecast.next_one(name)
                if self._order.limit_s is not None and expected > self._order.limit_s:
                    self.notes.append(
                        f"the time given was over in round {number} of {self._order.rounds}, before {name}"
                    )
                    return
                all_rounds = len(self._entries) * self._order.rounds
                progress(
                    f"[{forecast.done() + 1}/{all_rounds}] round {number} of {self._order.rounds}: "
                    f"{entry.contender.title} · {in_words(forecast.remaining())} left"
                )
                self._one(entry, number, progress)

    def _one(self, entry: Round, number: int, progress: Progress) -> None:
        name, began = entry.contender.name, time.monotonic()
        again = True
        for story in self._stories:
            told = _played(story, entry)
            wanted = self._order.groups  # one measurement can serve two groups
            self.samples.add(name, {key: value for key, value in told["figures"].items() if GROUP_OF[key] in wanted})
            for problem in told["problems"]:
                self.problems.append(f"{name}, round {number}: {problem}")
                progress(f"  failed: {problem}")
            if told["fatal"]:
                again = False
                break
        self._forecast.note(name, time.monotonic() - began, again=again)


def _played(story: Any, entry: Round) -> dict[str, Any]:
    """What a story came to. A lab that cannot even carry plain packets is no contender's fault and ends the run."""
    with Bubble() as bubble:
        try:
            return dict(bubble.run(partial(played, story, entry, longest_seconds(story, entry))))
        except LabFailed as error:
            if entry.contender.name == BASELINE:
                raise
            return {"figures": {}, "problems": [f"its lab failed: {error}"], "fatal": True}


def _counted(count: int, noun: str) -> str:
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"
