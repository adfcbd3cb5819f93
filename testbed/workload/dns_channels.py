"""Ways to a resolver: over UDP, TCP, TLS (DoT) and HTTPS (DoH, HTTP/2 POST). One channel asks several questions.

    udp   one datagram a question; a truncated answer is asked for again over TCP
    tcp   a connection a question, as the system's own resolver does it
    dot   one TLS connection to port 853 for all questions
    doh   one HTTP/2 connection to port 443, https://NAME/dns-query

An answer counts only if it comes from the server asked and repeats id and question. Over TLS the certificate must hold
the resolver's name, or its address where it is known by nothing else; then there is no name in SNI either. Questions
under TLS are padded, so that the length of a packet does not tell the length of the name.

Sources: RFC 1035 section 4.2; RFC 5452 section 9; RFC 7766; RFC 7858 and RFC 8310 (DoT); RFC 8484 (DoH); RFC 7830 and
RFC 8467 section 4.1 (padding).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import dnslib

from testbed.workload.attempt import ActionFailed, Attempt, in_words
from testbed.workload.dial import connect, secure

DNS_PORT, DOT_PORT, DOH_PORT = 53, 853, 443
DOH_PATH = "/dns-query"
DOH_TYPE = "application/dns-message"
TRIES = 2
_HOSTILE = (
    dnslib.DNSError,
    ValueError,
    TypeError,
    LookupError,
    RecursionError,
    OverflowError,
)  # what parsing may raise

PADDING_OPTION = 12
PADDED_OCTETS = 128  # questions over TLS and HTTPS are a multiple of it

Sent = Callable[[], None]  # called when a question has left


@dataclass(frozen=True, slots=True)
class Server:
    """A resolver. Shape: `name` is what its certificate must hold; None if it is known by its address alone.

    `chosen` tells one that the scenario names from the one the node happens to have.
    """

    addresses: tuple[str, ...]
    name: str | None = None
    chosen: bool = False

    def __str__(self) -> str:
        return self.name or self.addresses[0]


class Channel(Protocol):
    """Asks one question and waits for its answer, parsed. Errors: ActionFailed; OSError."""

    def ask(self, question: Any, sent: Sent) -> Any: ...


@contextmanager
def open_channel(attempt: Attempt, server: Server) -> Iterator[Channel]:
    """The way to `server` that the action asks for. Errors: ActionFailed says which server and why not."""
    over = attempt.action.over
    try:
        if over in ("udp", "tcp"):
            yield _PlainChannel(attempt, server, datagrams=over == "udp")
            return
        port, protocol = (DOT_PORT, "dot") if over == "dot" else (DOH_PORT, "h2")
        sock, address = connect(attempt, list(server.addresses), port, note_server=server.chosen)
        with sock, secure(attempt, sock, server.name or address, protocol) as secured:
            if over == "dot":
                yield _StreamChannel(attempt, secured)
            else:
                yield _HttpsChannel(attempt, secured, server.name or address)
    except OSError as error:
        raise ActionFailed(f"name server {server}: {in_words(error)}") from None


def parse_answer(untrusted: bytes, question: Any) -> Any:
    """The message, if it answers `question`; None for anything else that may have arrived."""
    try:
        message = dnslib.DNSRecord.parse(untrusted)
    except _HOSTILE:
        return None
    if message.header.id != question.header.id or not message.header.qr or len(message.questions) != 1:
        return None
    return message if message.q.qname == question.q.qname and message.q.qtype == question.q.qtype else None


@dataclass(frozen=True, slots=True)
class _PlainChannel:
    attempt: Attempt
    server: Server
    datagrams: bool

    def ask(self, question: Any, sent: Sent) -> Any:
        failure = OSError()
        wait_s = self.attempt.action.timeout / (TRIES + 1)
        for _ in range(TRIES):
            for address in self.server.addresses:
                try:
                    if self.datagrams:
                        message = self._exchange(address, question, sent, socket.SOCK_DGRAM, wait_s)
                        if not message.header.tc:
                            return message
                    return self._exchange(address, question, sent, socket.SOCK_STREAM, self.attempt.remaining_s())
                except OSError as error:
                    failure = error
        raise failure

    def _exchange(self, address: str, question: Any, sent: Sent, transport: socket.SocketKind, wait_s: float) -> Any:
        packed = bytes(question.pack())
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, transport) as sock:
            sock.settimeout(min(wait_s, self.attempt.remaining_s()))
            sock.connect((address, DNS_PORT))
            sock.sendall(packed if transport == socket.SOCK_DGRAM else _framed(packed))
            sent()
            self.attempt.note_ends(sock, address if self.server.chosen else None)
            while True:
                sock.settimeout(min(wait_s, self.attempt.remaining_s()))
                untrusted = sock.recv(65535) if transport == socket.SOCK_DGRAM else _receive_framed(sock)
                message = parse_answer(untrusted, question)
                if message is not None:
                    return message


@dataclass(frozen=True, slots=True)
class _StreamChannel:
    attempt: Attempt
    sock: socket.socket

    def ask(self, question: Any, sent: Sent) -> Any:
        self.sock.settimeout(self.attempt.remaining_s())
        self.sock.sendall(_framed(_padded(question)))
        sent()
        while True:
            self.sock.settimeout(self.attempt.remaining_s())
            message = parse_answer(_receive_framed(self.sock), question)
            if message is not None:
                return message


class _HttpsChannel:
    def __init__(self, attempt: Attempt, sock: socket.socket, host: str) -> None:
        from testbed.workload import http2_exchange  # h2, for who asks over HTTPS

        self._authority = f"[{host}]" if ":" in host else host
        self._connection = http2_exchange.Connection(attempt, sock)
        self._headers = http2_exchange.request_headers

    def ask(self, question: Any, sent: Sent) -> Any:
        question.header.id = 0  # RFC 8484 section 4.1: the same question is the same request
        packed = _padded(question)
        lines = (("Accept", DOH_TYPE), ("Content-Type", DOH_TYPE))
        headers = self._headers("POST", "https", self._authority, DOH_PATH, lines, packed)
        response = self._connection.exchange(headers, packed, sent)
        message = parse_answer(response.body, question) if response.status == 200 else None
        if message is None:
            raise ActionFailed(
                f"name server https://{self._authority}{DOH_PATH}: status {response.status}, no DNS answer"
            )
        return message


def _padded(question: Any) -> bytes:
    """The question with EDNS and so much padding that names of usual length look alike."""
    question.ar.clear()
    question.add_ar(dnslib.EDNS0(udp_len=1232, opts=[dnslib.EDNSOption(PADDING_OPTION, b"")]))
    padding = bytes(-len(question.pack()) % PADDED_OCTETS)
    question.ar.clear()
    question.add_ar(dnslib.EDNS0(udp_len=1232, opts=[dnslib.EDNSOption(PADDING_OPTION, padding)]))
    return bytes(question.pack())


def _framed(packed: bytes) -> bytes:
    return len(packed).to_bytes(2, "big") + packed


def _receive_framed(sock: socket.socket) -> bytes:
    length = int.from_bytes(_receive_exactly(sock, 2), "big")
    return _receive_exactly(sock, length)


def _receive_exactly(sock: socket.socket, wanted: int) -> bytes:
    received = b""
    while len(received) < wanted or not wanted:
        piece = sock.recv(wanted - len(received)) if wanted else b""
        if not piece:
            raise ConnectionResetError("the stream ended inside a message")
        received += piece
    return received
