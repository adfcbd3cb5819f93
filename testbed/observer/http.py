"""HTTP/1.1 in a stream of octets: requests and responses with their headers and decoded bodies.

    request line or status line | header lines | empty line | body by Content-Length, by chunks, or until the end

Messages are read one after the other, as far as the octets make sense. Bodies are unchunked and decompressed (gzip,
deflate), at most to a limit. What a message is part of (which request a response answers) is taken from the order.

Source: RFC 9112, RFC 9110
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

LONGEST_HEAD_OCTETS = 256 << 10
MOST_MESSAGES = 10_000
MOST_MEMBERS = 1_000  # of one compressed body
INFLATE_OCTETS = 4096
REQUEST_START = re.compile(rb"[A-Z][A-Z-]{1,19} [^\x00-\x20\x7f]+ HTTP/1\.[01]\r?\n")
STATUS_START = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")
HEAD_END = re.compile(rb"\r?\n\r?\n")
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Header:
    """Shape: `line` as on the wire, without its end."""

    name: bytes
    value: bytes
    line: bytes


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """Shape: octets `start` to `end` of the stream; `body` is decoded; `status` 0 means a request.

    `complete` is false where the stream ended before the message did. `until_close` marks a body that only the end of
    the connection ends. `altered` says that `body` is not what the wire carried.
    """

    start: int
    end: int
    method: bytes
    target: bytes
    status: int
    headers: tuple[Header, ...]
    body: bytes
    complete: bool
    until_close: bool = False
    altered: bool = False

    def header(self, name: bytes) -> bytes | None:
        lowered = name.lower()
        return next((header.value for header in self.headers if header.name.lower() == lowered), None)


@dataclass(frozen=True, slots=True)
class _Body:
    octets: bytes
    end: int
    complete: bool
    until_close: bool = False
    chunked: bool = False


def looks_like_request(data: bytes) -> bool:
    return REQUEST_START.match(data[:LONGEST_HEAD_OCTETS]) is not None


def looks_like_response(data: bytes) -> bool:
    return STATUS_START.match(data[:LONGEST_HEAD_OCTETS]) is not None


def parse_requests(data: bytes, decoded_limit: int) -> list[HttpMessage]:
    messages: list[HttpMessage] = []
    at = 0
    while at < len(data) and len(messages) < MOST_MESSAGES:
        message = _parse(data, at, None, decoded_limit)
        if message is None:
            break
        messages.append(message)
        at = message.end
        if message.method == b"CONNECT" or message.header(b"upgrade") == b"h2c":
            break  # what follows may be another protocol
    return messages


def parse_responses(data: bytes, requests: Sequence[HttpMessage], decoded_limit: int) -> list[HttpMessage]:
    """The responses in `data`; `requests` are the other direction's, in order: they say which carries no body."""
    messages: list[HttpMessage] = []
    waiting: Iterator[HttpMessage] = iter(requests)
    at = 0
    method = next(waiting, None)
    while at < len(data) and len(messages) < MOST_MESSAGES:
        message = _parse(data, at, method.method if method else b"", decoded_limit)
        if message is None:
            break
        messages.append(message)
        at = message.end
        if message.status == 101 or (method is not None and method.method == b"CONNECT" and message.status < 300):
            break
        if message.status >= 200:
            method = next(waiting, None)
    return messages


def _parse(data: bytes, at: int, request_method: bytes | None, decoded_limit: int) -> HttpMessage | None:
    """One message at `at`; a response if `request_method` is not None."""
    pattern = REQUEST_START if request_method is None else STATUS_START
    first = pattern.match(data, at)
    if first is None:
        return None
    head_end = HEAD_END.search(data, first.end() - 2, at + LONGEST_HEAD_OCTETS)
    if head_end is None:
        return None
    headers = _headers(data[first.end() : head_end.start()])
    method, target, status = b"", b"", 0
    if request_method is None:
        method, target, _ = data[at : first.end()].split(b" ", 2)
    else:
        status = int(first.group(1))
    body = _body(data, head_end.end(), headers, request_method, status)
    decoded = _decompress(body.octets, headers, decoded_limit)
    altered = body.chunked or decoded is not body.octets
    return HttpMessage(at, body.end, method, target, status, headers, decoded, body.complete, body.until_close, altered)


def _headers(block: bytes) -> tuple[Header, ...]:
    headers = []
    for line in block.split(b"\n"):
        line = line.removesuffix(b"\r")
        match = HEADER.match(line)
        if match is not None:
            headers.append(Header(match.group(1), match.group(2), line))
    return tuple(headers)


def _value(headers: tuple[Header, ...], name: bytes) -> bytes:
    return next((header.value.lower() for header in headers if header.name.lower() == name), b"")


def _body(data: bytes, at: int, headers: tuple[Header, ...], request_method: bytes | None, status: int) -> _Body:
    if request_method is not None and (request_method == b"HEAD" or status < 200 or status in (204, 304)):
        return _Body(b"", at, True)
    if b"chunked" in _value(headers, b"transfer-encoding"):
        return _chunks(data, at)
    length = _value(headers, b"content-length")
    if length.isdigit() and len(length) < 19:
        end = at + int(length)
        return _Body(data[at:end], min(end, len(data)), end <= len(data))
    if request_method is None:
        return _Body(b"", at, True)
    return _Body(data[at:], len(data), True, until_close=True)


def _chunks(data: bytes, at: int) -> _Body:
    pieces: list[bytes] = []
    while True:
        size = CHUNK_SIZE.match(data, at)
        if size is None:
            return _Body(b"".join(pieces), len(data), False, chunked=True)
        length = int(size.group(1), 16)
        at = size.end()
        if not length:
            break
        pieces.append(data[at : at + length])
        if at + length > len(data):
            return _Body(b"".join(pieces), len(data), False, chunked=True)
        at += length + (2 if data[at + length : at + length + 1] == b"\r" else 1)
    trailers = HEAD_END.search(data, at - 2, at + LONGEST_HEAD_OCTETS)
    end = trailers.end() if trailers else len(data)
    return _Body(b"".join(pieces), end, trailers is not None, chunked=True)


def _decompress(body: bytes, headers: tuple[Header, ...], limit: int) -> bytes:
    """The body as the browser shows it; unchanged where it is not compressed, or not as it claims."""
    coding = _value(headers, b"content-encoding")
    if coding not in (b"gzip", b"x-gzip", b"deflate") or not body:
        return body
    for window in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):  # gzip or zlib by their headers; deflate without one
        try:
            return _inflate(body, window, limit)
        except zlib.error:
            continue
    return body


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
