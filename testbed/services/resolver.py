"""A forwarding resolver: asks the authoritative servers from its own node and passes on what they say.

Every upstream query has a socket of its own (so the kernel picks a random port), connected to the server asked, and a
random id; an answer counts only if server, port, id and question match. A truncated answer is asked for again over TCP.
Servers are tried in order; when none answers in time the client gets SERVFAIL. The cache is off unless asked for,
because an observer behind the resolver should see every lookup.

Sources: RFC 1035 section 7, RFC 5452 section 9 (matching answers to questions).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from testbed.services import dns_message as dns
from testbed.services.dns_message import MalformedMessage, Name, Query, Reply, Response
from testbed.services.zones import refuse

OpenSocket = Callable[[int, int], socket.socket]  # family, type -> a socket in the resolver's node

ATTEMPT_S = 1.0
ROUNDS = 2
CACHED_ANSWERS = 1024
DNS_PORT = 53


@dataclass(slots=True)
class ForwardingResolver:
    """Answers queries by asking others. Shape: `forwards` maps zone names to server addresses; `()` is the root."""

    open_socket: OpenSocket
    forwards: Mapping[Name, Sequence[str]]
    cache: bool = False
    attempt_s: float = ATTEMPT_S
    port: int = DNS_PORT
    cached: dict[tuple[Name, int], tuple[float, Reply]] = field(default_factory=dict)

    async def resolve(self, query: Query) -> Reply:
        """What the responsible server answers; SERVFAIL if none does."""
        reply = refuse(query) or self._remembered(query) or await self._ask_servers(query)
        return Reply(reply.rcode, reply.answers, reply.authority, recursion_available=True)

    async def _ask_servers(self, query: Query) -> Reply:
        for _ in range(ROUNDS):
            for server in self._servers(query.name):
                try:
                    async with asyncio.timeout(self.attempt_s):
                        response = await self._ask(server, query)
                except (TimeoutError, OSError, MalformedMessage, asyncio.IncompleteReadError):
                    continue
                reply = Reply(
                    response.reply.rcode,
                    dns.without_edns(response.reply.answers),
                    dns.without_edns(response.reply.authority),
                )
                self._remember(query, reply)
                return reply
        return Reply(dns.SERVFAIL)

    def _servers(self, name: Name) -> Sequence[str]:
        for start in range(len(name) + 1):
            if name[start:] in self.forwards:
                return self.forwards[name[start:]]
        return ()

    async def _ask(self, server: str, query: Query) -> Response:
        response = await self._exchange(server, query, socket.SOCK_DGRAM)
        return await self._exchange(server, query, socket.SOCK_STREAM) if response.truncated else response

    async def _exchange(self, server: str, query: Query, kind: int) -> Response:
        message_id = secrets.randbelow(1 << 16)
        question = dns.build_question(message_id, query)
        with self.open_socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (server, self.port))
            receive = _receive_datagram if kind == socket.SOCK_DGRAM else _receive_framed
            await asyncio.get_running_loop().sock_sendall(
                sock, question if kind == socket.SOCK_DGRAM else len(question).to_bytes(2, "big") + question
            )
            while True:
                try:
                    response = dns.parse_response(await receive(sock))
                except MalformedMessage:
                    if kind == socket.SOCK_STREAM:
                        raise
                    continue
                if (response.id, response.name, response.type) == (message_id, query.name, query.type):
                    return response

    def _remembered(self, query: Query) -> Reply | None:
        expires_at, reply = self.cached.get((query.name, query.type), (0.0, None))
        return reply if asyncio.get_running_loop().time() < expires_at else None

    def _remember(self, query: Query, reply: Reply) -> None:
        if not self.cache or not reply.answers or reply.rcode != dns.NOERROR:
            return
        if len(self.cached) >= CACHED_ANSWERS:
            self.cached.pop(next(iter(self.cached)))
        lifetime_s = min(dns.record_ttl(record) for record in reply.answers)
        self.cached[query.name, query.type] = (asyncio.get_running_loop().time() + lifetime_s, reply)


async def _receive_datagram(sock: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(sock, dns.MESSAGE_OCTETS)


async def _receive_framed(sock: socket.socket) -> bytes:
    length = int.from_bytes(await _receive_exactly(sock, 2), "big")
    return await _receive_exactly(sock, length)


async def _receive_exactly(sock: socket.socket, wanted: int) -> bytes:
    received = bytearray()
    while len(received) < wanted:
        piece = await asyncio.get_running_loop().sock_recv(sock, wanted - len(received))
        if not piece:
            raise MalformedMessage("the stream ended inside a message")
        received += piece
    return bytes(received)
