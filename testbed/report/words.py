"""The words of the reports: kinds, verdicts, observers and actions as a class would say them.

The contract's names (`dns-name`, `isp`, `hidden`) stay visible beside them, so that a reader of the report can write
the scenario's expectations. Text is returned raw: `text.visible` is applied where it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from testbed.facts import Kind
from testbed.result import Verdict

_KINDS: dict[str, str] = {
    Kind.CLIENT_ADDRESS: "your address",
    Kind.SERVER_ADDRESS: "the server's address",
    Kind.DNS_NAME: "its name, wherever read",
    Kind.DNS_ANSWER: "the address answered",
    Kind.HTTP_HOST: "the site's name",
    Kind.HTTP_URL: "the page's address",
    Kind.HTTP_HEADER: "a header or cookie",
    Kind.HTTP_BODY: "the content",
    Kind.TLS_NAME: "the site's name",
    Kind.TLS_CERTIFICATE: "the certificate",
    Kind.QUIC_NAME: "the site's name",
    Kind.PAYLOAD: "the bytes inside",
    Kind.TUNNEL: "that a VPN is in use",
    Kind.VOLUME: "how much",
    Kind.TIMING: "when",
}

# As part of a list: `page, cookie, content`.
_SHORT_KINDS: dict[str, str] = {
    Kind.SERVER_ADDRESS: "address called",
    Kind.DNS_ANSWER: "address answered",
    Kind.HTTP_HOST: "name",
    Kind.HTTP_URL: "page",
    Kind.HTTP_HEADER: "header",
    Kind.HTTP_BODY: "content",
    Kind.TLS_NAME: "name",
    Kind.TLS_CERTIFICATE: "certificate",
    Kind.QUIC_NAME: "name",
    Kind.PAYLOAD: "bytes",
}

# What the tunnel adds or can never hide: shown in the matrix, but not counted among the things the client did.
METADATA_KINDS = frozenset({str(Kind.TUNNEL), str(Kind.VOLUME), str(Kind.TIMING)})

_OBSERVERS = {
    "isp": "Your ISP",
    "lan": "Your local network",
    "transit": "The network behind your ISP",
    "vpn": "The VPN server",
}

_VERBS = {
    "dns": "looked up",
    "http": "opened",
    "https": "opened",
    "http3": "opened over HTTP/3",
    "doh": "looked up over HTTPS",
    "dot": "looked up over TLS",
    "ping": "pinged",
    "run": "ran",
    "ssh": "logged in to",
    "download": "downloaded",
    "upload": "uploaded",
}


@dataclass(frozen=True, slots=True)
class Mark:
    """How a verdict is shown: never by colour alone."""

    word: str
    symbol: str
    ascii_symbol: str
    meaning: str


_MARKS = {
    Verdict.SEEN: Mark("SEEN", "●", "*", "read from the packets of the capture"),
    Verdict.HIDDEN: Mark(
        "hidden", "○", "o", "searched for in every packet and not found; the same search finds it where it is readable"
    ),
    Verdict.UNPROVEN: Mark("unproven", "?", "?", "not found, but the search could not be shown to work"),
}
PARTLY = Mark("", "◐", "%", "some of these were read from the packets, the others are hidden")
NOT_DONE = Mark("—", "", "", "did not happen in this variant")


def kind_in_words(kind: str) -> str:
    return _KINDS.get(kind, kind)


def kinds_in_words(kinds: Sequence[str]) -> str:
    """Several kinds as one short list, a single one in full."""
    if len(kinds) == 1:
        return kind_in_words(kinds[0])
    return ", ".join(dict.fromkeys(_SHORT_KINDS.get(kind, kind_in_words(kind)) for kind in kinds))


def share_in_words(seen: int, total: int) -> str:
    return f"{seen} of {total}"


def mark_of(verdict: Verdict) -> Mark:
    return _MARKS[verdict]


def observer_in_words(observer: str) -> str:
    if observer.startswith("server:"):
        return f"The server {observer.removeprefix('server:')}"
    return _OBSERVERS.get(observer, observer)


def is_server(observer: str) -> bool:
    return observer.startswith("server:")


class Deed(Protocol):
    """Something the client does or did: an action of the workload, or its record."""

    @property
    def verb(self) -> str: ...
    @property
    def target(self) -> str: ...


def action_in_words(action: Deed) -> str:
    """What the client did as a short sentence without its subject: `looked up www.example.com`."""
    return f"{_VERBS.get(action.verb, action.verb)} {action.target}"
