"""What is told of the conversations in the end: flows, addresses, volumes and times, made when they are asked for.

Every conversation has a volume and a timing: two sentences with the frames that show them. There may be a hundred
thousand, so they are kept as the rows that the conversations are anyway, and `Sightings` has them in order with what
the dissectors found.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from testbed.facts import Kind, Sighting
from testbed.observer import filters
from testbed.observer.findings import Findings
from testbed.observer.flows import FlowState, is_unicast
from testbed.observer.lazy import Lazy
from testbed.observer.model import Flow, Volume
from testbed.observer.rows import Summary, Words, beginning_of, ends_of, frames_of, summarise, summary_of
from testbed.observer.table import FlowTable

MOST_TIMES_AS_MANY = 2
LAST_FRAME = 1 << 64
KINDS = (Kind.VOLUME, Kind.TIMING)


@dataclass(frozen=True, slots=True)
class Rows:
    """The conversations, all over. They hold neither the table nor the capture file."""

    rows: Sequence[FlowState | bytes]
    words: Words

    def summary(self, index: int) -> Summary:
        row = self.rows[index]
        return summary_of(row) if isinstance(row, FlowState) else summarise(row, self.words)

    def beginning(self, index: int) -> tuple[int, bool]:
        """Its first frame, 0 if none was noted, and whether another conversation has the same ends."""
        row = self.rows[index]
        if isinstance(row, bytes):
            return beginning_of(row)
        return row.frames[0] if row.frames else 0, row.forgotten or row.reuses

    def ends(self, index: int) -> tuple[str, str, bool, int, int]:
        """The client's address and the server's, whether they are such, the begin, and the first frame, 0 if none."""
        row = self.rows[index]
        if isinstance(row, bytes):
            return ends_of(row)
        first = row.frames[0] if row.frames else 0
        return row.client.endpoint.address, row.server.endpoint.address, row.roles, row.started_ns, first

    def frames(self, index: int) -> Sequence[int]:
        row = self.rows[index]
        return frames_of(row) if isinstance(row, bytes) else row.frames

    def flow(self, index: int) -> Flow:
        told = self.summary(index)
        (sent, received), (sent_octets, received_octets) = told.packets, told.octets
        return Flow(
            told.protocol,
            told.client,
            told.server,
            Volume(sent, sent_octets, told.payload_octets[0]),
            Volume(received, received_octets, told.payload_octets[1]),
            told.first_frame,
            told.last_frame,
            told.started_ns / 1e9,
            told.ended_ns / 1e9,
            told.bursts,
            told.application,
        )

    def flows(self) -> Lazy[Flow]:
        return Lazy(len(self.rows), self.flow)


class Sightings(Lazy[Sighting]):
    """All sightings by their first frame; those of one kind are had without making the others."""

    __slots__ = ("_found",)

    def __init__(self, count: int, make: Callable[[int], Sighting], found: Sequence[Sighting]) -> None:
        super().__init__(count, make)
        self._found = found

    def of(self, *kinds: Kind) -> Iterator[Sighting]:
        """Those of the kinds, in order."""
        several: Iterable[Sighting] = self if set(kinds) & set(KINDS) else self._found
        return (sighting for sighting in several if sighting.kind in kinds)


@dataclass(slots=True)
class _FirstFrames:
    """The first of an address's frames; of a server of many no more than are handed out, or a few times as many."""

    most: int
    found: set[int] = field(default_factory=set)
    last: int = LAST_FRAME  # none behind it is among the first

    def add(self, frames: Iterable[int]) -> None:
        self.found.update(frames)
        if len(self.found) > MOST_TIMES_AS_MANY * self.most:
            kept = self.in_order()
            self.found, self.last = set(kept), kept[-1] if kept else 0

    def in_order(self) -> tuple[int, ...]:
        return tuple(sorted(self.found)[: self.most])


@dataclass(slots=True)
class Telling:
    """One pass over all conversations, in their order."""

    rows: Rows
    findings: Findings
    most: int  # frames of a sighting
    addresses: dict[str, tuple[int, ...]] = field(default_factory=dict)
    _seen: dict[tuple[Kind, str], int] = field(default_factory=dict)  # addresses by role, and since when

    def sight_addresses(self, table: FlowTable, noted_frames: dict[str, list[int]]) -> None:
        """Every address with its first frames, and as whose it is known."""
        frames: dict[str, _FirstFrames] = {}
        for index in range(len(table.flows)):
            client, server, roles, started_ns, first = self.rows.ends(index)
            fragments = table.fragments(index)
            for kind, address in ((Kind.CLIENT_ADDRESS, client), (Kind.SERVER_ADDRESS, server)):
                shown = frames.get(address)
                if shown is None:
                    shown = frames[address] = _FirstFrames(self.most)
                if first <= shown.last or fragments:
                    shown.add((*self.rows.frames(index), *fragments))
                if roles and (kind, address) not in self._seen:
                    self._seen[kind, address] = started_ns
        for address, pieces in noted_frames.items():
            frames.setdefault(address, _FirstFrames(self.most)).add(pieces)
        self.addresses = {address: shown.in_order() for address, shown in frames.items()}
        for (kind, address), started_ns in self._seen.items():
            if is_unicast(address):
                display_filter = filters.address(address)
                self.findings.sight_in_all(kind, address, self.addresses[address], started_ns, display_filter, "ip")

    def sightings(self, table: FlowTable) -> Sightings:
        """What the dissectors found, and two for each conversation with frames; what a limit leaves out is said."""
        room = self.findings.room()
        codes, firsts, equals = array("Q"), array("Q"), _Equals(self.rows, self.most)
        for index in range(len(self.rows.rows)):
            first, shares_ends = self.rows.beginning(index)
            told = self.rows.summary(index) if first and (shares_ends or table.has_layers) else None
            for code in (2 * index, 2 * index + 1) if first else ():
                if told is not None and equals.joins(code, told, room > 0):
                    continue
                if room <= 0:
                    self.findings.limit("more sightings than the limit", first)
                    continue
                room -= 1
                codes.append(code)
                firsts.append(first)
        return self._in_order(self.findings.sightings(), codes, firsts, equals)

    def _in_order(
        self, found: tuple[Sighting, ...], codes: array[int], firsts: array[int], equals: _Equals
    ) -> Sightings:
        """Both by their first frame, what the dissectors found before the others of that frame."""
        if any(later < sooner for sooner, later in pairwise(firsts)):
            by_frame = sorted(range(len(codes)), key=firsts.__getitem__)
            codes = array("Q", [codes[at] for at in by_frame])
            firsts = array("Q", [firsts[at] for at in by_frame])
        behind = 2 * len(self.rows.rows)  # the codes: there begin those of `found`
        order, upto = array("Q"), 0
        for at, sighting in enumerate(found):
            end = bisect_left(firsts, sighting.frames[0] if sighting.frames else 0, upto)
            order.extend(codes[upto:end])
            order.append(behind + at)
            upto = end
        order.extend(codes[upto:])

        def make(at: int) -> Sighting:
            code = order[at]
            return found[code - behind] if code >= behind else equals.sighting(code)

        return Sightings(len(order), make, found)


@dataclass(slots=True)
class _Equals:
    """Sentences of conversations between the same ends: equal ones are one sighting, with the frames of all.

    Shape: `merged` has the codes of the further ones by that of the first
    """

    rows: Rows
    most: int
    merged: dict[int, int | list[int]] = field(default_factory=dict)
    _codes: dict[int, int] = field(default_factory=dict)  # by a number that equal sentences share

    def joins(self, code: int, told: Summary, is_told: bool) -> bool:
        """Whether the same was said of an earlier conversation; if not, and this is told, it may be of a later one."""
        lasted = f"{(told.ended_ns - told.started_ns) / 1e9:.3f}"
        said = (told.bursts, lasted) if code & 1 else (told.packets, told.octets)
        number = hash((told.protocol, told.client, told.server, told.also, said))
        known = self._codes.setdefault(number, code) if is_told else self._codes.get(number, code)
        if known == code:
            return False
        first, further = self._sentence(known), sight_volume(told, code & 1, self.most)
        if (first.kind, first.value, first.display_filter) != (further.kind, further.value, further.display_filter):
            return False
        others = self.merged.get(known)
        if others is None:
            self.merged[known] = code  # mostly there is one, and a list of one takes as much as ten numbers
        elif isinstance(others, int):
            self.merged[known] = [others, code]
        else:
            others.append(code)
        return True

    def _sentence(self, code: int) -> Sighting:
        return sight_volume(self.rows.summary(code >> 1), code & 1, self.most)

    def sighting(self, code: int) -> Sighting:
        """The first one's sentence, with the frames of all."""
        first, others = self._sentence(code), self.merged.get(code, ())
        for other in (others,) if isinstance(others, int) else others:
            further = self._sentence(other)
            frames = sorted(dict.fromkeys((*first.frames, *further.frames[: self.most - len(first.frames)])))
            first = replace(first, frames=tuple(frames), time=min(first.time, further.time))
        return first


def sight_volume(told: Summary, which: int, most: int) -> Sighting:
    """How much a conversation carried (0), or when (1)."""
    display_filter = filters.between(told.protocol, told.client, told.server)
    if told.also:
        display_filter += f" && {told.also}"
    ends = f"{told.protocol} {told.client} -> {told.server}"
    if which:
        seconds = (told.ended_ns - told.started_ns) / 1e9
        value = f"{ends}: {seconds:.3f} s in {told.bursts} burst{'s' if told.bursts > 1 else ''}"
    else:
        value = (
            f"{ends}: {told.packets[0]} packets of {told.octets[0]} octets sent, "
            f"{told.packets[1]} packets of {told.octets[1]} octets received"
        )
    frames = tuple(sorted(set(told.frames[:most])))
    return Sighting(KINDS[which], value, frames, told.started_ns / 1e9, display_filter, "ip")
