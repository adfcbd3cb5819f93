"""`http` and `https`: one request as a program would make it, over HTTP/1.1, HTTP/2 or HTTP/3.

The name is looked up as the action says, the addresses are tried in their order, the TLS handshake checks the lab's
authority and writes its secrets for Wireshark. http.client speaks HTTP/1.1: it is the smallest to import; the other
versions have a file each (`http2_exchange`, `http3_exchange`), imported when an action wants them.

HTTP/2 without TLS begins with prior knowledge, under TLS it is what ALPN offers; HTTP/3 is asked for directly, as a
client does that has seen the site's Alt-Svc before.

Sources: RFC 9110, RFC 9112, RFC 9113 section 3, RFC 9114 section 3.1.
"""

from __future__ import annotations

import http.client
import socket

from testbed.workload.attempt import ActionFailed, Attempt, in_words
from testbed.workload.dial import connect, secure
from testbed.workload.http_plan import Message, Target, note_message, plan_message, plan_target
from testbed.workload.resolve import resolve

RESPONSE_OCTETS = 1 << 30


def perform(attempt: Attempt) -> str:
    """Make the request; returns status, size and server for people."""
    target, message = plan_target(attempt), plan_message(attempt)
    addresses = resolve(attempt, target.host, target.host_tokens)
    version = attempt.action.version
    if version == "3":
        from testbed.workload import http3_exchange  # aioquic, for who asks for it

        status, octets, address = http3_exchange.fetch(attempt, target, message, addresses)
    else:
        status, octets, address = _over_tcp(attempt, target, message, addresses)
    detail = f"{status}, {octets} octets from {address}" + ("" if version == "1.1" else f" over HTTP/{version}")
    if status >= 400:
        raise ActionFailed(detail)
    return detail


def _over_tcp(attempt: Attempt, target: Target, message: Message, addresses: list[str]) -> tuple[int, int, str]:
    sock, address = connect(attempt, addresses, target.port)
    exchange, protocol = (_exchange, "http/1.1") if attempt.action.version == "1.1" else (_exchange_2, "h2")
    try:
        if target.scheme == "https":
            sock = secure(attempt, sock, target.host, protocol, target.host_tokens)
        return *exchange(attempt, target, message, sock), address
    except (http.client.HTTPException, OSError) as error:
        reason = in_words(error) if isinstance(error, OSError) else f"not HTTP: {error!r}"
        raise ActionFailed(f"{target.authority} at {address}: {reason}") from None
    finally:
        sock.close()


def _exchange(attempt: Attempt, target: Target, message: Message, sock: socket.socket) -> tuple[int, int]:
    connection = http.client.HTTPConnection(target.host, target.port)
    connection.sock = sock
    connection.putrequest(attempt.action.method, target.path, skip_host=True, skip_accept_encoding=True)
    connection.putheader("Host", target.authority)
    for name, value in message.headers:
        connection.putheader(name, value)
    if message.body is not None:
        connection.putheader("Content-Length", str(len(message.body)))
    connection.putheader("Connection", "close")
    connection.endheaders(message.body)
    note_message(attempt, target, message)
    response = connection.getresponse()
    octets = 0
    # From Python 3.13 on the last piece closes the socket, before 3.13 an empty one does.
    while not response.isclosed() and octets < RESPONSE_OCTETS:
        sock.settimeout(attempt.remaining_s())
        piece = response.read1(1 << 16)
        octets += len(piece)
        if not piece:
            break
    return response.status, octets


def _exchange_2(attempt: Attempt, target: Target, message: Message, sock: socket.socket) -> tuple[int, int]:
    from testbed.workload import http2_exchange  # h2, for who asks for it

    headers = http2_exchange.request_headers(
        attempt.action.method, target.scheme, target.authority, target.path, message.headers, message.body
    )
    connection = http2_exchange.Connection(attempt, sock)
    response = connection.exchange(headers, message.body, lambda: note_message(attempt, target, message))
    connection.close()
    return response.status, response.octets
