"""What no reassembled stream holds, joined as it came, so that a text split over frames is found there too.

The observer reassembles TCP, and keeps UDP and ICMP in order; its streams are searched as they are. What it could not
put together has no stream: fragments of a datagram that never became whole, segments beyond a limit, protocols other
than these, frames without IP. Their octets are joined here by sender, receiver, protocol and ports (fragments by their
datagram, in its order), headers left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from testbed.verdict.evidence import CapturedFrame, CapturedStream
from testbed.verdict.headers import ETHERNET, TCP, UDP, transport

MAC_AND_TYPE_OCTETS = 14
_Piece = tuple[int, int, bytes]  # a fragment's offset in its datagram, else 0; the frame's number; its octets
LAYER = "unassembled"  # also the label: where a hit says it stands


@dataclass(frozen=True, slots=True)
class Unassembled:
    """Frames' octets joined. Shape: as `CapturedStream`."""

    label: str
    data: bytes
    segments: Sequence[tuple[int, int]]


def unassembled(
    frames: Iterable[CapturedFrame], streams: Iterable[CapturedStream], link_type: int = ETHERNET
) -> tuple[Unassembled, ...]:
    """The conversations of all frames that no stream took octets from, where there is more than one frame of them."""
    covered = {frame for stream in streams for _, frame in stream.segments}
    found: dict[tuple[bytes | int, ...], list[_Piece]] = {}
    for frame in frames:
        if frame.number not in covered:
            for key, offset, payload in _payload(frame.data, link_type):
                found.setdefault(key, []).append((offset, frame.number, payload))
    return tuple(_joined(sorted(pieces)) for pieces in found.values() if len(pieces) > 1)


def _payload(data: bytes, link_type: int) -> Iterator[tuple[tuple[bytes | int, ...], int, bytes]]:
    """What a frame's octets belong to, where in it a fragment's do, and the octets."""
    packet = transport(data, link_type)
    if packet is None:
        if len(data) > MAC_AND_TYPE_OCTETS:
            yield (data[6:14],), 0, data[MAC_AND_TYPE_OCTETS:]
        return
    start, ports = packet.start, b""
    if packet.fragment is None and packet.protocol == TCP and packet.end >= start + 20:
        ports, start = data[start : start + 4], start + (data[start + 12] >> 4) * 4
    elif packet.fragment is None and packet.protocol == UDP and packet.end >= start + 8:
        ports, start = data[start : start + 4], start + 8
    if start < packet.end:
        key = (packet.source, packet.destination, packet.protocol, ports, packet.fragment or b"")
        yield key, packet.offset, data[start : packet.end]


def _joined(pieces: Sequence[_Piece]) -> Unassembled:
    segments, at = [], 0
    for _, number, payload in pieces:
        segments.append((at, number))
        at += len(payload)
    return Unassembled(f"{LAYER} frames", b"".join(payload for _, _, payload in pieces), tuple(segments))
