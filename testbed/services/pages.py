"""What a web site of the lab says to a request: pure, the same for every HTTP version.

    GET /bytes/N        N octets of a fixed pattern
    any other path      a small page: the site's name, and the address the visitor seems to come from
    POST, PUT           the same page with the number of octets received
    X-Testbed-Set-Cookie: TOKEN     adds `Set-Cookie: visit=TOKEN` to the answer (hexadecimal tokens only)

A page repeats nothing of the request except what has been checked, so there is nothing to escape and no canary comes
back in a body.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

DOWNLOAD_OCTETS = 1 << 30
UPLOAD_OCTETS = 1 << 30
PIECE_OCTETS = 1 << 16
PATTERN: Final = bytes(range(256)) * (PIECE_OCTETS // 256)
SET_COOKIE_HEADER = "x-testbed-set-cookie"

_BYTES_PATH = re.compile(r"/bytes/([0-9]{1,10})(?:\?.*)?", re.ASCII)
_TOKEN = re.compile(r"[0-9a-f]{16,64}", re.ASCII)
_METHODS = ("GET", "HEAD", "POST", "PUT")


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers and body of a response. Shape: the body is `body`, then `pattern_octets` of PATTERN."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    pattern_octets: int = 0

    @property
    def length(self) -> int:
        return self.pattern_octets or len(self.body)

    def pieces(self) -> Iterator[bytes]:
        if self.body:
            yield self.body
        left = self.pattern_octets
        while left > 0:
            yield PATTERN[: min(left, PIECE_OCTETS)]
            left -= PIECE_OCTETS


def answer_request(site: str, method: str, path: str, cookie: str, visitor: str, received_octets: int) -> Answer:
    """The site's answer. Shape: `cookie` is the value of X-Testbed-Set-Cookie or empty; `visitor` an address."""
    if method not in _METHODS:
        return refusal(405, "Method not allowed", (("Allow", ", ".join(_METHODS)),))
    download = _BYTES_PATH.fullmatch(path)
    if download and method in ("GET", "HEAD"):
        octets = int(download[1])
        if octets > DOWNLOAD_OCTETS:
            return refusal(404, f"At most {DOWNLOAD_OCTETS} octets")
        return Answer(200, _headers("application/octet-stream", octets), pattern_octets=octets)
    lines = [f"<h1>{site}</h1>", f"<p>You come from {visitor}.</p>"]
    if method in ("POST", "PUT"):
        lines.append(f"<p>{received_octets} octets received.</p>")
    body = _page(site, lines)
    extra = (("Set-Cookie", f"visit={cookie}; Path=/"),) if _TOKEN.fullmatch(cookie) else ()
    return Answer(200, (*_headers("text/html; charset=utf-8", len(body)), *extra), body)


def refusal(status: int, reason: str, extra: tuple[tuple[str, str], ...] = ()) -> Answer:
    """An error page; `reason` is our own text."""
    body = _page(str(status), [f"<h1>{status}</h1>", f"<p>{reason}.</p>"])
    return Answer(status, (*_headers("text/html; charset=utf-8", len(body)), *extra), body)


def _headers(content_type: str, length: int) -> tuple[tuple[str, str], ...]:
    return (("Content-Type", content_type), ("Content-Length", str(length)), ("Cache-Control", "no-store"))


def _page(title: str, lines: list[str]) -> bytes:
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n'
    return (head + "\n".join(lines) + "\n</html>\n").encode()
