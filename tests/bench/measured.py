"""What every benchmark shares: interleaved repetitions, a table of medians and ratios, and a JSON file.

A benchmark compares contestants. One round runs each of them once, in turn, so that whatever else the machine does
meets them all; the figures that count are therefore ratios of medians within one run, never times across runs.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Contestant = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant's measurements. Shape: `ratio_to` names the row that `ratio` compares with."""

    name: str
    unit: str
    values: tuple[float, ...]
    ratio_to: str = ""
    ratio: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    rows: tuple[Row, ...]


def interleaved(contestants: Mapping[str, Contestant], rounds: int) -> dict[str, list[float]]:
    """Run every contestant once per round, in turn; return what each measured."""
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            measured[name].append(contestant())
    return measured


def compared(measured: Mapping[str, Sequence[float]], unit: str, base: str, notes: Mapping[str, str]) -> list[Row]:
    """Return a row per contestant, each but `base` with the ratio of its median to that of `base`."""
    middle = statistics.median(measured[base])
    rows = []
    for name, values in measured.items():
        ratio = None if name == base or not middle else statistics.median(values) / middle
        rows.append(Row(name, unit, tuple(values), "" if name == base else base, ratio, notes.get(name, "")))
    return rows


def render(table: Table) -> str:
    """Return the table as Markdown: median, smallest and largest, ratio."""
    lines = [f"### {table.title}", "", "| what | median | min – max | ratio | note |", "|---|---|---|---|---|"]
    for row in table.rows:
        span = f"{_figure(min(row.values))} – {_figure(max(row.values))}"
        ratio = "" if row.ratio is None else f"{_figure(row.ratio)} × {row.ratio_to}"
        lines.append(f"| {row.name} | {_figure(row.median)} {row.unit} | {span} | {ratio} | {row.note} |")
    return "\n".join(lines) + "\n"


def to_json(tables: Sequence[Table]) -> str:
    """Return the tables with the machine they were measured on."""
    written = [
        {
            "title": table.title,
            "rows": [
                {
                    "name": row.name,
                    "unit": row.unit,
                    "median": row.median,
                    "values": list(row.values),
                    "ratio_to": row.ratio_to,
                    "ratio": row.ratio,
                    "note": row.note,
                }
                for row in table.rows
            ],
        }
        for table in tables
    ]
    return json.dumps({"machine": machine(), "tables": written}, indent=2) + "\n"


def machine() -> dict[str, Any]:
    """Return what the figures depend on, the load by others included."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": list(os.getloadavg()),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def program_output(*argv: str, codes: Sequence[int] = (0,), **options: Any) -> str:
    """Return what a program prints. Errors: RuntimeError with its own words if its exit code is not in `codes`."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, **options)
    if done.returncode not in codes:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:]}")
    return str(done.stdout)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _figure(value: float) -> str:
    """Three significant figures, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
