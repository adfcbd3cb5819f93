"""HTTP/2 on a connection that stands, under TLS or in clear: h2 makes the frames, asyncio moves the octets.

One coroutine reads the connection; every request that has come in full is answered by a task of its own, so that a
large download does not hold up what is asked beside it. A sender waits for the peer's window, the reader tells it when
that opens. A peer that is silent for IDLE_S with nothing under way is sent away.

Sources: RFC 9113; h2's documentation of its events and of flow control.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from testbed.services.exchange import IDLE_S, ServedSite, answer, log
from testbed.services.pages import UPLOAD_OCTETS, Answer
from testbed.services.web_log import Connection, RequestRecord

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
    try:
        await conversation.run(first)
    finally:
        for task in conversation.tasks:
            task.cancel()
        await asyncio.gather(*conversation.tasks, return_exceptions=True)


@dataclass(slots=True)
class _Conversation:
    """All requests of one connection."""

    sites: Mapping[str, ServedSite]
    connection: Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    http: h2.connection.H2Connection = field(
        default_factory=lambda: h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    )
    arriving: dict[int, RequestRecord] = field(default_factory=dict)  # stream id -> request that is still coming in
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    progress: asyncio.Event = field(default_factory=asyncio.Event)  # a window opened, or a stream is gone

    async def run(self, first: bytes) -> None:
        self.http.initiate_connection()
        await self._flush()
        untrusted = first or await self._read()
        while untrusted:
            try:
                events = self.http.receive_data(untrusted)
            except h2.exceptions.ProtocolError as error:
                await self._break_off(str(error) or type(error).__name__)
                return
            for event in events:
                if isinstance(event, h2.events.ConnectionTerminated):
                    return
                self._take(event)
            self._wake_senders()
            await self._flush()
            untrusted = await self._read()

    async def _read(self) -> bytes:
        """The next octets; none when the peer has ended, or is silent and owed nothing."""
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    return await self.reader.read(READ_OCTETS)
            except TimeoutError:
                if not self.tasks:
                    return b""

    def _take(self, event: Any) -> None:
        match event:
            case h2.events.RequestReceived():
                record = RequestRecord(self.connection)
                record.read_headers(event.headers or (), "HTTP/2")
                self.arriving[event.stream_id] = record
            case h2.events.DataReceived():
                self._take_body(event)
            case h2.events.StreamEnded() if event.stream_id in self.arriving:
                self._answer_soon(event.stream_id)
            case h2.events.StreamReset():
                self.arriving.pop(event.stream_id, None)

    def _take_body(self, event: h2.events.DataReceived) -> None:
        record = self.arriving.get(event.stream_id)
        # What we do not want is acknowledged too: the window is the whole connection's.
        self.http.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        if record is not None:
            record.receive(event.data or b"")
            if record.body_octets > UPLOAD_OCTETS:
                self._answer_soon(event.stream_id)

    def _answer_soon(self, stream: int) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(stream, self.arriving.pop(stream)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, stream: int, record: RequestRecord) -> None:
        said = await answer(self.sites, record)
        try:
            await self._send(stream, said, record)
        except (h2.exceptions.ProtocolError, TimeoutError, OSError) as error:
            record.error = f"the answer was not taken: {error or type(error).__name__}"
        finally:
            log(self.sites, record)

    async def _send(self, stream: int, said: Answer, record: RequestRecord) -> None:
        """Send the answer; the log has the request before the client can have all of the answer."""
        record.status = said.status
        headers = [(":status", str(said.status)), *((name.lower(), value) for name, value in said.headers)]
        pieces = said.pieces() if record.method != "HEAD" else iter(())
        self.http.send_headers(stream, headers)
        for piece in pieces:
            left = memoryview(piece)
            while left:
                octets = await self._room(stream, len(left))
                self.http.send_data(stream, bytes(left[:octets]))
                record.response_octets += octets
                left = left[octets:]
                if left or record.response_octets < said.length:
                    await self._flush()
        self.http.end_stream(stream)
        log(self.sites, record)
        await self._flush()

    async def _room(self, stream: int, wanted: int) -> int:
        """How many octets may be sent now, at least one. Errors: TimeoutError if the peer takes none for too long."""
        while (room := self.http.local_flow_control_window(stream)) <= 0:
            await self._flush()
            self.progress.clear()
            async with asyncio.timeout(IDLE_S):
                await self.progress.wait()
        return min(room, wanted, self.http.max_outbound_frame_size)

    def _wake_senders(self) -> None:
        self.progress.set()

    async def _break_off(self, why: str) -> None:
        """Tell the peer what it did wrong (h2 has written the GOAWAY), and the log."""
        record = next(iter(self.arriving.values()), RequestRecord(self.connection, protocol="HTTP/2"))
        record.error = why
        log(self.sites, record)
        await self._flush()

    async def _flush(self) -> None:
        octets = self.http.data_to_send()
        if octets:
            self.writer.write(octets)
            async with asyncio.timeout(IDLE_S):
                await self.writer.drain()
