"""The result in one sentence, and the smaller sentences the renderers share.

Counts are of the client's own facts, each distinct one once (see `fold`); that a tunnel is in use and where it ends,
how much was sent and when are never counted: the first exist only with a tunnel and the others cannot be hidden.
Variants are compared by the facts that both have; what only one of them did is named apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from testbed.report.fold import YOU, CountedFact, FoldedTable, counts_of, folded_tables
from testbed.report.matrix import Counts
from testbed.report.words import observer_in_words, share_in_words
from testbed.result import RunResult, VariantResult, Verdict

_ABOUT_SHOWN = 2
_STILL_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Answer:
    """The one-sentence answer, and what must not be lost beside it."""

    sentence: str
    notes: tuple[str, ...]


def answer(result: RunResult) -> Answer:
    """What the first observer learned with and without the tunnel, of the facts that both variants have."""
    tables = folded_tables(result)
    if not tables:
        return Answer("Nothing was judged: no observer of this run had a fact to look for.", ())
    one_tunnel = len(_full_tunnels(result)) == 1
    comparison = _Comparison(tables[0], *bare_and_fullest(result), one_tunnel=one_tunnel)
    return Answer(comparison.sentence(), (*comparison.notes(), *_leaks(result)))


def distinct_leaks(result: RunResult) -> list[tuple[str, str, str]]:
    """Each leak once, however many actions showed it: variant, kind, value."""
    found = dict.fromkeys(
        (variant.name, str(leak.get("kind", "?")), str(leak.get("value", "")))
        for variant in result.variants.values()
        for leak in variant.leaks
    )
    return list(found)


def _leaks(result: RunResult) -> Iterator[str]:
    """How many leaks each variant with a tunnel had, if any had one: a table of facts does not say which are leaks."""
    counts = Counter(name for name, _kind, _value in distinct_leaks(result))
    tunnelled = [variant.name for variant in result.variants.values() if variant.tunnel is not None]
    if counts:
        told = ", ".join(f"{counts[name] or 'none'} in {name}" for name in tunnelled)
        yield f"Leaked beside the tunnel: {told}"


def _full_tunnels(result: RunResult) -> list[str]:
    """The variants whose tunnel carries most: everything, or, where none does, whatever tunnels there are."""
    tunnelled = [variant for variant in result.variants.values() if variant.tunnel is not None]
    full = [variant for variant in tunnelled if variant.tunnel and variant.tunnel.get("routes") == "all"]
    return [variant.name for variant in full or tunnelled]


class _Comparison:
    """One observer's facts of the bare variant and of the one with the fullest tunnel, side by side."""

    def __init__(self, table: FoldedTable, bare: str | None, full: str | None, *, one_tunnel: bool) -> None:
        """Shape: with `one_tunnel` nobody can ask which variant `the tunnel` means."""
        self._table = table
        self._bare, self._full = bare, full
        self._tunnel = "the tunnel" if one_tunnel else f"the tunnel ({full})"
        self._who = _in_a_sentence(observer_in_words(table.observer))
        columns = [table.variants.index(name) for name in (bare, full) if name is not None]
        self._shared = [fact for fact in table.facts if all(fact.verdicts[column] for column in columns)]

    def sentence(self) -> str:
        who, bare, full, total = self._who, self._bare, self._full, len(self._shared)
        if bare and full and total:
            seen = self._of(full, self._shared).seen
            without = self._of(bare, self._shared).seen
            with_it = f"With {self._tunnel}, {who} sees {seen} of {total} facts"
            return f"{with_it}; without it, {without} of the same {total}."
        if bare and full:
            with_it, without_it = (_share(self._of(name, self._table.facts)) for name in (full, bare))
            return f"With {self._tunnel}, {who} sees {with_it} facts; without it, {without_it} others."
        if full:
            return f"With {self._tunnel}, {who} sees {_share(self._of(full, self._shared))} facts."
        if bare:
            return f"Without a tunnel, {who} sees {_share(self._of(bare, self._shared))} facts."
        return f"{who} was not asked."

    def notes(self) -> Iterator[str]:
        if self._bare and self._full and self._shared:
            yield from self._still_seen(self._full)
            yield from self._only(self._full, self._bare, f"Only with {self._tunnel}")
            yield from self._only(self._bare, self._full, "Only without it")
        for name in self._table.variants:
            if name not in (self._bare, self._full):
                yield self._other(name)
        for name in self._table.variants:
            count = self._of(name, self._table.facts)
            if count.unproven:
                yield f"{name}: {count.unproven} of {count.total} facts unproven, counted neither as seen nor as hidden"

    def _still_seen(self, name: str) -> Iterator[str]:
        """What the tunnel did not hide, where it is little enough to name."""
        column = self._table.variants.index(name)
        seen = [fact for fact in self._shared if fact.verdicts[column] is Verdict.SEEN]
        if 0 < len(seen) <= _STILL_SHOWN:
            told = [fact.words if fact.about == YOU else f"{fact.words} ({fact.about})" for fact in seen]
            yield f"Still seen with {self._tunnel}: {', '.join(told)}"

    def _only(self, name: str, other: str, when: str) -> Iterator[str]:
        """What one of the two alone did, so that nothing of the other compares with it."""
        with_it, without_it = (self._table.variants.index(variant) for variant in (name, other))
        facts = [fact for fact in self._table.facts if fact.verdicts[with_it] and not fact.verdicts[without_it]]
        if facts:
            about = list(dict.fromkeys(fact.about for fact in facts))
            of = f" about {' and '.join(about)}" if len(about) <= _ABOUT_SHOWN else ""
            yield f"{when}: {len(facts)} more{of}, {self._of(name, facts).seen} of them seen"

    def _other(self, name: str) -> str:
        """Another variant by the same facts, as far as it has them."""
        count, total = self._of(name, self._shared), len(self._shared)
        more = self._of(name, [fact for fact in self._table.facts if fact not in self._shared])
        if not count.total:
            return f"{name}: {_share(more)} facts seen"
        same = f"the same {total}" if count.total == total else f"{count.total} of these {total}"
        return f"{name}: {count.seen} of {same} seen" + (f", and {_share(more)} more" if more.total else "")

    def _of(self, name: str, facts: Iterable[CountedFact]) -> Counts:
        return counts_of(facts, self._table.variants.index(name))


def _in_a_sentence(who: str) -> str:
    return who[0].lower() + who[1:] if who.startswith(("Your ", "The ")) else who


def _share(counts: Counts) -> str:
    return share_in_words(counts.seen, counts.total)


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


def started_at(variant: VariantResult) -> float | None:
    """When the variant's first action began, the zero of the times a report shows. Units: Unix seconds."""
    return min((action.started_at for action in variant.actions), default=None)


def bare_and_fullest(result: RunResult) -> tuple[str | None, str | None]:
    """The variant without a tunnel, and the one whose tunnel carries most: the pair that a class compares."""
    bare = [variant.name for variant in result.variants.values() if variant.tunnel is None]
    return next(iter(bare), None), next(iter(_full_tunnels(result)), None)


def reproduce_command(result: RunResult) -> str:
    """The command line that repeats the run."""
    command = result.environment.get("command")
    if isinstance(command, str) and command:
        return command
    scenario = result.scenario.get("file") or result.scenario.get("name") or "SCENARIO"
    return f"sudo testbed run {scenario} --seed {result.seed}"
