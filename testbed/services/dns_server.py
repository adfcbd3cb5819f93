"""DNS over UDP and TCP on sockets that are already bound, each query logged. A responder says what to answer.

DNS over TLS is `serve_stream` behind a TLS listener; DNS over HTTPS asks `NameServer.answer` (see `doh`).

A log record, one line of `dns-<node>.jsonl`:

    {"time": 1700000000.123, "client": ["192.168.0.13", 40961], "server": ["192.168.0.1", 53], "transport": "udp",
     "name": "www.example.com", "type": "A", "rcode": "NOERROR", "answers": ["A 93.184.216.34"], "octets": 60,
     "truncated": false}

Queries that cannot be parsed are logged with `"error"` in place of name, type and answers. A resolver that is a site
logs into the site's own file instead (see `web_log`): there the keys from `name` on stand below `"dns"`.

Sources: RFC 1035 section 4.2, RFC 7766 (TCP), RFC 7858 (TLS), RFC 6891 (sizes).
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from testbed.services import dns_message as dns
from testbed.services.dns_message import MalformedMessage, Query, Reply
from testbed.services.journal import Journal
from testbed.services.web_log import Connection

Responder = Callable[[Query], Awaitable[Reply]]

CONCURRENT_QUERIES = 512  # per socket; what comes on top is dropped, as a full queue would
STREAM_IDLE_S = 10.0
TCP_QUERIES = 128  # per connection
PROTOCOLS = {"udp": "DNS/UDP", "tcp": "DNS/TCP", "dot": "DNS/TLS"}


class Responds(Protocol):
    """Who answers messages that come over UDP, TCP or TLS, and logs them."""

    async def respond(self, untrusted: bytes, ends: Connection, transport: str) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Told:
    """What a name server answers, and what a log shall know of it.

    Shape: `packed` is None where silence is the answer; `lifetime_s` is how long the answer may be kept.
    """

    packed: bytes | None
    said: dict[str, Any]
    lifetime_s: int = 0


@dataclass(frozen=True, slots=True)
class NameServer:
    """A responder, and the log of what it was asked."""

    responder: Responder
    journal: Journal

    async def answer(self, untrusted: bytes, *, datagram: bool = False, encrypted: bool = False) -> Told:
        """The answer to a message, cut to what its client takes where it travels in a `datagram`."""
        try:
            query = dns.parse_query(untrusted)
        except MalformedMessage as error:
            return Told(dns.build_format_error(untrusted), {"rcode": "FORMERR", "error": str(error)})
        reply = await self.responder(query)
        packed = dns.build_reply(query, reply, query.udp_limit if datagram else dns.MESSAGE_OCTETS, encrypted=encrypted)
        said = {
            "name": dns.name_text(query.name),
            "type": dns.type_name(query.type),
            "rcode": dns.rcode_name(reply.rcode),
            "answers": [dns.record_text(answer) for answer in reply.answers],
            "octets": len(packed),
            "truncated": dns.is_truncated(packed),
        }
        return Told(packed, said, min((dns.record_ttl(record) for record in reply.answers), default=0))

    async def respond(self, untrusted: bytes, ends: Connection, transport: str) -> bytes | None:
        """The message to send back, or None for what deserves silence; the query is logged."""
        asked_at = time.time()
        told = await self.answer(untrusted, datagram=transport == "udp")
        place = {"client": list(ends.source), "server": list(ends.local), "transport": transport}
        self.journal.write({"time": asked_at, **place, **told.said})
        return told.packed


@dataclass(frozen=True, slots=True)
class SiteResolver:
    """A resolver that is a site: its queries go into the site's own log, in the shape of the site's other lines."""

    names: NameServer

    async def respond(self, untrusted: bytes, ends: Connection, transport: str) -> bytes | None:
        asked_at = time.time()
        told = await self.names.answer(untrusted, datagram=transport == "udp", encrypted=transport == "dot")
        line = {"time": asked_at, **ends.line(), "protocol": PROTOCOLS[transport], "dns": told.said}
        self.names.journal.write(line)
        return told.packed


@dataclass(slots=True)
class _DatagramServer(asyncio.DatagramProtocol):
    server: Responds
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # asyncio hands datagram protocols datagram transports

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if len(self.tasks) < CONCURRENT_QUERIES:
            task = asyncio.get_running_loop().create_task(self._reply(data, addr))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _reply(self, untrusted: bytes, client: Any) -> None:
        if self.transport is None:
            return
        local = self.transport.get_extra_info("sockname")
        packed = await self.server.respond(untrusted, Connection(tuple(client[:2]), tuple(local[:2])), "udp")
        if packed is not None and not self.transport.is_closing():
            self.transport.sendto(packed, client)


async def serve_udp(sock: socket.socket, server: Responds) -> asyncio.DatagramTransport:
    """Answer on a bound UDP socket until the returned transport is closed."""
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _DatagramServer(server), sock=sock)
    return transport


async def serve_stream(
    server: Responds,
    ends: Connection,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    transport: str = "tcp",
) -> None:
    """Answer the queries of one connection, each preceded by its length, in order, until the peer ends or idles."""
    for _ in range(TCP_QUERIES):
        try:
            async with asyncio.timeout(STREAM_IDLE_S):
                length = int.from_bytes(await reader.readexactly(2), "big")
                untrusted = await reader.readexactly(length)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            return
        packed = await server.respond(untrusted, ends, transport)
        if packed is None:
            return
        writer.write(len(packed).to_bytes(2, "big") + packed)
        await writer.drain()
