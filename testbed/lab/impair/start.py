"""The lab's side of the engine: the namespace between the links' ends, the process, and its orders.

    node a ─ veth ─ [ near0 · engine · far0 ] ─ veth ─ node b

The namespace has no name and is no node: it holds one interface per end of an impaired link, without addresses and
with IPv6 off, so that nothing but the engine speaks there. It vanishes with its last descriptor, which `LinkEngine`
holds: should the engine's process die, its links are dead, not gone.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.children import child_environment, module_argv
from testbed.lab.errors import LabBuildError
from testbed.lab.impair.model import Impairment
from testbed.lab.impair.port import open_port
from testbed.lab.namespaces import CLONE_NEWNET, entered_network, open_namespace, setns, unshare

_PATIENCE_S = 20.0
_END_PATIENCE_S = 3.0


def make_engine_namespace() -> int:
    """Return the descriptor of a fresh network namespace in which no interface gets an address by itself."""
    home = open_namespace("net")
    try:
        unshare(CLONE_NEWNET)
        for scope in ("all", "default"):
            setting = Path("/proc/sys/net/ipv6/conf", scope, "disable_ipv6")
            if setting.exists():  # a kernel without IPv6 has nothing to turn off
                setting.write_text("1")
        return open_namespace("net")
    finally:
        setns(home, CLONE_NEWNET)
        os.close(home)


@dataclass(frozen=True, slots=True)
class EngineLink:
    """One link of the engine: its two interfaces, what is wrong with each direction, and the directions' seeds."""

    interfaces: tuple[str, str]
    mtu_octets: int
    impairments: tuple[Impairment, Impairment]
    seeds: tuple[str, str]


class LinkEngine:
    """The running engine of a lab. Everything it holds vanishes with `close` or with this process."""

    def __init__(self, netns_fd: int, links: Sequence[EngineLink]) -> None:
        """Open both ends of every link, still down, and start the process; `await_ready` tells of its success.

        The engine owns `netns_fd`. Errors: LabBuildError if the kernel refuses a ring.
        """
        self._netns_fd = netns_fd
        ports = [_open_ports(netns_fd, link) for link in links]
        self._control, inherited = socket.socketpair()
        self._control.settimeout(_PATIENCE_S)
        descriptors = [inherited.fileno(), *(port.fileno() for pair in ports for port in pair)]
        self._process = subprocess.Popen(
            module_argv("testbed.lab.impair", str(inherited.fileno())),
            env={**os.environ, **child_environment()},
            stdin=subprocess.DEVNULL,
            pass_fds=descriptors,
            cwd="/",
            start_new_session=True,
        )
        self._unread = b""
        inherited.close()
        request = [
            {
                "ports": [port.fileno() for port in pair],
                "mtu_octets": link.mtu_octets,
                "options": [impairment.to_dict() for impairment in link.impairments],
                "seeds": link.seeds,
            }
            for link, pair in zip(links, ports, strict=True)
        ]
        self._tell({"links": request})
        for port in (port for pair in ports for port in pair):
            port.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_ready(self) -> None:
        """Return once frames are carried. Errors: LabBuildError."""
        self._hear()

    def set(self, link: int, direction: int, impairment: Impairment) -> dict[str, Any]:
        """Change a direction (0: from its first end) of a link: {at: Unix time, accepted: frames before the change}.

        Errors: LabBuildError if the engine has ended.
        """
        return self._ask({"order": "set", "link": link, "direction": direction, "options": impairment.to_dict()})

    def counters(self, link: int) -> list[dict[str, int]]:
        """Return what became of the frames of a link, per direction. Errors: LabBuildError if the engine has ended."""
        counters: list[dict[str, int]] = self._ask({"order": "count", "link": link})["counters"]
        return counters

    def close(self) -> None:
        """End the engine: it ends when nobody can give it orders any more."""
        self._control.close()
        os.close(self._netns_fd)
        if self._process.poll() is not None:
            return
        watched = os.pidfd_open(self._process.pid)
        self._process.terminate()
        try:
            select.select([watched], [], [], _END_PATIENCE_S)
        finally:
            os.close(watched)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _ask(self, order: Mapping[str, Any]) -> dict[str, Any]:
        self._tell(order)
        return self._hear()

    def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            raise LabBuildError(f"the engine of the impaired links has ended: {error.strerror}") from error

    def _hear(self) -> dict[str, Any]:
        give_up_at = time.monotonic() + _PATIENCE_S
        while b"\n" not in self._unread:
            try:
                data = self._control.recv(65536)
            except OSError as error:
                raise LabBuildError(f"the engine of the impaired links does not answer: {error}") from error
            if not data or time.monotonic() > give_up_at:
                raise LabBuildError("the engine of the impaired links has ended; its last words are on stderr")
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _open_ports(netns_fd: int, link: EngineLink) -> list[socket.socket]:
    ports = []
    with entered_network(netns_fd):
        for interface in link.interfaces:
            port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            try:
                open_port(port, interface, link.mtu_octets)
            except OSError as error:
                raise LabBuildError(f"the kernel refused a packet ring on {interface}: {error.strerror}") from error
            ports.append(port)
    return ports
