"""One round of one contender, inside its bubble: lab, traffic, tunnel, measurements. What comes back are figures.

Everything started here dies with the bubble. Errors are `ContenderFailed` with the last words of who failed.
"""

from __future__ import annotations

import json
import select
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.bench.contenders import INNER_SERVER, Contender, Ends, Keys
from testbed.bench.model import percentile
from testbed.bench.processes import session_usage
from testbed.children import child_environment, module_argv
from testbed.lab.build import Lab
from testbed.lab.impair.model import Impairment
from testbed.lab.model import LabRequest, LinkRequest
from testbed.lab.node import Node
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology
from testbed.tunnels.ends import End, in_directory, write_files
from topologies.line import SERVER

WORK_DIRECTORY = Path("/run/testbed-bench")  # in the bubble's own tmpfs
UP_SECONDS = 30.0
GIGA = 1e9
TRIPS, TRIPS_UNDER_LOAD = 1000, 300
PROBE_STEPS = 7
PROBE_SECONDS = 0.4
FASTEST_RATE = 2_000_000.0
LOST_AT_MOST = 0.001
BAD_LINKS = {
    "loss_0_1": Impairment(loss=0.001),
    "loss_1": Impairment(loss=0.01),
    "delay_20": Impairment(delay_s=0.010, queue_packets=100_000),  # each way: 20 ms there and back
}


class ContenderFailed(Exception):
    """A program did not come up, ended early, or carried nothing."""


@dataclass(frozen=True, slots=True)
class Round:
    """What to measure. Shape: `groups` are keys of `model.GROUPS`; `seconds` is how long each TCP measurement takes."""

    contender: Contender
    keys: Keys
    groups: tuple[str, ...]
    seconds: int


def measure_tunnel(order: Round) -> dict[str, float]:
    """The figures of a good line: everything but the group `links`."""
    with Lab.build(plan_lab(load_topology("line"))) as lab:
        bench = _Bench(lab, order)
        figures = bench.start()
        if "tcp" in order.groups or "cost" in order.groups:
            figures |= bench.throughput()
        if "packets" in order.groups:
            figures |= bench.small_packets() | bench.round_trips()
        return figures


def measure_bad_links(order: Round) -> dict[str, float]:
    """The figures of the group `links`: the same line, carried by the engine."""
    request = LabRequest(links=(LinkRequest("client", "isp"),))
    with Lab.build(plan_lab(load_topology("line"), request)) as lab:
        bench = _Bench(lab, order)
        bench.start()
        figures = {}
        for key, impairment in BAD_LINKS.items():
            lab.set_link("client", "isp", None, impairment)
            figures[key] = bench.tcp(streams=1, down=False)[0] / GIGA
        return figures


class _Bench:
    """A lab with traffic programs in it, and a tunnel if the contender is one."""

    def __init__(self, lab: Lab, order: Round) -> None:
        self._lab, self._order = lab, order
        self._client, self._server = lab.node("client"), lab.node("server")
        WORK_DIRECTORY.mkdir(mode=0o700, exist_ok=True)
        made = order.contender.make
        self._ends: Ends | None = made(order.keys) if made else None
        self._address = self._ends.address if self._ends else SERVER
        self._sessions: dict[str, _Running] = {}
        _Talker(self._server, "echo", "")
        self._count = _Talker(self._server, "count", "")
        self._probe = _Talker(self._client, "probe", self._address)
        self._trip = _Talker(self._client, "trip", self._address)
        self._blast = _Talker(self._client, "blast", self._address)
        self._server.spawn(["iperf3", "-s"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self) -> dict[str, float]:
        """Start both ends; how long the client took from its start to the first answer through the tunnel."""
        if self._ends is None:
            self._probe.ask("go", UP_SECONDS)
            return {}
        bound = _bound_ports(self._count.process.pid)
        server = self._run("server", self._server, self._ends.server)
        deadline = time.monotonic() + UP_SECONDS
        while _bound_ports(self._count.process.pid) == bound:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise server.failure("opened no port")
            time.sleep(0.005)
        began = time.monotonic()
        client = self._run("client", self._client, self._ends.client)
        try:
            answered_at = float(self._probe.ask("go", UP_SECONDS)["at"])
        except TimeoutError:
            raise ContenderFailed(
                f"no answer from {self._address} through the tunnel in {UP_SECONDS:.0f} s; "
                f"the client said: {client.last_words()}; the server said: {server.last_words()}"
            ) from None
        self._warm_up()
        return {"start": (answered_at - began) * 1e3}

    def _warm_up(self) -> None:
        """Some find the path's MTU only when there is something to send."""
        deadline = time.monotonic() + self._order.contender.settle
        while time.monotonic() < deadline:
            self._trip.ask("20", UP_SECONDS)
            time.sleep(0.1)

    def throughput(self) -> dict[str, float]:
        before = {name: session_usage(end.process.pid) for name, end in self._sessions.items()}
        up, octets_up = self.tcp(streams=1, down=False)
        down, octets_down = self.tcp(streams=1, down=True)
        after = {name: session_usage(end.process.pid) for name, end in self._sessions.items()}
        figures = {"tcp_up_1": up / GIGA, "tcp_down_1": down / GIGA}
        for name, usage in after.items():
            used = usage.cpu_seconds - before[name].cpu_seconds
            figures[f"cpu_{name}"] = used / ((octets_up + octets_down) / GIGA)
        figures["tcp_up_4"] = self.tcp(streams=4, down=False)[0] / GIGA
        figures["tcp_down_4"] = self.tcp(streams=4, down=True)[0] / GIGA
        for name, end in self._sessions.items():
            figures[f"memory_{name}"] = session_usage(end.process.pid).memory_mib
        return figures

    def small_packets(self) -> dict[str, float]:
        """The highest rate at which no more than one packet in a thousand is lost, found by halving."""
        best = self._delivered(FASTEST_RATE)[0]  # as fast as the sender can: an upper bound of what arrives
        low, high = 0.0, max(best * 1.5, 1000.0)
        for _ in range(PROBE_STEPS):
            rate = (low + high) / 2
            arrived, lost = self._delivered(rate)
            if lost <= LOST_AT_MOST and arrived >= rate * 0.9:
                low = rate
            else:
                high = rate
        return {"packets": low / 1e3}

    def _delivered(self, rate: float) -> tuple[float, float]:
        """Packets a second that arrived, and the share that did not."""
        self._count.ask("reset", UP_SECONDS)
        sent = int(self._blast.ask(f"{rate} {PROBE_SECONDS}", UP_SECONDS)["packets"])
        arrived, quiet = 0, False
        while not quiet:
            time.sleep(0.02)
            more = int(self._count.ask("more", UP_SECONDS)["packets"])
            arrived, quiet = arrived + more, more == 0
        return arrived / PROBE_SECONDS, 1 - arrived / sent if sent else 1.0

    def round_trips(self) -> dict[str, float]:
        idle = self._trips(TRIPS)
        load = self._iperf(1, False, seconds=self._order.seconds + 2)
        time.sleep(0.5)  # until the stream has filled what there is to fill
        loaded = self._trips(TRIPS_UNDER_LOAD)
        load.kill()
        load.wait()
        return {
            "rtt_median": percentile(idle, 0.5),
            "rtt_p99": percentile(idle, 0.99),
            "rtt_load_median": percentile(loaded, 0.5),
            "rtt_load_p99": percentile(loaded, 0.99),
        }

    def _trips(self, count: int) -> list[float]:
        answer = self._trip.ask(str(count), UP_SECONDS + count * 0.25)
        if not answer["microseconds"]:
            raise ContenderFailed(f"none of {count} packets came back")
        return [float(value) for value in answer["microseconds"]]

    def tcp(self, *, streams: int, down: bool) -> tuple[float, int]:
        """Bits a second and octets that the receiver got."""
        process = self._iperf(streams, down, self._order.seconds)
        try:
            text, _ = process.communicate(timeout=self._order.seconds + UP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise ContenderFailed("iperf3 did not come to an end") from None
        report = json.loads(text or b"{}")
        received = report.get("end", {}).get("sum_received")
        if process.returncode or received is None:
            raise ContenderFailed(f"iperf3: {report.get('error', 'it told of nothing received')}")
        return float(received["bits_per_second"]), int(received["bytes"])

    def _iperf(self, streams: int, down: bool, seconds: int) -> subprocess.Popen[bytes]:
        argv = [
            "iperf3",
            "-c",
            self._address,
            "-t",
            str(seconds),
            "-P",
            str(streams),
            "-J",
            *(["-R"] if down else []),
        ]
        return self._client.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def _run(self, name: str, node: Node, end: End) -> _Running:
        folder = WORK_DIRECTORY / name
        folder.mkdir(mode=0o700)
        end = in_directory(end, str(folder))
        write_files(folder, end)
        log = folder / "log"
        with log.open("wb") as output:
            try:
                process = node.spawn(end.argv, env=child_environment(), stdout=output, stderr=output, cwd="/")
            except OSError as error:
                raise ContenderFailed(f"{end.argv[0]}: {error.strerror}") from error
        self._sessions[name] = _Running(name, process, log)
        return self._sessions[name]


@dataclass(frozen=True, slots=True)
class _Running:
    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_words(self) -> str:
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-4:]) or "nothing"

    def failure(self, what: str) -> ContenderFailed:
        return ContenderFailed(f"the {self.name} {what}; it said: {self.last_words()}")


class _Talker:
    """A traffic program in a node that answers a line with a line."""

    def __init__(self, node: Node, role: str, address: str) -> None:
        argv = module_argv("testbed.bench.traffic", role, *([address] if address else []))
        self.role = role
        self.process = node.spawn(argv, env=child_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/")
        self._answer(UP_SECONDS)

    def ask(self, line: str, seconds: float) -> dict[str, Any]:
        """Errors: TimeoutError; ContenderFailed if the program ended."""
        if self.process.stdin is None:
            raise ValueError("a traffic program needs a pipe on stdin")
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        return self._answer(seconds)

    def _answer(self, seconds: float) -> dict[str, Any]:
        if self.process.stdout is None:
            raise ValueError("a traffic program needs a pipe on stdout")
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise TimeoutError(f"{self.role} said nothing for {seconds:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise ContenderFailed(f"the traffic program {self.role} ended with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _bound_ports(pid: int) -> set[str]:
    """What is bound in the network namespace of a process: address and port of UDP sockets and listeners."""
    return {
        line.split()[1]
        for name, state in (("udp", None), ("udp6", None), ("tcp", "0A"), ("tcp6", "0A"))
        for line in _lines_of(f"/proc/{pid}/net/{name}")
        if state is None or line.split()[3] == state
    }


def _lines_of(path: str) -> Iterable[str]:
    return Path(path).read_text().splitlines()[1:]


__all__ = ["INNER_SERVER", "ContenderFailed", "Round", "measure_bad_links", "measure_tunnel"]
