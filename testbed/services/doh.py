"""DNS over HTTPS: a request's path and body in, an HTTP answer out; the same for every HTTP version.

    GET  /dns-query?dns=BASE64URL     the message without padding
    POST /dns-query                   the message as the body, Content-Type application/dns-message

The answer may be cached for as long as its shortest-lived record.

Source: RFC 8484 sections 4 and 5.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from typing import Any
from urllib.parse import parse_qs, urlsplit

from testbed.services import dns_message as dns
from testbed.services.dns_server import NameServer
from testbed.services.pages import Answer, refusal

PATH = "/dns-query"
MEDIA_TYPE = "application/dns-message"


def is_query(target: str) -> bool:
    return target.partition("?")[0] == PATH


async def answer_query(
    resolver: NameServer, method: str, target: str, content_type: str, body: bytes
) -> tuple[Answer, dict[str, Any] | None]:
    """The answer, and what the log shall know of the query; None if there was none."""
    if method not in ("GET", "HEAD", "POST"):
        return refusal(405, "Method not allowed", (("Allow", "GET, HEAD, POST"),)), None
    if method == "POST" and content_type.partition(";")[0].strip().lower() != MEDIA_TYPE:
        return refusal(415, f"A query is {MEDIA_TYPE}"), None
    untrusted = body if method == "POST" else _parameter(target)
    if not untrusted or len(untrusted) > dns.MESSAGE_OCTETS:
        return refusal(400, "No DNS message"), None
    told = await resolver.answer(untrusted, encrypted=True)
    if told.packed is None:
        return refusal(400, "Not a DNS query"), told.said
    headers = (
        ("Content-Type", MEDIA_TYPE),
        ("Content-Length", str(len(told.packed))),
        ("Cache-Control", f"max-age={told.lifetime_s}"),
    )
    return Answer(200, headers, told.packed), told.said


def _parameter(target: str) -> bytes:
    """The message in the `dns` parameter; empty where there is none that can be read."""
    text = parse_qs(urlsplit(target).query).get("dns", [""])[0]
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
