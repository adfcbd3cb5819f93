"""One capture as the verdict uses it: does a fact stand in it, and can its silence be trusted?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from testbed.facts import Fact, Kind, Sighting
from testbed.result import Evidence
from testbed.verdict.addresses import places, written, written_forms
from testbed.verdict.evidence import TapEvidence
from testbed.verdict.needles import explaining
from testbed.verdict.search import CaptureSearch, Hit, Wanted, frame_times

ADDRESS_KINDS = frozenset({Kind.CLIENT_ADDRESS, Kind.SERVER_ADDRESS, Kind.DNS_ANSWER})
NAME_KINDS = frozenset({Kind.DNS_NAME, Kind.HTTP_HOST, Kind.TLS_NAME, Kind.TLS_CERTIFICATE, Kind.QUIC_NAME})
NEVER_HIDDEN = frozenset({Kind.VOLUME, Kind.TIMING})
EVIDENCE_PER_CELL = 20
TEXT = "text"  # what a fact was read as that no dissector read


@dataclass(frozen=True, slots=True)
class Found:
    """That a fact stands in a capture, and where.

    Shape: `how` is empty if a dissector of its own kind read it; `read_as` is that kind, the one that read it instead,
        or TEXT for what only the search of the octets found.
    """

    evidence: tuple[Evidence, ...]
    how: str = ""
    read_as: str = ""


class Capture:
    """One tap's recording of one variant. `done` are the names that the client used in it."""

    def __init__(self, tap: TapEvidence, done: Iterable[str] = ()) -> None:
        self.tap = tap
        self.file = tap.file
        self.search = CaptureSearch(tap)
        self._times = frame_times(tap.frames)
        self._done = frozenset(done)
        self._read = frozenset(s.value for s in tap.sightings if s.kind in NAME_KINDS)
        self._by_kind: dict[Kind, list[Sighting]] = {}
        for sighting in tap.sightings:
            self._by_kind.setdefault(sighting.kind, []).append(sighting)
        self._folded = [(s.value.casefold(), s) for s in tap.sightings if s.frames]

    def wanted(self, fact: Fact) -> tuple[Wanted, ...]:
        """The texts whose presence gives the fact away."""
        if is_address(fact):
            return written_forms(fact.value)
        if fact.kind in NAME_KINDS:
            return tuple(Wanted(n, explaining(n, self._done, self._read)) for n in fact.needles if n)
        return tuple(Wanted(needle) for needle in fact.needles if needle)

    def apart_from(self, fact: Fact) -> tuple[str, ...]:
        """The longer names whose presence was not taken for the fact's."""
        return tuple(dict.fromkeys(name for wanted in self.wanted(fact) for name in wanted.longer))

    def prepare(self, facts: Iterable[Fact]) -> None:
        """Search for all of these at once."""
        self.search.prepare(wanted for fact in facts for wanted in self.wanted(fact))

    def find(self, fact: Fact) -> Found | None:
        """The fact, as its own dissector read it, or as any other part of the search found it."""
        sightings = [s for s in self._by_kind.get(fact.kind, ()) if _is(fact, s)]
        if sightings:
            if fact.kind in NEVER_HIDDEN:  # the conversation that shows most comes first
                sightings.sort(key=lambda sighting: -len(sighting.frames))
            return Found(self._of_sightings(sightings), "", fact.kind.value)
        if is_address(fact):
            return self._find_address(fact)
        wanted = self.wanted(fact)
        others = [s for folded, s in self._folded if _mentions(folded, wanted)]
        if others:
            first = others[0]
            how = f"{fact.value} stands in frame {first.frames[0]} as {first.kind}"
            return Found(self._of_sightings(others), how, first.kind.value)
        hits = [hit for one in wanted for hit in self.search.find(one)]
        return Found(self._of_hits(hits), _how(hits[0]), TEXT) if hits else None

    def _find_address(self, fact: Fact) -> Found | None:
        """An address in any parsed header or answer, whatever role the observer gave it, and then in the octets."""
        address = fact.value
        addresses = [s for kind in ADDRESS_KINDS for s in self._by_kind.get(kind, ())]
        others = sorted((s for s in addresses if _same_address(s.value, address)), key=lambda s: s.frames[:1])
        if others:
            kinds = list(dict.fromkeys(s.kind.value for s in others))
            how = f"{address} stands in frame {others[0].frames[0]} as {' and '.join(kinds)}"
            return Found(self._of_sightings(others), how, kinds[0])
        for written_as, frames in self.tap.addresses.items():
            if _same_address(written_as, address) and frames:
                display_filter = f"{'ipv6' if ':' in written_as else 'ip'}.addr == {written_as}"
                evidence = tuple(self._evidence(frame, display_filter) for frame in frames[:EVIDENCE_PER_CELL])
                return Found(evidence, f"{address} stands in the IP header of frame {frames[0]}", fact.kind.value)
        return self._find_in_octets(address)

    def _find_in_octets(self, address: str) -> Found | None:
        found = list(places(self.tap, self.search, address))
        if found:
            evidence = tuple(self._evidence(p.frame, p.display_filter) for p in found[:EVIDENCE_PER_CELL])
            return Found(evidence, f"{address} stands {found[0].where} of frame {found[0].frame}", TEXT)
        hits = list(written(self.search, address))
        return Found(self._of_hits(hits), _how(hits[0]), TEXT) if hits else None

    def doubt(self) -> str:
        """Why silence of this capture proves nothing; empty if it does."""
        tap = self.tap
        if tap.dropped:
            packets = "1 packet" if tap.dropped == 1 else f"{tap.dropped} packets"
            return f"the tap lost {packets}, so nothing can be called hidden"
        if not tap.frames:
            return "the tap recorded no packet, so there was nothing to search"
        if tap.packets != len(tap.frames):
            return f"the tap counted {tap.packets} packets, but the file has {len(tap.frames)}: something is missing"
        if tap.damage:
            return f"the capture is not whole: {tap.damage}"
        cut = sum(len(frame.data) < frame.wire_octets for frame in tap.frames)
        if cut:
            return f"the tap kept only a part of {cut} packets, so what the rest held is not known"
        return ""

    def searched(self, fact: Fact) -> str:
        """What a search for the fact covered, in words."""
        search = self.search
        parts = [f"{len(self.tap.frames)} packets"]
        parts += [f"{search.streams} reassembled streams"] if search.streams else []
        parts += [f"{search.bodies} decoded bodies"] if search.bodies else []
        everything = f"all {search.octets} octets of {_listed(parts)}"
        if is_address(fact):
            headers = f"the parsed headers and DNS answers of {parts[0]} (IP, ARP, quoted by ICMP, inside GRE and IP)"
            return f"{headers}, nor as text or PTR name in {everything}"
        return everything

    def _of_sightings(self, sightings: Iterable[Sighting]) -> tuple[Evidence, ...]:
        places = [(frame, s) for s in sightings for frame in s.frames]
        return tuple(self._evidence(frame, s.display_filter, s.time) for frame, s in places[:EVIDENCE_PER_CELL])

    def _of_hits(self, hits: Iterable[Hit]) -> tuple[Evidence, ...]:
        places = dict.fromkeys(place for hit in hits for place in zip(hit.frames, hit.filters, strict=True))
        return tuple(self._evidence(frame, text) for frame, text in list(places)[:EVIDENCE_PER_CELL])

    def _evidence(self, frame: int, display_filter: str, time: float = 0.0) -> Evidence:
        return Evidence(self.file, frame, self._times.get(frame, time), display_filter)


def is_address(fact: Fact) -> bool:
    """Whether the fact is searched in header and answer fields, and not as text."""
    return fact.kind in ADDRESS_KINDS and not fact.needles


def _is(fact: Fact, sighting: Sighting) -> bool:
    """Whether a sighting of the fact's own kind is of this fact."""
    if fact.kind in NEVER_HIDDEN:
        return True
    if fact.kind is Kind.TUNNEL:
        endpoint = re.escape(fact.value.rpartition(" ")[2])
        return re.search(rf"(?<![\w.:]){endpoint}(?![\w.])", sighting.value) is not None
    if fact.kind in ADDRESS_KINDS and _same_address(fact.value, sighting.value):
        return True
    if fact.kind in NAME_KINDS:
        return fact.value.lower().rstrip(".") == sighting.value.lower().rstrip(".")
    # The canary makes it the same thing, also where a proxy or a library changed what surrounds it.
    return fact.value == sighting.value or any(needle and needle in sighting.value for needle in fact.needles)


def _mentions(value: str, wanted: Iterable[Wanted]) -> bool:
    """Whether what a dissector of another kind read contains the fact: a name looked up may stand in a URL."""
    return any((needle := one.needle.casefold()) in value and needle in _without(value, one.longer) for one in wanted)


def _without(value: str, names: Iterable[str]) -> str:
    for name in names:
        value = value.replace(name, "")
    return value


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _same_address(one: str, other: str) -> bool:
    return one == other or _canonical(one) == _canonical(other)


@lru_cache(maxsize=1 << 16)
def _canonical(address: str) -> str:
    try:
        return str(ip_address(address))
    except ValueError:
        return address


def _how(hit: Hit) -> str:
    frames = f"frame {hit.frames[0]}" if len(hit.frames) == 1 else f"frames {', '.join(map(str, hit.frames))}"
    place = frames if hit.where == "frame" else f"the {hit.where} stream of {frames}"
    form = {"plain": "", "case-folded": " in other case", "DNS labels": " as DNS labels"}.get(
        hit.transform, f" in {hit.transform}"
    )
    return f"{hit.needle} stands in {place}{form}"
