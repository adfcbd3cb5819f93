"""Every socket of the services, opened in the node it serves; an error says which node, address and port.

A bound socket belongs to its network namespace for good, so one event loop serves all nodes.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from testbed.lab.namespaces import socket_in

BACKLOG = 128
IPV6_FREEBIND = 78  # linux/in6.h; Python's socket module lacks both names
IP_FREEBIND = 15  # linux/in.h


class ListenError(Exception):
    """A socket could not be opened."""

    def __init__(self, reason: str, node: str, address: str, port: int, transport: str) -> None:
        super().__init__(f"{node}: cannot listen on {address} port {port} ({transport}): {reason}")
        self.place: dict[str, Any] = {"node": node, "address": address, "port": port, "transport": transport}


@dataclass(frozen=True, slots=True)
class Nodes:
    """The nodes' network namespaces, by descriptor."""

    descriptors: Mapping[str, int]

    def open(self, node: str, family: int, kind: int) -> socket.socket:
        """An unbound socket in the node."""
        return socket_in(self.descriptors[node], family, kind, 0)

    def listen(self, node: str, address: str, port: int, transport: str, *, freebind: bool = False) -> socket.socket:
        """A bound UDP socket, or a listening TCP socket; non-blocking. Errors: ListenError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
        try:
            sock = self.open(node, family, kind)
        except OSError as error:
            raise ListenError(str(error), node, address, port, transport) from None
        try:
            _bind(sock, address, port, freebind=freebind)
        except OSError as error:
            sock.close()
            raise ListenError(error.strerror or str(error), node, address, port, transport) from None
        return sock


def _bind(sock: socket.socket, address: str, port: int, *, freebind: bool) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if freebind:
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((address, port))
    if sock.type == socket.SOCK_STREAM:
        sock.listen(BACKLOG)
