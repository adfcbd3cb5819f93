"""HTTP/2 in clear: its frames one by one, headers decompressed as far as the capture holds them from the beginning.

    preface of the client, then frames: length (3) | type (1) | flags (1) | stream (4) | payload

Header blocks depend on all earlier ones of their direction; behind a hole or an error they are only counted.

Source: RFC 9113, RFC 7541
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hpack import Decoder, HPACKError

from testbed.dissection.opening import Opening, text_of
from testbed.observer.sights.text import is_text
from testbed.observer.wire.http2 import LARGEST_HEADER_LIST_OCTETS, MOST_BLOCK_OCTETS, PREFACE, has_preface

_TYPES = {
    0: "DATA",
    1: "HEADERS",
    2: "PRIORITY",
    3: "RST_STREAM",
    4: "SETTINGS",
    5: "PUSH_PROMISE",
    6: "PING",
    7: "GOAWAY",
    8: "WINDOW_UPDATE",
    9: "CONTINUATION",
}
_DATA, _HEADERS, _PUSH_PROMISE, _CONTINUATION = 0, 1, 5, 9
_ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 4, 8, 0x20
_HEADER_OCTETS = 9
_LARGEST_FRAME_OCTETS = 1 << 20
_MOST_SHOWN = 60


@dataclass(slots=True)
class Http2State:
    """What one connection has said. Shape: by direction; a decoder is None once its direction cannot be read on"""

    decoders: dict[bool, Decoder | None] = field(default_factory=dict)
    blocks: dict[bool, bytes] = field(default_factory=dict)
    begun: set[bool] = field(default_factory=set)

    def decoder(self, direction: bool) -> Decoder | None:
        if direction not in self.decoders:
            self.decoders[direction] = Decoder(max_header_list_size=LARGEST_HEADER_LIST_OCTETS)
        return self.decoders[direction]

    def lose(self, direction: bool) -> None:
        """Octets of this direction are missing: no later header block can be read."""
        self.decoders[direction] = None


def begins(octets: bytes) -> bool:
    return has_preface(octets)


def open_frames(
    opening: Opening, octets: bytes, start: int, end: int, state: Http2State, direction: bool
) -> tuple[int, int]:
    """Whole frames. Shape: `octets` end at the frame's octet `end`. Returns how many were read, how many are wanted."""
    names: list[str] = []
    fields: list[tuple[str, object]] = []
    at = 0
    if direction not in state.begun and octets.startswith(PREFACE):
        names.append("Magic")
        at = len(PREFACE)
    while at + _HEADER_OCTETS <= len(octets):
        length = int.from_bytes(octets[at : at + 3], "big")
        if length > _LARGEST_FRAME_OCTETS or octets[at + 3] not in _TYPES:
            return 0, 0
        if at + _HEADER_OCTETS + length > len(octets):
            break
        names.append(_frame(octets[at : at + _HEADER_OCTETS + length], state, direction, fields))
        at += _HEADER_OCTETS + length
    wanted = _HEADER_OCTETS + int.from_bytes(octets[at : at + 3], "big") if at + 3 <= len(octets) else 0
    if names:
        state.begun.add(direction)
        opening.say("HTTP2", ", ".join(names[:_MOST_SHOWN]))
        layer_end = max(start, end - (len(octets) - at))
        opening.add("HyperText Transfer Protocol 2", start, layer_end, *fields[:_MOST_SHOWN])
    return at, wanted


def _frame(frame: bytes, state: Http2State, direction: bool, fields: list[tuple[str, object]]) -> str:
    kind, flags, stream = frame[3], frame[4], int.from_bytes(frame[5:9], "big") & 0x7FFFFFFF
    payload = _unpadded(frame[_HEADER_OCTETS:], flags) if kind in (_DATA, _HEADERS, _PUSH_PROMISE) else frame[9:]
    name = f"{_TYPES[kind]}[{stream}]"
    acknowledges = ", acknowledged" if kind in (4, 6) and flags & _ACK else ""
    fields.append(("frame", f"{_TYPES[kind]}, stream {stream}, {len(frame) - _HEADER_OCTETS:,} octets{acknowledges}"))
    if kind == _DATA and payload and is_text(payload):
        fields.append(("text", text_of(payload)))
    if kind not in (_HEADERS, _PUSH_PROMISE, _CONTINUATION):
        return name
    if kind == _HEADERS and flags & _PRIORITY:
        payload = payload[5:]
    elif kind == _PUSH_PROMISE:
        payload = payload[4:]
    block = state.blocks.pop(direction, b"") + payload
    if not flags & _END_HEADERS:
        state.blocks[direction] = block[:MOST_BLOCK_OCTETS]
        return name
    return name + _headers(block, state, direction, fields)


def _unpadded(payload: bytes, flags: int) -> bytes:
    if not flags & _PADDED or not payload:
        return payload
    return payload[1 : max(len(payload) - payload[0], 1)]


def _headers(block: bytes, state: Http2State, direction: bool, fields: list[tuple[str, object]]) -> str:
    decoder = state.decoder(direction)
    if decoder is None:
        fields.append(("headers", "cannot be read: earlier octets are missing"))
        return ""
    try:
        pairs = [(bytes(name), bytes(value)) for name, value in decoder.decode(block, raw=True)]
    except (HPACKError, OverflowError):
        state.lose(direction)
        fields.append(("headers", "cannot be read"))
        return ""
    fields += [(text_of(name), text_of(value)) for name, value in pairs]
    found = dict(pairs)
    if b":status" in found:
        return f": {text_of(found[b':status'])}"
    if b":method" in found:
        return f": {text_of(found[b':method'])} {text_of(found.get(b':path', b''))}"
    return ""
