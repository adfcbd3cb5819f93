"""A management interface without a tunnel: a desk that writes down what it is told, and a caller's side."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from vpn.config.model import OutputSettings
from vpn.driver.log import Log
from vpn.driver.management import Management
from vpn.driver.management_commands import ConnectedClient, Load
from vpn.driver.management_desks import Desk
from vpn.driver.management_news import Octets


class Recorder(Desk):
    """A server with three clients that writes down what it is told."""

    process_id = 4711
    has_clients = True

    def __init__(self, log: Log | None = None) -> None:
        super().__init__(log or Log(OutputSettings(verb=0)), 1)
        self.told: list[tuple[int, bool] | signal.Signals] = []
        self.status_text = ""

    def status(self, version: int) -> str:
        return self.status_text or f"version {version}\nEND\n"

    def clients(self) -> Sequence[ConnectedClient]:
        return [
            ConnectedClient(0, "alice", "192.0.2.1", 5000),
            ConnectedClient(7, "alice", "2001:db8::1", 5000),
            ConnectedClient(8, "bob smith", "192.0.2.1", 5001),
        ]

    def disconnect(self, number: int, *, restart: bool) -> None:
        self.told.append((number, restart))

    def throw(self, number: signal.Signals) -> None:
        self.told.append(number)

    def octets(self) -> Sequence[Octets]:
        return (Octets(0, 10, 20), Octets(7, 30, 40))

    def load(self) -> Load:
        return Load(3, 1000, 2000)


def call(path: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(10)
    caller.connect(str(path))
    return caller


def serve_until(management: Management, done: Callable[[], object]) -> None:
    while not done():
        assert select.select([management], [], [], 10)[0]
        management.serve()


def readable(caller: socket.socket) -> bool:
    return bool(select.select([caller], [], [], 0)[0])
