"""The management commands' view of a running tunnel: a server's desk and a client's.

A desk outlives the cores: a server that restarts inside, or a client that connects anew, sits down at the same one.
"""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vpn.driver.log import NORMAL, Log
from vpn.driver.management_commands import ConnectedClient, Daemon, Load
from vpn.driver.management_news import Chronicle, Octets
from vpn.driver.printable import printable
from vpn.driver.transport import Link, ip_of

if TYPE_CHECKING:
    from vpn.server import ServerCore


class Desk(Daemon, ABC):
    """What both have: the process, its log, and what happened so far."""

    def __init__(self, log: Log, status_version: int) -> None:
        self.chronicle = Chronicle()
        self._log = log
        self._version = status_version
        self._thrown: list[signal.Signals] = []

    @property
    def process_id(self) -> int:
        return os.getpid()

    @property
    def status_version(self) -> int:
        return self._version

    @property
    def verb(self) -> int:
        return self._log.verb

    @verb.setter
    def verb(self, level: int) -> None:
        self._log.verb = level

    def throw(self, number: signal.Signals) -> None:
        self._thrown.append(number)

    def take_signals(self) -> list[signal.Signals]:
        """The signals thrown since the last call."""
        taken, self._thrown = self._thrown, []
        return taken

    def note_command(self, line: str) -> None:
        self._log.write(f"MANAGEMENT: CMD '{printable(line)}'", NORMAL)

    @abstractmethod
    def octets(self) -> Sequence[Octets]:
        """What `bytecount` tells."""


class ServerDesk(Desk):
    """A server's. `core` and `link` are those of now."""

    has_clients = True

    def __init__(self, log: Log, status_version: int, render: Callable[[int], str]) -> None:
        super().__init__(log, status_version)
        self.core: ServerCore | None = None
        self.link: Link | None = None
        self._render = render

    def status(self, version: int) -> str:
        return self._render(version)

    def clients(self) -> Sequence[ConnectedClient]:
        return [
            ConnectedClient(peer.number - 1, peer.common_name, str(ip_of(peer.address)), int(peer.address[1]))
            for peer in (self.core.connected if self.core else ())
        ]

    def disconnect(self, number: int, *, restart: bool) -> None:
        if self.core is not None:
            self.core.disconnect(number + 1, time.monotonic(), restart=restart)

    def octets(self) -> Sequence[Octets]:
        return [
            Octets(peer.number - 1, peer.session.data.octets_in, peer.session.data.octets_out)
            for peer in (self.core.connected if self.core else ())
        ]

    def load(self) -> Load:
        link = self.link
        received, sent = (link.octets_received, link.octets_sent) if link else (0, 0)
        return Load(len(self.clients()), received, sent)


class ClientDesk(Desk):
    """A client's, or a static-key peer's. `link` is that of the connection of now."""

    has_clients = False

    def __init__(self, log: Log, status_version: int, render: Callable[[], str]) -> None:
        super().__init__(log, status_version)
        self.link: Link | None = None
        self._render = render

    def status(self, version: int) -> str:
        return self._render()

    def clients(self) -> Sequence[ConnectedClient]:
        return ()

    def disconnect(self, number: int, *, restart: bool) -> None:
        raise AssertionError("a client has no clients")  # the commands ask `has_clients` first

    def octets(self) -> Sequence[Octets]:
        load = self.load()
        return (Octets(None, load.received, load.sent),)

    def load(self) -> Load:
        link = self.link
        return Load(0, link.octets_received, link.octets_sent) if link else Load(0, 0, 0)
