"""The management interface's sockets: one listener on loopback or in the file system, one caller at a time.

A second caller waits until the first has gone, as with openvpn. Nothing blocks the tunnel: everything is non-blocking,
and a caller that does not take its answers is hung up on. All descriptors sit in a poll set of their own, which is
itself one descriptor in the driver's loop; the driver calls `serve` after each turn.

What happens (lines of the log, `tell_state`, `tell`) reaches the caller at once, if it asked for it, between two
answers.

Who may connect is what may do all of it: there is no password, so the address is one of this host's own, and the
socket file is its owner's alone.

Source: OpenVPN's doc/management-notes.txt; unix(7)
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from vpn.config.model import ManagementSettings
from vpn.driver.errors import HostError
from vpn.driver.log import BRIEF, NORMAL, Log
from vpn.driver.management_commands import GREETING, Conversation
from vpn.driver.management_news import State
from vpn.driver.pump import earliest

if TYPE_CHECKING:
    from vpn.driver.management_desks import Desk

WAITING_MAXIMUM_OCTETS = 256 * 1024  # answers that wait for the caller; one answer alone may be longer
STALLED_SECONDS = 10.0  # how long a caller may take nothing of what waits for it
_RECEIVE_OCTETS = 4096
_SOCKET_MODE = 0o600
_BACKLOG = 1


class Management:
    """Listens from construction on. Errors: HostError if it cannot."""

    def __init__(
        self, settings: ManagementSettings, log: Log, desk: Desk, *, patience: float = STALLED_SECONDS
    ) -> None:
        self._patience = patience
        self._log = log
        self._desk = desk
        self._caller: _Caller | None = None
        self._path = settings.path
        self._listener = _listen_at(settings.path) if settings.path else _listen_on(settings.host, settings.port)
        self._identity = _identity(settings.path) if settings.path else None
        self._poll = select.epoll()
        self._poll.register(self._listener.fileno(), select.EPOLLIN)
        where = f"unix domain socket {settings.path}" if settings.path else f"{settings.host}:{settings.port}"
        log.listener = self._tell_log
        log.write(f"MANAGEMENT: listening on {where}", NORMAL)

    def fileno(self) -> int:
        """Readable when `serve` has something to do."""
        return self._poll.fileno()

    @property
    def due_at(self) -> float | None:
        """When a caller that takes nothing is hung up on, or is to be told how many octets there were."""
        caller = self._caller
        return earliest(caller.stalls_at, caller.conversation.wishes.octets_due_at) if caller else None

    def tell_state(self, state: State) -> None:
        line = self._desk.chronicle.note_state(state)
        if self._caller is not None and self._caller.conversation.wishes.state:
            self.tell([f">STATE:{line}"])

    def tell(self, lines: Sequence[str]) -> None:
        """To the caller, if there is one, whether it asked or not."""
        if self._caller is not None:
            self._answer(self._caller, lambda: list(lines))

    def _tell_log(self, text: str, level: int) -> None:
        line = self._desk.chronicle.note_log(int(time.time()), level, text)
        if self._caller is not None and self._caller.conversation.wishes.log:
            self.tell([f">LOG:{line}"])

    def serve(self) -> None:
        """Does what can be done now, without waiting."""
        for descriptor, events in self._poll.poll(0):
            if descriptor == self._listener.fileno():
                self._accept()
            elif self._caller is not None and descriptor == self._caller.socket.fileno():
                self._attend(self._caller, events)
        caller = self._caller
        if caller is not None and caller.stalls_at is not None and caller.stalls_at <= time.monotonic():
            self._hang_up("it does not take its answers")
        elif caller is not None and caller.conversation.wishes.take_due(time.monotonic()):
            self.tell([octets.line for octets in self._desk.octets()])

    def close(self) -> None:
        self._log.listener = None
        if self._caller is not None:
            with contextlib.suppress(OSError):
                self._caller.drain()
            self._caller.socket.close()
            self._caller = None
        self._poll.close()
        self._listener.close()
        if self._path is not None and _identity(self._path) == self._identity:
            self._path.unlink(missing_ok=True)

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return  # it hung up already, or no descriptor is free: the next turn tries again
        accepted.setblocking(False)
        self._caller = _Caller(accepted, self._patience)
        self._poll.modify(self._listener.fileno(), 0)
        self._poll.register(accepted.fileno(), select.EPOLLIN)
        self._log.write("MANAGEMENT: Client connected", NORMAL)
        self._answer(self._caller, lambda: [GREETING])

    def _attend(self, caller: _Caller, events: int) -> None:
        self._answer(caller, lambda: caller.read(self._desk) if events & ~select.EPOLLOUT else [])

    def _answer(self, caller: _Caller, answers: Callable[[], list[str]]) -> None:
        """Making the answers may tell the caller something first, and find that it has gone."""
        try:
            has_room = caller.write(answers())
        except (EOFError, OSError):
            self._hang_up()
            return
        if caller is not self._caller:
            return
        if not has_room:
            self._hang_up("it does not take its answers")
        elif caller.conversation.ended:
            self._hang_up()
        else:
            self._poll.modify(caller.socket.fileno(), select.EPOLLIN | (select.EPOLLOUT if caller.waiting else 0))

    def _hang_up(self, reason: str = "") -> None:
        if self._caller is None:
            return
        self._poll.unregister(self._caller.socket.fileno())
        self._caller.socket.close()
        self._caller = None
        self._poll.modify(self._listener.fileno(), select.EPOLLIN)
        self._log.write(
            f"MANAGEMENT: Client disconnected{f': {reason}' if reason else ''}", BRIEF if reason else NORMAL
        )


class _Caller:
    """One connection: answers wait here until the kernel takes them."""

    def __init__(self, sock: socket.socket, patience: float) -> None:
        self.socket = sock
        self.conversation = Conversation()
        self.waiting = bytearray()
        self.stalls_at: float | None = None
        self._patience = patience

    def read(self, desk: Desk) -> list[str]:
        """The answers to what has come. Errors: EOFError at the end; OSError."""
        try:
            data = self.socket.recv(_RECEIVE_OCTETS)
        except BlockingIOError:
            return []
        if not data:
            raise EOFError
        return self.conversation.receive(data, desk)

    def write(self, answers: Sequence[str]) -> bool:
        """Sends or keeps; False once more waits than may. Errors: OSError."""
        self.drain()
        for answer in answers:
            octets = "".join(f"{line}\r\n" for line in answer.split("\n")).encode("utf-8", "replace")
            if self.waiting and len(self.waiting) + len(octets) > WAITING_MAXIMUM_OCTETS:
                return False
            self.waiting += octets
            self.drain()
        return True

    def drain(self) -> None:
        """Sends what the kernel takes now. Errors: OSError."""
        before = len(self.waiting)
        with contextlib.suppress(BlockingIOError):
            while self.waiting:
                del self.waiting[: self.socket.send(self.waiting)]
        if not self.waiting:
            self.stalls_at = None
        elif self.stalls_at is None or len(self.waiting) < before:
            self.stalls_at = time.monotonic() + self._patience


def _listen_on(host: str, port: int) -> socket.socket:
    family = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"management: listen on {host} port {port}", error.errno or 0) from error
    return listener


def _listen_at(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        _remove_stale(path)
        os.fchmod(listener.fileno(), _SOCKET_MODE)  # before bind: the file has this mode from its first moment on
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise HostError(f"management: listen at {path}", error.errno or 0) from error
    return listener


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody listens on any more. Errors: OSError if the name is taken by anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as probe:
        refused = probe.connect_ex(str(path)) == errno.ECONNREFUSED
    if not refused:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    path.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
