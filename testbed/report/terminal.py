"""The result on a terminal: a matrix that a class understands at a glance, and what stands behind it.

Order: the answer in one sentence; per observer (the ISP first) one row per fact and one column per variant; per
variant what the client's kernel says (interfaces, routes, egress per site), the tunnel and the taps; expectations with
reasons; leaks; the verdict and where the HTML report is.

Every cell says its verdict by word, symbol and colour, so that none is needed. Everything is built from
`rich.text.Text`, never from markup, and every string of the result passes `visible` or `shorten`: captured text can
neither style nor steer. Works from 60 columns up and in a pipe; more variants than fit side by side continue in a
second table.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from testbed.report import terminal_details as details
from testbed.report.matrix import Group as FactGroup
from testbed.report.matrix import ObserverTable, Row, observer_tables
from testbed.report.summary import answer, verdict_line
from testbed.report.terminal_details import Style, heading, shown
from testbed.report.text import ELLIPSIS, shorten
from testbed.report.words import NOT_DONE, kind_in_words, mark_of, observer_in_words
from testbed.result import Exposure, RunResult, Verdict

_CELL_COLUMNS = 12
_FACT_COLUMNS_LEAST = 34
_VALUE_COLUMN_FROM = 112
_STYLES = {Verdict.SEEN: "bold red", Verdict.HIDDEN: "cyan", Verdict.UNPROVEN: "yellow"}


def render_terminal(result: RunResult, console: Console, *, html_path: str | None = None) -> None:
    """Prints the whole result to the console, whose width, colours and encoding decide the form."""
    style = Style(ascii_only=not console.encoding.lower().startswith("utf"), width=console.width)
    with console.capture() if style.ascii_only else nullcontext() as capture:
        for part in _parts(result, style, html_path):
            console.print(part, highlight=False, soft_wrap=False, markup=False, emoji=False)
    if capture is not None:
        console.file.write(_encodable(capture.get(), console.encoding))


def _encodable(text: str, encoding: str) -> str:
    """What an old terminal can show of the text: other characters are spelled out rather than fail the whole report."""
    return text.replace(ELLIPSIS, "~").encode(encoding, "backslashreplace").decode(encoding)


def _parts(result: RunResult, style: Style, html_path: str | None) -> Iterator[RenderableType]:
    yield from _opening(result, style)
    for table in observer_tables(result):
        yield from _matrix(table, style)
    for variant in result.variants.values():
        yield details.variant_block(variant, style)
    yield from details.expectations(result, style)
    yield from details.leaks(result, style)
    yield from details.warnings(result, style)
    yield _closing(result, style, html_path)


def _opening(result: RunResult, style: Style) -> Iterator[RenderableType]:
    said = answer(result)
    title = str(result.scenario.get("title") or result.scenario.get("name") or "")
    yield Text()
    yield shown(title, "dim")
    yield shown(said.sentence, "bold")
    for note in said.notes:
        yield shown(note, "dim")


def _matrix(table: ObserverTable, style: Style) -> Iterator[RenderableType]:
    yield heading(f"{observer_in_words(table.observer)}", f"observer {table.observer}", style)
    columns = max(1, (style.width - _FACT_COLUMNS_LEAST) // _CELL_COLUMNS)
    for first in range(0, len(table.variants), columns):
        yield _matrix_part(table, range(first, min(first + columns, len(table.variants))), style)


def _matrix_part(table: ObserverTable, columns: range, style: Style) -> RenderableType:
    rule = box.ASCII_DOUBLE_HEAD if style.ascii_only else box.SIMPLE_HEAD
    drawn = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    with_values = style.width >= _VALUE_COLUMN_FROM
    fact_columns = style.width - _CELL_COLUMNS * len(columns) - (style.width // 3 if with_values else 0) - 2
    drawn.add_column("", no_wrap=True, width=fact_columns)
    if with_values:
        drawn.add_column("", no_wrap=True, ratio=1, style="dim")
    for column in columns:
        drawn.add_column(shown(shorten(table.variants[column], _CELL_COLUMNS - 1), "bold"), width=_CELL_COLUMNS - 1)
    for group in table.groups:
        _add_group(drawn, table, group, columns, with_values, fact_columns, style)
    drawn.add_section()
    drawn.add_row(*_totals(table, columns, with_values))
    return Padding(drawn, (0, 0, 0, 1), expand=False)


def _add_group(
    drawn: Table,
    table: ObserverTable,
    group: FactGroup,
    columns: range,
    with_values: bool,
    fact_columns: int,
    style: Style,
) -> None:
    failed = [
        Text("failed" if style.ascii_only else "✗ failed", "yellow")
        if table.variants[column] in group.failed
        else Text()
        for column in columns
    ]
    drawn.add_row(shown(shorten(group.headline, fact_columns), "bold"), *([Text()] if with_values else []), *failed)
    kinds = [row.kind for row in group.rows]
    for row in group.rows:
        ambiguous = kinds.count(row.kind) > 1
        label = _fact(row, fact_columns, with_value=ambiguous and not with_values)
        values = [shown(row.value)] if with_values else []
        drawn.add_row(label, *values, *(_cell(row.cells[column], style) for column in columns))


def _fact(row: Row, columns: int, *, with_value: bool) -> Text:
    words, term = kind_in_words(row.kind), f"[{row.kind}]"
    text = Text.assemble("  ", shown(words), " ", (term, "dim"))
    if with_value:
        text.append(" ")
        text.append(shorten(row.value, max(0, columns - text.cell_len)))
    return text


def _cell(exposure: Exposure | None, style: Style) -> Text:
    if exposure is None:
        return Text("-" if style.ascii_only else f"{NOT_DONE.word}", "dim")
    mark = mark_of(exposure.verdict)
    return Text(f"{mark.ascii_symbol if style.ascii_only else mark.symbol} {mark.word}", _STYLES[exposure.verdict])


def _totals(table: ObserverTable, columns: Iterable[int], with_values: bool) -> Sequence[Text]:
    shares = [Text(f"{table.counts[column].seen} of {table.counts[column].total}", "bold") for column in columns]
    return [Text("seen, of what the client did", "dim"), *([Text()] if with_values else []), *shares]


def _closing(result: RunResult, style: Style, html_path: str | None) -> RenderableType:
    word = ("PASS", "bold green") if result.ok else ("FAIL", "bold red")
    symbol = "" if style.ascii_only else ("✓ " if result.ok else "✗ ")
    lines = [Text(), Text.assemble((symbol, word[1]), word, "  ", shown(verdict_line(result)))]
    if html_path is not None:
        lines.append(Text.assemble(("Report: ", "dim"), shown(html_path)))
    return Group(*lines)
