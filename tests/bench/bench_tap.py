"""The tap at full rate beside tcpdump: dropped packets, and CPU seconds per million packets.

iperf3 sends as fast as the lab's client and web server can, through every router of the shipped topology; tap and
tcpdump (no name resolution, the same ring size, whole packets) listen on the same interface in turns, so that
neither is charged for the other.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.capture import tap
from testbed.children import child_environment, module_argv
from testbed.lab.bubble import Bubble, Conductor
from testbed.lab.build import Lab
from testbed.lab.node import Node
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology
from tests.bench.measured import Row, Table, compared, interleaved
from tests.lab.two_nodes import wait_until

WEB = "93.184.216.34"
INTERFACE = "isp-eth0"
IPERF_PORT = 5201
MEMORY = Path("/run")  # the bubble's own tmpfs: it is the recorder that is measured, not the disk


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 5
    seconds: int = 2


SMALL = Size(rounds=1, seconds=1)


@dataclass(slots=True)
class _Recorder:
    """A program that records, with what it says at its end."""

    process: subprocess.Popen[bytes]
    counts: Callable[[bytes, bytes], tuple[int, int]]  # (stdout, stderr) -> packets, dropped

    def stop(self) -> dict[str, float]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.stdout.read(), self.process.stderr.read()  # type: ignore[union-attr]
        _pid, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        packets, dropped = self.counts(out, err)
        return {"packets": packets, "dropped": dropped, "cpu_s": usage.ru_utime + usage.ru_stime}


def measure(size: Size) -> list[Table]:
    found: dict[str, list[dict[str, Any]]] = {"testbed's tap": [], "tcpdump": []}

    def contestant(name: str) -> Callable[[], float]:
        def once() -> float:
            counted = _recorded(name, size.seconds)
            found[name].append(counted)
            return float(counted["cpu_s"] / counted["packets"] * 1e6)

        return once

    cpu = interleaved({name: contestant(name) for name in ("tcpdump", "testbed's tap")}, size.rounds)
    rows = compared(cpu, "CPU s per million packets", "tcpdump", {})
    rows += [
        Row(f"{name}: {what}", unit, tuple(run[key] for run in runs))
        for name, runs in found.items()
        for what, key, unit in (("dropped", "dropped", "packets"), ("recorded", "rate", "packets/s"))
    ]
    rows += [Row(f"iperf3 beside {name}", "Mbit/s", tuple(run["mbit"] for run in runs)) for name, runs in found.items()]
    return [Table(f"The tap while iperf3 sends {size.seconds} s through client–isp–transit–web", tuple(rows))]


def _recorded(name: str, seconds: int) -> dict[str, Any]:
    with Bubble() as bubble:
        counted: dict[str, Any] = bubble.run(lambda conductor: _in_lab(conductor, name, seconds, MEMORY))
    return counted


def _in_lab(_conductor: Conductor, name: str, seconds: int, folder: Path) -> dict[str, Any]:
    with Lab.build(plan_lab(load_topology("client-isp-server"))) as lab:
        isp, web, client = lab.node("isp"), lab.node("web"), lab.node("client")
        start = _start_tap if name == "testbed's tap" else _start_tcpdump
        recorder = start(isp, folder)
        web.spawn(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: _listens(web), "iperf3 listens")
        started_at = time.monotonic()
        sent = client.spawn(["iperf3", "-c", WEB, "-t", str(seconds), "-f", "m"], stdout=subprocess.PIPE)
        printed, _ = sent.communicate(timeout=seconds + 30)
        lasted_s = time.monotonic() - started_at
        counted = recorder.stop()
    rate = re.search(rb"([\d.]+) Mbits/sec.*receiver", printed)
    if rate is None:
        raise RuntimeError(f"iperf3 said no rate: {printed.decode()[-500:]}")
    return {**counted, "rate": counted["packets"] / lasted_s, "mbit": float(rate[1])}


def _start_tap(node: Node, folder: Path) -> _Recorder:
    listening = node.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tap.open_ring(listening, INTERFACE)
    output = os.open(folder / "tap.pcapng", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    descriptors = (listening.fileno(), output)
    argv = module_argv("testbed.capture", "--socket", str(descriptors[0]), "--output", str(output))
    process = subprocess.Popen(
        [*argv, "--interface-name", "isp", "--busy", "1"],
        env={**os.environ, **child_environment()},
        pass_fds=descriptors,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    listening.close()
    wait_until(lambda: os.fstat(output).st_size > 0, "the tap is ready")  # as tcpdump says when it listens
    os.close(output)
    return _Recorder(process, _count_of_tap)


def _start_tcpdump(node: Node, folder: Path) -> _Recorder:
    ring_kib = str(tap.DEFAULT_RING_OCTETS // 1024)
    argv = ["tcpdump", "-n", "-i", INTERFACE, "-w", str(folder / "tcpdump.pcap"), "-B", ring_kib, "-Z", "root"]
    process = node.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in process.stderr or ():
        if b"listening on" in line:
            break
    return _Recorder(process, _count_of_tcpdump)


def _count_of_tap(out: bytes, _err: bytes) -> tuple[int, int]:
    numbers = dict(re.findall(rb'"(\w+)": (\d+)', out))
    return int(numbers[b"packets"]), int(numbers[b"dropped"])


def _count_of_tcpdump(_out: bytes, err: bytes) -> tuple[int, int]:
    captured, dropped = (re.search(rb"(\d+) packets? " + word, err) for word in (b"captured", b"dropped by kernel"))
    if captured is None or dropped is None:
        raise RuntimeError(f"tcpdump said no counts: {err.decode()}")
    return int(captured[1]), int(dropped[1])


def _listens(node: Node) -> bool:
    done = node.spawn(["ss", "-lntH"], stdout=subprocess.PIPE)
    printed, _ = done.communicate(timeout=10)
    return f":{IPERF_PORT} ".encode() in printed
