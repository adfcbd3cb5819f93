"""HTTP/1.1 and HTTPS on a bound socket: h11 reads and writes the messages, asyncio moves the octets.

h11 and not hypercorn: it imports in 5 ms beside asyncio where hypercorn takes 117, it is sans I/O as the libraries for
HTTP/2 and HTTP/3 are (each gets a file like this one), and the log needs what a server framework hides: TLS's SNI, the
exact headers, and the octets really sent.

Bodies are streamed in both directions; a slow or silent peer is dropped after IDLE_S. Several sites may share an
address: SNI picks the certificate, the Host header the site.

Sources: RFC 9112; h11's documentation of its state machine.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from weakref import WeakKeyDictionary

import h11

from testbed.services.certificates import Credentials
from testbed.services.journal import Journal
from testbed.services.pages import SET_COOKIE_HEADER, UPLOAD_OCTETS, Answer, answer_request, refusal
from testbed.services.web_log import Connection, RequestRecord, as_text

IDLE_S = 30.0
TLS_HANDSHAKE_S = 10.0
READ_OCTETS = 1 << 16


@dataclass(frozen=True, slots=True)
class ServedSite:
    """A site as one listening address serves it."""

    name: str
    journal: Journal
    credentials: Credentials | None = None


@dataclass(slots=True)
class Listener:
    """The sites behind one address and port. Shape: the first site is the one for names nobody has."""

    sites: Mapping[str, ServedSite]
    tls: bool
    contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)
    names_asked: WeakKeyDictionary[Any, str | None] = field(default_factory=WeakKeyDictionary)
    connections: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def default(self) -> ServedSite:
        return next(iter(self.sites.values()))

    def site(self, host: str | None) -> ServedSite:
        """The site of a Host header or SNI: its own name, or one it is a sub-domain of."""
        name = (host or "").partition(":")[0].rstrip(".").lower()
        while name:
            if name in self.sites:
                return self.sites[name]
            name = name.partition(".")[2]
        return self.default

    async def serve(self, sock: socket.socket) -> asyncio.Server:
        context = self._context()
        timeout = TLS_HANDSHAKE_S if context else None
        return await asyncio.start_server(self._accept, sock=sock, ssl=context, ssl_handshake_timeout=timeout)

    def _context(self) -> ssl.SSLContext | None:
        if not self.tls:
            return None
        for site in self.sites.values():
            if site.credentials is None:
                raise ValueError(f"{site.name} has no certificate")
            self.contexts[site.name] = site.credentials.server_context()
        context = self.contexts[self.default.name]
        context.sni_callback = self._choose_certificate
        return context

    def _choose_certificate(self, connection: Any, name: str | None, _: ssl.SSLContext) -> None:
        self.names_asked[connection] = name
        connection.context = self.contexts[self.site(name).name]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self.connections.add(task)
            task.add_done_callback(self.connections.discard)
        encrypted = writer.get_extra_info("ssl_object")
        connection = Connection(
            source=tuple(writer.get_extra_info("peername")[:2]),
            local=tuple(writer.get_extra_info("sockname")[:2]),
            tls=self.tls,
            sni=self.names_asked.get(encrypted) if encrypted else None,
            tls_version=encrypted.version() if encrypted else None,
        )
        try:
            await _Conversation(self, connection, reader, writer).run()
        except (TimeoutError, OSError):
            pass  # the peer went away; what it had asked is in the log
        finally:
            writer.close()


@dataclass(slots=True)
class _Conversation:
    """The requests of one connection, one after the other."""

    listener: Listener
    connection: Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h11.Connection = field(default_factory=lambda: h11.Connection(h11.SERVER))

    async def run(self) -> None:
        while True:
            record = RequestRecord(self.connection)
            try:
                ongoing = await self._exchange(record)
            except h11.RemoteProtocolError as error:
                record.error = str(error)
                await self._refuse(record, error.error_status_hint)
                ongoing = False
            finally:
                self._log(record)
            if not ongoing or self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE:
                return
            self.http.start_next_cycle()

    async def _exchange(self, record: RequestRecord) -> bool:
        """Read one request and answer it; False when the peer has no more."""
        request = await self._next_event()
        if not isinstance(request, h11.Request):
            return False
        record.method, record.target = as_text(request.method), as_text(request.target)
        record.protocol = f"HTTP/{as_text(request.http_version)}"
        record.headers = [(as_text(name), as_text(value)) for name, value in request.headers.raw_items()]
        while isinstance(event := await self._next_event(), h11.Data):
            record.receive(bytes(event.data))
            if record.body_octets > UPLOAD_OCTETS:
                record.error = "body too long"
                await self._refuse(record, 413)
                return False
        if not isinstance(event, h11.EndOfMessage):
            return False
        site = self.listener.site(record.host).name
        cookie = record.header(SET_COOKIE_HEADER)
        visitor = self.connection.source[0]
        answer = answer_request(site, record.method, record.target, cookie, visitor, record.body_octets)
        await self._send(answer, record)
        return True

    async def _next_event(self) -> Any:
        while (event := self.http.next_event()) is h11.NEED_DATA:
            if self.http.they_are_waiting_for_100_continue:
                await self._write(self._build(h11.InformationalResponse(status_code=100, headers=[])))
            async with asyncio.timeout(IDLE_S):
                self.http.receive_data(await self.reader.read(READ_OCTETS))
        return event

    async def _refuse(self, record: RequestRecord, status: int) -> None:
        if self.http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = refusal(status, HTTPStatus(status).phrase, (("Connection", "close"),))
            await self._send(answer, record)

    async def _send(self, answer: Answer, record: RequestRecord) -> None:
        """Send the answer; the log has the request before the client can have all of the answer."""
        record.status = answer.status
        reason = HTTPStatus(answer.status).phrase.encode()
        octets = self._build(h11.Response(status_code=answer.status, headers=list(answer.headers), reason=reason))
        for piece in answer.pieces() if record.method != "HEAD" else ():
            octets += self._build(h11.Data(data=piece))
            record.response_octets += len(piece)
            if record.response_octets < answer.length:
                await self._write(octets)
                octets = b""
        octets += self._build(h11.EndOfMessage())
        self._log(record)
        await self._write(octets)

    def _log(self, record: RequestRecord) -> None:
        """Log a request once, if there was one."""
        if not record.logged and (record.method is not None or record.error):
            record.logged = True
            self.listener.site(record.host).journal.write(record.line())

    def _build(self, event: Any) -> bytes:
        return self.http.send(event) or b""

    async def _write(self, octets: bytes) -> None:
        self.writer.write(octets)
        async with asyncio.timeout(IDLE_S):
            await self.writer.drain()
