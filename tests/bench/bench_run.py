"""The main job as a person meets it: `testbed run what-a-vpn-hides`, three variants and report, and `testbed --help`.

Beside the time on the clock: where it went, phase by phase, as the run's own result says. What is left of a variant is
the front's work: imports, the plan, reading the captures, the judgement and the reports.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.measured import Row, Table, interleaved, program_output
from tests.lab.two_nodes import ROOT

SCENARIO = "what-a-vpn-hides"


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 5
    arguments: tuple[str, ...] = ()


SMALL = Size(rounds=1, arguments=("--variant", "without"))


@dataclass(slots=True)
class _Phases:
    """Seconds by variant and phase, a list over the rounds."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, result: Path) -> None:
        for name, variant in json.loads(result.read_text())["variants"].items():
            for phase, seconds in variant["metrics"].items():
                self.seconds[f"{name}: {phase.removesuffix('_seconds')}"].append(seconds)


def measure(size: Size) -> list[Table]:
    phases = _Phases()

    def run() -> float:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            # A variant alone may fail an expectation about another one: exit code 1 is for people, not for a clock.
            seconds = _clocked("run", SCENARIO, "--out", str(out), *size.arguments, codes=(0, 1))
            phases.add(out / "result.json")
            return seconds

    measured = interleaved({f"testbed run {SCENARIO}": run, "testbed --help": lambda: _clocked("--help")}, size.rounds)
    whole = [Row(name, "s", tuple(values)) for name, values in measured.items()]
    parts = [Row(name, "s", tuple(values)) for name, values in phases.seconds.items()]
    return [Table("The main job", tuple(whole)), Table("The main job, by variant and phase", tuple(parts))]


def _clocked(*arguments: str, codes: tuple[int, ...] = (0,)) -> float:
    started_at = time.perf_counter()
    program_output(sys.executable, "-m", "testbed", *arguments, codes=codes, cwd=ROOT)
    return time.perf_counter() - started_at
