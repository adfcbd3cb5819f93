"""HTTP/1.1 on a connection that stands: h11 reads and writes the messages, asyncio moves the octets.

h11 and not a server framework: it imports in 5 ms beside asyncio, it is sans I/O as the libraries for HTTP/2 and
HTTP/3 are (each has a file like this one), and the log needs what a server framework hides: the exact headers, and the
octets really sent.

Bodies are streamed in both directions; a slow or silent peer is dropped after IDLE_S.

Sources: RFC 9112; h11's documentation of its state machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import h11

from testbed.services.exchange import IDLE_S, ServedSite, answer, log
from testbed.services.pages import UPLOAD_OCTETS, Answer, refusal
from testbed.services.web_log import Connection, RequestRecord, as_text

READ_OCTETS = 1 << 16


async def converse(
    sites: Mapping[str, ServedSite],
    connection: Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    first: bytes = b"",
) -> None:
    """Answer the requests of one connection. Shape: `first` are octets that have been read from it already."""
    conversation = _Conversation(sites, connection, reader, writer)
    if first:
        conversation.http.receive_data(first)
    await conversation.run()


@dataclass(slots=True)
class _Conversation:
    """The requests of one connection, one after the other."""

    sites: Mapping[str, ServedSite]
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
                log(self.sites, record)
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
        await self._send(await answer(self.sites, record), record)
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
            await self._send(refusal(status, HTTPStatus(status).phrase, (("Connection", "close"),)), record)

    async def _send(self, said: Answer, record: RequestRecord) -> None:
        """Send the answer; the log has the request before the client can have all of the answer."""
        record.status = said.status
        reason = HTTPStatus(said.status).phrase.encode()
        octets = self._build(h11.Response(status_code=said.status, headers=list(said.headers), reason=reason))
        for piece in said.pieces() if record.method != "HEAD" else ():
            octets += self._build(h11.Data(data=piece))
            record.response_octets += len(piece)
            if record.response_octets < said.length:
                await self._write(octets)
                octets = b""
        octets += self._build(h11.EndOfMessage())
        log(self.sites, record)
        await self._write(octets)

    def _build(self, event: Any) -> bytes:
        return self.http.send(event) or b""

    async def _write(self, octets: bytes) -> None:
        self.writer.write(octets)
        async with asyncio.timeout(IDLE_S):
            await self.writer.drain()
