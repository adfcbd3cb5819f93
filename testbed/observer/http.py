"""HTTP/1.1 in a stream of octets: requests and responses with their headers and decoded bodies.

    request line or status line | header lines | empty line | body by Content-Length, by chunks, or until the end

Messages are read one after the other, as far as the octets make sense; what follows a CONNECT or an upgrade is read on
only if it is HTTP/1.1 again. Bodies are unchunked and decompressed, at most to a limit. Which request a response
answers is taken from the order.

Source: RFC 9112, RFC 9110
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from testbed.observer.wire.codings import Allowance, as_allowance, split_list

LONGEST_HEAD_OCTETS = 256 << 10
MOST_MESSAGES = 10_000
SHORT_LINE_OCTETS, SHORT_HEAD_OCTETS = 256, 1024  # which are remembered: the same come again and again
VERSION = b"HTTP/1."
_new = tuple.__new__  # of a named tuple, a third of the time that its class takes
REQUEST_START = re.compile(rb"[A-Z][A-Z-]{1,19} [^\x00-\x20\x7f]+ HTTP/1\.[01]\r?\n")
STATUS_START = re.compile(rb"HTTP/1\.[01] (\d{3})(?: [^\r\n]*)?\r?\n")
EMPTY_LINES = re.compile(rb"(?:\r?\n){0,8}")  # before a message, to be ignored: RFC 9112 section 2.2
EMPTY_LINE = re.compile(rb"\n\r?\n")  # begins with what can be searched for at once
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r?\n")
HEADER = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*(.*?)[ \t]*\Z", re.DOTALL)


class Header(NamedTuple):
    """Shape: `line` as on the wire, without its end."""

    name: bytes
    value: bytes
    line: bytes


class HttpMessage(NamedTuple):
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
    trailers: tuple[Header, ...] = ()  # behind a chunked body
    codings: tuple[bytes, ...] = ()  # of the body on the wire, besides chunks
    decoded: bool = False  # whether any of them could be undone

    def header(self, name: bytes) -> bytes | None:
        lowered = name.lower()
        for header in self.headers:
            if header.name.lower() == lowered:
                return header.value
        return None


class _Head(NamedTuple):
    """Headers, and what they say of the body. Shape: `codings` in the order in which they were applied."""

    headers: tuple[Header, ...]
    codings: tuple[bytes, ...]
    chunked: bool
    length: bytes


class _Body(NamedTuple):
    octets: bytes
    end: int
    complete: bool
    until_close: bool = False
    chunked: bool = False
    trailers: bytes = b""


def looks_like_request(data: bytes) -> bool:
    return REQUEST_START.match(data, _behind_empty_lines(data, 0), LONGEST_HEAD_OCTETS) is not None


def looks_like_response(data: bytes) -> bool:
    return STATUS_START.match(data, 0, LONGEST_HEAD_OCTETS) is not None


def _behind_empty_lines(data: bytes, at: int) -> int:
    if data[at : at + 1] not in (b"\r", b"\n"):
        return at
    empty = EMPTY_LINES.match(data, at)
    return empty.end() if empty else at


def find_request(data: bytes, segments: Sequence[int] = ()) -> int:
    """Where the first request line begins, or -1. Shape: `segments` as for `find_response`."""
    return _find(REQUEST_START, data, segments)


def find_response(data: bytes, segments: Sequence[int] = ()) -> int:
    """Where the first status line begins, or -1: behind another line, or at one of `segments`, which are in order."""
    return _find(STATUS_START, data, segments)


def _find(pattern: re.Pattern[bytes], data: bytes, segments: Sequence[int]) -> int:
    """Where the first line that the pattern matches begins, or empty lines before it: looked for by what all such
    lines contain."""
    if pattern.match(data, _behind_empty_lines(data, 0), LONGEST_HEAD_OCTETS):
        return 0
    tried = -1
    at = data.find(VERSION)
    while at >= 0:
        begin = max(at - LONGEST_HEAD_OCTETS, tried + 1)
        line = data.rfind(b"\n", max(begin - 1, 0), at) + 1
        near = segments[bisect_left(segments, begin) : bisect_right(segments, at)]
        starts: set[int] = {line, *near} if line >= begin else {*near}
        for start in sorted(starts):
            if pattern.match(data, start, at + LONGEST_HEAD_OCTETS):
                return start
        tried = at
        at = data.find(VERSION, at + 1)
    return -1


def parse_requests(data: bytes, limit: int | Allowance) -> list[HttpMessage]:
    """The requests in `data`. Shape: `limit` is how many octets one body may be decoded to, or an allowance for all."""
    messages: list[HttpMessage] = []
    allowance = as_allowance(limit)
    at = 0
    while at < len(data) and len(messages) < MOST_MESSAGES:
        message = _parse(data, at, None, allowance)
        if message is None:
            break
        messages.append(message)
        at = message.end
    return messages


def parse_responses(data: bytes, requests: Sequence[HttpMessage], limit: int | Allowance) -> list[HttpMessage]:
    """The responses in `data`; `requests` are the other direction's, in order: they say which carries no body."""
    messages: list[HttpMessage] = []
    waiting: Iterator[HttpMessage] = iter(requests)
    allowance = as_allowance(limit)
    at = 0
    method = next(waiting, None)
    while at < len(data) and len(messages) < MOST_MESSAGES:
        message = _parse(data, at, method.method if method else b"", allowance)
        if message is None:
            break
        messages.append(message)
        at = message.end
        if message.status >= 200:
            method = next(waiting, None)
    return messages


def _parse(data: bytes, at: int, request_method: bytes | None, allowance: Allowance) -> HttpMessage | None:
    """One message at `at` or behind empty lines; a response if `request_method` is not None."""
    at = _behind_empty_lines(data, at)
    pattern = REQUEST_START if request_method is None else STATUS_START
    first = pattern.match(data, at)
    if first is None:
        return None
    head_end = _head_end(data, first.end() - 2, at + LONGEST_HEAD_OCTETS)
    if head_end is None:
        return None
    head = _head(data[first.end() : head_end[0]])
    method, target, status = b"", b"", 0
    if request_method is None:
        method, target, _ = data[at : first.end()].split(b" ", 2)
    else:
        status = int(first.group(1))
    body = _body(data, head_end[1], head, request_method, status)
    decoded = allowance.decode(body.octets, head.codings)
    altered = body.chunked or decoded is not body.octets
    plain = decoded is body.octets
    trailers = _headers(body.trailers) if body.trailers else ()
    told = at, body.end, method, target, status, head.headers, decoded
    return _new(HttpMessage, (*told, body.complete, body.until_close, altered, trailers, head.codings, not plain))


def _head_end(data: bytes, at: int, end: int) -> tuple[int, int] | None:
    """Where the last line of a head ends, with its own end, and where the empty line behind it does."""
    found = EMPTY_LINE.search(data, at, end)
    if found is None:
        return None
    start = found.start()
    return start - 1 if start > at and data[start - 1] == 13 else start, found.end()


def _head(block: bytes) -> _Head:
    return _short_head(block) if len(block) <= SHORT_HEAD_OCTETS else _read_head(block)


def _read_head(block: bytes) -> _Head:
    headers = _headers(block)
    codings = [*_values(headers, b"content-encoding"), *_values(headers, b"transfer-encoding")]
    undone = tuple(coding for coding in codings if coding != b"chunked")
    chunked = b"chunked" in _value(headers, b"transfer-encoding")
    return _Head(headers, undone, chunked, _value(headers, b"content-length"))


_short_head = lru_cache(maxsize=256)(_read_head)


def _headers(block: bytes) -> tuple[Header, ...]:
    headers = []
    for line in block.split(b"\n"):
        header = _short_header(line) if len(line) <= SHORT_LINE_OCTETS else _header(line)
        if header is not None:
            headers.append(header)
    return tuple(headers)


def _header(line: bytes) -> Header | None:
    line = line.removesuffix(b"\r")
    match = HEADER.match(line)
    return Header(match.group(1), match.group(2), line) if match is not None else None


_short_header = lru_cache(maxsize=2048)(_header)


def _value(headers: tuple[Header, ...], name: bytes) -> bytes:
    return next((header.value.lower() for header in headers if header.name.lower() == name), b"")


def _values(headers: tuple[Header, ...], name: bytes) -> list[bytes]:
    """All values of a header that is a list, in order."""
    return [word for header in headers if header.name.lower() == name for word in split_list(header.value)]


def _body(data: bytes, at: int, head: _Head, request_method: bytes | None, status: int) -> _Body:
    if request_method is not None and _without_body(request_method, status):
        return _Body(b"", at, True)
    if head.chunked:
        return _chunks(data, at)
    length, *others = head.length.replace(b" ", b"").split(b",")
    length = length if others.count(length) == len(others) else b""  # the same again is the same: RFC 9110, 8.6
    if length.isdigit() and len(length) < 19:
        end = at + int(length)
        return _Body(data[at:end], min(end, len(data)), end <= len(data))
    if request_method is None:
        return _Body(b"", at, True)
    return _Body(data[at:], len(data), True, until_close=True)


def _without_body(request_method: bytes, status: int) -> bool:
    """Whether a response has none, whatever its headers say: RFC 9112 section 6.3."""
    opened = request_method == b"CONNECT" and 200 <= status < 300
    return request_method == b"HEAD" or status < 200 or status in (204, 304) or opened


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
    trailers = _head_end(data, at - 2, at + LONGEST_HEAD_OCTETS)
    end = trailers[1] if trailers else len(data)
    block = data[at : trailers[0]] if trailers else b""
    return _Body(b"".join(pieces), end, trailers is not None, chunked=True, trailers=block)
