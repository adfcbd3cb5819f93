"""The result in one sentence, and the smaller sentences the renderers share.

Counts are of the client's own facts, each distinct one once (see `fold`); that a tunnel is in use and where it ends,
how much was sent and when are never counted: the first exist only with a tunnel and the others cannot be hidden.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.report.fold import FoldedTable, folded_tables
from testbed.report.matrix import Counts
from testbed.report.words import observer_in_words
from testbed.result import RunResult, VariantResult

_TUNNEL_DEVICES = ("tun", "tap", "wg", "utun", "ppp", "ovpn")


@dataclass(frozen=True, slots=True)
class Answer:
    """The one-sentence answer, and what must not be lost beside it."""

    sentence: str
    notes: tuple[str, ...]


def answer(result: RunResult) -> Answer:
    """What the first observer learned with and without the tunnel."""
    tables = folded_tables(result)
    if not tables:
        return Answer("Nothing was judged: no observer of this run had a fact to look for.", ())
    table = tables[0]
    counts = dict(zip(table.variants, table.counts, strict=True))
    bare, full = bare_and_fullest(result)
    notes = [*_other_variants(table, counts, {bare, full}), *_unproven(counts)]
    return Answer(_sentence(table.observer, counts, bare, full), tuple(notes))


def _fullest_tunnel(result: RunResult) -> str | None:
    tunnelled = [variant for variant in result.variants.values() if variant.tunnel is not None]
    full = [variant for variant in tunnelled if variant.tunnel and variant.tunnel.get("routes") == "all"]
    return next((variant.name for variant in [*full, *tunnelled]), None)


def _sentence(observer: str, counts: dict[str, Counts], bare: str | None, full: str | None) -> str:
    who = observer_in_words(observer)
    who = who[0].lower() + who[1:] if who.startswith(("Your ", "The ")) else who
    if bare and full:
        return f"With the tunnel, {who} sees {_share(counts[full])}; without it, {_share(counts[bare], short=True)}."
    if full:
        return f"With the tunnel, {who} sees {_share(counts[full])}."
    if bare:
        return f"Without a tunnel, {who} sees {_share(counts[bare])}."
    return f"{who} was not asked."


def _share(counts: Counts, *, short: bool = False) -> str:
    return f"{counts.seen} of {counts.total}" + ("" if short else " facts")


def _other_variants(table: FoldedTable, counts: dict[str, Counts], named: set[str | None]) -> list[str]:
    return [f"{name}: {_share(counts[name])} seen" for name in table.variants if name not in named]


def _unproven(counts: dict[str, Counts]) -> list[str]:
    return [
        f"{name}: {count.unproven} of {count.total} facts unproven, counted neither as seen nor as hidden"
        for name, count in counts.items()
        if count.unproven
    ]


def verdict_word(result: RunResult) -> str:
    """PASS, FAIL, or DONE for a run that was asked nothing and so passed nothing."""
    if not result.ok:
        return "FAIL"
    return "PASS" if result.expectations else "DONE"


def verdict_line(result: RunResult) -> str:
    """The run's verdict in words: `12 of 12 expectations hold`."""
    held = sum(row.holds for row in result.expectations)
    total = len(result.expectations)
    if not total:
        nothing = "nothing was asked: the scenario has no expectations"
        return nothing if result.ok else f"the run failed; {nothing}"
    line = f"{held} of {total} expectations hold"
    return line if result.ok or held < total else f"{line}, but the run failed"


def is_tunnel_interface(variant: VariantResult, interface: str | None) -> bool:
    """Whether the kernel's choice of interface is the tunnel's device in this variant."""
    if variant.tunnel is None or not interface:
        return False
    named = variant.tunnel.get("interface") or variant.tunnel.get("device")
    return interface == named if isinstance(named, str) else interface.startswith(_TUNNEL_DEVICES)


def started_at(variant: VariantResult) -> float | None:
    """When the variant's first action began, the zero of the times a report shows. Units: Unix seconds."""
    return min((action.started_at for action in variant.actions), default=None)


def client_addresses(variant: VariantResult) -> frozenset[str]:
    """The client's own addresses, those of its tunnel device among them: what comes from them goes up."""
    return frozenset(str(address).split("/")[0] for row in variant.interfaces for address in row.get("addresses") or ())


def bare_and_fullest(result: RunResult) -> tuple[str | None, str | None]:
    """The variant without a tunnel, and the one whose tunnel carries most: the pair that a class compares."""
    return next((v.name for v in result.variants.values() if v.tunnel is None), None), _fullest_tunnel(result)


def reproduce_command(result: RunResult) -> str:
    """The command line that repeats the run."""
    command = result.environment.get("command")
    if isinstance(command, str) and command:
        return command
    scenario = result.scenario.get("file") or result.scenario.get("name") or "SCENARIO"
    return f"sudo testbed run {scenario} --seed {result.seed}"
