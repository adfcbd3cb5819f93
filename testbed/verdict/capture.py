"""One capture as the verdict uses it: does a fact stand in it, and can its silence be trusted?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from testbed.facts import Fact, Kind, Sighting
from testbed.result import Evidence
from testbed.verdict.evidence import TapEvidence
from testbed.verdict.search import CaptureSearch, Hit, frame_times

ADDRESS_KINDS = frozenset({Kind.CLIENT_ADDRESS, Kind.SERVER_ADDRESS, Kind.DNS_ANSWER})
NAME_KINDS = frozenset({Kind.DNS_NAME, Kind.HTTP_HOST, Kind.TLS_NAME, Kind.TLS_CERTIFICATE, Kind.QUIC_NAME})
NEVER_HIDDEN = frozenset({Kind.VOLUME, Kind.TIMING})
EVIDENCE_PER_CELL = 20


@dataclass(frozen=True, slots=True)
class Found:
    """That a fact stands in a capture, and where. Shape: `how` is empty if a dissector of its own kind read it."""

    evidence: tuple[Evidence, ...]
    how: str = ""


class Capture:
    """One tap's recording of one variant."""

    def __init__(self, tap: TapEvidence) -> None:
        self.tap = tap
        self.file = tap.file
        self.search = CaptureSearch(tap)
        self._times = frame_times(tap.frames)

    def find(self, fact: Fact) -> Found | None:
        """The fact, as its own dissector read it, or as any other part of the search found it."""
        sightings = [s for s in self.tap.sightings if _is(fact, s)]
        if sightings:
            if fact.kind in NEVER_HIDDEN:  # the conversation that shows most comes first
                sightings.sort(key=lambda sighting: -len(sighting.frames))
            return Found(self._of_sightings(sightings))
        if is_address(fact):
            return self._find_address(fact.value)
        others = [s for s in self.tap.sightings if s.frames and _mentions(s, fact)]
        if others:
            first = others[0]
            return Found(self._of_sightings(others), f"{fact.value} stands in frame {first.frames[0]} as {first.kind}")
        hits = [hit for needle in fact.needles if needle for hit in self.search.find(needle)]
        if not hits:
            return None
        return Found(self._of_hits(hits), _how(hits[0]))

    def _find_address(self, address: str) -> Found | None:
        """An address in any parsed header or answer, whatever role the observer gave it."""
        others = [s for s in self.tap.sightings if s.kind in ADDRESS_KINDS and _same_address(s.value, address)]
        if others:
            kinds = " and ".join(dict.fromkeys(s.kind.value for s in others))
            return Found(self._of_sightings(others), f"{address} stands in frame {others[0].frames[0]} as {kinds}")
        for written, frames in self.tap.addresses.items():
            if _same_address(written, address) and frames:
                display_filter = f"{'ipv6' if ':' in written else 'ip'}.addr == {written}"
                evidence = tuple(self._evidence(frame, display_filter) for frame in frames[:EVIDENCE_PER_CELL])
                return Found(evidence, f"{address} stands in the IP header of frame {frames[0]}")
        return None

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
        frames = len(self.tap.frames)
        if is_address(fact):
            return f"the parsed headers and DNS answers of {frames} packets"
        streams = f" and {self.search.streams} reassembled streams" if self.search.streams else ""
        return f"all {self.search.octets} octets of {frames} packets{streams}"

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
    if fact.kind is not sighting.kind:
        return False
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


def _mentions(sighting: Sighting, fact: Fact) -> bool:
    """Whether what a dissector of another kind read contains the fact: a name looked up may stand in a URL."""
    value = sighting.value.casefold()
    return any(needle and needle.casefold() in value for needle in fact.needles)


def _same_address(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        return ip_address(one) == ip_address(other)
    except ValueError:
        return False


def _how(hit: Hit) -> str:
    frames = f"frame {hit.frames[0]}" if len(hit.frames) == 1 else f"frames {', '.join(map(str, hit.frames))}"
    place = frames if hit.where == "frame" else f"the {hit.where} stream of {frames}"
    form = {"plain": "", "case-folded": " in other case", "DNS labels": " as DNS labels"}.get(
        hit.transform, f" in {hit.transform}"
    )
    return f"{hit.needle} stands in {place}{form}"
