"""HTTP/1.1 messages of one direction, as the observer's parser reads them.

Source: RFC 9112
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from testbed.dissection.opening import Opening, text_of
from testbed.observer import http

_DECODED_OCTETS = 64 << 10
_MOST_HEADERS = 40
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*(?:\r\n|\Z)", re.IGNORECASE)


def is_http(octets: bytes) -> bool:
    return http.looks_like_request(octets) or http.looks_like_response(octets)


def first_line(octets: bytes) -> str:
    return text_of(octets.split(b"\r\n", 1)[0].split(b"\n", 1)[0])


def readable_head(octets: bytes) -> list[tuple[str, object]]:
    """The header lines behind the first, as far as they are there, and what of the body follows."""
    head, end, body = octets.partition(b"\r\n\r\n")
    fields: list[tuple[str, object]] = []
    for line in head.split(b"\r\n")[1 : _MOST_HEADERS + 1]:
        name, _, value = line.partition(b":")
        fields.append((text_of(name), text_of(value.strip())))
    return [*fields, *([("body, a part", text_of(body))] if end and body else [])]


def complete_messages(octets: bytes) -> list[http.HttpMessage]:
    """The messages that the octets hold to their end; a body that only the connection's end ends counts as it is."""
    parsed = (
        http.parse_requests(octets, _DECODED_OCTETS)
        if http.looks_like_request(octets)
        else http.parse_responses(octets, (), _DECODED_OCTETS)
    )
    return [message for message in parsed if message.complete]


def octets_wanted(octets: bytes) -> int:
    """How many octets the message at the beginning takes as far as its head says; 0 if that is not known."""
    head, end, _ = octets[: http.LONGEST_HEAD_OCTETS].partition(b"\r\n\r\n")
    length = _CONTENT_LENGTH.search(head) if end else None
    return len(head) + len(end) + int(length.group(1)) if length else 0


def open_messages(
    opening: Opening, octets: bytes, messages: Sequence[http.HttpMessage], start: int, end: int, frames: Sequence[int]
) -> None:
    """Shape: `frames` are those whose octets the messages took, this one last."""
    first = messages[0]
    content_type = (first.header(b"content-type") or b"").split(b";", 1)[0].strip()
    words = f"  ({text_of(content_type)})" if content_type and first.body else ""
    opening.say("HTTP", f"{first_line(octets[first.start :])}{words}")
    fields: list[tuple[str, object]] = []
    if len(frames) > 1:
        fields.append(("put together from", "frames " + ", ".join(map(str, frames))))
    for message in messages:
        kind = "response" if message.status else "request"
        fields.append((kind, first_line(octets[message.start :])))
        fields += [(text_of(header.name), text_of(header.value)) for header in message.headers[:_MOST_HEADERS]]
        if message.body:
            fields.append(("body", text_of(message.body)))
    opening.add("Hypertext Transfer Protocol", start, end, *fields)
