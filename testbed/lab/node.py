"""One node of a running lab: its namespaces by descriptor, its programs, its sockets, and what its kernel answers.

A node is a network namespace and a mount namespace; both are held by descriptors alone and vanish with them. Every
program of a node runs in both, so that a change of resolv.conf reaches them all.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from testbed.lab import netlink
from testbed.lab.model import NodePlan
from testbed.lab.mounts import node_folder, resolv_conf
from testbed.lab.namespaces import CLONE_NEWNET, CLONE_NEWNS, MS_BIND, mount, open_namespace, setns, socket_in
from testbed.lab.netlink import Netlink

Stream = int | IO[Any] | None


class Node:
    """A node that has been built; `Lab.node` returns it."""

    def __init__(self, plan: NodePlan, netns_fd: int, mntns_fd: int, kernel: Netlink) -> None:
        self.plan = plan
        self.name = plan.name
        self.netns_fd = netns_fd
        self.mntns_fd = mntns_fd
        self.kernel = kernel
        self.processes: list[subprocess.Popen[Any]] = []

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        pass_fds: Sequence[int] = (),
        cwd: str | os.PathLike[str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in this node. `env` is added to PATH, HOME and LANG; `cwd` is the caller's unless given.

        Errors: FileNotFoundError and the like, as subprocess raises them.
        """
        process = subprocess.Popen(
            list(argv),
            env={**_base_environment(), **(env or {})},
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=tuple(pass_fds),
            start_new_session=True,
            preexec_fn=self._entering(os.fspath(cwd) if cwd is not None else os.getcwd()),
        )
        self.processes.append(process)
        return process

    def socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0) -> socket.socket:
        """Return a socket of this node."""
        return socket_in(self.netns_fd, family, type, proto)

    def set_resolver(self, addresses: Iterable[str]) -> None:
        """Have every program of this node, running ones included, ask the name servers at `addresses`."""
        text = resolv_conf(addresses).encode()
        # In place: the file is bound over /etc/resolv.conf, and a new file of the same name would not be.
        descriptor = os.open(Path(node_folder(self.name), "resolv.conf"), os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, text, 0)
            os.ftruncate(descriptor, len(text))
        finally:
            os.close(descriptor)

    def bind_file(self, source: Path, target: Path) -> None:
        """Have every program of this node find `source` at `target`, an existing file. Errors: OSError."""
        home, folder = open_namespace("mnt"), os.getcwd()
        try:
            setns(self.mntns_fd, CLONE_NEWNS)
            mount(str(source), str(target), None, MS_BIND)
        finally:
            setns(home, CLONE_NEWNS)
            os.chdir(folder)
            os.close(home)

    def interfaces(self) -> list[dict[str, Any]]:
        """Return every interface as the kernel answers: {name, state, mtu, mac, addresses}."""
        found: dict[int, list[str]] = {}
        for address in netlink.addresses(self.kernel):
            found.setdefault(address["index"], []).append(address["address"])
        return [
            {
                "name": link["name"],
                "state": link["state"],
                "mtu": link["mtu"],
                "mac": link["mac"],
                "addresses": found.get(link["index"], []),
            }
            for link in netlink.links(self.kernel)
        ]

    def routes(self) -> list[dict[str, Any]]:
        """Return the main table's routes as the kernel answers: {family, destination, gateway, interface, metric}."""
        names = self._interface_names()
        return [
            {
                "family": route["family"],
                "destination": route["destination"],
                "gateway": route["gateway"],
                "interface": names.get(route["index"]),
                "metric": route["metric"],
            }
            for route in netlink.routes(self.kernel)
        ]

    def egress(self, address: str) -> dict[str, Any]:
        """Return which way the kernel would send to `address`: {address, interface, gateway, source, error}."""
        way: dict[str, Any] = {"address": address, "interface": None, "gateway": None, "source": None, "error": None}
        try:
            found = netlink.lookup(self.kernel, address)
        except OSError as error:
            return {**way, "error": error.strerror}
        name = self._interface_names().get(found["index"])
        return {**way, "interface": name, "gateway": found["gateway"], "source": found["source"]}

    def close(self) -> None:
        """Let go of the namespaces; the kernel removes them with their last process."""
        self.kernel.close()
        os.close(self.netns_fd)
        os.close(self.mntns_fd)

    def _interface_names(self) -> dict[int, str]:
        return {link["index"]: link["name"] for link in netlink.links(self.kernel)}

    def _entering(self, folder: str) -> Callable[[], None]:
        netns_fd, mntns_fd = self.netns_fd, self.mntns_fd

        def enter() -> None:
            setns(mntns_fd, CLONE_NEWNS)  # which also moves to the namespace's root
            setns(netns_fd, CLONE_NEWNET)
            os.chdir(folder)

        return enter


def _base_environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LANG": "C.UTF-8"}
