"""Content codings undone: gzip, deflate, br, one behind the other as the header lists them; never beyond a limit.

Not undone: `compress` and `zstd`, for want of a library among the project's; such a body stays as the wire carries it.

Source: RFC 9110 section 8.4, RFC 1950 to 1952, RFC 7932
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

MOST_CODINGS = 5
MOST_BODIES = 16  # as large as one may be, of one direction of a conversation
MOST_MEMBERS = 1_000  # of one compressed body
INFLATE_OCTETS = 4096
UNREAD = {b"\x28\xb5\x2f\xfd": "zstd", b"\x5e\x2a\x4d\x18": "zstd", b"\x1f\x9d": "compress"}  # by how they begin


@dataclass(slots=True)
class Allowance:
    """How much decoding may yield: of one body, and of all that share it. `cut` says that it was not enough."""

    body_octets: int
    left: int
    cut: bool = False

    def decode(self, body: bytes, codings: Sequence[bytes]) -> bytes:
        if not body or not codings:
            return body
        limit = min(self.body_octets, self.left)
        decoded = decode(body, codings, limit) if limit > 0 else body
        if limit <= 0:
            self.cut = True
        elif decoded is not body:
            self.left -= len(decoded)
            self.cut |= len(decoded) >= limit
        return decoded


def as_allowance(limit: int | Allowance) -> Allowance:
    """A number of octets is what one body may have, and some bodies together."""
    return limit if isinstance(limit, Allowance) else Allowance(limit, limit * MOST_BODIES)


def decode(body: bytes, codings: Sequence[bytes], limit: int) -> bytes:
    """The body as the browser shows it; where one coding is unknown or not what it claims, as far as it can be undone.

    `codings` are in the order in which they were applied.
    """
    for coding in reversed(codings[:MOST_CODINGS]):
        if not body or coding == b"identity":
            continue
        decoded = _undo(body, coding, limit)
        if decoded is None:
            break
        body = decoded
    return body


def unread_coding(body: bytes) -> str:
    """The coding that a body begins with, of those that are not undone; empty if it is none of them."""
    return next((name for magic, name in UNREAD.items() if body.startswith(magic)), "")


def split_list(value: bytes) -> list[bytes]:
    return [word for word in (part.strip().lower() for part in value.split(b",")) if word]


def _undo(body: bytes, coding: bytes, limit: int) -> bytes | None:
    if coding == b"br":
        return _unbrotli(body, limit)
    if coding in (b"gzip", b"x-gzip", b"deflate"):
        for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # gzip or zlib by their headers; deflate without one
            try:
                return _inflate(body, window, limit)
            except zlib.error:
                continue
    return None


def _unbrotli(body: bytes, limit: int) -> bytes | None:
    import brotli  # which few captures need

    decompressor, decoded = brotli.Decompressor(), bytearray()
    try:
        piece = decompressor.process(body, output_buffer_limit=limit)
        while piece:
            decoded += piece
            if len(decoded) >= limit or decompressor.is_finished():
                break
            piece = decompressor.process(b"", output_buffer_limit=limit - len(decoded))
    except brotli.error:
        return bytes(decoded) or None
    return bytes(decoded[:limit]) if decoded or decompressor.is_finished() else None


def _inflate(body: bytes, window: int, limit: int) -> bytes:
    """A body of one or more members, one behind the other. Errors: zlib.error if not even the first makes sense."""
    decoded = bytearray()
    at = 0
    for number in range(MOST_MEMBERS):
        member = zlib.decompressobj(window)
        try:
            while at < len(body) and not member.eof and len(decoded) < limit:
                piece = body[at : at + INFLATE_OCTETS]  # few at a time: what a member leaves over is copied
                decoded += member.decompress(piece, limit - len(decoded))
                at += len(piece) - len(member.unused_data)
        except zlib.error:
            if not number:
                raise
            break
        if at >= len(body) or len(decoded) >= limit:
            break
    return bytes(decoded)
