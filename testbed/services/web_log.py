"""What a site's own log keeps of a request: the observer `server:<site>`, and the control for what TLS hides.

One line of `<site>.jsonl`:

    {"time": 1700000000.123, "source": ["198.51.100.10", 40000], "local": ["93.184.216.34", 443], "tls": true,
     "sni": "www.example.com", "tls_version": "TLSv1.3", "protocol": "HTTP/1.1", "method": "GET",
     "host": "www.example.com", "path": "/account?id=1", "url": "https://www.example.com/account?id=1",
     "headers": [["Host", "www.example.com"]], "body": "", "body_octets": 0, "status": 200, "response_octets": 154}

`protocol` is HTTP/1.0, HTTP/1.1, HTTP/2 or HTTP/3; from HTTP/2 on header names are in lower case and `host` is what
`:authority` said. A site that is a resolver has the query of a request in `"dns"` (the keys of a record of `dns_server`
from `name` on), and for every query that came without HTTP a line of the same shape, without the keys of HTTP and with
the protocol DNS/UDP, DNS/TCP or DNS/TLS.

Text is what arrived, undecodable octets as `\\xNN`; a body is kept up to BODY_OCTETS (`body_octets` counts all of it).
A request that could not be read has `"error"`, and what else was known. `response_octets` counts body octets sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

BODY_OCTETS = 4096
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Connection:
    """The two ends of a connection, and what TLS told."""

    source: tuple[str, int]
    local: tuple[str, int]
    tls: bool = False
    sni: str | None = None
    tls_version: str | None = None

    def line(self) -> dict[str, Any]:
        return {
            "source": list(self.source),
            "local": list(self.local),
            "tls": self.tls,
            "sni": self.sni,
            "tls_version": self.tls_version,
        }


@dataclass(slots=True)
class RequestRecord:
    """A request while it is being served; `line` is what goes into the log."""

    connection: Connection
    method: str | None = None
    target: str | None = None
    protocol: str = "HTTP/1.1"
    authority: str = ""  # HTTP/2 and HTTP/3
    headers: list[tuple[str, str]] = field(default_factory=list)
    dns: dict[str, Any] | None = None
    body: bytearray = field(default_factory=bytearray)
    body_octets: int = 0
    status: int | None = None
    response_octets: int = 0
    error: str = ""
    logged: bool = False
    time: float = field(default_factory=time.time)

    def receive(self, untrusted: bytes) -> None:
        """Count a piece of the body and keep what fits."""
        self.body_octets += len(untrusted)
        self.body += untrusted[: BODY_OCTETS - len(self.body)]

    def header(self, name: str) -> str:
        """The first header of that (lower-case) name, or an empty text."""
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def host(self) -> str:
        return (self.authority or self.header("host")).lower()

    def read_headers(self, headers: Iterable[tuple[bytes, bytes]], protocol: str) -> None:
        """Take the header section of an HTTP/2 or HTTP/3 request, whose first lines are pseudo-headers."""
        texts = [(as_text(name), as_text(value)) for name, value in headers]
        pseudo = {name: value for name, value in texts if name.startswith(":")}
        self.method, self.target = pseudo.get(":method"), pseudo.get(":path")
        self.authority, self.protocol = pseudo.get(":authority", ""), protocol
        self.headers = [header for header in texts if not header[0].startswith(":")]

    def line(self) -> dict[str, Any]:
        record: dict[str, Any] = {
            "time": self.time,
            **self.connection.line(),
            "protocol": self.protocol,
            "method": self.method,
            "host": self.host,
            "path": self.target,
            "url": self._url(),
            "headers": [list(header) for header in self.headers],
            "body": as_text(bytes(self.body)),
            "body_octets": self.body_octets,
            "status": self.status,
            "response_octets": self.response_octets,
        }
        if self.dns is not None:
            record["dns"] = self.dns
        return {**record, "error": self.error} if self.error else record

    def _url(self) -> str | None:
        if self.target is None:
            return None
        scheme = "https" if self.connection.tls else "http"
        if self.target.startswith(("http://", "https://")):
            return self.target
        host = self.host.removesuffix(f":{PORTS[scheme]}")
        return f"{scheme}://{host}{self.target}"


def as_text(untrusted: bytes) -> str:
    return untrusted.decode("utf-8", "backslashreplace")
