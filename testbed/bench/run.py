"""Runs a benchmark: every contender once a round, in turn, each in a bubble of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from testbed.bench.contenders import Contender
from testbed.bench.keys import make_keys
from testbed.bench.machine import describe_machine
from testbed.bench.model import BenchResult, Samples
from testbed.bench.story import ContenderFailed, Round, measure_bad_links, measure_tunnel
from testbed.lab.bubble import Bubble
from testbed.tunnels.programs import find_program

IPERF = {"iperf3": "iperf3"}
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure. Shape: `groups` are keys of `model.GROUPS`. Units: `seconds` of each TCP measurement."""

    contenders: tuple[Contender, ...]
    groups: tuple[str, ...]
    rounds: int
    seconds: int


def missing_packages(contender: Contender) -> list[str]:
    """The packages of the programs that this contender needs and that are not here."""
    return sorted({package for program, package in contender.packages.items() if find_program(program) is None})


def bench(order: Order, progress: Progress) -> BenchResult:
    """Measure. What is not installed is left out and named; what fails in a round is named and measured no more.

    Errors: HostCannot, LabFailed if no lab can be built here
    """
    missing = {entry.name: missing_packages(entry) for entry in order.contenders}
    present = [entry for entry in order.contenders if not missing[entry.name]]
    samples, problems = Samples(), {}
    with tempfile.TemporaryDirectory(prefix="testbed-bench-") as folder:
        keys = make_keys({entry.keys for entry in present}, Path(folder))
        for number in range(order.rounds):
            for contender in present:
                if contender.name in problems:
                    continue
                progress(f"round {number + 1} of {order.rounds}: {contender.title}")
                round_ = Round(contender, keys, order.groups, order.seconds)
                figures, problem = _one(round_)
                samples.add(contender.name, figures)
                if problem:
                    problems[contender.name] = problem
    cells = samples.cells()
    return BenchResult(
        contenders=tuple(entry.name for entry in present if entry.name in cells),
        titles={entry.name: entry.title for entry in order.contenders},
        cells=cells,
        machine=describe_machine([*IPERF, *(program for entry in present for program in entry.packages)]),
        rounds=order.rounds,
        seconds=order.seconds,
        missing=tuple(
            f"{name}: not installed; sudo apt-get install {' '.join(packages)}"
            for name, packages in missing.items()
            if packages
        ),
        problems=tuple(f"{name}: {problem}" for name, problem in problems.items()),
    )


def _one(order: Round) -> tuple[dict[str, float], str]:
    """The figures of one round, and what went wrong in it."""
    figures: dict[str, float] = {}
    stories = [measure_tunnel] if {"tcp", "cost", "packets"} & set(order.groups) else []
    stories += [measure_bad_links] if "links" in order.groups else []
    for story in stories:
        with Bubble() as bubble:
            answer = bubble.run(partial(_told, story, order))
        if "problem" in answer:
            return figures, str(answer["problem"])
        figures |= answer
    return figures, ""


def _told(story: Callable[[Round], dict[str, float]], order: Round, _conductor: object) -> dict[str, Any]:
    """The story's figures; a contender's failure comes home as a value, for the others go on."""
    try:
        return dict(story(order))
    except (ContenderFailed, TimeoutError) as error:
        return {"problem": str(error)}
