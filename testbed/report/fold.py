"""The matrix at a glance: each distinct fact once, whatever number of actions, values and address families it came in.

`matrix` pairs the same fact of different variants. Here those rows are folded: by site, kind and, for what a protocol
carries, the protocol (a page over HTTPS is not the same secret as one over HTTP). The cell of a fold says the verdict
all its facts agree on, or how many of them were seen. Counts are of folds, so that an action that asks a name six times
weighs as one that asks once. Variants are compared by the folds that all of them have: what one variant alone did (the
private site answers only through the tunnel) is counted apart, or a share would look better for having more to hide.

Then folds of one site with equal cells share a line (`page, cookie, content`). Nothing is lost: each line keeps the
exposures it stands for, and the HTML report lists them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from testbed.facts import Kind
from testbed.report.matrix import Counts, Group, ObserverTable, Row, observer_tables, shared_value
from testbed.report.own_addresses import HOMES, addresses_in_tunnel, families_of, home_of
from testbed.report.words import METADATA_KINDS, is_server, kinds_in_words
from testbed.result import Exposure, RunResult, Verdict

YOU = "you"
TOGETHER = "everything together"
TUNNEL_ACTION = "tunnel"  # what the verdict says of the tunnel itself: nothing the client did

_OF_THE_SITE = frozenset({str(Kind.DNS_NAME), str(Kind.DNS_ANSWER), str(Kind.SERVER_ADDRESS), str(Kind.CLIENT_ADDRESS)})
_ADDRESSES = frozenset({str(Kind.DNS_ANSWER), str(Kind.SERVER_ADDRESS)})


@dataclass(frozen=True, slots=True)
class FoldedCell:
    """One variant's exposures in a fold. Shape: `seen` of `total` distinct values were seen."""

    verdict: Verdict
    seen: int
    total: int
    exposures: tuple[Exposure, ...]

    @property
    def mixed(self) -> bool:
        return 0 < self.seen < self.total


@dataclass(frozen=True, slots=True)
class FoldedRow:
    """A line of the table: one kind of fact, or several whose verdicts agree.

    Shape: `verb` is empty if of any protocol; `place` says where an address of the client's own belongs
    """

    kinds: tuple[str, ...]
    verb: str
    values: tuple[str, ...]
    cells: tuple[FoldedCell | None, ...]
    place: str = ""

    @property
    def words(self) -> str:
        """What it is, for people."""
        words = " ".join(filter(None, (kinds_in_words(self.kinds), self.place)))
        return f"{self.verb}: {words}" if self.verb else words


@dataclass(frozen=True, slots=True)
class FoldedGroup:
    """The lines of one site, or of what no site explains. `failed` names variants in which an action of it failed."""

    headline: str
    failed: frozenset[str]
    rows: tuple[FoldedRow, ...]


@dataclass(frozen=True, slots=True)
class CountedFact:
    """A fold that counts. Shape: `about` is its group; one verdict per variant, None where it did not happen."""

    about: str
    verdicts: tuple[Verdict | None, ...]
    words: str = ""


@dataclass(frozen=True, slots=True)
class Total:
    """A line of counts below a table. Shape: None where a variant has none of these facts"""

    words: str
    counts: tuple[Counts | None, ...]


@dataclass(frozen=True, slots=True)
class FoldedTable:
    observer: str
    variants: tuple[str, ...]
    groups: tuple[FoldedGroup, ...]
    facts: tuple[CountedFact, ...]

    @property
    def counts(self) -> tuple[Counts, ...]:
        """Of everything that each variant has."""
        return tuple(counts_of(self.facts, column) for column in range(len(self.variants)))

    @property
    def totals(self) -> tuple[Total, ...]:
        """Counts that can be compared along their line: of the facts that all variants have, then of the others."""
        shared = [fact for fact in self.facts if None not in fact.verdicts]
        others = [fact for fact in self.facts if None in fact.verdicts]
        if not shared or not others:
            return (Total(f"seen, of what {'each variant' if others else 'the client'} did", self.counts),)
        parts = (("seen, of what all variants did", shared), ("seen, of what only some did", others))
        columns = range(len(self.variants))
        return tuple(
            Total(words, tuple(count if count.total else None for count in map(partial(counts_of, facts), columns)))
            for words, facts in parts
        )


def counts_of(facts: Iterable[CountedFact], column: int) -> Counts:
    """How many of the facts have which verdict in a variant."""
    verdicts = [fact.verdicts[column] for fact in facts]
    return Counts(*(verdicts.count(verdict) for verdict in (Verdict.SEEN, Verdict.HIDDEN, Verdict.UNPROVEN)))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a row belongs: the group, and within it the fold."""

    group: str
    kind: str
    verb: str


def folded_tables(result: RunResult) -> tuple[FoldedTable, ...]:
    """One table per observer, in the matrix's order."""
    verbs = {action.id: action.verb for variant in result.variants.values() for action in variant.actions}
    inside = frozenset(address for variant in result.variants.values() for address in addresses_in_tunnel(variant))
    return tuple(_folded(table, verbs, inside) for table in observer_tables(result))


def _folded(table: ObserverTable, verbs: Mapping[str, str], inside: frozenset[str]) -> FoldedTable:
    folds: dict[_Place, list[Row]] = {}
    failed: dict[str, set[str]] = {}
    for group in table.groups:
        for row in group.rows:
            place = _place(group, row, verbs)
            folds.setdefault(place, []).append(row)
            failed.setdefault(place.group, set()).update(group.failed)
    by_group: dict[str, list[FoldedRow]] = {}
    for place, rows in folds.items():
        by_group.setdefault(place.group, []).extend(_lines(place, rows, inside))
    order = sorted(by_group, key=lambda name: (name != YOU, name == TOGETHER))
    merged = {name: _merged(by_group[name], server=is_server(table.observer)) for name in order}
    return FoldedTable(
        observer=table.observer,
        variants=table.variants,
        groups=tuple(FoldedGroup(name, _failures(name, failed), rows) for name, rows in merged.items()),
        facts=tuple(
            CountedFact(
                place.group,
                tuple(None if cell is None else cell.verdict for cell in _line(place, rows).cells),
                _line(place, rows).words,
            )
            for place, rows in folds.items()
            if place.group != TOGETHER
        ),
    )


def _failures(group: str, failed: Mapping[str, set[str]]) -> frozenset[str]:
    return frozenset() if group in (YOU, TOGETHER) else frozenset(failed[group])


def _place(group: Group, row: Row, verbs: Mapping[str, str]) -> _Place:
    if row.kind == Kind.CLIENT_ADDRESS:
        return _Place(YOU, row.kind, "")
    if row.kind in METADATA_KINDS or group.action == TUNNEL_ACTION:
        return _Place(TOGETHER, row.kind, "tunnel" if row.kind == Kind.SERVER_ADDRESS else "")
    verb = "" if row.kind in _OF_THE_SITE else verbs.get(group.action, "")
    if row.kind == Kind.TLS_NAME and row.site and row.site not in group.headline:
        verb = "dns"  # the name of the resolver that was asked on the way to the site: one fact, whatever came after it
    return _Place(row.site or group.headline, row.kind, verb)


def _lines(place: _Place, rows: Sequence[Row], inside: frozenset[str]) -> list[FoldedRow]:
    """One line per fold; the client's own addresses stay apart, each with its place: it has several by design."""
    if place.kind != Kind.CLIENT_ADDRESS:
        return [_line(place, rows)]
    by_home: dict[str, list[Row]] = {}
    for row in rows:
        by_home.setdefault(home_of(row.value, inside), []).append(row)
    return [line for home in HOMES if home in by_home for line in _own_addresses(place, home, by_home[home])]


def _own_addresses(place: _Place, home: str, rows: Sequence[Row]) -> list[FoldedRow]:
    """Lines of the client's addresses of one place, apart where verdicts differ; then the family tells them apart."""
    by_value: dict[str, list[Row]] = {}
    for row in rows:
        by_value.setdefault(row.value, []).append(row)
    parts: list[list[Row]] = []
    for same in by_value.values():
        fitting = next((part for part in parts if _agree(_line(place, part), _line(place, same))), None)
        if fitting is None:
            parts.append(list(same))
        else:
            fitting.extend(same)
    lines = [replace(_line(place, part), place=home) for part in parts]
    if len(lines) < 2:
        return lines
    return [replace(line, place=" ".join(filter(None, (home, families_of(line.values))))) for line in lines]


def _agree(one: FoldedRow, other: FoldedRow) -> bool:
    """Whether no variant contradicts: where both happened, the verdict is one."""
    pairs = zip(one.cells, other.cells, strict=True)
    return all(a is None or b is None or (a.verdict == b.verdict and not a.mixed and not b.mixed) for a, b in pairs)


def _line(place: _Place, rows: Sequence[Row]) -> FoldedRow:
    columns = zip(*(row.cells for row in rows), strict=True)
    cells = tuple(_cell([cell for cell in column if cell is not None]) for column in columns)
    values = tuple(dict.fromkeys(row.value for row in rows if row.value))
    return FoldedRow((place.kind,), place.verb, values, cells)


def _cell(exposures: Sequence[Exposure]) -> FoldedCell | None:
    if not exposures:
        return None
    by_value: dict[str, set[Verdict]] = {}
    for exposure in exposures:
        by_value.setdefault(exposure.fact.value, set()).add(exposure.verdict)
    verdicts = [_worst(found) for found in by_value.values()]
    return FoldedCell(_worst(verdicts), verdicts.count(Verdict.SEEN), len(verdicts), tuple(exposures))


def _worst(verdicts: Iterable[Verdict]) -> Verdict:
    """What must not be overlooked: seen before unproven before hidden."""
    found = set(verdicts)
    return next(verdict for verdict in (Verdict.SEEN, Verdict.UNPROVEN, Verdict.HIDDEN) if verdict in found)


def _merged(rows: Sequence[FoldedRow], *, server: bool) -> tuple[FoldedRow, ...]:
    """Lines of one group whose cells are equal share one, within what belongs together."""
    found: dict[object, FoldedRow] = {}
    for row in rows:
        family = _family(row, server=server)
        states = tuple(cell and (cell.verdict, cell.mixed and (cell.seen, cell.total)) for cell in row.cells)
        key = (family, states)
        found[key] = row if key not in found else _joined(found[key], row)
    return tuple(found.values())


def _family(row: FoldedRow, *, server: bool) -> object:
    (kind,) = row.kinds
    if server and kind != Kind.CLIENT_ADDRESS:
        return "record"
    if kind in (Kind.VOLUME, Kind.TIMING):
        return "traffic"
    if kind in METADATA_KINDS or kind in (Kind.CLIENT_ADDRESS, Kind.DNS_NAME):
        return kind, row.place, row.values
    if kind in _ADDRESSES:
        return "addresses"
    return "content", row.verb


def _joined(one: FoldedRow, other: FoldedRow) -> FoldedRow:
    cells = tuple(_added(a, b) for a, b in zip(one.cells, other.cells, strict=True))
    kinds = tuple(dict.fromkeys((*one.kinds, *other.kinds)))
    values = tuple(dict.fromkeys((*one.values, *other.values)))
    return FoldedRow(kinds, one.verb if one.verb == other.verb else "", values, cells, one.place)


def _added(one: FoldedCell | None, other: FoldedCell | None) -> FoldedCell | None:
    """Two cells of equal state as one."""
    if one is None or other is None:
        return None
    exposures = (*one.exposures, *other.exposures)
    return FoldedCell(one.verdict, one.seen + other.seen, one.total + other.total, exposures)


def value_of(row: FoldedRow, headline: str) -> str:
    """The line's addresses, or what its values have in common; empty where the headline says it already."""
    if len(row.kinds) > 1 or row.values == (headline,):
        return ""
    return ", ".join(row.values) if row.kinds[0] in _OF_THE_SITE else shared_value(row.values)
