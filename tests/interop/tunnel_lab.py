"""A lab for tunnels between programs: the shipped topology, programs with logs, and questions to the client's kernel.

    client ── isp ── transit ─┬─ vpn (198.51.100.10) ── private
                              └─ web (93.184.216.34)

A test's body runs inside of a bubble (`in_lab`), where nothing of the host can be reached, and everything it starts
ends with it. What it waits for are lines of logs, with a deadline, never a fixed time.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from testbed.lab.bubble import Bubble
from testbed.lab.build import Lab
from testbed.lab.model import LabRequest, LinkRequest
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology

ROOT = Path(__file__).resolve().parents[2]
READY = "Initialization Sequence Completed"
SERVER, SERVER6 = "198.51.100.10", "2001:db8:3::10"
INNER_SERVER, INNER_SERVER6 = "10.8.0.1", "2001:db8:8::1"
WEB = "93.184.216.34"
ISP_RESOLVER = "192.168.0.1"
OURS, OPENVPN = "vpn", "openvpn"
PATIENCE_SECONDS = 15.0


def in_lab(
    body: Callable[[TunnelLab], Any],
    folder: Path,
    links: Sequence[LinkRequest] = (),
    hosts: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """Builds the lab in a bubble, runs `body` there, and returns its (JSON) result.

    Shape: `links` are changed so; `hosts` are names and addresses that the client knows
    """

    def run(_conductor: object) -> Any:
        request = LabRequest(resolvers={"client": [ISP_RESOLVER]}, links=links, hosts={"client": hosts})
        with Lab.build(plan_lab(load_topology("client-isp-server"), request)) as lab:
            tunnels = TunnelLab(lab, folder)
            try:
                return body(tunnels)
            finally:
                tunnels.end()

    with Bubble() as bubble:
        return bubble.run(run)


@dataclass(slots=True)
class Program:
    """A running program whose output goes to a log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, line: str, seconds: float = PATIENCE_SECONDS, count: int = 1) -> None:
        """Returns once `line` stands `count` times in the log. Errors: AssertionError with the log's end."""
        deadline = time.monotonic() + seconds
        ended = False
        while self.text().count(line) < count:
            if ended or time.monotonic() > deadline:
                how = f"ended with {self.process.returncode}" if ended else f"did not within {seconds} s"
                raise AssertionError(f"{self.name} was to say {line!r}; it {how}:\n{self.text()[-3000:]}")
            ended = self._ends_within(0.01)

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = PATIENCE_SECONDS) -> int:
        """Asks the program to end and returns its exit code."""
        self.process.send_signal(number)
        return self.wait(seconds)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {seconds} s:\n{self.text()[-3000:]}") from None

    def _ends_within(self, seconds: float) -> bool:
        pidfd = os.pidfd_open(self.process.pid)
        try:
            return bool(select.select([pidfd], [], [], seconds)[0]) and self.process.poll() is not None
        finally:
            os.close(pidfd)


class TunnelLab:
    """The lab from a test's point of view."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self._started = 0
        self._programs: list[Program] = []

    def end(self) -> None:
        """Ends what still runs, at once: nobody waits any more for what it would do on its way out."""
        for program in self._programs:
            if program.process.poll() is None:
                program.process.kill()
                program.process.wait()

    def start(self, node: str, argv: Sequence[str], name: str = "") -> Program:
        self._started += 1
        log = self.folder / f"{self._started}-{name or Path(argv[0]).name}-{node}.log"
        with log.open("wb") as output:
            process = self.lab.node(node).spawn(
                argv, env={"PYTHONPATH": str(ROOT)}, stdout=output, stderr=subprocess.STDOUT, cwd=str(ROOT)
            )
        program = Program(f"{name or argv[0]} at {node}", process, log)
        self._programs.append(program)
        return program

    def tunnel(self, program: str, node: str, config: str, *extra: str) -> Program:
        """Starts one end of a tunnel with this configuration text."""
        path = self.folder / f"{program}-{node}-{self._started}.conf"
        path.write_text(config)
        words = [OPENVPN, "--config"] if program == OPENVPN else [sys.executable, "-m", "vpn", "run"]
        return self.start(node, [*words, str(path), *extra], program)

    def connect(self, server_program: str, server: str, client_program: str, client: str) -> tuple[Program, Program]:
        """Both ends up, the server first."""
        serving = self.tunnel(server_program, "vpn", server)
        serving.wait_for(READY)
        joining = self.tunnel(client_program, "client", client)
        joining.wait_for(READY)
        return serving, joining

    def last_words(self) -> str:
        """The ends of all logs; our programs say before what they have dropped."""
        running = [program for program in self._programs if program.process.poll() is None]
        for program in running:
            if program.name.startswith(f"{OURS} "):
                seen = program.text().count("Dropped: ")
                program.process.send_signal(signal.SIGUSR2)
                program.wait_for("Dropped: ", count=seen + 1)
        return "\n".join(f"{program.name}: …{program.text()[-800:]}" for program in self._programs)

    def run(self, node: str, *argv: str, seconds: float = 20.0) -> subprocess.CompletedProcess[str]:
        process = self.lab.node(node).spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=str(self.folder))
        out, error = process.communicate(timeout=seconds)
        return subprocess.CompletedProcess(argv, process.returncode, out.decode(), error.decode())

    def output(self, node: str, *argv: str, seconds: float = 20.0) -> str:
        """What the command prints. Errors: AssertionError if it fails."""
        done = self.run(node, *argv, seconds=seconds)
        if done.returncode:
            raise AssertionError(f"{' '.join(argv)} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def serve(self, node: str = "vpn") -> Program:
        """The inner services of `inner_services.py`: HTTP on port 80, DNS on port 53, both IP versions."""
        services = self.start(node, [sys.executable, str(Path(__file__).with_name("inner_services.py"))], "services")
        services.wait_for("serving")
        return services

    def resolv_conf(self) -> str:
        return self.output("client", "cat", "/etc/resolv.conf")

    def routes(self) -> list[str]:
        """The client's routes, both families, as `ip route` shows them."""
        four, six = self.output("client", "ip", "route"), self.output("client", "ip", "-6", "route")
        return sorted(line.strip() for line in (four + six).splitlines())

    def egress(self, address: str) -> str | None:
        """The interface the client's kernel would use."""
        interface = self.lab.node("client").egress(address)["interface"]
        return None if interface is None else str(interface)
