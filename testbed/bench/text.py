"""A benchmark's result as text: one table per group, medians with their spread and the ratio to no tunnel. Pure."""

from __future__ import annotations

from testbed.bench.model import BASELINE, GROUPS, BenchResult, Measure
from testbed.report.text import visible

_GAP = "  "


def bench_text(result: BenchResult) -> str:
    """The whole result, as a terminal of 100 columns and a Markdown page (inside a code block) can show it."""
    machine = result.machine
    programs = ", ".join(f"{name} {version}" for name, version in machine["programs"].items())
    lines = [
        f"{machine['cpu']}, {machine['cpus']} cores; Linux {machine['kernel']}; Python {machine['python']}; {programs}",
        _measured_how(result),
        "each cell: median (least-most), and its ratio to no tunnel where there is one",
        "",
        *(f"{name:<16}{result.titles[name]}" for name in result.contenders),
    ]
    for group in GROUPS:
        lines += _table(result, group)
    lines += [""] * bool(result.missing or result.problems)
    lines += [f"left out  {text}" for text in result.missing]
    lines += [f"failed    {text}" for text in result.problems]
    return "".join(f"{visible(line)}\n" for line in lines)


def _measured_how(result: BenchResult) -> str:
    load = result.machine["load"][0]
    how = f"{result.rounds} interleaved rounds, {result.seconds} s a TCP measurement"
    return f"{how}; load of the machine at the end {load}; {result.machine['measured_at']}"


def _table(result: BenchResult, group: str) -> list[str]:
    measures = list(result.measured(group))
    if not measures:
        return []
    head = ["", *(measure.title for measure in measures)]
    units = ["", *(measure.unit for measure in measures)]
    rows = [[name, *(_cell(result, name, measure) for measure in measures)] for name in result.contenders]
    lines = [head, units, *(row for row in rows if any(row[1:]))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    told = [_GAP.join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    return ["", GROUPS[group], *(line.rstrip() for line in told)]


def _cell(result: BenchResult, contender: str, measure: Measure) -> str:
    cell = result.cell(contender, measure.key)
    if cell is None:
        return ""
    spread = f" ({figure(cell.least)}-{figure(cell.most)})" if len(cell.values) > 1 else ""
    ratio = None if contender == BASELINE else result.ratio(contender, measure.key)
    return f"{figure(cell.median)}{spread}" + ("" if ratio is None else f" {figure(ratio)}x")


def figure(value: float) -> str:
    """Three significant figures, without an exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
