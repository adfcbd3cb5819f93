"""`http` and `https`: one request as a program would make it, with a canary in the URL, in a cookie and in the body.

The name goes through getaddrinfo, the addresses are tried in its order, the TLS handshake checks the lab's authority
and writes its secrets for Wireshark. http.client writes and reads the messages: it is the smallest to import.

Facts of `https` are those an observer could only learn by breaking TLS (URL, canary headers, body), and the name in
SNI. It has no http-host fact: the name that TLS shows is the tls-name, and the one inside cannot be told from it.

Sources: RFC 9110, RFC 9112; RFC 6066 section 3 for when a name goes into SNI.
"""

from __future__ import annotations

import errno
import http.client
import select
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt, in_words
from testbed.workload.canary import PLACEHOLDER
from testbed.workload.resolve import is_address, resolve

PORTS = {"http": 80, "https": 443}
USER_AGENT = "testbed-workload/1 (HTTP/1.1)"
FIXED_NEEDLE_LETTERS = 8  # a shorter fixed header value would be found anywhere by chance
RESPONSE_OCTETS = 1 << 30
BODY_VALUE_LETTERS = 1024


@dataclass(frozen=True, slots=True)
class Target:
    """A URL with its canaries in place. Shape: `authority` is `host[:port]`, without the scheme's default port."""

    scheme: str
    host: str
    port: int
    path: str
    host_tokens: tuple[str, ...]
    path_tokens: tuple[str, ...]

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


@dataclass(frozen=True, slots=True)
class Message:
    """Headers and body to send, and which of them are facts with which needles."""

    headers: tuple[tuple[str, str], ...]
    header_needles: dict[str, str]  # header line -> what gives it away
    body: bytes | None
    body_tokens: tuple[str, ...]


def perform(attempt: Attempt) -> str:
    """Make the request; returns status, size and server for people."""
    target = plan_target(attempt)
    message = plan_message(attempt)
    sock, address = _connect(attempt, target, resolve(attempt, target.host, target.host_tokens))
    try:
        if target.scheme == "https":
            sock = _secure(attempt, target, sock)
        status, octets = _exchange(attempt, target, message, sock)
    except (http.client.HTTPException, OSError) as error:
        reason = in_words(error) if isinstance(error, OSError) else f"not HTTP: {error!r}"
        raise ActionFailed(f"{target.authority} at {address}: {reason}") from None
    finally:
        sock.close()
    detail = f"{status}, {octets} octets from {address}"
    if status >= 400:
        raise ActionFailed(detail)
    return detail


def plan_target(attempt: Attempt) -> Target:
    """The URL of the action, with a canary in its query unless it has one already. Errors: ActionFailed."""
    written = attempt.action.target
    try:
        parts = urlsplit(written if "://" in written else f"{attempt.action.verb}://{written}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ActionFailed(f"{written}: {error}") from None
    if parts.scheme not in PORTS or not host:
        raise ActionFailed(f"{written}: not an http or https URL")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if PLACEHOLDER not in path:
        path += f"{'&' if parts.query else '?'}visit={PLACEHOLDER}"
    host, host_tokens = attempt.canaries.expand(host, "name")
    path, path_tokens = attempt.canaries.expand(path, "url")
    return Target(parts.scheme, host, port or PORTS[parts.scheme], path, host_tokens, path_tokens)


def plan_message(attempt: Attempt) -> Message:
    """What to send below the request line: the action's own headers and body, a canary in a cookie and the body."""
    action, canaries = attempt.action, attempt.canaries
    written = list(action.headers)
    names = {name.lower() for name, _ in written}
    body: str | None = None
    body_tokens: tuple[str, ...] = ()
    if action.body is not None or action.method in ("POST", "PUT", "PATCH"):
        text = action.body if action.body is not None else f"note={PLACEHOLDER}"
        body, body_tokens = canaries.expand(text if PLACEHOLDER in text else f"{text}&note={PLACEHOLDER}", "body")
        if "content-type" not in names:
            written.append(("Content-Type", "application/x-www-form-urlencoded"))
    if "cookie" not in names:
        written.append(("Cookie", f"session={PLACEHOLDER}"))
    headers, needles = [], {}
    for number, (name, value) in enumerate(written):
        expanded, tokens = canaries.expand(value, f"header-{number}-{name.lower()}")
        headers.append((name, expanded))
        if tokens:
            needles[f"{name}: {expanded}"] = tokens[0]
        elif number < len(action.headers) and len(expanded) >= FIXED_NEEDLE_LETTERS:
            # The whole line: a value such as text/html stands in other messages too.
            needles[f"{name}: {expanded}"] = f"{name}: {expanded}"
    if "user-agent" not in names:
        headers.append(("User-Agent", USER_AGENT))
    return Message(tuple(headers), needles, None if body is None else body.encode(), body_tokens)


def _connect(attempt: Attempt, target: Target, addresses: list[str]) -> tuple[socket.socket, str]:
    """A connection to the first address that answers. Errors: ActionFailed names every address and why not."""
    failures = []
    for address in addresses:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            _connect_to(attempt, sock, address, target.port)
        except OSError as error:
            sock.close()
            failures.append(f"{address}: {in_words(error)}")
        except ActionFailed:
            sock.close()
            raise ActionFailed("; ".join([*failures, f"{address}: no answer in time"])) from None
        else:
            return sock, address
    raise ActionFailed("; ".join(failures))


def _connect_to(attempt: Attempt, sock: socket.socket, address: str, port: int) -> None:
    """Connect, and note both ends once a packet has left: a route that is missing here sends none."""
    sock.setblocking(False)
    number = sock.connect_ex((address, port))
    if number not in (0, errno.EINPROGRESS):
        raise OSError(number, "connect")
    attempt.note_ends(sock, str(ip_address(address)))
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(attempt.remaining_s() * 1000):
        attempt.remaining_s()
        raise TimeoutError
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, "connect")
    sock.settimeout(attempt.remaining_s())


def _secure(attempt: Attempt, target: Target, sock: socket.socket) -> ssl.SSLSocket:
    if not is_address(target.host):
        attempt.note_name(Kind.TLS_NAME, target.host, target.host_tokens)
    secured = attempt.tls().wrap_socket(sock, server_hostname=target.host)
    if secured.version() != "TLSv1.3":  # up to 1.2 the certificate crosses the wire in clear
        certificate: dict[str, Any] = dict(secured.getpeercert() or {})
        for _, name in certificate.get("subjectAltName", ()):
            attempt.note_name(Kind.TLS_CERTIFICATE, name, ())
    return secured


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
    _note_message(attempt, target, message)
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


def _note_message(attempt: Attempt, target: Target, message: Message) -> None:
    site = attempt.site_of_address(target.host) if is_address(target.host) else attempt.site_of_name(target.host)
    if target.scheme == "http":
        attempt.note(Kind.HTTP_HOST, target.host, site, target.host_tokens or (target.host,))
    attempt.note(Kind.HTTP_URL, target.url, site, target.path_tokens)
    for line, needle in message.header_needles.items():
        attempt.note(Kind.HTTP_HEADER, line, site, (needle,))
    if message.body is not None:
        text = message.body.decode("utf-8", "backslashreplace")
        attempt.note(Kind.HTTP_BODY, text[:BODY_VALUE_LETTERS], site, message.body_tokens)
