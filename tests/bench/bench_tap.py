"""The tap at full rate beside tcpdump: dropped packets, and CPU seconds per million packets.

Full frames: iperf3 sends as fast as the lab's client and web server can, through every router of the shipped topology.
Small ones: frames of 64 octets at a set rate from the client to the isp, of which at most 96 octets are kept. Tap and
tcpdump (no name resolution, the same ring size) listen on the same interface in turns, so that neither is charged for
the other; both are ready before the traffic begins.

Both write into memory that has been written before. A virtual machine's memory may have to be fetched from its host at
the first touch, which takes longer than everything that is measured here, and meets now the one and now the other.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
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
INTERFACE, CLIENT_INTERFACE = "isp-eth0", "client-eth0"
IPERF_PORT = 5201
MEBIOCTET = 1 << 20
MOST_MEBIOCTETS_S = 500  # that a recorder writes


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 5
    seconds: int = 6
    packets_s: int = 600_000


SMALL = Size(rounds=1, seconds=1, packets_s=10_000)
SNAP_OCTETS = 96
SENDERS = 2
FLOOD = """
import mmap, socket, struct, sys, time
SOL_PACKET, TX_RING, VERSION, QDISC_BYPASS, SEND_REQUEST = 263, 13, 10, 20, 1
FRAMES, FRAME_OCTETS, EXPERIMENTAL = 256, 256, 0x88B5
device, rate, seconds = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sender.setsockopt(SOL_PACKET, VERSION, 1)
sender.setsockopt(SOL_PACKET, QDISC_BYPASS, 1)
sender.setsockopt(SOL_PACKET, TX_RING, struct.pack("IIII", 4096, FRAMES // 16, FRAME_OCTETS, FRAMES))
sender.bind((device, 0))
ring = mmap.mmap(sender.fileno(), FRAMES * FRAME_OCTETS)
data = b"\\2" + bytes(11) + EXPERIMENTAL.to_bytes(2, "big") + bytes(50)
frame = struct.pack("II24x", SEND_REQUEST, len(data)) + data
full = frame.ljust(FRAME_OCTETS, b"\\0") * FRAMES
sent, began_at = 0, time.monotonic()
while (passed := time.monotonic() - began_at) < seconds:
    if sent < passed * rate:
        ring[:] = full
        sender.send(b"")
        sent += FRAMES
print(sent / passed)
"""


Sender = Callable[[Lab, Size], tuple[float, str]]  # sends, and says how fast it was and in what


@dataclass(slots=True)
class _Recorder:
    """A program that records, with what it says at its end."""

    process: subprocess.Popen[bytes]
    counts: Callable[[bytes, bytes], tuple[int, int]]  # (stdout, stderr) -> packets, dropped

    def stop(self) -> dict[str, float]:
        self.process.send_signal(signal.SIGTERM)
        out = self.process.stdout.read() if self.process.stdout else b""
        err = self.process.stderr.read() if self.process.stderr else b""
        _pid, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        packets, dropped = self.counts(out, err)
        return {"packets": packets, "dropped": dropped, "cpu_s": usage.ru_utime + usage.ru_stime}


def measure(size: Size) -> list[Table]:
    small = f"frames of 64 octets, {size.packets_s:,} asked for a second, at most {SNAP_OCTETS} octets kept"
    full = f"The tap while iperf3 sends {size.seconds} s through client–isp–transit–web"
    output = _memory(size.seconds * MOST_MEBIOCTETS_S)
    try:
        return [
            _compared(full, size, _iperf, 0, output),
            _compared(f"The tap under {small}", size, _flood, SNAP_OCTETS, output),
        ]
    finally:
        os.close(output)


def _compared(title: str, size: Size, send: Sender, snap_octets: int, output: int) -> Table:
    found: dict[str, list[dict[str, Any]]] = {"testbed's tap": [], "tcpdump": []}

    def contestant(name: str) -> Callable[[], float]:
        def once() -> float:
            counted = _recorded(name, size, send, snap_octets, output)
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
    rows += [
        Row(f"sent beside {name}", runs[0]["unit"], tuple(run["sent"] for run in runs)) for name, runs in found.items()
    ]
    return Table(title, tuple(rows))


def _recorded(name: str, size: Size, send: Sender, snap_octets: int, output: int) -> dict[str, Any]:
    with Bubble() as bubble:
        counted: dict[str, Any] = bubble.run(
            lambda conductor: _in_lab(conductor, name, size, send, snap_octets, output), kept_descriptors=(output,)
        )
    return counted


def _in_lab(
    _conductor: Conductor, name: str, size: Size, send: Sender, snap_octets: int, output: int
) -> dict[str, Any]:
    with Lab.build(plan_lab(load_topology("client-isp-server"))) as lab:
        start = _start_tap if name == "testbed's tap" else _start_tcpdump
        os.lseek(output, 0, os.SEEK_SET)
        recorder = start(lab.node("isp"), output, snap_octets)
        started_at = time.monotonic()
        sent, unit = send(lab, size)
        lasted_s = time.monotonic() - started_at
        counted = recorder.stop()
    return {**counted, "rate": counted["packets"] / lasted_s, "sent": sent, "unit": unit}


def _memory(mebioctets: int) -> int:
    """A file in memory, all of it touched: it is the recorder that is measured, not the disk or the machine's host."""
    output = os.memfd_create("capture")
    for _ in range(mebioctets):
        os.write(output, bytes(MEBIOCTET))
    return output


def _iperf(lab: Lab, size: Size) -> tuple[float, str]:
    web = lab.node("web")
    web.spawn(["iperf3", "-s", "-1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: _listens(web), "iperf3 listens")
    argv = ["iperf3", "-c", WEB, "-t", str(size.seconds), "-f", "m"]
    printed, _ = lab.node("client").spawn(argv, stdout=subprocess.PIPE).communicate(timeout=size.seconds + 30)
    rate = re.search(rb"([\d.]+) Mbits/sec.*receiver", printed)
    if rate is None:
        raise RuntimeError(f"iperf3 said no rate: {printed.decode()[-500:]}")
    return float(rate[1]), "Mbit/s"


def _flood(lab: Lab, size: Size) -> tuple[float, str]:
    """Frames of a protocol that nobody speaks, from a ring: the receiver has only the recorder to serve."""
    argv = [sys.executable, "-c", FLOOD, CLIENT_INTERFACE, str(size.packets_s / SENDERS), str(size.seconds)]
    senders = [lab.node("client").spawn(argv, stdout=subprocess.PIPE) for _ in range(SENDERS)]
    printed = [sender.communicate(timeout=size.seconds + 30)[0] for sender in senders]
    return sum(float(rate) for rate in printed), "packets/s"


def _start_tap(node: Node, output: int, snap_octets: int) -> _Recorder:
    listening = node.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    tap.open_ring(listening, INTERFACE, snap_octets=snap_octets, retire_ms=tap.BUSY_RETIRE_MS)
    descriptors = (listening.fileno(), output)
    argv = module_argv("testbed.capture", "--socket", str(descriptors[0]), "--output", str(output))
    process = subprocess.Popen(
        [*argv, "--interface-name", "isp", "--busy", "1", "--snap-octets", str(snap_octets)],
        env={**os.environ, **child_environment()},
        pass_fds=descriptors,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    listening.close()
    wait_until(lambda: os.lseek(output, 0, os.SEEK_CUR) > 0, "the tap is ready")  # as tcpdump says when it listens
    return _Recorder(process, _count_of_tap)


def _start_tcpdump(node: Node, output: int, snap_octets: int) -> _Recorder:
    ring_kib = str(tap.DEFAULT_RING_OCTETS // 1024)
    argv = ["tcpdump", "-n", "-i", INTERFACE, "-w", "-", "-B", ring_kib, "-Z", "root"]
    argv += ["-s", str(snap_octets)]  # 0: whole packets
    process = node.spawn(argv, stdout=output, stderr=subprocess.PIPE)
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
