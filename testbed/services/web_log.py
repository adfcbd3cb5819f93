"""What a site's own log keeps of a request: the observer `server:<site>`, and the control for what TLS hides.

One line of `<site>.jsonl`:

    {"time": 1700000000.123, "source": ["198.51.100.10", 40000], "local": ["93.184.216.34", 443], "tls": true,
     "sni": "www.example.com", "tls_version": "TLSv1.3", "protocol": "HTTP/1.1", "method": "GET",
     "host": "www.example.com", "path": "/account?id=1", "url": "https://www.example.com/account?id=1",
     "headers": [["Host", "www.example.com"]], "body": "", "body_octets": 0, "status": 200, "response_octets": 154}

Text is what arrived, undecodable octets as `\\xNN`; a body is kept up to BODY_OCTETS (`body_octets` counts all of it).
A request that could not be read has `"error"`, and what else was known. `response_octets` counts body octets sent.
"""

from __future__ import annotations

import time
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


@dataclass(slots=True)
class RequestRecord:
    """A request while it is being served; `line` is what goes into the log."""

    connection: Connection
    method: str | None = None
    target: str | None = None
    protocol: str = "HTTP/1.1"
    headers: list[tuple[str, str]] = field(default_factory=list)
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
        return self.header("host").lower()

    def line(self) -> dict[str, Any]:
        record = {
            "time": self.time,
            "source": list(self.connection.source),
            "local": list(self.connection.local),
            "tls": self.connection.tls,
            "sni": self.connection.sni,
            "tls_version": self.connection.tls_version,
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
