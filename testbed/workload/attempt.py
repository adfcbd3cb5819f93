"""One action under way: its deadline, its canaries and the facts it has created so far.

A fact is noted when the thing has happened, never before: a name when the question goes out, an address when a packet
to it does. So an action that fails half-way leaves exactly the facts of its first half.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from testbed.facts import Fact, Kind
from testbed.workload.canary import Canaries
from testbed.workload.request import Action, WorkloadRequest


class ActionFailed(Exception):
    """The action did not succeed; the message says why, for people."""


@dataclass(slots=True)
class Attempt:
    """Units: `deadline_at` in monotonic seconds."""

    request: WorkloadRequest
    action: Action
    deadline_at: float
    tls: Callable[[str], ssl.SSLContext]  # the client's TLS settings by the protocol for ALPN, made when first needed
    facts: dict[Fact, None] = field(default_factory=dict)
    output: str | None = None

    @property
    def canaries(self) -> Canaries:
        return Canaries(bytes.fromhex(self.request.secret), self.request.variant, self.action.id)

    def remaining_s(self) -> float:
        """Seconds left, always a little more than zero. Errors: ActionFailed when the time is over."""
        left = self.deadline_at - time.monotonic()
        if left <= 0:
            raise ActionFailed(f"no answer within {self.action.timeout:g} s")
        return left

    def note(self, kind: Kind, value: str, site: str | None, needles: tuple[str, ...] = ()) -> None:
        """Record a fact; the same fact twice is one."""
        self.facts[Fact(kind, value, self.action.id, site, needles)] = None

    def note_name(self, kind: Kind, name: str, tokens: tuple[str, ...]) -> None:
        """Record a host name; a name without a token is searched for itself."""
        self.note(kind, name, self.site_of_name(name), tokens or (name,))

    def note_ends(self, sock: socket.socket, server: str | None) -> None:
        """Record both ends of traffic that has been sent: the server if it is one, and who the client is.

        With a tunnel the source address is the tunnel's. The client's own address of that family is then a fact too: it
        is what the far end would have learned without the tunnel.
        """
        source = str(ip_address(sock.getsockname()[0].partition("%")[0]))
        site = self.site_of_address(server) if server else self.action.site
        if server:
            self.note(Kind.SERVER_ADDRESS, server, site)
        own = [address for address in self.request.client_addresses if (":" in address) == (":" in source)]
        for address in dict.fromkeys((source, *own)):
            self.note(Kind.CLIENT_ADDRESS, address, site)

    def site_of_name(self, name: str) -> str | None:
        """The site that `name` is, or is a sub-domain of; else the one the action was written for."""
        labels = name.split(".")
        candidates = (".".join(labels[start:]) for start in range(len(labels)))
        return next((name for name in candidates if name in self.request.sites), self.action.site)

    def site_of_address(self, address: str) -> str | None:
        """The site at `address`; the action's own where several share it."""
        sites = [name for name, addresses in self.request.sites.items() if address in addresses]
        return self.action.site if self.action.site in sites or not sites else sites[0]


_WORDS = {
    errno.ECONNREFUSED: "nobody listens there (connection refused)",
    errno.ENETUNREACH: "no route to that network",
    errno.EHOSTUNREACH: "no route to that host",
    errno.EACCES: "refused on the way (administratively prohibited)",
    errno.ECONNRESET: "the other side broke the connection",
    errno.EPIPE: "the other side closed the connection",
    errno.EADDRNOTAVAIL: "no address of that family to send from",
}


def in_words(error: OSError) -> str:
    """Why a system call failed, as a sentence fragment."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {getattr(error, 'verify_message', '') or error.reason or error}"
    return _WORDS.get(error.errno or 0) or (os.strerror(error.errno) if error.errno else str(error))
