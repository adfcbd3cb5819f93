"""Readable octets of no protocol that has a dissector: shown as they are."""

from __future__ import annotations

from testbed.facts import Kind
from testbed.observer import filters
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import Side
from testbed.observer.streams import Run

SHORTEST_TEXT_OCTETS = 4
TEXT_SHARE = 0.9
TEXT_SAMPLE_OCTETS = 512
READABLE_OCTETS = bytes(range(0x20, 0x7F)) + b"\r\n\t"
PIECES_IN_FILTER = 8


def is_text(data: bytes) -> bool:
    """Whether people can read it: nearly all of it printable, and at least a word long."""
    sample = data[:TEXT_SAMPLE_OCTETS]
    if len(sample) < SHORTEST_TEXT_OCTETS:
        return False
    if sample.isascii():
        return len(sample.translate(None, READABLE_OCTETS)) <= (1 - TEXT_SHARE) * len(sample)
    text = sample.decode("utf-8", "replace")
    if text.count("\ufffd") > (1 - TEXT_SHARE) * len(text):
        return False  # the common case, told without looking at every character
    readable = sum(1 for char in text if (char.isprintable() and char != "\ufffd") or char in "\r\n\t")
    return readable >= TEXT_SHARE * len(text)


def sight_datagram_text(data: bytes, field: str, via: str, place: Place, findings: Findings) -> None:
    display_filter = f"{field} contains {filters.octets(data)}"
    findings.sight(Kind.PAYLOAD, as_text(data), place.frame, place.time_ns, display_filter, via)


def sight_stream_text(side: Side, run: Run, findings: Findings) -> None:
    """One sighting for the run, found by its first segments."""
    if not is_text(run.data):
        return
    pieces = side.recorder.pieces_between(run.start, run.start + len(run.data))[:PIECES_IN_FILTER]
    display_filter = " || ".join(f"tcp.payload contains {filters.octets(data)}" for data, _ in pieces)
    _, time_ns = side.recorder.completed(run.start + 1)
    for _, frame in pieces:
        findings.sight(Kind.PAYLOAD, as_text(run.data), frame, time_ns, display_filter, "tcp")
