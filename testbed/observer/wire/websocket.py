"""WebSocket's frames as anybody can read them: what hides a client's octets is a mask, and it stands beside them.

    fin, compressed, 0, 0, opcode (4 bits) | masked, length (7 bits) | [length (2 or 8)] | [mask (4)] | payload

A message may come in several frames, other ones for control between them; one that is compressed (`permessage-deflate`)
goes on with the window of those before it, unless the ends agreed otherwise, which then changes nothing here.

Source: RFC 6455 section 5, RFC 7692 section 7.2
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

from testbed.observer.wire.codings import Allowance, as_allowance

CONTINUATION, TEXT, BINARY = 0, 1, 2
CLOSE, PING, PONG = 8, 9, 10
OPCODES = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG))
FIN, COMPRESSED, RESERVED, MASKED = 0x80, 0x40, 0x30, 0x80
MOST_CONTROL_OCTETS = 125
TAIL = b"\0\0\xff\xff"  # of a compressed message, left out on the wire


class Frame(NamedTuple):
    """Shape: octets `payload_at` to `end` of the stream, as carried; `payload` without the mask."""

    first: int
    payload: bytes
    masked: bool
    payload_at: int
    end: int

    @property
    def opcode(self) -> int:
        return self.first & 15


class Message(NamedTuple):
    """Shape: `frames` in order; `altered` says that `data` is not one stretch of what the wire carries."""

    data: bytes
    frames: tuple[Frame, ...]
    altered: bool


def read_frames(data: bytes) -> Iterator[Frame]:
    """The frames from the beginning on, up to one that makes no sense or is cut off."""
    at = 0
    while at + 2 <= len(data):
        first, length, payload_at = data[at], data[at + 1] & 0x7F, at + 2
        if length > MOST_CONTROL_OCTETS:
            octets = 2 if length == 126 else 8
            length, payload_at = int.from_bytes(data[payload_at : payload_at + octets], "big"), payload_at + octets
        masked = bool(data[at + 1] & MASKED)
        mask = data[payload_at : payload_at + 4] if masked else b""
        payload_at += len(mask)
        end = payload_at + length
        if first & RESERVED or first & 15 not in OPCODES or end > len(data):
            return
        if first & 15 >= CLOSE and (length > MOST_CONTROL_OCTETS or not first & FIN):
            return
        yield Frame(first, _unmasked(data[payload_at:end], mask), masked, payload_at, end)
        at = end


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    if not mask or not payload:
        return payload
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")


def read_messages(data: bytes, limit: int | Allowance) -> Iterator[Message]:
    """What one end says, up to what makes no sense. Shape: `limit` is how many octets a compressed message may have,
    or an allowance for all; one that has more is the last."""
    allowance = as_allowance(limit)
    window = zlib.decompressobj(-zlib.MAX_WBITS)
    begun: list[Frame] = []
    for frame in read_frames(data):
        if frame.opcode >= CLOSE:
            yield Message(frame.payload, (frame,), frame.masked)
            continue
        if (frame.opcode == CONTINUATION) != bool(begun):
            return
        begun.append(frame)
        if not frame.first & FIN:
            continue
        octets, compressed = b"".join(part.payload for part in begun), bool(begun[0].first & COMPRESSED)
        if compressed:
            most = min(allowance.body_octets, allowance.left)
            try:
                octets = window.decompress(octets + TAIL, most) if most > 0 else b""
            except zlib.error:
                return
            allowance.left -= len(octets)
            allowance.cut |= len(octets) >= most
            window = zlib.decompressobj(-zlib.MAX_WBITS) if window.eof else window
        yield Message(octets, tuple(begun), compressed or frame.masked or len(begun) > 1)
        begun = []
        if allowance.cut:
            return
