"""The parts of the terminal report below the matrix: ways, variants, failing expectations, leaks, warnings.

Long lines are cut at the console's width, except reasons, which wrap: a reason cut short explains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from testbed.facts import Kind
from testbed.report.correlated import both_sides_in_words
from testbed.report.inside import inside_in_words
from testbed.report.later_ways import later_in_words
from testbed.report.own_addresses import is_tunnel_interface
from testbed.report.summary import distinct_leaks
from testbed.report.text import octets_in_words, plain_value, shorten, visible
from testbed.report.words import action_in_words, kind_in_words
from testbed.result import ActionRecord, Evidence, ExpectationResult, RunResult, TapRecord, VariantResult

FIRST_COLUMNS_MOST = 68  # of a wide terminal: further away, an eye loses the line between a fact and its verdict
_LABEL_COLUMNS = 10
_LONGEST_VALUE = 400  # columns of one captured value; longer ones are in result.json
_EVIDENCE_SHOWN = 3
_PLAIN_SETTINGS = ("mode", "transport", "cipher", "control")
_LOCAL = ("fe80:", "ff02:", "127.", "::1/")


@dataclass(frozen=True, slots=True)
class Style:
    """What the console can show."""

    ascii_only: bool
    width: int

    def sign(self, good: bool) -> Text:
        words = ("ok", "NO") if self.ascii_only else ("✓", "✗")
        return Text(words[0], "green") if good else Text(words[1], "bold red")


def shown(value: object, style: str = "") -> Text:
    """A string of the result as text that has no markup and no control characters."""
    return Text(shorten(str(value), _LONGEST_VALUE), style)


def heading(words: str, term: str, style: Style) -> RenderableType:
    line = Text.assemble((visible(words), "bold underline"), "  ", (f"[{visible(term)}]", "dim"))
    line.truncate(style.width)
    return Group(Text(), line)


def columns_table(names: Sequence[str], first_columns: int, cell_columns: int, style: Style) -> Table:
    """An empty table with a column for what a line is about and one per variant."""
    rule = box.ASCII_DOUBLE_HEAD if style.ascii_only else box.SIMPLE_HEAD
    drawn = Table(box=rule, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    drawn.add_column("", no_wrap=True, width=first_columns)
    for name in names:
        drawn.add_column(shown(shorten(name, cell_columns - 1), "bold"), width=cell_columns - 1)
    return drawn


# -- which way ---------------------------------------------------------------------------------------------------------


def egress(result: RunResult, style: Style, slices: Sequence[range]) -> Iterator[RenderableType]:
    """Which way each site's traffic takes, side by side; addresses of a site share a line where all ways agree."""
    variants = list(result.variants.values())
    rows = _egress_rows(variants, style)
    if not rows:
        return
    yield heading("Which way to each site", "as the client's kernel answers", style)
    for columns in slices:
        first = min(FIRST_COLUMNS_MOST, style.width - 12 * len(columns) - 2)
        drawn = columns_table([variants[column].name for column in columns], first, 12, style)
        for label, cells in rows:
            drawn.add_row(shown(shorten(label, first)), *(cells[column] for column in columns))
        yield Padding(drawn, (0, 0, 0, 1), expand=False)


def _egress_rows(variants: Sequence[VariantResult], style: Style) -> list[tuple[str, list[Text]]]:
    ends = dict.fromkeys((str(row.get("site")), str(row.get("address"))) for v in variants for row in v.egress)
    by_ways: dict[tuple[str, tuple[str, ...]], tuple[list[str], list[Text]]] = {}
    for site, address in ends:
        cells = [_way_cell(variant, site, address, style) for variant in variants]
        key = site, tuple(cell.plain for cell in cells)
        by_ways.setdefault(key, ([], cells))[0].append(address)
    return [(f"{site} ({', '.join(addresses)})", cells) for (site, _), (addresses, cells) in by_ways.items()]


def _way_cell(variant: VariantResult, site: str, address: str, style: Style) -> Text:
    row = next((r for r in variant.egress if (str(r.get("site")), str(r.get("address"))) == (site, address)), None)
    if row is None:
        return Text("-" if style.ascii_only else "—", "dim")
    if row.get("error"):
        return Text("no way" if style.ascii_only else "✗ no way", "yellow")
    if is_tunnel_interface(variant, row.get("interface")):
        return Text("tunnel" if style.ascii_only else "⇒ tunnel", "cyan")
    return Text("direct" if style.ascii_only else "→ direct", "bold red" if variant.tunnel else "")


# -- per variant -------------------------------------------------------------------------------------------------------


def variants(result: RunResult, style: Style) -> Iterator[RenderableType]:
    """Per variant what does not fit in a column: the tunnel, addresses and routes, the taps, what went wrong."""
    if not result.variants:
        return
    yield heading("The variants", "variant", style)
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="bold", no_wrap=True, max_width=max(8, style.width // 5))
    rows.add_column(style="dim", no_wrap=True, min_width=_LABEL_COLUMNS)
    rows.add_column(overflow="fold")
    for variant in result.variants.values():
        name = shown(shorten(variant.name, max(8, style.width // 5)))
        for label, line in _variant_lines(variant, style):
            rows.add_row(name, label, line)
            name = Text()
    yield Padding(rows, (0, 0, 0, 1), expand=False)


def _variant_lines(variant: VariantResult, style: Style) -> Iterator[tuple[str, Text]]:
    for action in variant.actions:
        if not action.ok:
            yield "failed", _failed(action)
    yield "tunnel", _tunnel(variant)
    for event in variant.events:
        yield "event", _event(event)
    for row in variant.exposure:
        if row.fact.kind == Kind.TUNNEL:
            yield "recognised", Text.assemble(shown(row.observer, "dim"), f" {row.verdict}: ", shown(row.fact.value))
    yield "addresses", _addresses(variant)
    yield "routes", _routes(variant, style)
    if changed := later_in_words(variant):
        yield "at the end", shown(changed, "bold red" if variant.tunnel else "")
    for tap in variant.taps:
        yield "capture", _tap(tap)
    for sentence in both_sides_in_words(variant.correlations):
        yield "both sides", shown(sentence)
    if variant.ground_truth:
        yield "inside", shown(inside_in_words(variant.ground_truth))


def _tunnel(variant: VariantResult) -> Text:
    """The settings, those that say what they are without their names."""
    if variant.tunnel is None:
        return Text("none", "dim")
    ends = dict.fromkeys(str(variant.tunnel[end]) for end in ("client", "server", "program") if end in variant.tunnel)
    words = [" to ".join(ends)] if ends else []
    words += [plain_value(variant.tunnel[name]) for name in _PLAIN_SETTINGS if name in variant.tunnel]
    words += [f"{name} {plain_value(variant.tunnel[name])}" for name in ("routes", "dns") if name in variant.tunnel]
    ready = variant.tunnel.get("client_ready_seconds")
    if isinstance(ready, (int, float)):
        words.append(f"up in {ready:.2f} s")
    return shown(", ".join(words) or plain_value(variant.tunnel))


def _event(event: Mapping[str, Any]) -> Text:
    """What the timeline did, and when it really happened."""
    after = event.get("after")
    when = f"after {after:.2f} s" if isinstance(after, (int, float)) else "never"
    words = shown(f"{when}: {event.get('words', '?')}")
    return words if event.get("ok") else words.append_text(shown(f": {event.get('error') or 'failed'}", "yellow"))


def _addresses(variant: VariantResult) -> Text:
    """The interfaces with addresses that mean something outside the machine."""
    parts = []
    for row in variant.interfaces:
        listed = row.get("addresses") or ()
        far = [str(address).partition("/")[0] for address in listed if not str(address).startswith(_LOCAL)]
        if far:
            parts.append(f"{row.get('name', '?')} {', '.join(far)}")
    return shown("; ".join(parts)) if parts else Text("none", "dim")


def _routes(variant: VariantResult, style: Style) -> Text:
    """Destinations by interface, those of the tunnel first; on-link ones of an interface's own network left out."""
    by_way: dict[str, list[str]] = {}
    for row in variant.routes:
        if str(row.get("destination", "?")).startswith(_LOCAL):
            continue
        by_way.setdefault(str(row.get("interface") or "?"), []).append(str(row.get("destination", "?")))
    ways = sorted(by_way, key=lambda name: not is_tunnel_interface(variant, name))
    text = Text()
    for name in ways:
        text.append("; " if text else "")
        inside = is_tunnel_interface(variant, name)
        text.append_text(shown(name, "bold cyan" if inside else "bold")).append(" (tunnel) " if inside else " ")
        text.append("<- " if style.ascii_only else "← ").append_text(shown(", ".join(by_way[name])))
    return text or Text("none", "dim")


def _tap(tap: TapRecord) -> Text:
    text = shown(f"{tap.file}: {tap.packets:,} packets, {octets_in_words(tap.octets)}, ")
    return text.append(f"{tap.dropped:,} dropped", "bold red" if tap.dropped else "")


def _failed(action: ActionRecord) -> Text:
    return Text.assemble(shown(action_in_words(action)), ": ", shown(action.error or action.detail, "yellow"))


# -- verdicts ----------------------------------------------------------------------------------------------------------


def failing_expectations(result: RunResult, style: Style) -> Iterator[RenderableType]:
    """Every expectation that does not hold: what it says, why not, the packets. Those that hold are only counted."""
    failing = [row for row in result.expectations if not row.holds]
    if not failing:
        return
    yield heading("Expectations that do not hold", f"{len(failing)} of {len(result.expectations)}", style)
    for row in failing:
        yield Padding(_expectation(row, style), (0, 0, 0, 1), expand=False)


def _expectation(row: ExpectationResult, style: Style) -> RenderableType:
    line = Text.assemble(shown(f"{row.variant}: {row.observer} {row.relation} {row.selector}", "bold"))
    if row.reason:
        line.append("\n").append_text(shown(_without_evidence(row), "yellow"))
    places = list(dict.fromkeys(_evidence(item) for item in row.evidence))  # several facts may share a packet
    for place in places[:_EVIDENCE_SHOWN]:
        line.append("\n").append_text(shown(place, "dim"))
    more = len(places) - _EVIDENCE_SHOWN
    if more > 0:
        line.append(f"\nand {more:,} more", "dim")
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(style.sign(row.holds), line)
    return grid


def _without_evidence(row: ExpectationResult) -> str:
    """The reason alone: the packet that it quotes stands on a line of its own."""
    reason = row.reason
    for item in row.evidence[:1]:
        reason = reason.replace(f": {item.file} frame {item.frame} ({item.filter})", "")
    return reason


def _evidence(item: Evidence) -> str:
    return f"{item.file} frame {item.frame}: {item.filter}" if item.filter else f"{item.file} line {item.frame}"


def leaks(result: RunResult, style: Style) -> Iterator[RenderableType]:
    """What a tunnel in full use should have hidden and did not, each once however many actions showed it."""
    found = distinct_leaks(result)
    if not found:
        return
    yield heading("Leaks", f"{len(found)}", style)
    for name, kind, value in found:
        what = shorten(value, max(20, style.width - 50))
        line = Text.assemble(
            ("! ", "bold red"), shown(f"{name}: {kind_in_words(kind)} "), shown(f"[{kind}] ", "dim"), what
        )
        yield Padding(line, (0, 0, 0, 1), expand=False)


def warnings(result: RunResult, style: Style) -> Iterator[RenderableType]:
    if result.warnings:
        yield heading("Warnings", f"{len(result.warnings)}", style)
    for warning in result.warnings:
        yield Padding(shown(warning, "yellow"), (0, 0, 0, 1), expand=False)
