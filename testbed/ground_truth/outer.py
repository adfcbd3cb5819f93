"""The tunnel's own packets out of the capture of its outside: over UDP each datagram, over TCP what the stream holds.

IP fragments are put together, TCP segments put in order (retransmitted, overlapping and out-of-order ones too). Each
packet knows the frames it came in, and its share of their octets: a segment may hold several packets, or a part of one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.verdict.evidence import CapturedFrame
from testbed.verdict.headers import TCP, UDP, Transport, transport

LARGEST_PACKET_OCTETS = 4096  # far more than either program sends
SYN = 2


class OuterPacket(NamedTuple):
    """One packet of the tunnel.

    Shape: `octets` is what it took of its frames' IP packets; `stream` tells connections apart.
    Units: `time` in Unix seconds, of the frame that completed it
    """

    packet: bytes
    to_server: bool
    frames: tuple[int, ...]
    time: float
    octets: float
    stream: int = 0


class End(NamedTuple):
    """The VPN server's outer address and port."""

    address: bytes
    port: int


def outer_packets(frames: Iterable[CapturedFrame], server: End, link_type: int) -> list[OuterPacket]:
    """Every packet to or from the server, in the order in which they were complete."""
    streams: dict[bytes, _Stream] = {}
    fragments: dict[bytes, _Fragments] = {}
    found: list[OuterPacket] = []
    for frame in frames:
        packet = transport(frame.data, link_type)
        if packet is None or server.address not in (packet.source, packet.destination):
            continue
        if packet.fragment is not None:
            key = packet.source + packet.destination + packet.fragment
            whole = fragments.setdefault(key, _Fragments()).add(frame, packet)
            if whole is not None:
                found += _datagram(whole, server, packet.source == server.address, frame)
                del fragments[key]
        elif packet.protocol == UDP:
            whole = _Whole(frame.data[packet.start : packet.end], (frame.number,), packet.octets)
            found += _datagram(whole, server, packet.source == server.address, frame)
        elif packet.protocol == TCP:
            found += _segment(streams, frame, packet, server)
    return found


class _Whole(NamedTuple):
    data: bytes
    frames: tuple[int, ...]
    octets: float


@dataclass(slots=True)
class _Fragments:
    """The pieces of one IP datagram."""

    pieces: dict[int, bytes] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)
    octets: float = 0.0
    end: int = -1

    def add(self, frame: CapturedFrame, packet: Transport) -> _Whole | None:
        self.pieces.setdefault(packet.offset, frame.data[packet.start : packet.end])
        self.frames.append(frame.number)
        self.octets += packet.octets
        if not packet.more:
            self.end = packet.offset + packet.end - packet.start
        data = b"".join(self.pieces[offset] for offset in sorted(self.pieces))
        return _Whole(data, tuple(self.frames), self.octets) if len(data) == self.end else None


def _datagram(whole: _Whole, server: End, from_server: bool, frame: CapturedFrame) -> Iterator[OuterPacket]:
    port = whole.data[0:2] if from_server else whole.data[2:4]
    if int.from_bytes(port, "big") == server.port and len(whole.data) > 8:
        yield OuterPacket(whole.data[8:], not from_server, whole.frames, frame.time, whole.octets)


@dataclass(slots=True)
class _Stream:
    """One direction of a TCP connection, in order, cut into packets by their length prefixes."""

    number: int
    expected: int | None = None  # sequence number of the next octet
    data: bytearray = field(default_factory=bytearray)  # what no packet has taken yet
    start: int = 0  # position in the stream of the first of it
    offsets: list[int] = field(default_factory=list)
    pieces: list[tuple[int, float]] = field(default_factory=list)  # frame, octets on the wire for each of its own
    waiting: dict[int, tuple[bytes, int, float]] = field(default_factory=dict)
    lost: bool = False  # no packet begins where one should: nothing more can be told

    def add(self, sequence: int, payload: bytes, frame: int, octets: float) -> None:
        if self.expected is None:
            self.expected = sequence
        self.waiting.setdefault(sequence, (payload, frame, octets))
        while (taken := self._next()) is not None:
            payload, frame, octets = taken
            self.offsets.append(self.start + len(self.data))
            self.pieces.append((frame, octets / len(payload)))
            self.data += payload
            self.expected = (self.expected + len(payload)) & 0xFFFFFFFF

    def _next(self) -> tuple[bytes, int, float] | None:
        """The waiting segment that goes on where the stream ends, without what is known of it."""
        for sequence, (payload, frame, octets) in list(self.waiting.items()):
            known = ((self.expected or 0) - sequence) & 0xFFFFFFFF
            if known < 1 << 31:
                del self.waiting[sequence]
                if known < len(payload):
                    return payload[known:], frame, octets
        return None

    def packets(self) -> Iterator[tuple[bytes, tuple[int, ...], float]]:
        while len(self.data) >= 2 and not self.lost:
            length = int.from_bytes(self.data[:2], "big")
            if not 1 <= length <= LARGEST_PACKET_OCTETS:
                self.lost = True
                return
            if len(self.data) < 2 + length:
                return
            frames, octets = self._share(self.start, self.start + 2 + length)
            yield bytes(self.data[2 : 2 + length]), frames, octets
            del self.data[: 2 + length]
            self.start += 2 + length

    def _share(self, begin: int, end: int) -> tuple[tuple[int, ...], float]:
        """The frames that hold these octets of the stream, and the octets on the wire that they stand for."""
        first = bisect_right(self.offsets, begin) - 1
        frames: dict[int, None] = {}
        octets = 0.0
        for index in range(first, len(self.offsets)):
            piece = self.offsets[index]
            if piece >= end:
                break
            stop = self.offsets[index + 1] if index + 1 < len(self.offsets) else end
            frame, each = self.pieces[index]
            frames[frame] = None
            octets += each * (min(stop, end) - max(piece, begin))
        del self.offsets[:first], self.pieces[:first]
        return tuple(frames), octets


def _segment(
    streams: dict[bytes, _Stream], frame: CapturedFrame, packet: Transport, server: End
) -> Iterator[OuterPacket]:
    data, start = frame.data, packet.start
    from_server = packet.source == server.address
    port = data[start : start + 2] if from_server else data[start + 2 : start + 4]
    if packet.end < start + 20 or int.from_bytes(port, "big") != server.port:
        return
    key = packet.source + packet.destination + data[start : start + 4]
    sequence = int.from_bytes(data[start + 4 : start + 8], "big")
    if data[start + 13] & SYN:
        streams[key] = _Stream(len(streams), (sequence + 1) & 0xFFFFFFFF)
    payload = data[start + (data[start + 12] >> 4) * 4 : packet.end]
    stream = streams.setdefault(key, _Stream(len(streams)))
    if payload:
        stream.add(sequence, payload, frame.number, packet.octets)
        for found, frames, octets in stream.packets():
            yield OuterPacket(found, not from_server, frames, frame.time, octets, stream.number)
