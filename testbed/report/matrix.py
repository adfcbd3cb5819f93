"""The exposure matrix as a table of rows and cells, the shape every renderer draws.

The verdict gives one list of exposures per variant. Here the same fact of different variants becomes one row. Made-up
values differ between variants (each carries its own canary), so rows are matched within one action, kind and site: by
equal value, else by equal value but for the canary, else by position where the counts agree. A fact that one variant
has and another has not (the private site answered only through the tunnel) keeps a row with an empty cell: rows are
never forced together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from testbed.facts import Kind
from testbed.report.words import action_in_words
from testbed.result import ActionRecord, Exposure, RunResult, VariantResult

_CANARY = re.compile(r"(?=[A-Za-z]*[0-9])[0-9A-Za-z]{11,}")  # a long run with a digit: hexadecimal, base32 or base64
_NEVER_BY_POSITION = frozenset({str(Kind.CLIENT_ADDRESS), str(Kind.SERVER_ADDRESS), str(Kind.DNS_ANSWER)})
_FIRST_OBSERVER = "isp"

GroupKey = tuple[str, str, str | None]
Same = Callable[[Exposure, Exposure], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One fact across the variants. `value` is what all variants share, a canary shortened to an ellipsis."""

    kind: str
    site: str | None
    value: str
    cells: tuple[Exposure | None, ...]  # one per variant, in the result's order


@dataclass(frozen=True, slots=True)
class Group:
    """The facts of one action. `failed` names the variants in which the action itself did not succeed."""

    action: str
    headline: str
    failed: frozenset[str]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Counts:
    """How many of the client's facts have which verdict; tunnel, volume and timing are not among them."""

    seen: int
    hidden: int
    unproven: int

    @property
    def total(self) -> int:
        return self.seen + self.hidden + self.unproven


@dataclass(frozen=True, slots=True)
class ObserverTable:
    """All that one observer could have learned."""

    observer: str
    variants: tuple[str, ...]
    groups: tuple[Group, ...]


def observer_tables(result: RunResult) -> tuple[ObserverTable, ...]:
    """One table per observer, the ISP's first, then in order of appearance."""
    return tuple(_observer_table(result, observer) for observer in observers_of(result))


def observers_of(result: RunResult) -> tuple[str, ...]:
    names = dict.fromkeys(row.observer for variant in result.variants.values() for row in variant.exposure)
    return tuple(sorted(names, key=lambda name: name != _FIRST_OBSERVER))


def _observer_table(result: RunResult, observer: str) -> ObserverTable:
    variants = tuple(result.variants.values())
    exposures = [[row for row in variant.exposure if row.observer == observer] for variant in variants]
    by_action: dict[str, list[Row]] = {action: [] for action in _action_order(variants, exposures)}
    for key in dict.fromkeys(_group_key(row) for rows in exposures for row in rows):
        matched = _match_rows([[row for row in rows if _group_key(row) == key] for rows in exposures])
        by_action[key[0]].extend(_row(key, cells) for cells in matched)
    return ObserverTable(
        observer=observer,
        variants=tuple(result.variants),
        groups=tuple(_group(action, rows, variants) for action, rows in by_action.items() if rows),
    )


def _group_key(exposure: Exposure) -> GroupKey:
    return exposure.fact.action, exposure.fact.kind, exposure.fact.site


def _action_order(variants: Sequence[VariantResult], exposures: Sequence[Sequence[Exposure]]) -> Iterable[str]:
    """Actions as the client did them; facts of no action (the tunnel, the volume of everything) come last."""
    done = [action.id for variant in variants for action in variant.actions]
    others = [row.fact.action for rows in exposures for row in rows]
    return dict.fromkeys([*done, *others])


def _match_rows(per_variant: Sequence[Sequence[Exposure]]) -> list[list[Exposure | None]]:
    rows: list[list[Exposure | None]] = []
    for column, exposures in enumerate(per_variant):
        waiting = list(exposures)
        for same in (_same_value, _same_but_canary):
            waiting = [row for row in waiting if not _placed(row, column, rows, same)]
        open_rows = [cells for cells in rows if cells[column] is None]
        if waiting and len(waiting) == len(open_rows) and waiting[0].fact.kind not in _NEVER_BY_POSITION:
            for cells, exposure in zip(open_rows, waiting, strict=True):
                cells[column] = exposure
            continue
        for exposure in waiting:
            rows.append([None] * len(per_variant))
            rows[-1][column] = exposure
    return rows


def _placed(exposure: Exposure, column: int, rows: list[list[Exposure | None]], same: Same) -> bool:
    for cells in rows:
        if cells[column] is None and any(cell is not None and same(cell, exposure) for cell in cells):
            cells[column] = exposure
            return True
    return False


def _same_value(left: Exposure, right: Exposure) -> bool:
    return left.fact.value == right.fact.value


def _same_but_canary(left: Exposure, right: Exposure) -> bool:
    return _CANARY.sub("", left.fact.value) == _CANARY.sub("", right.fact.value)


def _row(key: GroupKey, cells: Sequence[Exposure | None]) -> Row:
    values = [cell.fact.value for cell in cells if cell is not None]
    return Row(kind=key[1], site=key[2], value=shared_value(values), cells=tuple(cells))


def shared_value(values: Sequence[str]) -> str:
    """What the variants' spellings of one fact share: `http://www.example.com/account/…`; empty if nothing."""
    if len(set(values)) <= 1:
        return values[0] if values else ""
    start = re.sub(r"[0-9A-Za-z]+$", "", _common_start(values))
    ends = [value[len(start) :][::-1] for value in values]
    end = re.sub(r"^[0-9A-Za-z]+", "", _common_start(ends)[::-1])
    return f"{start}…{end}" if start or end else ""


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    length = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[:length]


def _group(action_id: str, rows: Sequence[Row], variants: Sequence[VariantResult]) -> Group:
    records = [(variant.name, action) for variant in variants for action in variant.actions if action.id == action_id]
    failed = frozenset(name for name, action in records if not action.ok)
    return Group(action_id, _headline(action_id, [action for _, action in records]), failed, tuple(rows))


def _headline(action_id: str, records: Sequence[ActionRecord]) -> str:
    if not records:
        return "everything together"
    return shared_value([action_in_words(action) for action in records]) or action_id
