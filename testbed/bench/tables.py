"""A benchmark's result as tables of words, for whatever page they are written on. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.bench.model import BASELINE, GROUPS, BenchResult, Measure

EACH_CELL = "each cell: median (least-most) · ratio of the median to that with no tunnel"
RATIOS = "Ratios of the medians (↑ more is better, ↓ less)"


@dataclass(frozen=True, slots=True)
class Table:
    """Shape: each line has a cell per column; the first column names the line. `heads` are two lines."""

    title: str
    heads: tuple[tuple[str, ...], tuple[str, ...]]
    rows: tuple[tuple[str, ...], ...]


def tables(result: BenchResult) -> Iterator[Table]:
    """One table per group that somebody was measured in, and then who is how much faster than whom."""
    for group, title in GROUPS.items():
        measures = list(result.measured(group))
        if measures:
            yield _figures(result, title, measures)
    if pairs := list(result.pairs()):
        yield _ratios(result, pairs)


def _figures(result: BenchResult, title: str, measures: list[Measure]) -> Table:
    rows = [(name, *(_cell(result, name, measure) for measure in measures)) for name in result.contenders]
    heads = (("", *(measure.title for measure in measures)), ("", *(measure.unit for measure in measures)))
    return Table(title, heads, tuple(row for row in rows if any(row[1:])))


def _ratios(result: BenchResult, pairs: list[tuple[str, str]]) -> Table:
    rows = []
    for group in GROUPS:
        for measure in result.measured(group):
            ratios = [result.ratio(name, measure.key, rival) for name, rival in pairs]
            label = f"{'↑' if measure.higher else '↓'} {measure.title}"
            rows.append((label, *("" if ratio is None else figure(ratio) for ratio in ratios)))
    heads = (("", *(name for name, _ in pairs)), ("", *(f"to {rival}" for _, rival in pairs)))
    return Table(RATIOS, heads, tuple(row for row in rows if any(row[1:])))


def how_measured(result: BenchResult) -> tuple[str, str]:
    """The machine with its programs, and how often and how long was measured on it."""
    machine = result.machine
    programs = ", ".join(f"{name} {version}" for name, version in machine["programs"].items())
    where = (
        f"{machine['cpu']}, {machine['cpus']} cores; Linux {machine['kernel']}; Python {machine['python']}; {programs}"
    )
    rounds = "1 round" if result.rounds == 1 else f"{result.rounds} interleaved rounds"
    how = f"{rounds}, {result.seconds} s a TCP measurement"
    return where, f"{how}; load of the machine at the end {machine['load'][0]}; {machine['measured_at']}"


def remarks(result: BenchResult) -> list[str]:
    """What is not in the tables, and why."""
    return [
        *(f"left out  {text}" for text in result.missing),
        *(f"failed    {text}" for text in result.problems),
        *(f"note      {text}" for text in result.notes),
    ]


def _cell(result: BenchResult, contender: str, measure: Measure) -> str:
    cell = result.cell(contender, measure.key)
    if cell is None:
        return ""
    spread = f" ({figure(cell.least)}-{figure(cell.most)})" if len(cell.values) > 1 else ""
    ratio = None if contender == BASELINE else result.ratio(contender, measure.key)
    return f"{figure(cell.median)}{spread}" + ("" if ratio is None else f" · {figure(ratio)}x")


def figure(value: float) -> str:
    """Three significant figures, without an exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or not value else f"{value:.2g}"
