"""The search that backs a "hidden": every captured octet and every reassembled stream, for every form of a text.

Frames are joined into one buffer, streams into another; each is scanned as a whole for all texts at once (`scan`), and
an offset leads back to its frame by bisection. A match in the joined frames counts only within one frame. A stream is
searched in its own order, so a text that two segments share is found there; what no stream holds is joined as it came
(`unassembled`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from testbed.verdict.evidence import CapturedFrame, CapturedStream, TapEvidence
from testbed.verdict.needles import Pattern, patterns, surroundings
from testbed.verdict.scan import scan
from testbed.verdict.unassembled import LAYER, unassembled

HITS_PER_PATTERN = 100
SHORTEST_PIECE_OCTETS = 3
DECODED = "http-body"


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where a text stands. Shape: a stream's hit may lie across several frames, one filter for each."""

    needle: str
    transform: str
    frames: tuple[int, ...]
    filters: tuple[str, ...]
    where: str  # "frame" or the stream's layer


@dataclass(frozen=True, slots=True)
class Wanted:
    """A text to look for, except where it stands within one of `longer` (see `needles.explaining`).

    Shape: `apart_from` are octets that make it another text if they stand right before or behind: an address is
        not part of one with more digits.
    """

    needle: str
    longer: tuple[str, ...] = ()
    apart_from: bytes = b""


@dataclass(slots=True)
class _Places:
    """Where one wanted text's patterns stand: (pattern, index of the piece, offset in it, octets as they stand)."""

    frames: list[tuple[Pattern, int, int, bytes]] = field(default_factory=list)
    streams: list[tuple[Pattern, int, int, bytes]] = field(default_factory=list)


class CaptureSearch:
    """One capture, ready to be searched for any number of texts; what was found is remembered."""

    def __init__(self, tap: TapEvidence) -> None:
        self._frames = _Joined([frame.data for frame in tap.frames])
        self._numbers = [frame.number for frame in tap.frames]
        self._stream_values: Sequence[CapturedStream] = (
            *tap.streams,
            *unassembled(tap.frames, tap.streams, tap.link_type),
        )
        self._streams = _Joined([stream.data for stream in self._stream_values])
        self._found: dict[Wanted, tuple[Hit, ...]] = {}
        self.octets = len(self._frames.exact)
        self.stream_octets = len(self._streams.exact)
        self.bodies = sum(_layer(stream) == DECODED for stream in tap.streams)
        self.streams = len(tap.streams) - self.bodies

    def prepare(self, wanted: Iterable[Wanted]) -> None:
        """Look for all of these at once, so that each is known when `find` asks for it."""
        new = [one for one in dict.fromkeys(wanted) if one not in self._found and one.needle]
        if not new:
            return
        owners = [(one, pattern) for one in new for pattern in patterns(one.needle)]
        places = {one: _Places() for one in new}
        for buffer, kept in ((self._frames, "frames"), (self._streams, "streams")):
            for number, place in buffer.find(owners):
                getattr(places[owners[number][0]], kept).append((owners[number][1], *place))
        for one in new:
            hits = self._hits(one.needle, places[one])
            self._found[one] = tuple(sorted(dict.fromkeys(hits), key=lambda hit: hit.frames))

    def find(self, wanted: str | Wanted) -> tuple[Hit, ...]:
        """Where the text stands in any of its forms, in the order of the frames."""
        one = Wanted(wanted) if isinstance(wanted, str) else wanted
        self.prepare((one,))
        return self._found.get(one, ())

    def octets_at(self, octets: bytes, most: int) -> Iterator[tuple[int, int]]:
        """The first frames, and the offsets in them, at which exactly these octets stand."""
        yield from self._frames.exactly(octets, most)

    def _hits(self, needle: str, places: _Places) -> Iterator[Hit]:
        known: set[tuple[str, int]] = set()
        for pattern, index, _, octets in places.frames:
            number = self._numbers[index]
            if (pattern.transform, number) not in known:
                known.add((pattern.transform, number))
                yield Hit(needle, _transform(needle, pattern, octets), (number,), (contains("frame", octets),), "frame")
        for pattern, index, offset, octets in places.streams:
            stream = self._stream_values[index]
            parts = _parts(stream, offset, len(octets))
            if not all((pattern.transform, number) in known for number in parts):
                filters = tuple(_stream_filter(_layer(stream), *part, octets) for part in parts.items())
                yield Hit(needle, _transform(needle, pattern, octets), tuple(parts), filters, _layer(stream))


def _transform(needle: str, pattern: Pattern, octets: bytes) -> str:
    if pattern.transform == "plain" and octets != needle.encode("utf-8", "surrogateescape"):
        return "case-folded"
    return pattern.transform


class _Joined:
    """Pieces as one buffer, with the way back from an offset to its piece; in lower case only if somebody asks."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.exact = b"".join(pieces)
        self._folded: bytes | None = None
        self._starts: list[int] = []
        at = 0
        for piece in pieces:
            self._starts.append(at)
            at += len(piece)

    def folded(self) -> bytes:
        if self._folded is None:
            self._folded = self.exact.lower()
        return self._folded

    def find(self, owners: Sequence[tuple[Wanted, Pattern]]) -> list[tuple[int, tuple[int, int, bytes]]]:
        """For each match inside one piece: number of the pattern; index of the piece, offset in it, octets there."""
        found: list[tuple[int, tuple[int, int, bytes]]] = []

        def accept(number: int, at: int) -> bool:
            wanted, pattern = owners[number]
            index, end = self._piece(at)
            stop = at + len(pattern.octets)
            begin = self._starts[index]
            if stop > end or self._explained(wanted, pattern, at, begin):
                return False
            if wanted.apart_from and pattern.transform == "plain" and self._goes_on(wanted, at, stop, begin, end):
                return False
            found.append((number, (index, at - begin, self.exact[at:stop])))
            return True

        scan(self.exact, self.folded, [pattern for _, pattern in owners], accept, HITS_PER_PATTERN)
        return sorted(found, key=lambda entry: entry[0])

    def exactly(self, octets: bytes, most: int) -> Iterator[tuple[int, int]]:
        """Index of the piece and offset in it of the first `most` places inside one piece."""
        at = self.exact.find(octets)
        while at >= 0 and most > 0:
            index, end = self._piece(at)
            if at + len(octets) <= end:
                most -= 1
                yield index, at - self._starts[index]
            at = self.exact.find(octets, at + 1)

    def _piece(self, at: int) -> tuple[int, int]:
        index = bisect_right(self._starts, at) - 1
        return index, self._starts[index + 1] if index + 1 < len(self._starts) else len(self.exact)

    def _explained(self, wanted: Wanted, pattern: Pattern, at: int, begin: int) -> bool:
        """Whether a match is part of a longer name that accounts for it."""
        for offset, form in surroundings(pattern, wanted.longer) if wanted.longer else ():
            start = at - offset
            if start >= begin and self.exact[start : start + len(form)].lower() == form:
                return True
        return False

    def _goes_on(self, wanted: Wanted, at: int, stop: int, begin: int, end: int) -> bool:
        """Whether the text is the middle of a longer one."""
        before, after = self.exact[max(begin, at - 1) : at], self.exact[stop : min(stop + 1, end)]
        return any(octet and octet in wanted.apart_from for octet in (before, after))


def contains(field: str, octets: bytes) -> str:
    """A Wireshark filter for packets whose field contains these octets, as text where they are text."""
    if all(0x20 <= octet < 0x7F and octet not in (0x22, 0x5C) for octet in octets):
        return f'{field} contains "{octets.decode("ascii")}"'
    if len(octets) == 1:
        return f'{field} contains "\\x{octets.hex()}"'
    return f"{field} contains {octets.hex(':')}"


def _layer(stream: CapturedStream) -> str:
    return stream.label.partition(" ")[0]


def _parts(stream: CapturedStream, offset: int, size: int) -> dict[int, tuple[int, int]]:
    """Which part of a match each frame holds, as positions in the match, in the order of the octets."""
    starts = [start for start, _ in stream.segments]
    parts: dict[int, tuple[int, int]] = {}
    index = max(bisect_right(starts, offset) - 1, 0)
    while index < len(starts) and (index == 0 or starts[index] < offset + size):
        begin = max(starts[index] - offset, 0)
        end = min(starts[index + 1] - offset, size) if index + 1 < len(starts) else size
        frame = stream.segments[index][1]
        parts[frame] = (min(begin, parts.get(frame, (begin, end))[0]), end)
        index += 1
    return {frame: part for frame, part in parts.items() if part[0] < part[1]}


def _stream_filter(layer: str, frame: int, part: tuple[int, int], octets: bytes) -> str:
    """A filter for the one frame and the part of the match that it holds."""
    if layer == DECODED:
        field = contains("http.file_data", octets)  # as decoded: the packet's own octets may be compressed
    else:
        piece = octets[part[0] : part[1]]
        # A short piece stands in many packets: only the number says which.
        short = "frame" if layer == LAYER else layer
        field = contains("frame", piece) if len(piece) >= SHORTEST_PIECE_OCTETS else short
    return f"frame.number == {frame} && {field}"


def frame_times(frames: Sequence[CapturedFrame]) -> dict[int, float]:
    """Unix seconds by frame number."""
    return {frame.number: frame.time for frame in frames}
