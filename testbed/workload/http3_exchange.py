"""HTTP/3: one request over QUIC. aioquic does QUIC, TLS and HTTP/3 without I/O; this file moves the datagrams.

The name goes into the Initial packet, where any observer can read it (a quic-name fact); its secrets go into the key
log, so that Wireshark decrypts the rest.

Sources: RFC 9114; RFC 9001 section 5.2; aioquic's sans-I/O interface.
"""

from __future__ import annotations

import logging
import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TextIO

from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, ProtocolNegotiated, QuicEvent, StreamReset

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt, in_words
from testbed.workload.http2_exchange import request_headers
from testbed.workload.http_plan import Message, Target, note_message
from testbed.workload.resolve import is_address

DATAGRAM_OCTETS = 65535


def fetch(attempt: Attempt, target: Target, message: Message, addresses: list[str]) -> tuple[int, int, str]:
    """Status, octets of the body and the address that answered. Errors: ActionFailed names every address tried."""
    # The library also tells its log, which is stderr here, why a connection failed; the action's record says it.
    logging.getLogger("quic").setLevel(logging.CRITICAL)
    failures = []
    with ExitStack() as stack:
        keylog = stack.enter_context(open(attempt.request.keylog, "a")) if attempt.request.keylog else None
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                request = _Request(attempt, target, message, sock, address, _configuration(attempt, target, keylog))
                try:
                    return *request.perform(), address
                except OSError as error:
                    failures.append(f"{address}: {in_words(error)}")
    raise ActionFailed(f"{target.authority}: {'; '.join(failures)}")


def _configuration(attempt: Attempt, target: Target, keylog: TextIO | None) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=H3_ALPN,
        server_name=target.host,
        cafile=attempt.request.ca_certificate,
        secrets_log_file=keylog,
        idle_timeout=attempt.action.timeout,
    )


@dataclass(slots=True)
class _Answer:
    status: int = 0
    octets: int = 0
    ended: bool = False


@dataclass(slots=True)
class _Request:
    """One request on a QUIC connection of its own."""

    attempt: Attempt
    target: Target
    message: Message
    sock: socket.socket
    address: str
    configuration: QuicConfiguration
    answer: _Answer = field(default_factory=_Answer)
    http: H3Connection | None = None
    asked: bool = False  # the request is in the connection's hands
    noted: bool = False  # and its octets have left

    @property
    def _peer(self) -> tuple[str, int]:
        """The other end; always spelled alike, or the library would take it for another path."""
        return self.address, self.target.port

    def perform(self) -> tuple[int, int]:
        """Errors: ActionFailed; OSError if there is no way to the address or nobody listens there."""
        self.sock.setblocking(False)
        self.sock.connect(self._peer)
        quic = QuicConnection(configuration=self.configuration)
        quic.connect(self._peer, now=time.monotonic())
        self._send(quic)
        self.attempt.note_ends(self.sock, str(ip_address(self.address)))
        if not is_address(self.target.host):
            self.attempt.note_name(Kind.QUIC_NAME, self.target.host, self.target.host_tokens)
        while not self.answer.ended:
            self._await(quic)
            while (event := quic.next_event()) is not None:
                self._take(quic, event)
            self._send(quic)
        quic.close()
        self._send(quic)
        return self.answer.status, self.answer.octets

    def _await(self, quic: QuicConnection) -> None:
        """Wait for a datagram or for the connection's next deadline, whichever comes first."""
        now, due_at = time.monotonic(), quic.get_timer()
        left = self.attempt.remaining_s()
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        if poll.poll(1000 * min(left, max(0.0, due_at - now) if due_at is not None else left)):
            try:
                while True:
                    quic.receive_datagram(self.sock.recv(DATAGRAM_OCTETS), self._peer, time.monotonic())
            except BlockingIOError:
                pass
        now = time.monotonic()
        if due_at is not None and now >= due_at:
            quic.handle_timer(now)

    def _take(self, quic: QuicConnection, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            reason = event.reason_phrase or f"QUIC error {event.error_code}"
            raise ActionFailed(f"{self.target.authority} at {self.address}: {reason}")
        if isinstance(event, StreamReset):
            raise ActionFailed(f"the other side broke the request off (HTTP/3 error {event.error_code})")
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(quic)
        if isinstance(event, HandshakeCompleted) and self.http is not None:  # the certificate is believed: not before
            self._ask(quic, self.http)
        for one in self.http.handle_event(event) if self.http is not None else ():
            if isinstance(one, HeadersReceived):
                self.answer.status = int(dict(one.headers).get(b":status", b"0"))
            elif isinstance(one, DataReceived):
                self.answer.octets += len(one.data)
            if isinstance(one, HeadersReceived | DataReceived) and one.stream_ended:
                self.answer.ended = True

    def _ask(self, quic: QuicConnection, http: H3Connection) -> None:
        target, body = self.target, self.message.body
        method = self.attempt.action.method
        lines = request_headers(method, target.scheme, target.authority, target.path, self.message.headers, body)
        stream = quic.get_next_available_stream_id()
        http.send_headers(stream, [(name.encode(), value.encode()) for name, value in lines], end_stream=not body)
        if body:
            http.send_data(stream, body, end_stream=True)
        self.asked = True

    def _send(self, quic: QuicConnection) -> None:
        for datagram, _ in quic.datagrams_to_send(now=time.monotonic()):
            self.sock.send(datagram)
        if self.asked and not self.noted:
            self.noted = True
            note_message(self.attempt, self.target, self.message)
