"""The result on a terminal: a matrix that a class understands at a glance, and what stands behind it.

Order: the answer in one sentence; what the first observer (the ISP) saw, one line per distinct fact and one column per
variant; what the other observers saw, shorter; which way the kernel sends each site's traffic; per variant what cannot
stand in a column; expectations that fail, leaks, warnings; the verdict and where the HTML report is. Facts are folded
(see `fold`): every single one, with its packets, is in the HTML report and in result.json.

Every cell says its verdict by word, symbol and colour, so that none is needed. Everything is built from
`rich.text.Text`, never from markup, and every string of the result passes `visible` or `shorten`: captured text can
neither style nor steer. Works from 60 columns up and in a pipe; more variants than fit side by side continue in a
second table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import PurePath

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from testbed.facts import Kind
from testbed.report import terminal_details as details
from testbed.report.fold import FoldedCell, FoldedGroup, FoldedRow, FoldedTable, Total, folded_tables, value_of
from testbed.report.matrix import Counts
from testbed.report.summary import answer, verdict_line, verdict_word
from testbed.report.terminal_details import Style, heading, shown
from testbed.report.text import ELLIPSIS, cell_width, shorten, visible
from testbed.report.words import NOT_DONE, PARTLY, mark_of, observer_in_words, share_in_words
from testbed.result import RunResult, Verdict

_CELL_COLUMNS = 12
_FACT_COLUMNS_LEAST = 34
_VALUE_COLUMNS_LEAST = 8
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
    tables = folded_tables(result)
    yield from _opening(result, style)
    for table in tables[:1]:
        yield heading(observer_in_words(table.observer), f"observer {table.observer}", style)
        yield from _drawn(table.variants, table.groups, style, table.totals)
    if len(tables) > 1:
        yield heading("The other observers", "the servers by their own records", style)
        yield from _drawn(tables[0].variants, [_as_group(table) for table in tables[1:]], style, [])
    yield from details.egress(result, style, _slices(list(result.variants), style))
    yield from details.variants(result, style)
    yield from details.failing_expectations(result, style)
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


def _as_group(table: FoldedTable) -> FoldedGroup:
    """A whole table under its observer's name: what a server saw is few lines."""
    failed = frozenset(name for group in table.groups for name in group.failed)
    rows = tuple(row for group in table.groups for row in group.rows)
    return FoldedGroup(observer_in_words(table.observer), failed, rows)


def _slices(variants: Sequence[str], style: Style) -> list[range]:
    """The variants that stand side by side, table by table."""
    columns = max(1, (style.width - _FACT_COLUMNS_LEAST) // _CELL_COLUMNS)
    return [range(at, min(at + columns, len(variants))) for at in range(0, len(variants), columns)]


def _drawn(
    variants: Sequence[str], groups: Sequence[FoldedGroup], style: Style, totals: Sequence[Total]
) -> Iterator[RenderableType]:
    for columns in _slices(variants, style):
        fact_columns = min(details.FIRST_COLUMNS_MOST, style.width - _CELL_COLUMNS * len(columns) - 2)
        drawn = details.columns_table([variants[column] for column in columns], fact_columns, _CELL_COLUMNS, style)
        for group in groups:
            failed = [_failed(variants[column] in group.failed, style) for column in columns]
            drawn.add_row(shown(shorten(group.headline, fact_columns), "bold"), *failed)
            for row in group.rows:
                drawn.add_row(
                    _fact(group.headline, row, fact_columns), *(_cell(row.cells[column], style) for column in columns)
                )
        if totals:
            drawn.add_section()
            for total in totals:
                drawn.add_row(Text(total.words, "dim"), *(_total(total.counts[column], style) for column in columns))
        yield Padding(drawn, (0, 0, 0, 1), expand=False)
    if any(cell is not None and cell.mixed for group in groups for row in group.rows for cell in row.cells):
        symbol = PARTLY.ascii_symbol if style.ascii_only else PARTLY.symbol
        yield Padding(Text(f"{symbol} some were seen, the others not; the HTML report lists them", "dim"), (0, 0, 0, 1))


def _failed(failed: bool, style: Style) -> Text:
    return Text("failed" if style.ascii_only else "✗ failed", "yellow") if failed else Text()


def _fact(headline: str, row: FoldedRow, columns: int) -> Text:
    """What it is, the contract's name where there is one and room for it, and the value where it tells more."""
    text = Text("  ").append_text(shown(row.words))
    parts = [value_of(row, headline), f"[{row.kinds[0]}]" if len(row.kinds) == 1 else ""]
    if row.kinds != (Kind.CLIENT_ADDRESS,):  # which of the client's addresses is what tells its lines apart
        parts.reverse()
    for part in filter(None, parts):
        room = columns - text.cell_len - 1
        whole = cell_width(visible(part)) <= room
        if whole or (room >= _VALUE_COLUMNS_LEAST and not part.startswith("[")):
            text.append(" ").append(shorten(part, room), "dim")
    return text


def _cell(cell: FoldedCell | None, style: Style) -> Text:
    if cell is None:
        return Text("-" if style.ascii_only else NOT_DONE.word, "dim")
    if cell.mixed:
        symbol = PARTLY.ascii_symbol if style.ascii_only else PARTLY.symbol
        return Text(f"{symbol} {share_in_words(cell.seen, cell.total)}", _STYLES[Verdict.SEEN])
    mark = mark_of(cell.verdict)
    return Text(f"{mark.ascii_symbol if style.ascii_only else mark.symbol} {mark.word}", _STYLES[cell.verdict])


def _total(counts: Counts | None, style: Style) -> Text:
    if counts is None:
        return Text("-" if style.ascii_only else NOT_DONE.word, "dim")
    return Text(share_in_words(counts.seen, counts.total), "bold")


def _closing(result: RunResult, style: Style, html_path: str | None) -> RenderableType:
    word = verdict_word(result)
    symbol, look = {"PASS": ("✓ ", "bold green"), "FAIL": ("✗ ", "bold red")}.get(word, ("", "bold yellow"))
    mark = "" if style.ascii_only else symbol
    lines = [Text(), Text.assemble((mark, look), (word, look), "  ", shown(verdict_line(result)))]
    if html_path is not None:
        lines.append(Text.assemble(("Report: ", "dim"), shown(html_path)))
    if result.captures:
        files = ", ".join(str(capture.get("file")) for capture in result.captures)
        where = f", in {PurePath(html_path).parent}" if html_path is not None else ""
        lines.append(Text.assemble(("For Wireshark", "dim"), shown(where, "dim"), ": ", shown(files)))
    return Group(*lines)
