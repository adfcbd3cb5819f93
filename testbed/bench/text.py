"""A benchmark's result as text for a terminal and as Markdown for a page, from the same tables. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from testbed.bench.model import BenchResult
from testbed.bench.tables import EACH_CELL, Table, how_measured, remarks, tables
from testbed.report.text import visible

_GAP = "  "
_WIDE = 100


def bench_text(result: BenchResult, width: int = _WIDE) -> str:
    """The whole result in lines of `width`; a table that is wider goes on below."""
    lines = [line for words in (*how_measured(result), EACH_CELL) for line in _folded(words, width)]
    lines += ["", *(f"{name:<16}{result.titles[name]}" for name in result.contenders)]
    for table in tables(result):
        lines += _table(table, width)
    told = remarks(result)
    lines += [""] * bool(told) + told
    return "".join(f"{visible(line)}\n" for line in lines)


def bench_markdown(result: BenchResult) -> str:
    """The same as a piece of a Markdown page."""
    where, how = how_measured(result)
    lines = [f"{where}.", f"{how}. {EACH_CELL[0].upper()}{EACH_CELL[1:]}.", ""]
    lines += [f"- `{name}`: {result.titles[name]}" for name in result.contenders]
    for table in tables(result):
        names = (" ".join(filter(None, pair)) for pair in zip(*_with_units(table), strict=True))
        lines += ["", f"**{table.title}**", "", _markdown_row(tuple(names)), "|---" * len(table.heads[0]) + "|"]
        lines += [_markdown_row(row) for row in table.rows]
    told = remarks(result)
    lines += ([""] if told else []) + [f"- {' '.join(text.split())}" for text in told]
    return "".join(f"{visible(line)}\n" for line in lines)


def _with_units(table: Table) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The heads of a page's table: there is one line for both, so a unit takes brackets."""
    names, units = table.heads
    return names, tuple(unit if unit.startswith("to ") or not unit else f"({unit})" for unit in units)


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _folded(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _table(table: Table, width: int) -> list[str]:
    lines = [*table.heads, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.heads[0]))]
    told = ["", table.title]
    for part in _parts(widths, width):
        told += [""] * (len(told) > 2)  # a table that is too wide goes on below
        shown = [line for line in lines if line in table.heads or any(line[column] for column in part)]
        told += [_GAP.join(line[column].ljust(widths[column]) for column in (0, *part)).rstrip() for line in shown]
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
