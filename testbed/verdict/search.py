"""The search that backs a "hidden": every captured octet and every reassembled stream, for every form of a text.

Frames are joined into one buffer, streams into another; each is scanned as a whole by `bytes.find`, which runs near
the speed of memory, and an offset leads back to its frame by bisection. A match in the joined frames counts only within
one frame. A stream is searched in its own order, so a text that two segments share is found there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from testbed.verdict.evidence import CapturedFrame, CapturedStream, TapEvidence
from testbed.verdict.needles import Pattern, patterns

HITS_PER_PATTERN = 100
SHORTEST_PIECE_OCTETS = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where a text stands. Shape: a stream's hit may lie across several frames, one filter for each."""

    needle: str
    transform: str
    frames: tuple[int, ...]
    filters: tuple[str, ...]
    where: str  # "frame" or the stream's layer


class CaptureSearch:
    """One capture, ready to be searched for any number of texts; what was found is remembered."""

    def __init__(self, tap: TapEvidence) -> None:
        self._frames = _Joined([frame.data for frame in tap.frames])
        self._numbers = [frame.number for frame in tap.frames]
        self._streams = _Joined([stream.data for stream in tap.streams])
        self._stream_values = tap.streams
        self._found: dict[str, tuple[Hit, ...]] = {}
        self.octets = len(self._frames.exact)
        self.stream_octets = len(self._streams.exact)
        self.streams = len(self._stream_values)

    def find(self, needle: str) -> tuple[Hit, ...]:
        """Where the text stands in any of its forms, in the order of the frames."""
        if needle not in self._found:
            hits = [hit for pattern in patterns(needle) for hit in self._find(needle, pattern)]
            self._found[needle] = tuple(sorted(set(hits), key=lambda hit: hit.frames))
        return self._found[needle]

    def _find(self, needle: str, pattern: Pattern) -> Iterator[Hit]:
        size = len(pattern.octets)
        known: set[int] = set()
        for index, _, octets in self._frames.find(pattern):
            number = self._numbers[index]
            if number not in known:
                known.add(number)
                yield Hit(needle, _transform(needle, pattern, octets), (number,), (contains("frame", octets),), "frame")
        for index, offset, octets in self._streams.find(pattern):
            stream = self._stream_values[index]
            parts = _parts(stream, offset, size)
            if not known.issuperset(parts):
                filters = tuple(_stream_filter(_layer(stream), *part, octets) for part in parts.items())
                yield Hit(needle, _transform(needle, pattern, octets), tuple(parts), filters, _layer(stream))


def _transform(needle: str, pattern: Pattern, octets: bytes) -> str:
    if pattern.transform == "plain" and octets != needle.encode("utf-8", "surrogateescape"):
        return "case-folded"
    return pattern.transform


class _Joined:
    """Pieces as one buffer, exact and folded, with the way back from an offset to its piece."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self.exact = b"".join(pieces)
        self.folded = self.exact.lower()
        self._starts: list[int] = []
        at = 0
        for piece in pieces:
            self._starts.append(at)
            at += len(piece)

    def find(self, pattern: Pattern) -> Iterator[tuple[int, int, bytes]]:
        """Index of the piece, offset in it, and the octets as they stand there, for each match inside one piece."""
        buffer = self.folded if pattern.folded else self.exact
        size, count = len(pattern.octets), 0
        at = buffer.find(pattern.octets)
        while at >= 0 and count < HITS_PER_PATTERN:
            index = bisect_right(self._starts, at) - 1
            end = self._starts[index + 1] if index + 1 < len(self._starts) else len(buffer)
            if at + size <= end:
                count += 1
                yield index, at - self._starts[index], self.exact[at : at + size]
            at = buffer.find(pattern.octets, at + 1)


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
    if layer == "http-body":
        field = contains("http.file_data", octets)  # as decoded: the packet's own octets may be compressed
    else:
        piece = octets[part[0] : part[1]]
        # A short piece stands in many packets: only the number says which.
        field = contains("frame", piece) if len(piece) >= SHORTEST_PIECE_OCTETS else layer
    return f"frame.number == {frame} && {field}"


def frame_times(frames: Sequence[CapturedFrame]) -> dict[int, float]:
    """Unix seconds by frame number."""
    return {frame.number: frame.time for frame in frames}
