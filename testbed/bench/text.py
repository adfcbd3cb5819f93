"""A benchmark's result as text: one table per group, medians with their spread and the ratio to no tunnel. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from testbed.bench.model import BASELINE, GROUPS, BenchResult, Measure
from testbed.report.text import visible

_GAP = "  "
_WIDE = 100


def bench_text(result: BenchResult, width: int = _WIDE) -> str:
    """The whole result in lines of `width`, for a terminal or a Markdown page (inside a code block)."""
    machine = result.machine
    programs = ", ".join(f"{name} {version}" for name, version in machine["programs"].items())
    python = f"Python {machine['python']}"
    lines = [
        *_folded(f"{machine['cpu']}, {machine['cpus']} cores; Linux {machine['kernel']}; {python}; {programs}", width),
        *_folded(_measured_how(result), width),
        *_folded("each cell: median (least-most) · ratio of the median to that with no tunnel", width),
        "",
        *(f"{name:<16}{result.titles[name]}" for name in result.contenders),
    ]
    for group in GROUPS:
        lines += _table(result, group, width)
    lines += [""] * bool(result.missing or result.problems)
    lines += [f"left out  {text}" for text in result.missing]
    lines += [f"failed    {text}" for text in result.problems]
    return "".join(f"{visible(line)}\n" for line in lines)


def _measured_how(result: BenchResult) -> str:
    load = result.machine["load"][0]
    rounds = "1 round" if result.rounds == 1 else f"{result.rounds} interleaved rounds"
    how = f"{rounds}, {result.seconds} s a TCP measurement"
    return f"{how}; load of the machine at the end {load}; {result.machine['measured_at']}"


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _table(result: BenchResult, group: str, width: int) -> list[str]:
    measures = list(result.measured(group))
    if not measures:
        return []
    head = ["", *(measure.title for measure in measures)]
    units = ["", *(measure.unit for measure in measures)]
    rows = [[name, *(_cell(result, name, measure) for measure in measures)] for name in result.contenders]
    lines = [head, units, *(row for row in rows if any(row[1:]))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    told = ["", GROUPS[group]]
    for part in _parts(widths, width):
        told += [""] * (len(told) > 2)  # a table that is too wide goes on below
        told += [_GAP.join(line[column].ljust(widths[column]) for column in (0, *part)).rstrip() for line in lines]
    return told


def _parts(widths: Sequence[int], width: int) -> list[list[int]]:
    """Which columns stand side by side, so that with the first one none goes beyond the width."""
    parts: list[list[int]] = [[]]
    taken = widths[0]
    for column, needed in enumerate(widths[1:], start=1):
        if parts[-1] and taken + len(_GAP) + needed > width:
            parts.append([])
            taken = widths[0]
        parts[-1].append(column)
        taken += len(_GAP) + needed
    return parts


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
    return f"{value:.3g}"
