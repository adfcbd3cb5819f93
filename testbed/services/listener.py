"""A listening TCP port of the lab's sites: TLS, the choice of certificate, and which protocol a connection speaks.

TLS settles the protocol by ALPN (h2 or http/1.1; dot at port 853), clear HTTP by the connection's first octets: HTTP/2
with prior knowledge begins with a preface that no HTTP/1.1 request has. HTTP/2 is imported when the first client
speaks it, so a lab without one does not pay for it.

Several sites may share an address: SNI picks the certificate, the Host header or `:authority` the site.

Sources: RFC 9113 sections 3.3 and 3.4; RFC 7858 section 3.1 (port 853); RFC 9112.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from testbed.services import http1
from testbed.services.dns_server import SiteResolver, serve_stream
from testbed.services.exchange import IDLE_S, ServedSite, find_site
from testbed.services.web_log import Connection

TLS_HANDSHAKE_S = 10.0
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HTTPS_PROTOCOLS = ("h2", "http/1.1")
DOT_PROTOCOLS = ("dot",)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A connection that stands, its TLS handshake included."""

    sites: Mapping[str, ServedSite]
    connection: Connection
    alpn: str | None
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


Converse = Callable[[Accepted], Awaitable[None]]


@dataclass(slots=True)
class Listener:
    """The sites behind a port, of one address or of several that serve the same sites.

    Shape: the first site is the one for names nobody has.
    """

    sites: Mapping[str, ServedSite]
    converse: Converse
    protocols: Sequence[str] = ()  # offered by ALPN; none = no TLS
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)
    names_asked: WeakKeyDictionary[Any, str | None] = field(default_factory=WeakKeyDictionary)
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, sock: socket.socket) -> asyncio.Server:
        """Answer on a listening socket until the returned server is closed; several may share a listener."""
        if self.protocols and not self.contexts:
            self._make_contexts()
        context = self.contexts[find_site(self.sites, None).name] if self.protocols else None
        timeout = TLS_HANDSHAKE_S if context else None
        return await asyncio.start_server(self._accept, sock=sock, ssl=context, ssl_handshake_timeout=timeout)

    def _make_contexts(self) -> None:
        for site in self.sites.values():
            if site.credentials is None:
                raise ValueError(f"{site.name} has no certificate")
            self.contexts[site.name] = site.credentials.server_context(self.protocols)
        self.contexts[find_site(self.sites, None).name].sni_callback = self._choose_certificate

    def _choose_certificate(self, connection: Any, name: str | None, _: ssl.SSLContext) -> None:
        self.names_asked[connection] = name
        connection.context = self.contexts[find_site(self.sites, name).name]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self.connections.add(task)
            task.add_done_callback(self.connections.discard)
        encrypted = writer.get_extra_info("ssl_object")
        connection = Connection(
            source=tuple(writer.get_extra_info("peername")[:2]),
            local=tuple(writer.get_extra_info("sockname")[:2]),
            tls=bool(self.protocols),
            sni=self.names_asked.get(encrypted) if encrypted else None,
            tls_version=encrypted.version() if encrypted else None,
        )
        alpn = encrypted.selected_alpn_protocol() if encrypted else None
        try:
            await self.converse(Accepted(self.sites, connection, alpn, reader, writer))
        except (TimeoutError, OSError):
            pass  # the peer went away; what it had asked is in the log
        finally:
            writer.close()


async def converse_http(accepted: Accepted) -> None:
    """HTTP of the version that the client chose."""
    first = b"" if accepted.connection.tls else await _first_octets(accepted.reader)
    if accepted.alpn == "h2" or first == HTTP2_PREFACE:
        from testbed.services import http2  # not on the way of a lab whose clients all speak HTTP/1.1

        await http2.converse(accepted.sites, accepted.connection, accepted.reader, accepted.writer, first)
    else:
        await http1.converse(accepted.sites, accepted.connection, accepted.reader, accepted.writer, first)


async def converse_dot(accepted: Accepted) -> None:
    """DNS over TLS, for the site that SNI names."""
    site = find_site(accepted.sites, accepted.connection.sni)
    if site.resolver is not None:
        await serve_stream(SiteResolver(site.resolver), accepted.connection, accepted.reader, accepted.writer, "dot")


async def _first_octets(reader: asyncio.StreamReader) -> bytes:
    """As many octets as it takes to tell that this is HTTP/2's preface (then all of it) or not."""
    first = b""
    while len(first) < len(HTTP2_PREFACE) and HTTP2_PREFACE.startswith(first):
        async with asyncio.timeout(IDLE_S):
            piece = await reader.read(len(HTTP2_PREFACE) - len(first))
        if not piece:
            break
        first += piece
    return first
