"""The parts of the terminal report below the matrix: per variant, expectations, leaks, warnings.

Long lines are cut at the console's width, except reasons, which wrap: a reason cut short explains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from testbed.facts import Kind
from testbed.report.summary import is_tunnel_interface
from testbed.report.text import octets_in_words, plain_value, shorten, visible
from testbed.report.words import action_in_words, kind_in_words
from testbed.result import ActionRecord, ExpectationResult, RunResult, TapRecord, VariantResult

_ROUTES_SHOWN = 16
_LABEL_COLUMNS = 10
_LONGEST_VALUE = 400  # columns of one captured value; longer ones are in result.json


@dataclass(frozen=True, slots=True)
class Style:
    """What the console can show."""

    ascii_only: bool
    width: int

    def sign(self, good: bool) -> Text:
        words = ("ok", "NO") if self.ascii_only else ("✓", "✗")
        return Text(words[0], "green") if good else Text(words[1], "bold red")

    @property
    def arrow(self) -> str:
        return "->" if self.ascii_only else "→"


def shown(value: object, style: str = "") -> Text:
    """A string of the result as text that has no markup and no control characters."""
    return Text(shorten(str(value), _LONGEST_VALUE), style)


def heading(words: str, term: str, style: Style) -> RenderableType:
    line = Text.assemble((visible(words), "bold underline"), "  ", (f"[{visible(term)}]", "dim"))
    return Group(Text(), line)


def variant_block(variant: VariantResult, style: Style) -> RenderableType:
    """One variant: what the client's kernel answered, the tunnel as recognised, the taps."""
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(style="dim", no_wrap=True, min_width=_LABEL_COLUMNS)
    rows.add_column(overflow="fold")
    for label, lines in _variant_lines(variant, style):
        for position, line in enumerate(lines):
            rows.add_row(label if position == 0 else "", line)
    return Group(heading(variant.name, "variant", style), Padding(rows, (0, 0, 0, 1), expand=False))


def _variant_lines(variant: VariantResult, style: Style) -> Iterator[tuple[str, list[Text]]]:
    yield "tunnel", [_tunnel(variant)]
    yield "recognised", _recognised(variant)
    yield "interfaces", [_interface(row) for row in variant.interfaces] or [Text("none", "dim")]
    yield "routes", _routes(variant, style)
    yield "egress", [_egress(variant, row, style) for row in variant.egress] or [Text("no site", "dim")]
    yield "taps", [_tap(tap) for tap in variant.taps] or [Text("none", "dim")]
    failed = [_failed(action) for action in variant.actions if not action.ok]
    if failed:
        yield "failed", failed


def _tunnel(variant: VariantResult) -> Text:
    if variant.tunnel is None:
        return Text("none", "dim")
    return Text(", ".join(f"{visible(key)} {plain_value(value)}" for key, value in variant.tunnel.items()))


def _recognised(variant: VariantResult) -> list[Text]:
    rows = [row for row in variant.exposure if row.fact.kind == Kind.TUNNEL]
    return [
        Text.assemble(
            shown(row.observer, "dim"), f" {row.verdict}: ", shown(row.fact.value), "  ", shown(row.reason, "dim")
        )
        for row in rows
    ] or [Text("no tunnel to recognise", "dim")]


def _interface(row: Mapping[str, Any]) -> Text:
    text = Text.assemble(shown(row.get("name", "?"), "bold"), "  ", plain_value(row.get("addresses", [])))
    return text.append(f"  mtu {visible(str(row.get('mtu', '?')))}, {plain_value(row.get('state'))}", "dim")


def _routes(variant: VariantResult, style: Style) -> list[Text]:
    lines = [_route(variant, row, style) for row in variant.routes[:_ROUTES_SHOWN]]
    if len(variant.routes) > _ROUTES_SHOWN:
        lines.append(Text(f"and {len(variant.routes) - _ROUTES_SHOWN} more", "dim"))
    return lines or [Text("none", "dim")]


def _route(variant: VariantResult, row: Mapping[str, Any], style: Style) -> Text:
    destination = shorten(str(row.get("destination", "?")), 28)
    text = Text(f"{destination:<20} {style.arrow} ")
    return text.append_text(_way(variant, row))


def _egress(variant: VariantResult, row: Mapping[str, Any], style: Style) -> Text:
    site = f"{row.get('site', '?')} ({row.get('address', '?')})"
    text = Text.assemble(shorten(site, max(20, style.width - 44)), f" {style.arrow} ")
    if row.get("error"):
        return text.append_text(shown(row["error"], "yellow"))
    return text.append_text(_way(variant, row))


def _way(variant: VariantResult, row: Mapping[str, Any]) -> Text:
    interface = str(row.get("interface") or "?")
    inside = is_tunnel_interface(variant, interface)
    text = shown(interface, "bold cyan" if inside else "bold")
    if row.get("gateway"):
        text.append_text(shown(f" via {row['gateway']}"))
    return text.append(" (tunnel)", "cyan") if inside else text


def _tap(tap: TapRecord) -> Text:
    text = shown(f"{tap.name} at {tap.node}:{tap.interface}  {tap.packets:,} packets, {octets_in_words(tap.octets)}, ")
    dropped = Text(f"{tap.dropped:,} dropped", "bold red" if tap.dropped else "")
    return text.append_text(dropped).append_text(shown(f"  {tap.file}", "dim"))


def _failed(action: ActionRecord) -> Text:
    return Text.assemble(shown(action_in_words(action)), ": ", shown(action.error or action.detail, "yellow"))


def expectations(result: RunResult, style: Style) -> Iterator[RenderableType]:
    """Every expectation with its sign, and the reason below it."""
    if not result.expectations:
        return
    yield heading("Expectations", "expect", style)
    for row in result.expectations:
        yield Padding(_expectation(row, style), (0, 0, 0, 1), expand=False)


def _expectation(row: ExpectationResult, style: Style) -> RenderableType:
    line = Text.assemble(shown(f"{row.variant}: {row.observer} {row.relation} {row.selector}"))
    if row.reason:
        line.append("\n").append_text(shown(row.reason, "dim" if row.holds else "yellow"))
    first = row.evidence[0] if row.evidence else None
    if first is not None and not row.holds:
        line.append("\n").append_text(shown(f"{first.file} frame {first.frame}: {first.filter}", "dim"))
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_row(style.sign(row.holds), line)
    return grid


def leaks(result: RunResult, style: Style) -> Iterator[RenderableType]:
    """What a tunnel in full use should have hidden and did not."""
    found = [(variant.name, leak) for variant in result.variants.values() for leak in variant.leaks]
    if not found:
        return
    yield heading("Leaks", f"{len(found)}", style)
    for name, leak in found:
        kind = str(leak.get("kind", "?"))
        what = shorten(str(leak.get("value", "")), max(20, style.width - 50))
        line = Text.assemble(
            ("! ", "bold red"), shown(f"{name}: {kind_in_words(kind)} "), shown(f"[{kind}] ", "dim"), what
        )
        yield Padding(line, (0, 0, 0, 1), expand=False)


def warnings(result: RunResult, style: Style) -> Iterator[RenderableType]:
    if result.warnings:
        yield heading("Warnings", f"{len(result.warnings)}", style)
    for warning in result.warnings:
        yield Padding(shown(warning, "yellow"), (0, 0, 0, 1), expand=False)
