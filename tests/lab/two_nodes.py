"""Two nodes and one wire, in namespaces that end with the process: where tap and observer meet real programs.

    client (192.168.0.13, 2001:db8:1::13)  c0 ── s0  server (93.184.216.34, 2001:db8:1::34)

Not the lab: it is built with `ip` alone on purpose, so that the tap's tests do not depend on the lab. A script of
experiments is run by `run_apart` in fresh network, mount and PID namespaces and ends with `main`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.capture import tap
from testbed.lab import namespaces

ROOT = Path(__file__).resolve().parents[2]
CLIENT, SERVER = "192.168.0.13", "93.184.216.34"
CLIENT6, SERVER6 = "2001:db8:1::13", "2001:db8:1::34"
ADDRESSES = {"client": (CLIENT, CLIENT6, SERVER), "server": (SERVER, SERVER6, CLIENT)}
PATIENCE_SECONDS = 20.0


def run_apart(script: Path, experiment: str, directory: Path) -> Any:
    """Run an experiment of `script` in namespaces of its own; returns what it reported. Takes everything with it."""
    argv = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*argv, sys.executable, str(script), experiment, str(directory)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode:
        raise AssertionError(f"{experiment} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return json.loads((directory / "report.json").read_text())


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain: {what}")
        time.sleep(0.005)


@dataclass
class Tap:
    process: subprocess.Popen[str]
    path: Path

    def stop(self) -> dict[str, int]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        if self.process.returncode or err:
            raise AssertionError(f"tap ended with {self.process.returncode}: {err}")
        stats: dict[str, int] = json.loads(out)
        return stats


@dataclass
class TwoNodes:
    directory: Path
    started: list[subprocess.Popen[Any]] = field(default_factory=list)

    def build(self) -> None:
        ip("mount", "--make-rprivate", "/")
        ip("mount", "-t", "tmpfs", "none", "/run")
        for node in ADDRESSES:
            ip("ip", "netns", "add", node)
            ip("ip", "-n", node, "link", "set", "lo", "up")
        ip("ip", "link", "add", "c0", "netns", "client", "type", "veth", "peer", "name", "s0", "netns", "server")
        for node, device in (("client", "c0"), ("server", "s0")):
            offloads = [word for name in ("tx", "rx", "tso", "gso", "gro") for word in (name, "off")]
            self.run(node, "ethtool", "-K", device, *offloads)
            ip("ip", "-n", node, "address", "add", f"{ADDRESSES[node][0]}/32", "dev", device)
            ip("ip", "-n", node, "address", "add", f"{ADDRESSES[node][1]}/64", "dev", device, "nodad")

    def up(self) -> None:
        for node, device in (("client", "c0"), ("server", "s0")):
            ip("ip", "-n", node, "link", "set", device, "up")
        for node, device in (("client", "c0"), ("server", "s0")):
            ip("ip", "-n", node, "route", "add", ADDRESSES[node][2], "dev", device)
            self.wait_for_link(node, device)

    def wait_for_link(self, node: str, device: str) -> None:
        wait_until(lambda: "state UP" in output(node, "ip", "link", "show", device), f"{device} is up")

    @contextmanager
    def inside(self, node: str) -> Iterator[None]:
        home, there = os.open("/proc/self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{node}", os.O_RDONLY)
        try:
            namespaces.setns(there, namespaces.CLONE_NEWNET)
            yield
        finally:
            namespaces.setns(home, namespaces.CLONE_NEWNET)
            os.close(home)
            os.close(there)

    def open_tap(self, node: str, device: str, **shape: int) -> socket.socket:
        with self.inside(node):
            packet_socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        tap.open_ring(packet_socket, device, **shape)
        return packet_socket

    def start_tap(self, packet_socket: socket.socket, name: str, **shape: int) -> Tap:
        path = self.directory / f"{name}.pcapng"
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        descriptors = (packet_socket.fileno(), file)
        argv = [sys.executable, "-m", "testbed.capture", "--socket", str(descriptors[0]), "--output", str(file)]
        argv += ["--interface-name", name]
        for option, value in shape.items():
            argv += [f"--{option.replace('_', '-')}", str(value)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(argv, pass_fds=descriptors, stdout=pipe, stderr=pipe, text=True)
        self.started.append(process)
        os.close(file)
        wait_until(lambda: path.stat().st_size > 0, "the tap's process is there")
        return Tap(process, path)

    def run(self, node: str, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["ip", "netns", "exec", node, *argv], capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{argv} ended with {done.returncode}: {done.stdout} {done.stderr}")
        return done

    def start(self, node: str, *argv: str, **options: Any) -> subprocess.Popen[str]:
        options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, **options}
        process = subprocess.Popen(["ip", "netns", "exec", node, *argv], text=True, **options)
        self.started.append(process)
        return process

    def listens(self, node: str, port: int) -> None:
        wait_until(lambda: f":{port} " in output(node, "ss", "-lntuH"), f"port {port} listens")

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


def ip(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def output(node: str, *argv: str) -> str:
    return subprocess.run(["ip", "netns", "exec", node, *argv], capture_output=True, text=True).stdout


MARKER = b"the last datagram of all"
SEND_MARKER = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto({MARKER!r}, ({SERVER!r}, 9))"


@contextmanager
def tcpdump(nodes: TwoNodes, node: str, device: str, path: Path) -> Iterator[None]:
    """tcpdump beside the tap. It forgets its buffer when told to end, so it is told once a last packet is written."""
    process = nodes.start(
        node, "tcpdump", "-i", device, "-U", "-w", str(path), "-B", "65536", "-Z", "root", stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "listening on" in line:
            break
    yield
    nodes.run("client", sys.executable, "-c", SEND_MARKER)
    wait_until(lambda: MARKER in path.read_bytes()[-5000:], "tcpdump wrote the last packet")
    process.terminate()
    process.wait()


def main(experiments: dict[str, Callable[[TwoNodes], Any]]) -> None:
    nodes = TwoNodes(Path(sys.argv[2]))
    try:
        nodes.build()
        report = experiments[sys.argv[1]](nodes)
    finally:
        nodes.close()
    (nodes.directory / "report.json").write_text(json.dumps(report))
