"""What the HTML templates draw: the matrix with an evidence panel behind every cell, as plain values.

Strings are raw here; the template environment makes each one visible and escapes it (see `html`). Commands are quoted
for a shell and already free of control characters, so that what is copied is what was read.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from testbed.report.matrix import Counts, Group, ObserverTable, Row, observer_tables
from testbed.report.packets import Packets
from testbed.report.summary import started_at
from testbed.report.text import visible
from testbed.report.words import is_server, kind_in_words, mark_of, observer_in_words
from testbed.result import Evidence, Exposure, RunResult, VariantResult

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
class CellView:
    id: str
    variant: str
    verdict: str
    word: str
    symbol: str
    meaning: str
    value: str
    reason: str
    proofs: tuple[ProofView, ...]
    more: int


@dataclass(frozen=True, slots=True)
class RowView:
    kind: str
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
    counts: tuple[Counts, ...]


def packet_ids(packets: Packets) -> dict[tuple[str, int], str]:
    """An identifier in the document for each dissected packet, in order of file and frame."""
    return {key: f"packet-{number}" for number, key in enumerate(sorted(packets), start=1)}


def matrix_views(result: RunResult, ids: dict[tuple[str, int], str]) -> tuple[MatrixView, ...]:
    """One matrix per observer, ready to draw."""
    variants = tuple(result.variants.values())
    return tuple(
        _matrix(f"m{number}", table, variants, ids) for number, table in enumerate(observer_tables(result), start=1)
    )


def _matrix(
    name: str, table: ObserverTable, variants: Sequence[VariantResult], ids: dict[tuple[str, int], str]
) -> MatrixView:
    numbers = iter(range(1, 1 << 30))

    def cell(exposure: Exposure, variant: VariantResult) -> CellView:
        return _cell(f"{name}-{next(numbers)}", exposure, variant, ids)

    return MatrixView(
        id=name,
        observer=table.observer,
        title=observer_in_words(table.observer),
        is_server=is_server(table.observer),
        variants=table.variants,
        groups=tuple(_group(group, variants, cell) for group in table.groups),
        counts=table.counts,
    )


def _group(
    group: Group, variants: Sequence[VariantResult], cell: Callable[[Exposure, VariantResult], CellView]
) -> GroupView:
    return GroupView(
        headline=group.headline,
        failed=tuple(variant.name in group.failed for variant in variants),
        rows=tuple(_row(row, variants, cell) for row in group.rows),
    )


def _row(row: Row, variants: Sequence[VariantResult], cell: Callable[[Exposure, VariantResult], CellView]) -> RowView:
    cells = tuple(
        None if exposure is None else cell(exposure, variant)
        for exposure, variant in zip(row.cells, variants, strict=True)
    )
    return RowView(kind=row.kind, words=kind_in_words(row.kind), value=row.value, cells=cells)


def _cell(name: str, exposure: Exposure, variant: VariantResult, ids: dict[tuple[str, int], str]) -> CellView:
    mark = mark_of(exposure.verdict)
    zero = started_at(variant)
    proofs = tuple(proof_views(exposure.evidence, ids, zero, log=is_server(exposure.observer)))
    return CellView(
        id=name,
        variant=variant.name,
        verdict=str(exposure.verdict),
        word=mark.word,
        symbol=mark.symbol,
        meaning=mark.meaning,
        value=exposure.fact.value,
        reason=exposure.reason,
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
