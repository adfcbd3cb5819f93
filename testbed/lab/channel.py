"""JSON lines over a stream socket, in both directions, with the sender's process id as the kernel saw it.

    {"event": …}\n   {"result": …}\n

One line is one message. Descriptors travel beside a message (SCM_RIGHTS), credentials too (SCM_CREDENTIALS): the kernel
translates the process id into the receiver's PID namespace. Sources: unix(7), cmsg(3).
"""

from __future__ import annotations

import array
import contextlib
import json
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

_UCRED = struct.Struct("=iii")  # pid, uid, gid
_CHUNK_OCTETS = 1 << 16
_MAX_DESCRIPTORS = 16


class Channel:
    """One end of a connection. Not for threads."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._received = bytearray()
        self.peer_pid: int | None = None  # of the latest message, if the socket asks for credentials
        self.descriptors: list[int] = []  # received so far; the caller owns them

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._connection.close()

    def ask_for_credentials(self) -> None:
        """Have the kernel say who sent each message."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def send(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Send one message, waiting until all of it is on its way."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        if descriptors:
            sent = socket.send_fds(self._connection, [line], list(descriptors))
            line = line[sent:]
        self._connection.sendall(line)

    def receive(self) -> list[dict[str, Any]] | None:
        """Wait for input and return the messages that it completed; None once the other end has closed."""
        space = socket.CMSG_SPACE(_UCRED.size) + socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
        data, ancillary, _flags, _address = self._connection.recvmsg(
            _CHUNK_OCTETS, space, getattr(socket, "MSG_CMSG_CLOEXEC", 0)
        )
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(value[: len(value) - len(value) % numbers.itemsize])
                self.descriptors.extend(numbers)
            elif level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
                self.peer_pid = _UCRED.unpack(value)[0]
        if not data:
            return None
        self._received += data
        return list(self._complete())

    def drain(self, patience_s: float) -> None:
        """Read and forget until the other end closes, at most `patience_s` seconds long without input."""
        self._connection.settimeout(patience_s)
        with contextlib.suppress(OSError):
            while self._connection.recv(_CHUNK_OCTETS):
                pass

    def peer(self) -> tuple[int, int]:
        """Return process id and user id of whoever connected (or listens) at the other end."""
        pid, uid, _gid = _UCRED.unpack(self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return pid, uid

    def _complete(self) -> Iterator[dict[str, Any]]:
        *lines, rest = self._received.split(b"\n")
        self._received = bytearray(rest)
        for line in lines:
            if line:
                yield json.loads(line)
