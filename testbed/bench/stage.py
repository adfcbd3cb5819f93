"""What a round is measured on: a lab with traffic programs in its nodes, and a tunnel if the contender is one.

Everything started here dies with the bubble. Errors are `ContenderFailed` with the last words of who failed.

Each TCP measurement has an iperf3 server and a port of its own: a server that stays closes its socket between two
tests and opens it again, and whoever connects meanwhile is reset. Behind a tunnel's queue the end of one test comes
late enough for the next one to meet just that (openvpn over TCP did in one test of six).
"""

from __future__ import annotations

import itertools
import json
import select
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.bench.contenders import Contender, Ends, Keys
from testbed.bench.processes import Usage, session_usage
from testbed.bench.rates import Trial
from testbed.children import child_environment, module_argv
from testbed.lab.build import Lab
from testbed.lab.node import Node
from testbed.tunnels.ends import End, in_directory, write_files
from topologies.line import SERVER

WORK_DIRECTORY = Path("/run/testbed-bench")  # in the bubble's own tmpfs
UP_SECONDS = 30.0
CONNECT_SECONDS = 5
LOOK_SECONDS = 0.25
QUIET_SECONDS = 0.05  # after the last packet of a trial none is waited for
LOOK_AGAIN_SECONDS = 0.005
FIRST_IPERF_PORT = 5201
GIGA = 1e9


class ContenderFailed(Exception):
    """A program did not come up, ended early, or carried nothing."""


@dataclass(frozen=True, slots=True)
class Round:
    """What to measure. Shape: `groups` are keys of `model.GROUPS`; `seconds` is how long each TCP measurement takes."""

    contender: Contender
    keys: Keys
    groups: tuple[str, ...]
    seconds: int


@dataclass(frozen=True, slots=True)
class Received:
    """What iperf3's receiver got."""

    bit_s: float
    octets: int


class Stage:
    """Measures one thing after the other; `start` comes first."""

    def __init__(self, lab: Lab, order: Round) -> None:
        self._order = order
        self._client, self._server = lab.node("client"), lab.node("server")
        WORK_DIRECTORY.mkdir(mode=0o700, exist_ok=True)
        made = order.contender.make
        self._ends: Ends | None = made(order.keys) if made else None
        self._address = self._ends.address if self._ends else SERVER
        self._running: dict[str, _Running] = {}
        self._iperf_ports = itertools.count(FIRST_IPERF_PORT)
        _Talker(self._server, "echo", "")
        self._count = _Talker(self._server, "count", "")
        self._probe = _Talker(self._client, "probe", self._address)
        self._trip = _Talker(self._client, "trip", self._address)
        self._ping = _Talker(self._client, "ping", self._address)
        self._blast = _Talker(self._client, "blast", self._address)

    def start(self) -> dict[str, float]:
        """Start both ends; how long the client took from its start to the first answer through the tunnel."""
        if self._ends is None:
            self._probe.ask("go", UP_SECONDS)
            return {}
        bound = self._bound_ports()
        server = self._run("server", self._server, self._ends.server)
        deadline = time.monotonic() + UP_SECONDS
        while self._bound_ports() == bound:
            if server.process.poll() is not None or time.monotonic() > deadline:
                raise server.failure("opened no port")
            time.sleep(0.005)
        began = time.monotonic()
        client = self._run("client", self._client, self._ends.client)
        answered_at = self._first_answer(server, client)
        self._warm_up()
        return {"start": (answered_at - began) * 1e3}

    def _first_answer(self, server: _Running, client: _Running) -> float:
        self._probe.tell("go")
        deadline = time.monotonic() + UP_SECONDS
        while not self._probe.has_answer(0.1):
            if time.monotonic() > deadline or client.process.poll() is not None:
                how = "ended before" if client.process.poll() is not None else f"got in {UP_SECONDS:.0f} s"
                raise ContenderFailed(
                    f"the client {how} no answer from {self._address} through the tunnel; "
                    f"the client said: {client.last_words()}; the server said: {server.last_words()}"
                )
        return float(self._probe.answer(UP_SECONDS)["at"])

    def _warm_up(self) -> None:
        """Some find the path's MTU only when there is something to send."""
        deadline = time.monotonic() + self._order.contender.settle
        while time.monotonic() < deadline:
            self._trip.ask("20", UP_SECONDS)
            time.sleep(0.1)

    def ended(self) -> str:
        """Which end of the tunnel runs no more, with its last words; nothing while both run."""
        for end in self._running.values():
            if (code := end.process.poll()) is not None:
                return f"the {end.name} ended with code {code}; it said: {end.last_words()}"
        return ""

    def usage(self) -> dict[str, Usage]:
        """What each end of the tunnel used until now."""
        return {name: session_usage(end.process.pid) for name, end in self._running.items()}

    def send(self, rate: float, seconds: float) -> Trial:
        """Send small packets at `rate` a second and count those that arrive, until no more do."""
        self._count.ask("reset", UP_SECONDS)
        done = self._blast.ask(f"{rate} {seconds}", UP_SECONDS)
        sent, sending = int(done["packets"]), float(done["seconds"])
        arrived = int(self._count.ask("more", UP_SECONDS)["packets"])
        ended_at = last_at = time.monotonic()
        while arrived < sent and time.monotonic() - last_at < QUIET_SECONDS:
            time.sleep(LOOK_AGAIN_SECONDS)
            if more := int(self._count.ask("more", UP_SECONDS)["packets"]):
                arrived, last_at = arrived + more, time.monotonic()
        return Trial(sent, arrived, sending, sending + last_at - ended_at)

    def trips(self, count: int) -> list[float]:
        """Round trips in microseconds, each asked for as soon as the one before is back."""
        return _answered(self._trip.ask(str(count), UP_SECONDS + count * 0.25), count)

    def pings(self, count: int, interval: float) -> list[float]:
        """Round trips in microseconds, one begun every `interval` seconds, of those that came back."""
        return _answered(self._ping.ask(f"{count} {interval}", UP_SECONDS + count * interval), count)

    def tcp(self, *, streams: int, down: bool) -> Received:
        """What came through in as long as the order says."""
        with self.stream(streams=streams, down=down, seconds=self._order.seconds) as client:
            return client.received(self._order.seconds + UP_SECONDS)

    @contextmanager
    def stream(self, *, streams: int, down: bool, seconds: float) -> Iterator[_Iperf]:
        """TCP streams that have begun, for as long as they last."""
        port = next(self._iperf_ports)
        server = self._server.spawn(
            ["iperf3", "-s", "-1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + UP_SECONDS
        while not any(address.endswith(f":{port:04X}") for address in self._bound_ports()):
            if server.poll() is not None or time.monotonic() > deadline:
                raise ContenderFailed("iperf3's server opened no port")
            time.sleep(0.002)
        argv = ["iperf3", "-c", self._address, "-p", str(port), "-t", f"{seconds:g}", "-P", str(streams), "-J"]
        argv += ["--connect-timeout", str(CONNECT_SECONDS * 1000), *(["-R"] if down else [])]
        client = self._client.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            yield _Iperf(client, self.ended)
            server.wait(UP_SECONDS)  # what is still in the tunnel belongs to this measurement, not to the next
        except subprocess.TimeoutExpired:
            raise ContenderFailed("iperf3's server did not come to an end") from None
        finally:
            for process in (client, server):
                process.kill()
                process.communicate()

    def _bound_ports(self) -> set[str]:
        """What is bound in the server's node: address and port of UDP sockets and listeners."""
        return {
            line.split()[1]
            for name, state in (("udp", None), ("udp6", None), ("tcp", "0A"), ("tcp6", "0A"))
            for line in _lines_of(f"/proc/{self._count.process.pid}/net/{name}")
            if state is None or line.split()[3] == state
        }

    def _run(self, name: str, node: Node, end: End) -> _Running:
        folder = WORK_DIRECTORY / name
        folder.mkdir(mode=0o700)
        end = in_directory(end, str(folder))
        write_files(folder, end)
        log, own_folder = folder / "log", self._order.contender.folder
        with log.open("wb") as output:
            try:
                process = node.spawn(end.argv, env=child_environment(), stdout=output, stderr=output, cwd=own_folder)
            except (OSError, subprocess.SubprocessError) as error:
                raise ContenderFailed(f"{end.argv[0]} could not be started: {error}") from error
        self._running[name] = _Running(name, process, log)
        return self._running[name]


@dataclass(frozen=True, slots=True)
class _Iperf:
    process: subprocess.Popen[bytes]
    tunnel_ended: Callable[[], str]

    def received(self, patience: float) -> Received:
        """Wait for the end. Errors: ContenderFailed with iperf3's own reason, or the tunnel's."""
        text, deadline = None, time.monotonic() + patience
        while text is None:
            try:
                text, _ = self.process.communicate(timeout=LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                if gone := self.tunnel_ended():  # which iperf3 would not learn before TCP gives up
                    raise ContenderFailed(gone) from None
                if time.monotonic() > deadline:
                    raise ContenderFailed("iperf3 did not come to an end") from None
        try:
            report = json.loads(text)
        except ValueError:
            raise ContenderFailed(f"iperf3 ended with code {self.process.returncode} and told nothing") from None
        received = report.get("end", {}).get("sum_received")
        if self.process.returncode or received is None or "error" in report:
            raise ContenderFailed(f"iperf3: {report.get('error', 'it told of nothing received')}")
        return Received(float(received["bits_per_second"]), int(received["bytes"]))


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
        self.answer(UP_SECONDS)

    def ask(self, line: str, seconds: float) -> dict[str, Any]:
        """Errors: TimeoutError; ContenderFailed if the program ended."""
        self.tell(line)
        return self.answer(seconds)

    def tell(self, line: str) -> None:
        if self.process.stdin is None:
            raise ValueError("a traffic program needs a pipe on stdin")
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def has_answer(self, seconds: float) -> bool:
        if self.process.stdout is None:
            raise ValueError("a traffic program needs a pipe on stdout")
        return bool(select.select([self.process.stdout], [], [], seconds)[0])

    def answer(self, seconds: float) -> dict[str, Any]:
        if self.process.stdout is None or not self.has_answer(seconds):
            raise TimeoutError(f"{self.role} said nothing for {seconds:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise ContenderFailed(f"the traffic program {self.role} ended with code {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _answered(answer: dict[str, Any], count: int) -> list[float]:
    if not answer["microseconds"]:
        raise ContenderFailed(f"none of {count} packets came back")
    return [float(value) for value in answer["microseconds"]]


def _lines_of(path: str) -> Iterable[str]:
    return Path(path).read_text().splitlines()[1:]
