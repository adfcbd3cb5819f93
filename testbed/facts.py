"""The vocabulary every part shares: facts, sightings and their kinds.

A *fact* is something the client did that it may want private; the workload makes them. A *sighting* is a fact-shaped
value that an observer took from a capture file. The verdict holds one against the other. This module is pure and
imports nothing of the project, so that the observer can use the words without knowing who did what.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What a fact or a sighting is about. The names are a contract: they stand in scenario files and in results."""

    CLIENT_ADDRESS = "client-address"
    SERVER_ADDRESS = "server-address"
    DNS_NAME = "dns-name"
    DNS_ANSWER = "dns-answer"
    HTTP_HOST = "http-host"
    HTTP_URL = "http-url"
    HTTP_HEADER = "http-header"
    HTTP_BODY = "http-body"
    TLS_NAME = "tls-name"
    TLS_CERTIFICATE = "tls-certificate"
    QUIC_NAME = "quic-name"
    PAYLOAD = "payload"
    TUNNEL = "tunnel"
    VOLUME = "volume"
    TIMING = "timing"


@dataclass(frozen=True, slots=True)
class Fact:
    """Something the client did, with the strings whose presence anywhere in a capture gives it away.

    `value` is spelled as a sighting of the same kind would spell it (see `Sighting`). `needles` are what the search
    looks for besides the dissectors: the fact's canary token, or for fixed names the name itself. Address kinds have
    no needles: they are searched in parsed header and answer fields only.
    """

    kind: Kind
    value: str
    action: str  # id of the action that created it, such as "2-http"
    site: str | None = None  # name of the site it concerns
    needles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sighting:
    """A value an observer read from a capture, with the packets that prove it.

    `value` by kind: an address in canonical text; a DNS name in lower case without the final dot; for dns-answer the
    address; a URL `http://host[:port]/path?query`; an HTTP header line `Name: value`; a body as text (undecodable
    octets as `\\xNN`); a host name; for tunnel `protocol client -> server`; for volume and timing a short sentence.

    Shape: `frames` are 1-based frame numbers of the capture file, in order; `display_filter` is Wireshark's and
        matches those frames by protocol fields that contain the value.
    Units: `time` is Unix seconds of the first frame.
    """

    kind: Kind
    value: str
    frames: tuple[int, ...]
    time: float
    display_filter: str
    via: str = ""  # dissector that saw it: dns, http, tls, quic, ip, …
    detail: dict[str, str | int | float] = field(default_factory=dict)
