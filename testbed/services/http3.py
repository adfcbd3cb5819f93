"""HTTP/3 on a bound UDP socket: aioquic does QUIC, TLS and HTTP/3, asyncio moves the datagrams.

aioquic routes datagrams to connections and keeps their timers; this file answers the requests of each, and reads from
the client's first datagrams what the library does not tell, the server name. aioquic offers one certificate an address,
so sites that share one get a certificate with all their names; a site alone at its address keeps that of its HTTPS.

The library takes the whole answer into its buffers and does not say when it has been sent: downloads end at
DOWNLOAD_OCTETS here, where the other versions stream. This module is imported by labs with an HTTP/3 site only.

Sources: RFC 9114; RFC 9000; aioquic's asyncio server.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ProtocolNegotiated, QuicEvent, StreamReset

from testbed.services.certificates import Credentials
from testbed.services.exchange import IDLE_S, ServedSite, answer, log
from testbed.services.pages import UPLOAD_OCTETS, refusal
from testbed.services.quic_hello import HelloReader
from testbed.services.web_log import Connection, RequestRecord

DOWNLOAD_OCTETS = 1 << 25
TLS_VERSION = "TLSv1.3"  # QUIC knows no other


@dataclass(slots=True)
class _Request:
    record: RequestRecord
    answered: bool = False


@dataclass(slots=True)
class _Shared:
    """What the connections of one address have in common."""

    sites: Mapping[str, ServedSite]
    local: tuple[str, int]
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


class _Conversation(QuicConnectionProtocol):
    """All requests of one QUIC connection."""

    def __init__(self, shared: _Shared, quic: QuicConnection, **options: Any) -> None:
        super().__init__(quic, **options)
        self._shared = shared
        self._quic_connection = quic
        self._hello = HelloReader(quic.original_destination_connection_id)
        self._http: H3Connection | None = None
        self._source: tuple[str, int] = ("", 0)
        self._requests: dict[int, _Request] = {}

    def datagram_received(self, data: bytes | str, addr: Any) -> None:
        if isinstance(data, bytes):
            self._hello.read(data)
        self._source = (addr[0], addr[1])
        super().datagram_received(data, addr)

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self._http = H3Connection(self._quic_connection)
        elif isinstance(event, StreamReset):
            self._requests.pop(event.stream_id, None)
        if self._http is not None:
            for one in self._http.handle_event(event):
                self._take(one)

    def _take(self, event: H3Event) -> None:
        if not isinstance(event, HeadersReceived | DataReceived):
            return
        request = self._requests.get(event.stream_id)
        if request is None:
            request = self._requests[event.stream_id] = _Request(RequestRecord(self._connection()))
        if isinstance(event, HeadersReceived) and request.record.method is None:
            request.record.read_headers(event.headers, "HTTP/3")
        elif isinstance(event, DataReceived):
            request.record.receive(event.data)
        if (event.stream_ended or request.record.body_octets > UPLOAD_OCTETS) and not request.answered:
            request.answered = True
            task = asyncio.get_running_loop().create_task(self._answer(event.stream_id, request.record))
            self._shared.tasks.add(task)
            task.add_done_callback(self._shared.tasks.discard)

    def _connection(self) -> Connection:
        return Connection(self._source, self._shared.local, True, self._hello.name, TLS_VERSION)

    async def _answer(self, stream: int, record: RequestRecord) -> None:
        """Send the answer; the log has the request before the client can have any of the answer."""
        said = await answer(self._shared.sites, record)
        if said.length > DOWNLOAD_OCTETS and record.method != "HEAD":
            said = refusal(404, f"At most {DOWNLOAD_OCTETS} octets over HTTP/3")
        record.status = said.status
        headers = [(b":status", str(said.status).encode())]
        headers += [(name.lower().encode(), value.encode()) for name, value in said.headers]
        body = b"" if record.method == "HEAD" else b"".join(said.pieces())
        record.response_octets = len(body)
        log(self._shared.sites, record)
        if self._requests.pop(stream, None) is None or self._http is None:
            return  # the client has reset the stream
        self._http.send_headers(stream, headers, end_stream=not body)
        if body:
            self._http.send_data(stream, body, end_stream=True)
        self.transmit()


async def serve(
    sock: socket.socket, sites: Mapping[str, ServedSite], credentials: Credentials
) -> tuple[QuicServer, set[asyncio.Task[None]]]:
    """Answer on a bound UDP socket until the returned server is closed; the set holds the answers under way."""
    shared = _Shared(sites, tuple(sock.getsockname()[:2]))
    configuration = _configuration(credentials, H3_ALPN)

    def create(quic: QuicConnection, **options: Any) -> _Conversation:
        return _Conversation(shared, quic, **options)

    _, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: QuicServer(configuration=configuration, create_protocol=create), sock=sock
    )
    return server, shared.tasks


def _configuration(credentials: Credentials, protocols: Sequence[str]) -> QuicConfiguration:
    configuration = QuicConfiguration(is_client=False, alpn_protocols=list(protocols), idle_timeout=IDLE_S)
    with credentials.as_file() as path:
        configuration.load_cert_chain(path)
    return configuration
