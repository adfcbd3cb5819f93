"""Octets over time, packet by packet, and what sizes and times still tell when nothing can be read.

Every sentence is computed from the capture of this run and counts what it claims. Nothing is guessed of the content:
a listener who knows the pattern of a page could compare more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise

from testbed.report.html_ladder import SEALED, during
from testbed.report.own_addresses import client_addresses
from testbed.report.packets import Inside, PacketLine
from testbed.report.summary import started_at
from testbed.report.text import octets_in_words
from testbed.result import RunResult, VariantResult

WIDTH, HALF = 1000, 84
_LABEL_WIDTH, _LABEL_ROWS = 62, 4
_MOST_COMPARED = 400  # packets of one action: comparing in order takes the square of it
_LEAST_SCALE_OCTETS = 600


@dataclass(frozen=True, slots=True)
class StemView:
    """The largest packet of one direction at one place. Units: of the drawing"""

    x: int
    height: float
    up: bool


@dataclass(frozen=True, slots=True)
class MarkView:
    x: float
    name: str
    row: int  # labels that would meet stand in different rows; one without room is empty


@dataclass(frozen=True, slots=True)
class TimelineView:
    """One variant from its first action on. Units: seconds."""

    variant: str
    seconds: float
    octets_up: int
    octets_down: int
    packets: int
    scale_seconds: float
    scale_octets: int
    stems: tuple[StemView, ...]
    marks: tuple[MarkView, ...]


def timelines(lists: Mapping[str, Sequence[PacketLine]], variants: Mapping[str, VariantResult]) -> list[TimelineView]:
    """One timeline per variant on one common scale, so that they can be compared."""
    shown = {name: _from_first_action(lines, variants.get(name)) for name, lines in lists.items()}
    shown = {name: lines for name, lines in shown.items() if lines}
    longest = max((_span(lines) for lines in shown.values()), default=0.0)
    largest = max((line.length_octets for lines in shown.values() for line in lines), default=0)
    scale = longest, max(_LEAST_SCALE_OCTETS, largest)
    return [_timeline(name, lines, scale, variants.get(name)) for name, lines in shown.items()]


def _from_first_action(lines: Sequence[PacketLine], variant: VariantResult | None) -> list[PacketLine]:
    zero = started_at(variant) if variant else None
    return [line for line in lines if zero is None or line.time >= zero]


def _span(lines: Sequence[PacketLine]) -> float:
    return max(line.time for line in lines) - min(line.time for line in lines)


def _timeline(
    name: str, lines: Sequence[PacketLine], scale: tuple[float, int], variant: VariantResult | None
) -> TimelineView:
    """Shape: `scale` is the seconds and the octets of the whole drawing"""
    longest, largest = scale
    clients = client_addresses(variant) if variant else frozenset()
    zero = min(line.time for line in lines)
    highest: dict[tuple[int, bool], int] = {}
    octets = {True: 0, False: 0}
    for line in lines:
        up = line.source in clients
        octets[up] += line.length_octets
        place = (_x(line.time - zero, longest), up)
        highest[place] = max(highest.get(place, 0), line.length_octets)
    return TimelineView(
        variant=name,
        seconds=_span(lines),
        octets_up=octets[True],
        octets_down=octets[False],
        packets=len(lines),
        scale_seconds=longest,
        scale_octets=largest,
        stems=tuple(StemView(x, _height(size, largest), up) for (x, up), size in sorted(highest.items())),
        marks=tuple(_marks(variant, zero, longest)) if variant else (),
    )


def _x(seconds: float, longest: float) -> int:
    return round(seconds / longest * (WIDTH - 8)) + 4 if longest else 4


def _height(octets: int, largest: int) -> float:
    return round(max(3.0, octets / largest * (HALF - 6)), 1)


def _marks(variant: VariantResult, zero: float, longest: float) -> Iterator[MarkView]:
    """A line for each action; its name where one of the rows has room for it."""
    taken = [-1000.0] * _LABEL_ROWS
    for action in variant.actions:
        x = float(_x(max(0.0, action.started_at - zero), longest))
        row = next((at for at, end in enumerate(taken) if end <= x), None)
        if row is None:
            yield MarkView(x, "", 0)
            continue
        taken[row] = x + _LABEL_WIDTH
        yield MarkView(x, action.id, row)


# -- what they tell ----------------------------------------------------------------------------------------------------


def still_told(
    result: RunResult,
    bare: str | None,
    full: str | None,
    lists: Mapping[str, Sequence[PacketLine]],
    inside: Inside | None,
) -> list[str]:
    """What a listener still learns from sizes and times of the fullest tunnel, each with its numbers."""
    variant = result.variants.get(full or "")
    if variant is None or full is None or full not in lists:
        return []
    carriers = frozenset(inside.outer_of.values()) if inside else frozenset()
    talk = _from_first_action(lists[full], variant)
    data = [line for line in talk if line.protocol in SEALED or line.frame in carriers]
    if not data:
        return []
    return [
        *_overhead(inside, lists[full]),
        *_same_sizes(result, bare, variant, lists, data),
        *_bursts(variant, data),
        *_largest(variant, data),
        *_answers(variant, data),
    ]


def _overhead(inside: Inside | None, outer: Sequence[PacketLine]) -> Iterator[str]:
    """How much longer sealed packets are than what they carry, of those pairs that are certain."""
    sizes = {line.frame: line.packet_octets for line in outer}
    inner = inside.lines if inside else ()
    pairs = inside.outer_of if inside else {}
    alone = {outer for outer, times in Counter(pairs.values()).items() if times == 1}  # carried one packet
    longer = [
        sizes[pairs[line.frame]] - line.packet_octets for line in inner if pairs.get(line.frame) in sizes.keys() & alone
    ]
    if not longer or inside is None:
        return
    least, most = min(longer), max(longer)
    words = f"exactly {least}" if least == most else f"{least} to {most}"
    yield (
        f"Sealing adds to a size but does not hide it: {len(longer)} packets went through the tunnel, each alone in "
        f"a packet {words} octets longer. {inside.how}"
    )


def _same_sizes(
    result: RunResult,
    bare: str | None,
    variant: VariantResult,
    lists: Mapping[str, Sequence[PacketLine]],
    data: Sequence[PacketLine],
) -> Iterator[str]:
    """How many packets of the same actions come back sealed, in order, longer by one and the same number of octets."""
    plain = result.variants.get(bare or "")
    if plain is None or bare is None or bare not in lists:
        return
    twins = {action.id: action for action in variant.actions}
    sizes = [
        (
            action.id,
            _talk_sizes(during(action, plain, lists[bare])),
            _talk_sizes(during(twins[action.id], variant, data)),
        )
        for action in plain.actions
        if action.id in twins
    ]
    sizes = [row for row in sizes if row[1] and row[2]]
    differences = Counter(b - a for _, clear, sealed in sizes for a, b in zip(clear, sealed, strict=False))
    if not differences:
        return
    difference = differences.most_common(1)[0][0]
    found = sum(_in_order([size + difference for size in clear], sealed) for _, clear, sealed in sizes)
    name, clear, sealed = sizes[0]
    yield (
        f"The pattern of sizes is that of the clear text. In {name} it began with {_listed(clear[:4])} octets without "
        f"the tunnel, and {_listed(sealed[:4])} with it. Of {sum(len(row[1]) for row in sizes)} packets without the "
        f"tunnel, {found} come back sealed in the same order, each {difference} octets longer. Who knows how a page "
        "looks on the wire can recognise it."
    )


def _talk_sizes(lines: Sequence[PacketLine]) -> list[int]:
    return [line.length_octets for line in lines if line.protocol != "ARP" and not line.summary.startswith("Neighbor")]


def _in_order(one: Sequence[int], other: Sequence[int]) -> int:
    matcher = SequenceMatcher(None, one[:_MOST_COMPARED], other[:_MOST_COMPARED], autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))


def _bursts(variant: VariantResult, data: Sequence[PacketLine]) -> Iterator[str]:
    """As many of the longest pauses as there are changes from one action to the next: how many are such a change?"""
    starts = [during(action, variant, data)[:1] for action in variant.actions]
    firsts = {lines[0].frame for lines in starts if lines}
    gaps = sorted(((then.time - before.time, then.frame) for before, then in pairwise(data)), reverse=True)
    wanted = max(0, len(firsts) - 1)
    longest = gaps[:wanted]
    hits = sum(frame in firsts for _, frame in longest)
    if wanted and longest:
        words = (
            "Pauses show where one thing ends and the next begins" if hits * 2 >= wanted else "Pauses tell little here"
        )
        yield (
            f"{words}: of the {wanted} longest pauses between sealed packets (from {longest[-1][0] * 1000:.1f} ms on), "
            f"{hits} fall exactly where the client began something new."
        )


def _largest(variant: VariantResult, data: Sequence[PacketLine]) -> Iterator[str]:
    clients = client_addresses(variant)
    volumes = {
        action.id: sum(line.length_octets for line in during(action, variant, data) if line.source not in clients)
        for action in variant.actions
    }
    total = sum(volumes.values())
    if total:
        name = max(volumes, key=lambda one: volumes[one])
        down = sum(line.length_octets for line in data if line.source not in clients)
        up = sum(line.length_octets for line in data) - down
        yield (
            f"Volume has a direction: {octets_in_words(up)} went up and {octets_in_words(down)} came down. "
            f"The largest answer, {octets_in_words(volumes[name])}, was that of {name}."
        )


def _answers(variant: VariantResult, data: Sequence[PacketLine]) -> Iterator[str]:
    """Packets as small as the smallest kind: acknowledgements, which tell that TCP is inside."""
    sizes = Counter(line.length_octets for line in data)
    if len(data) >= 10:
        size, times = sizes.most_common(1)[0]
        yield (
            f"Sizes repeat: {times} of {len(data)} sealed packets have {size} octets, and {len(sizes)} different sizes "
            "occur. One size that comes back so often is typical of the empty acknowledgements of TCP."
            if times * 5 >= len(data)
            else f"Sizes differ: {len(sizes)} different ones among {len(data)} sealed packets."
        )
