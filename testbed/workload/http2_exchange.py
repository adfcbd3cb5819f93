"""HTTP/2 on a connected socket, one request after the other: h2 makes and reads the frames, this file moves the octets.

Sources: RFC 9113; h2's documentation of its events and of flow control.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from testbed.workload.attempt import ActionFailed, Attempt

READ_OCTETS = 1 << 16
KEPT_OCTETS = 1 << 16  # of a response's body; the rest is counted

Headers = list[tuple[str, str]]


@dataclass(slots=True)
class Response:
    """Shape: `body` is the first KEPT_OCTETS of it, `octets` counts all."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    octets: int = 0
    ended: bool = False


def request_headers(
    method: str, scheme: str, authority: str, path: str, headers: Iterable[tuple[str, str]], body: bytes | None
) -> Headers:
    """The header section of a request, as HTTP/2 and HTTP/3 have it."""
    lines = [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]
    lines += [(name.lower(), value) for name, value in headers]
    return lines if body is None else [*lines, ("content-length", str(len(body)))]


class Connection:
    """An HTTP/2 connection as its client."""

    def __init__(self, attempt: Attempt, sock: socket.socket) -> None:
        self._attempt = attempt
        self._sock = sock
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._http.initiate_connection()

    def exchange(self, headers: Headers, body: bytes | None, sent: Callable[[], None]) -> Response:
        """Ask and read the whole answer; `sent` is called when the request's first octets have left.

        Errors: ActionFailed for a peer that speaks no HTTP/2 or breaks off; OSError.
        """
        stream = self._http.get_next_available_stream_id()
        response = Response()
        try:
            self._http.send_headers(stream, headers, end_stream=not body)
            left = memoryview(body or b"")
            left = self._send_body(stream, left)
            sent()
            while not response.ended:
                self._receive(stream, response)
                left = self._send_body(stream, left)
        except h2.exceptions.ProtocolError as error:
            raise ActionFailed(f"not HTTP/2: {error or type(error).__name__}") from None
        return response

    def close(self) -> None:
        """Say goodbye; a peer that has gone already does not matter."""
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            self._http.close_connection()
            self._flush()

    def _send_body(self, stream: int, left: memoryview) -> memoryview:
        """Send as much of the body as the peer's windows allow; returns the rest."""
        while left:
            room = min(self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size, len(left))
            if room <= 0:
                break
            self._http.send_data(stream, bytes(left[:room]), end_stream=room == len(left))
            left = left[room:]
        self._flush()
        return left

    def _receive(self, stream: int, response: Response) -> None:
        self._sock.settimeout(self._attempt.remaining_s())
        untrusted = self._sock.recv(READ_OCTETS)
        if not untrusted:
            raise ConnectionResetError("the connection ended inside a response")
        for event in self._http.receive_data(untrusted):
            self._take(event, stream, response)
        self._flush()

    def _take(self, event: Any, stream: int, response: Response) -> None:
        match event:
            case h2.events.ResponseReceived(stream_id=number) if number == stream:
                response.headers = {str(name): str(value) for name, value in event.headers or ()}
                response.status = int(response.headers.get(":status", "0"))
            case h2.events.DataReceived(stream_id=number):
                self._http.acknowledge_received_data(event.flow_controlled_length or 0, number)
                data = event.data or b""
                response.octets += len(data)
                response.body += data[: KEPT_OCTETS - len(response.body)]
            case h2.events.StreamEnded(stream_id=number) if number == stream:
                response.ended = True
            case h2.events.StreamReset(stream_id=number) if number == stream:
                raise ActionFailed(f"the other side broke the request off (HTTP/2 error {event.error_code})")
            case h2.events.ConnectionTerminated():
                raise ActionFailed(f"the other side ended the connection (HTTP/2 error {event.error_code})")

    def _flush(self) -> None:
        octets = self._http.data_to_send()
        if octets:
            self._sock.settimeout(self._attempt.remaining_s())
            self._sock.sendall(octets)
