"""Chooses which packets a report shows, and opens them: those that prove its cells, and the first observer's list.

Reads the closed captures of a run's directory, each once, from its beginning: at most `MOST_FRAMES` frames of a file
and `MOST_PACKETS` opened packets of a run. What lies beyond is in the capture; the report's display filters find it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from testbed.capture.reader import CaptureReader
from testbed.dissection.capture import CaptureDissector
from testbed.report.matrix import observers_of
from testbed.report.packets import PacketKey, PacketLine, PacketView
from testbed.result import Evidence, RunResult, Verdict

MOST_FRAMES = 2_000
MOST_PACKETS = 160
_FRAMES_PER_PROOF = 2


@dataclass(slots=True)
class ShownPackets:
    """Shape: `packets` by (file, frame); `lists` by variant, in the order of the capture."""

    packets: dict[PacketKey, PacketView] = field(default_factory=dict)
    lists: dict[str, list[PacketLine]] = field(default_factory=dict)


def shown_packets(result: RunResult, directory: Path) -> ShownPackets:
    """Open the packets that the report of this result names. Errors: OSError if a capture cannot be read."""
    shown = ShownPackets()
    wanted = _wanted(result)
    observer = next(iter(observers_of(result)), "")
    for variant in result.variants.values():
        for tap in variant.taps:
            frames = wanted.get(tap.file, set())
            listed = tap.name == observer
            if not frames and not listed:
                continue
            lines = shown.lists.setdefault(variant.name, []) if listed else []
            for key, view in _opened(directory, tap.file):
                lines.append(_line(key[1], view))
                if key[1] in frames:
                    shown.packets[key] = view
    return shown


def _opened(directory: Path, file: str) -> Iterator[tuple[PacketKey, PacketView]]:
    dissector = CaptureDissector()
    with CaptureReader(directory / file) as reader:
        for frame in islice(reader, MOST_FRAMES):
            yield (file, frame.number), dissector.open(frame)


def _wanted(result: RunResult) -> dict[str, set[int]]:
    """The frames to open, by file: the first of every proof, as many proofs as there is room for."""
    found = (
        (item.file, item.frame)
        for proof in _proofs(result)
        for item in proof[:_FRAMES_PER_PROOF]
        if item.filter  # a line of a server's own log has none
    )
    wanted: dict[str, set[int]] = {}
    for file, frame in islice(dict.fromkeys(found), MOST_PACKETS):
        wanted.setdefault(file, set()).add(frame)
    return wanted


def _proofs(result: RunResult) -> Iterator[tuple[Evidence, ...]]:
    for variant in result.variants.values():
        for exposure in variant.exposure:
            if exposure.verdict is Verdict.SEEN:
                yield exposure.evidence
    for expectation in result.expectations:
        yield expectation.evidence[:1]


def _line(frame: int, view: PacketView) -> PacketLine:
    return PacketLine(frame, view.time, view.source, view.destination, view.protocol, len(view.octets), view.summary)
