"""What the HTML templates draw: the matrix with an evidence panel behind every cell, as plain values.

Strings are raw here; the template environment makes each one visible and escapes it (see `html`). Commands are quoted
for a shell and already free of control characters, so that what is copied is what was read.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from testbed.report.fold import FoldedCell, FoldedGroup, FoldedRow, FoldedTable, Total, folded_tables, value_of
from testbed.report.packets import Packets
from testbed.report.summary import started_at
from testbed.report.text import visible
from testbed.report.words import (
    PARTLY,
    is_server,
    kind_in_words,
    mark_of,
    observer_in_words,
    share_in_words,
)
from testbed.result import Evidence, Exposure, RunResult, VariantResult, Verdict

_PROOFS_SHOWN = 4  # groups of packets with one filter
_FRAMES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class FrameView:
    number: int
    time: str  # seconds since the variant's first action
    packet_id: str  # of the dissected packet in this document, or empty


@dataclass(frozen=True, slots=True)
class ProofView:
    """Packets of one file that one display filter finds; `command` opens Wireshark at them."""

    file: str
    filter: str
    command: str
    is_log: bool
    frames: tuple[FrameView, ...]
    more: int


@dataclass(frozen=True, slots=True)
class ItemView:
    """One distinct fact behind a cell: what was searched, and what proves it. `actions` name where it came up."""

    kind: str
    words: str
    value: str
    actions: str
    verdict: str
    word: str
    symbol: str
    reason: str
    proofs: tuple[ProofView, ...]
    more: int


@dataclass(frozen=True, slots=True)
class CellView:
    id: str
    variant: str
    verdict: str
    word: str
    symbol: str
    meaning: str
    items: tuple[ItemView, ...]


@dataclass(frozen=True, slots=True)
class RowView:
    kinds: tuple[str, ...]
    words: str
    value: str
    cells: tuple[CellView | None, ...]


@dataclass(frozen=True, slots=True)
class GroupView:
    headline: str
    failed: tuple[bool, ...]
    rows: tuple[RowView, ...]


@dataclass(frozen=True, slots=True)
class MatrixView:
    id: str
    observer: str
    title: str
    is_server: bool
    variants: tuple[str, ...]
    groups: tuple[GroupView, ...]
    totals: tuple[Total, ...]
    shares: tuple[str, ...]  # one per variant, for a sentence


def packet_ids(packets: Packets) -> dict[tuple[str, int], str]:
    """An identifier in the document for each dissected packet, in order of file and frame."""
    return {key: f"packet-{number}" for number, key in enumerate(sorted(packets), start=1)}


def matrix_views(result: RunResult, ids: dict[tuple[str, int], str]) -> tuple[MatrixView, ...]:
    """One folded matrix per observer, ready to draw; every exposure stands behind one of its cells."""
    variants = tuple(result.variants.values())
    return tuple(
        _matrix(f"m{number}", table, variants, ids) for number, table in enumerate(folded_tables(result), start=1)
    )


def _matrix(
    name: str, table: FoldedTable, variants: Sequence[VariantResult], ids: dict[tuple[str, int], str]
) -> MatrixView:
    numbers = iter(range(1, 1 << 30))

    def cell(folded: FoldedCell, variant: VariantResult) -> CellView:
        return _cell(f"{name}-{next(numbers)}", folded, variant, ids)

    return MatrixView(
        id=name,
        observer=table.observer,
        title=observer_in_words(table.observer),
        is_server=is_server(table.observer),
        variants=table.variants,
        groups=tuple(_group(group, variants, cell) for group in table.groups),
        totals=table.totals,
        shares=tuple(_share(table, column) for column in range(len(variants))),
    )


def _share(table: FoldedTable, column: int) -> str:
    """How much of what all variants did was seen, and of what only some did."""
    parts = [total.counts[column] for total in table.totals]
    told = [share_in_words(count.seen, count.total) for count in parts if count is not None]
    return " and ".join(told[:1] + [f"{share} more" for share in told[1:]])


def _group(
    group: FoldedGroup, variants: Sequence[VariantResult], cell: Callable[[FoldedCell, VariantResult], CellView]
) -> GroupView:
    return GroupView(
        headline=group.headline,
        failed=tuple(variant.name in group.failed for variant in variants),
        rows=tuple(_row(group.headline, row, variants, cell) for row in group.rows),
    )


def _row(
    headline: str,
    row: FoldedRow,
    variants: Sequence[VariantResult],
    cell: Callable[[FoldedCell, VariantResult], CellView],
) -> RowView:
    cells = tuple(
        None if folded is None else cell(folded, variant) for folded, variant in zip(row.cells, variants, strict=True)
    )
    return RowView(kinds=row.kinds, words=row.words, value=value_of(row, headline), cells=cells)


def _cell(name: str, folded: FoldedCell, variant: VariantResult, ids: dict[tuple[str, int], str]) -> CellView:
    mark = mark_of(folded.verdict)
    return CellView(
        id=name,
        variant=variant.name,
        verdict=str(folded.verdict),
        word=share_in_words(folded.seen, folded.total) if folded.mixed else mark.word,
        symbol=PARTLY.symbol if folded.mixed else mark.symbol,
        meaning=PARTLY.meaning if folded.mixed else mark.meaning,
        items=tuple(_items(folded, variant, ids)),
    )


def _items(folded: FoldedCell, variant: VariantResult, ids: dict[tuple[str, int], str]) -> Iterator[ItemView]:
    """The cell's facts, each value once: what is seen first, since that is what one looks for."""
    distinct: dict[tuple[str, str, Verdict], list[Exposure]] = {}
    for exposure in folded.exposures:
        distinct.setdefault((exposure.fact.kind, exposure.fact.value, exposure.verdict), []).append(exposure)
    zero = started_at(variant)
    for (kind, value, verdict), exposures in sorted(distinct.items(), key=lambda entry: entry[0][2] != Verdict.SEEN):
        first, mark = exposures[0], mark_of(verdict)
        proofs = tuple(proof_views(first.evidence, ids, zero, log=is_server(first.observer)))
        yield ItemView(
            kind=kind,
            words=kind_in_words(kind),
            value=value,
            actions=", ".join(dict.fromkeys(exposure.fact.action for exposure in exposures if exposure.fact.action)),
            verdict=str(verdict),
            word=mark.word,
            symbol=mark.symbol,
            reason=first.reason,
            proofs=proofs[:_PROOFS_SHOWN],
            more=len(proofs) - _PROOFS_SHOWN,
        )


def proof_views(
    evidence: Sequence[Evidence], ids: dict[tuple[str, int], str], zero: float | None, *, log: bool
) -> Iterator[ProofView]:
    """Evidence grouped by file and filter: one command opens all packets of a group."""
    ordered = sorted(evidence, key=lambda item: (item.file, item.filter, item.frame))
    for (file, display_filter), items in groupby(ordered, key=lambda item: (item.file, item.filter)):
        frames = [FrameView(item.frame, time_since(item.time, zero), ids.get((file, item.frame), "")) for item in items]
        yield ProofView(
            file=file,
            filter=display_filter,
            command=_command(file, display_filter, frames[0].number, log=log),
            is_log=log,
            frames=tuple(frames[:_FRAMES_SHOWN]),
            more=len(frames) - _FRAMES_SHOWN,
        )


def _command(file: str, display_filter: str, line: int, *, log: bool) -> str:
    if log:
        return f"sed -n {line}p {shlex.quote(visible(file))}"
    return f"wireshark -r {shlex.quote(visible(file))} -Y {shlex.quote(visible(display_filter))}"


def time_since(time: float, zero: float | None) -> str:
    """Seconds since the variant's first action, with a sign: the tunnel's packets come before it."""
    return f"{time:.6f} s" if zero is None else f"{time - zero:+.3f} s"
