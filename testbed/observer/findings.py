"""Where the dissectors put what they found: sightings (each value once, with all its frames), names, warnings.

Everything is bounded by the limits; what does not fit is counted and said, never silently forgotten.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.facts import Kind, Sighting
from testbed.observer import filters
from testbed.observer.model import ClearText, Hint, Limits, Name, Tunnel
from testbed.observer.wire.codings import Allowance, unread_coding

CLEAR_KINDS = {Kind.HTTP_URL: "http", Kind.HTTP_BODY: "http-body", Kind.PAYLOAD: "payload"}
CLEAR_TEXT_LENGTH = 200
SPELLINGS_KEPT = 10_000
GROUPS_KEPT = 256
NEVER = 1 << 200  # nanoseconds: no capture file can hold such a time
NO_DETAIL: dict[str, str | int | float] = {}  # of all sightings that have none; nobody adds to it
FILTERS_IN_HINT = 16  # one for each conversation; what further ones show is the same again


class Place(NamedTuple):
    """Where in the capture something stands."""

    frame: int
    time_ns: int


def as_text(octets: bytes) -> str:
    """Octets as people read them; what is no UTF-8 becomes `\\xNN`."""
    return octets.decode("utf-8", "backslashreplace")


@dataclass(slots=True)
class _Found:
    kind: Kind
    value: str
    display_filter: str
    via: str
    time_ns: int
    frames: Sequence[int]  # an array, or somebody else's sequence; each number once, in order
    detail: dict[str, str | int | float]

    def add(self, frame: int) -> None:
        frames = self.frames
        if not isinstance(frames, array):
            frames = self.frames = array("Q", frames)
        if not frames or frame > frames[-1]:
            frames.append(frame)
        elif frames[at := bisect_left(frames, frame)] != frame:
            frames.insert(at, frame)


@dataclass(slots=True)
class _Group:
    """Values that stand together. Shape: what is read at `full_from_ns` or later changes none of them any more."""

    found: tuple[_Found, ...]
    full_from_ns: int = NEVER


@dataclass(slots=True)
class _Hinted:
    rule: str
    filters: dict[str, None] = field(default_factory=dict)  # a set in order, as the frames
    frames: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True)
class Findings:
    limits: Limits
    tunnels: list[Tunnel] = field(default_factory=list)
    tunnel_ends: set[tuple[str, frozenset[str]]] = field(default_factory=set)  # protocol and both addresses
    complete: bool = True
    resolvers: set[str] = field(default_factory=set)  # addresses that said in clear DNS that they resolve any name
    connections: dict[bytes, int] = field(default_factory=dict)  # ids of QUIC connections: the flow that agreed on them
    connection_id_sizes: set[int] = field(default_factory=set)
    saw_dtls: bool = False
    ech_offers: dict[tuple[str, int], str] = field(default_factory=dict)  # public name, config id: for which host
    spellings: dict[tuple[tuple[bytes, ...], str, str], tuple[str, str]] = field(default_factory=dict)
    decoding: Allowance = field(init=False)  # of coded bodies, all together
    _found: dict[tuple[Kind, str, str], _Found] = field(default_factory=dict)
    _groups: dict[Hashable, _Group] = field(default_factory=dict)
    _names: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    _hints: dict[tuple[str, str, str], _Hinted] = field(default_factory=dict)
    _warnings: Counter[str] = field(default_factory=Counter)
    _first_frame: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.decoding = Allowance(self.limits.decoded_octets, self.limits.total_stream_octets)

    def note_decoding(self, frame: int) -> None:
        """Say it where a body of the conversation that begins with `frame` was cut off, or not decoded any more."""
        if self.decoding.cut:
            self.decoding.cut = False
            self.limit("decoded bodies longer than the limit were cut", frame)

    def note_coding(self, body: bytes, frame: int) -> None:
        """Say it where a body is still coded: what stands in it is neither shown nor searched."""
        coding = unread_coding(body)
        if coding:
            self.limit(f"bodies coded with {coding} are not decoded", frame)

    def sight(
        self,
        kind: Kind,
        value: str,
        frame: int,
        time_ns: int,
        display_filter: str,
        via: str,
        **detail: str | int | float,
    ) -> None:
        """Somebody on the path read `value` in `frame`."""
        if len(value) > self.limits.value_octets:
            value = value[: self.limits.value_octets]
            detail["truncated"] = 1
            self.limit("values longer than the limit were cut", frame)
        found = self._found.get((kind, value, display_filter))
        if found is None:
            found = self._enter(kind, value, frame, time_ns, display_filter, via, detail)
            if found is None:
                return
        elif time_ns < found.time_ns:
            found.time_ns = time_ns
        if len(found.frames) < self.limits.frames_per_sighting:
            found.add(frame)

    def sight_group_again(self, key: Hashable, place: Place) -> bool:
        """Whether the values of this key are known, and have now been read here as well."""
        group = self._groups.get(key)
        if group is None:
            return False
        frame, time_ns = place
        if time_ns >= group.full_from_ns:
            return True
        most, has_room = self.limits.frames_per_sighting, False
        for found in group.found:
            if time_ns < found.time_ns:
                found.time_ns = time_ns
            if len(found.frames) < most:
                found.add(frame)
                has_room = True
        if not has_room:
            group.full_from_ns = max((found.time_ns for found in group.found), default=0)
        return True

    def know_group(self, key: Hashable, group: Sequence[tuple[Kind, str, str]]) -> None:
        """Values that stand together, with their filters, and were just sighted; the same may come again."""
        if len(self._groups) < GROUPS_KEPT:
            found = [self._found.get(each) for each in group]
            known = tuple(each for each in found if each is not None)
            if len(known) == len(found):  # else some were cut, or left out, by a limit: that is said each time
                self._groups[key] = _Group(known)

    def sight_in_all(
        self, kind: Kind, value: str, frames: Sequence[int], time_ns: int, display_filter: str, via: str
    ) -> None:
        """Somebody on the path read `value`, a short one, in every one of `frames`, which nobody changes any more."""
        if not frames:
            return
        most = self.limits.frames_per_sighting
        found = self._found.get((kind, value, display_filter))
        if found is None:
            found = self._enter(kind, value, frames[0], time_ns, display_filter, via, NO_DETAIL)
            if found is not None:
                found.frames = frames if len(frames) <= most else frames[:most]
            return
        for frame in frames[: most - len(found.frames)]:
            found.add(frame)
        found.time_ns = min(found.time_ns, time_ns)

    def _enter(
        self,
        kind: Kind,
        value: str,
        frame: int,
        time_ns: int,
        display_filter: str,
        via: str,
        detail: dict[str, str | int | float],
    ) -> _Found | None:
        """A new sighting; None where the limit on sightings is reached."""
        if len(self._found) >= self.limits.sightings:
            self.limit("more sightings than the limit", frame)
            return None
        found = self._found[kind, value, display_filter] = _Found(
            kind, value, display_filter, via, time_ns, (), detail or NO_DETAIL
        )
        return found

    def knows(self, kind: Kind, value: str, display_filter: str) -> bool:
        return (kind, value, display_filter) in self._found

    def name(self, name: str, via: str, frame: int, display_filter: str = "") -> None:
        key = (name, via)
        known = self._names.get(key)
        if known is None and len(self._names) >= self.limits.sightings:
            self.limit("more names than the limit", frame)
        elif known is None or frame < known[0]:
            self._names[key] = (frame, display_filter)

    def hint(self, what: str, value: str, about: str, place: Place, display_filter: str, rule: str = "") -> None:
        """Something that tells of `about` without being a fact; each value once, with its frames."""
        hinted = self._hints.get((what, value, about))
        if hinted is None:
            if len(self._hints) >= self.limits.sightings:
                self.limit("more hints than the limit", place.frame)
                return
            hinted = self._hints[what, value, about] = _Hinted(rule)
        room = len(hinted.filters) < FILTERS_IN_HINT or display_filter in hinted.filters
        if room and len(hinted.frames) < self.limits.frames_per_sighting:
            hinted.filters[display_filter] = None
            hinted.frames[place.frame] = None

    def know_spelling(self, key: tuple[tuple[bytes, ...], str, str], text: str, display_filter: str) -> tuple[str, str]:
        """Remember how a name of these labels is spelled, and found in a field: most names come again."""
        known = text, display_filter
        if len(self.spellings) < SPELLINGS_KEPT:
            self.spellings[key] = known
        return known

    def know_ech_offer(self, public_name: str, config_id: int, host: str) -> None:
        if len(self.ech_offers) < self.limits.sightings:
            self.ech_offers.setdefault((public_name, config_id), host)

    def know_connection(self, connection_id: bytes, flow: int) -> None:
        if len(self.connections) < self.limits.flows:
            self.connections.setdefault(connection_id, flow)
            self.connection_id_sizes.add(len(connection_id))

    def warn(self, reason: str, frame: int) -> None:
        """Something could not be read. Counted by reason, so that a million bad packets are one line."""
        if reason in self._warnings or len(self._warnings) < self.limits.warnings:
            self._warnings[reason] += 1
            self._first_frame.setdefault(reason, frame)

    def limit(self, reason: str, frame: int) -> None:
        """A limit kept the observer from seeing or keeping everything."""
        self.complete = False
        self.warn(reason, frame)

    def room(self) -> int:
        """For how many more sightings."""
        return self.limits.sightings - len(self._found)

    def sightings(self) -> tuple[Sighting, ...]:
        """All of them; they are handed over, and are here no more: there may be many."""
        waiting = list(self._found.values())
        self._found.clear()
        self._groups.clear()
        waiting.reverse()
        made: list[Sighting] = []
        frames: tuple[int, ...] = ()
        last: object = None
        while waiting:
            found = waiting.pop()
            if found.frames is not last:  # volume and times of a conversation stand in the same frames
                last, frames = found.frames, tuple(found.frames)
            seconds = found.time_ns / 1e9
            sighting = Sighting(found.kind, found.value, frames, seconds, found.display_filter, found.via, found.detail)
            made.append(sighting)
        made.sort(key=_first_frame)
        return tuple(made)

    def names(self) -> tuple[Name, ...]:
        found = [Name(name, via, *where) for (name, via), where in self._names.items()]
        return tuple(sorted(found, key=lambda name: (name.frame, name.via, name.name)))

    def hints(self) -> tuple[Hint, ...]:
        found = [
            Hint(what, value, about, tuple(sorted(hinted.frames)), filters.either(tuple(hinted.filters)), hinted.rule)
            for (what, value, about), hinted in self._hints.items()
        ]
        return tuple(sorted(found, key=lambda hint: (hint.frames[0], hint.what, hint.about, hint.value)))

    def warnings(self) -> list[str]:
        lines = []
        for reason, count in self._warnings.items():
            where = f"frame {self._first_frame[reason]}" + (f" and {count - 1} more" if count > 1 else "")
            lines.append(f"{reason} ({where})")
        return lines


def _first_frame(sighting: Sighting) -> int:
    return sighting.frames[0] if sighting.frames else 0


def clear_text(sightings: Iterable[Sighting]) -> tuple[ClearText, ...]:
    """What anybody on the path could read word for word, for people in a hurry."""
    return tuple(
        ClearText(CLEAR_KINDS[s.kind], s.value[:CLEAR_TEXT_LENGTH], s.frames[0])
        for s in sightings
        if s.kind in CLEAR_KINDS and s.frames
    )
