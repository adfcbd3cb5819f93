"""Starts the two ends of a tunnel in their nodes, waits until both say they are up, and ends them cleanly.

What is started is an `EndPlan` (`plans`); this module knows no program. Each end's output goes to a log file in the run
directory, which is also where readiness is read from: the programs need no special interface. While the client works
an end may be sent a signal, and be started again once it has ended (`signal`, `start`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.tunnels.answer import answers
from testbed.tunnels.openvpn_config import TunnelSettings

if TYPE_CHECKING:
    from testbed.lab.node import Node
    from testbed.tunnels.plans import EndPlan, TunnelPlan

READY_TIMEOUT = 20.0
EXIT_TIMEOUT = 5.0
POLL_INTERVAL = 0.005  # how often a log is looked at while its program starts
UNTRAPPED = (-signal.SIGTERM, 128 + signal.SIGTERM)  # of a program that leaves SIGTERM to the kernel, or to a shell
TO_END = ("KILL", "TERM", "INT")
TO_ITSELF = ("HUP", "USR1", "USR2", "INT")  # signals that mean something to a program, and would kill its helpers


class TunnelFailed(Exception):
    """An end of the tunnel ended or did not come up; says which, its exit code and its last lines."""


@dataclass(slots=True)
class RunningEnd:
    """One running end. `told` is the signal it was last sent on purpose, after which it may end as it likes."""

    plan: EndPlan
    process: subprocess.Popen[bytes]
    log_fd: int
    started_at: float
    ready_after: float | None = None
    told: str = ""

    def log_text(self) -> str:
        size = os.fstat(self.log_fd).st_size
        return os.pread(self.log_fd, size, 0).decode("utf-8", "replace")

    def is_ready(self) -> bool:
        """Whether the end is up, as far as its plan knows a way to tell."""
        plan = self.plan
        if plan.ready and plan.ready not in self.log_text():
            return False
        if plan.device and not _has_address(plan.node, plan.device):
            return False
        return not (plan.answering and not answers(plan.node, plan.device, plan.answering))

    def failure(self, what: str) -> TunnelFailed:
        last = "\n".join(f"    {line}" for line in self.log_text().splitlines()[-8:])
        return TunnelFailed(
            f"the VPN {self.plan.role} ({self.plan.program}) {what}; its last lines:\n{last or '    (none)'}"
        )


class KeyMaker:
    """Makes the run's CA, certificates and keys in a process of its own, so that other parts start meanwhile."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        argv = [sys.executable, "-m", "vpn", "pki", "init", str(directory), "--server", "server", "--client", "client"]
        self._process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )

    def wait(self) -> Path:
        """The directory with the finished keys. Errors: TunnelFailed with the program's own words."""
        output, _ = self._process.communicate(timeout=READY_TIMEOUT)
        if self._process.returncode != 0:
            raise TunnelFailed(f"making the keys failed: {output.decode('utf-8', 'replace').strip()}")
        return self.directory


class Tunnel:
    """A tunnel with both ends up."""

    def __init__(self, plan: TunnelPlan, log_dir_fd: int, environment: dict[str, str]) -> None:
        self._plan = plan
        self._environment = environment
        self._log_dir_fd = log_dir_fd
        self.keylog = plan.keylog
        self._running: dict[str, RunningEnd] = {}
        self._starts: dict[str, int] = {}
        self._complaints: list[str] = []
        try:
            self.server = self.start("server")
            if plan.server_first:
                # A first packet that finds no server is sent again only after two seconds.
                self._await_ready(self.server)
            self.client = self.start("client")
            self._await_ready(self.client)
            self._await_ready(self.server)
        except BaseException:
            self.close()
            raise

    def start(self, role: str) -> RunningEnd:
        """Start an end, which may have ended before. Errors: TunnelFailed if it runs still, or cannot be started."""
        former = self._running.get(role)
        if former is not None:
            self._complaints += _gone(former)
        plan = self._plan.end(role)
        count = self._starts[role] = self._starts.get(role, 0) + 1
        flags = os.O_CREAT | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
        name = f"vpn-{role}.log" if count == 1 else f"vpn-{role}-{count}.log"
        log_fd = os.open(name, flags, 0o644, dir_fd=self._log_dir_fd)
        try:
            process = plan.node.spawn(
                plan.argv, env=self._environment, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, cwd=plan.cwd
            )
        except OSError as error:
            os.close(log_fd)
            raise TunnelFailed(f"the VPN {role} cannot be started: {plan.argv[0]}: {error.strerror}") from None
        self._running[role] = RunningEnd(plan, process, log_fd, time.monotonic())
        return self._running[role]

    def signal(self, role: str, name: str) -> None:
        """Send an end the signal SIG<name>: its helpers too, unless it is one that only means something to itself.

        Errors: TunnelFailed if the end does not run
        """
        end = self._running[role]
        if end.process.poll() is not None:
            raise TunnelFailed(f"the VPN {role} does not run: it ended with code {end.process.returncode}")
        end.told = name
        number = signal.Signals[f"SIG{name}"]
        if name in TO_ITSELF:
            end.process.send_signal(number)
        else:
            os.killpg(end.process.pid, number)

    def close(self) -> list[str]:
        """Ends the client, then the server; returns what did not end as it should, in words."""
        ends = [self._running[role] for role in ("client", "server") if role in self._running]
        return self._complaints + [complaint for end in ends if (complaint := _end(end))]

    @staticmethod
    def _await_ready(end: RunningEnd) -> None:
        if end.ready_after is not None:
            return
        pidfd = os.pidfd_open(end.process.pid)
        try:
            while not end.is_ready():
                if select.select([pidfd], [], [], POLL_INTERVAL)[0]:
                    raise end.failure(f"ended with code {end.process.wait()} before it was up")
                if time.monotonic() - end.started_at > READY_TIMEOUT:
                    raise end.failure(f"was not up after {READY_TIMEOUT:.0f} s")
        finally:
            os.close(pidfd)
        if end.plan.incomplete and end.plan.incomplete in end.log_text():
            raise end.failure("came up, but could not set all of its addresses and routes")
        end.ready_after = time.monotonic() - end.started_at


def _gone(end: RunningEnd) -> list[str]:
    """See an end off that is to be started again; returns what was wrong with its end.

    Errors: TunnelFailed if it runs still, although it was told to end, or because it was not
    """
    if end.told in TO_END:
        with contextlib.suppress(subprocess.TimeoutExpired):
            end.process.wait(EXIT_TIMEOUT)
    if end.process.poll() is None:
        raise TunnelFailed(f"the VPN {end.plan.role} runs still; it must end before it can be started again")
    complaint = _end(end)
    return [complaint] if complaint else []


def _has_address(node: Node, device: str) -> bool:
    return any(interface["name"] == device and interface["addresses"] for interface in node.interfaces())


def _end(end: RunningEnd) -> str | None:
    """End it, whatever state it is in, and say what was wrong with that; what it was sent on purpose is not."""
    early = end.process.poll()
    if early is None:
        if end.told == "STOP":
            os.killpg(end.process.pid, signal.SIGCONT)
        end.process.send_signal(signal.SIGTERM)
    name = f"the VPN {end.plan.role} ({end.plan.program})"
    try:
        code = end.process.wait(EXIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(end.process.pid, signal.SIGKILL)
        end.process.wait()
        return f"{name} did not end within {EXIT_TIMEOUT:.0f} s of SIGTERM and was killed"
    finally:
        os.close(end.log_fd)
    if early is not None and end.told:
        return None
    if early is not None:
        return f"{name} ended by itself during the run, with code {code}"
    return None if code == 0 or (end.plan.untrapped and code in UNTRAPPED) else f"{name} ended with code {code}"


__all__ = ["KeyMaker", "RunningEnd", "Tunnel", "TunnelFailed", "TunnelSettings"]
