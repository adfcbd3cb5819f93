"""HTTP/2 without TLS, as it stands on the wire: frames into messages with headers, bodies and trailers, per stream.

    client: "PRI * HTTP/2.0 ... SM" | frames      server: frames      frame: length (3) | type | flags | stream (4)

Header blocks are compressed against what the same direction sent before (HPACK), so reading needs every octet from the
beginning: behind a hole nothing can be read. Only what is told by its own octets is read; flow control and the rules of
streams are the ends' business.

Source: RFC 9113, RFC 7541
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from testbed.observer.wire.codings import Allowance, as_allowance, split_list

if TYPE_CHECKING:
    from hpack import Decoder  # imported where the first messages are read: most captures have none

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER_OCTETS = 9
DATA, HEADERS, SETTINGS, PUSH_PROMISE, CONTINUATION = 0, 1, 4, 5, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 0x20
KNOWN_TYPES = 10
LARGEST_TABLE_OCTETS = 1 << 20
LARGEST_HEADER_LIST_OCTETS = 1 << 18
MOST_MESSAGES = 10_000
MOST_BLOCK_OCTETS = 1 << 18


class Frame(NamedTuple):
    """Shape: `start` and `end` are offsets in the direction's octets."""

    type: int
    flags: int
    stream: int
    payload: bytes
    start: int
    end: int


class HeaderBlock(NamedTuple):
    """One message's or trailer's headers. Shape: `end` is the offset behind the frame that completed them."""

    fields: tuple[tuple[bytes, bytes], ...]
    end: int
    stream: int = 0
    continued: bool = False  # whether it came in several frames

    def value(self, name: bytes) -> bytes:
        return next((value for known, value in self.fields if known == name), b"")


@dataclass(slots=True)
class Message:
    """What one end says in one stream. Shape: `wire_body` as carried, `body` decoded once `finish` was called.

    `pieces` are the offsets behind each DATA frame with that frame's octets of the body.
    """

    stream: int
    blocks: list[HeaderBlock] = field(default_factory=list)
    pieces: list[tuple[int, bytes]] = field(default_factory=list)
    octets: int = 0
    ended: bool = False
    body: bytes = b""
    coded: bool = False
    altered: bool = False  # whether `body` is not one stretch of what the wire carries

    def value(self, name: bytes) -> bytes:
        return next((block.value(name) for block in self.blocks if block.value(name)), b"")

    def finish(self, allowance: Allowance) -> None:
        wire_body = b"".join(piece for _, piece in self.pieces)
        codings = split_list(self.value(b"content-encoding"))
        self.coded = bool(codings)
        self.body = allowance.decode(wire_body, codings)
        self.altered = len(self.pieces) > 1 or self.body is not wire_body


@dataclass(slots=True)
class Direction:
    """All that was read of one direction. `failed` says why reading ended early, if it did."""

    messages: list[Message] = field(default_factory=list)
    pushed: list[HeaderBlock] = field(default_factory=list)  # requests that the server answers unasked
    failed: str = ""
    end: int = 0


def has_preface(data: bytes) -> bool:
    return data.startswith(PREFACE)


def looks_like_server(data: bytes) -> bool:
    """Whether octets begin with a SETTINGS frame, as a server's must."""
    length = int.from_bytes(data[:3], "big")
    return len(data) >= FRAME_HEADER_OCTETS and data[3:9] == b"\4\0\0\0\0\0" and length % 6 == 0 and length < 600


def parse_direction(data: bytes, at: int, limit: int | Allowance) -> Direction:
    """The messages in the frames from `at` on. Shape: `limit` is how many octets one body may have, or an allowance."""
    from hpack import Decoder

    allowance = as_allowance(limit)
    found = Direction(end=at)
    decoder = Decoder(max_header_list_size=LARGEST_HEADER_LIST_OCTETS)
    decoder.max_allowed_table_size = LARGEST_TABLE_OCTETS
    streams: dict[int, Message] = {}
    block: list[Frame] = []
    for frame in _frames(data, at):
        if block and (frame.type != CONTINUATION or frame.stream != block[0].stream):
            found.failed = "a header block is interrupted"
            break
        found.end = frame.end
        if frame.type in (HEADERS, PUSH_PROMISE, CONTINUATION):
            block.append(frame)
            if frame.flags & END_HEADERS:
                if not _take_block(block, decoder, streams, found):
                    break
                block = []
            elif sum(len(part.payload) for part in block) > MOST_BLOCK_OCTETS:
                found.failed = "a header block is too long"
                break
        elif frame.type == DATA:
            _take_data(frame, streams, allowance)
        if len(found.messages) >= MOST_MESSAGES:
            found.failed = "too many messages"
            break
    for message in found.messages:
        message.finish(allowance)
    return found


def _frames(data: bytes, at: int) -> list[Frame]:
    frames = []
    while at + FRAME_HEADER_OCTETS <= len(data):
        end = at + FRAME_HEADER_OCTETS + int.from_bytes(data[at : at + 3], "big")
        if end > len(data):
            break
        stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
        frames.append(Frame(data[at + 3], data[at + 4], stream, data[at + FRAME_HEADER_OCTETS : end], at, end))
        at = end
    return frames


def _unpadded(frame: Frame) -> bytes:
    if not frame.flags & PADDED or not frame.payload:
        return frame.payload
    return frame.payload[1 : max(len(frame.payload) - frame.payload[0], 1)]


def _take_block(block: list[Frame], decoder: Decoder, streams: dict[int, Message], found: Direction) -> bool:
    """Decode a whole header block; False, with the reason noted, where it cannot be."""
    from hpack import HPACKError

    first = block[0]
    if first.type == CONTINUATION:
        found.failed = "a header block without its beginning"
        return False
    fragment = _unpadded(first)
    if first.type == PUSH_PROMISE:
        fragment = fragment[4:]
    elif first.flags & PRIORITY:
        fragment = fragment[5:]
    octets = fragment + b"".join(frame.payload for frame in block[1:])
    try:
        fields = tuple((bytes(name), bytes(value)) for name, value in decoder.decode(octets, raw=True))
    except HPACKError as error:
        found.failed = f"headers cannot be decompressed: {type(error).__name__}"
        return False
    headers = HeaderBlock(fields, block[-1].end, first.stream, len(block) > 1)
    if first.type == PUSH_PROMISE:
        found.pushed.append(headers)
        return True
    message = streams.get(first.stream)
    if message is None or message.ended:
        message = streams[first.stream] = Message(first.stream)
        found.messages.append(message)
    message.blocks.append(headers)
    message.ended |= bool(first.flags & END_STREAM)
    return True


def _take_data(frame: Frame, streams: dict[int, Message], allowance: Allowance) -> None:
    message = streams.get(frame.stream)
    if message is None or message.ended:
        return
    octets = _unpadded(frame)
    piece = octets[: max(allowance.body_octets - message.octets, 0)]
    allowance.cut |= len(piece) < len(octets)
    message.octets += len(piece)
    if piece:
        message.pieces.append((frame.end, piece))
    message.ended |= bool(frame.flags & END_STREAM)
