"""A connection to the first address that answers, and TLS on it; both noted as what an observer learns from them.

Sources: RFC 6066 section 3 for when a name goes into SNI.
"""

from __future__ import annotations

import errno
import select
import socket
import ssl
from ipaddress import ip_address
from typing import Any

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt, in_words
from testbed.workload.resolve import is_address


def connect(
    attempt: Attempt, addresses: list[str], port: int, *, note_server: bool = True
) -> tuple[socket.socket, str]:
    """A TCP connection to the first address that answers.

    Errors: ActionFailed names every address and why not.
    """
    failures = []
    for address in addresses:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        try:
            _connect_to(attempt, sock, address, port, note_server=note_server)
        except OSError as error:
            sock.close()
            failures.append(f"{address}: {in_words(error)}")
        except ActionFailed:
            sock.close()
            raise ActionFailed("; ".join([*failures, f"{address}: no answer in time"])) from None
        else:
            return sock, address
    raise ActionFailed("; ".join(failures))


def _connect_to(attempt: Attempt, sock: socket.socket, address: str, port: int, *, note_server: bool) -> None:
    """Connect, and note both ends once a packet has left: a route that is missing here sends none."""
    sock.setblocking(False)
    number = sock.connect_ex((address, port))
    if number not in (0, errno.EINPROGRESS):
        raise OSError(number, "connect")
    attempt.note_ends(sock, str(ip_address(address)) if note_server else None)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(attempt.remaining_s() * 1000):
        attempt.remaining_s()
        raise TimeoutError
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, "connect")
    sock.settimeout(attempt.remaining_s())


def secure(
    attempt: Attempt, sock: socket.socket, host: str, protocol: str, tokens: tuple[str, ...] = ()
) -> ssl.SSLSocket:
    """The connection under TLS. Shape: `host` is the name or the address that the certificate must hold.

    Errors: OSError (ssl.SSLError); ActionFailed if the other side chooses another protocol than `protocol`.
    """
    if not is_address(host):
        attempt.note_name(Kind.TLS_NAME, host, tokens)
    secured = attempt.tls(protocol).wrap_socket(sock, server_hostname=host)
    if secured.version() != "TLSv1.3":  # up to 1.2 the certificate crosses the wire in clear
        certificate: dict[str, Any] = dict(secured.getpeercert() or {})
        for _, name in certificate.get("subjectAltName", ()):
            attempt.note_name(Kind.TLS_CERTIFICATE, name, ())
    chosen = secured.selected_alpn_protocol()
    if chosen != protocol and not (chosen is None and protocol != "h2"):  # older servers of the others know no ALPN
        secured.close()
        raise ActionFailed(f"{host} does not speak {protocol}")
    return secured
