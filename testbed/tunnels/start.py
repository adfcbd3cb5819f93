"""Starts the two ends of a tunnel in their nodes, waits until both say they are up, and ends them cleanly.

Keys are made for this run alone, in the bubble's own tmpfs, and vanish with it. Each end's output goes to a log file in
the run directory, which is also where readiness is read from: the programs need no special interface.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.tunnels.openvpn_config import TunnelSettings, client_config, server_config
from testbed.tunnels.programs import PROGRAMS, READY, READY_WITH_ERRORS

if TYPE_CHECKING:
    from testbed.lab.node import Node

READY_TIMEOUT = 20.0
EXIT_TIMEOUT = 5.0
POLL_INTERVAL = 0.005  # how often a log is looked at while its program starts


class TunnelFailed(Exception):
    """An end of the tunnel ended or did not come up; says which, its exit code and its last lines."""


@dataclass(frozen=True, slots=True)
class Ends:
    """The nodes and programs of a tunnel's two ends, and where their logs go (open directory descriptor)."""

    client: Node
    server: Node
    client_program: str
    server_program: str
    work_dir: Path
    log_dir_fd: int


@dataclass(slots=True)
class End:
    """One running end."""

    role: str
    program: str
    argv: list[str]
    process: subprocess.Popen[bytes]
    log_fd: int
    started_at: float
    ready_after: float | None = None

    def log_text(self) -> str:
        size = os.fstat(self.log_fd).st_size
        return os.pread(self.log_fd, size, 0).decode("utf-8", "replace")

    def failure(self, what: str) -> TunnelFailed:
        last = "\n".join(f"    {line}" for line in self.log_text().splitlines()[-8:])
        return TunnelFailed(f"the VPN {self.role} ({self.program}) {what}; its last lines:\n{last or '    (none)'}")


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

    def __init__(self, settings: TunnelSettings, ends: Ends, environment: dict[str, str]) -> None:
        self._settings = settings
        self._environment = environment
        self._ends = ends
        # One end's TLS secrets are enough: the client's, or where its program writes none, the server's.
        self.keylog = ends.work_dir / "tunnel.keylog"
        able = [end for end in ("client", "server") if PROGRAMS[_program(ends, end)].keylog_option]
        self._logs_keys = able[0] if able and settings.mode == "tls" else ""
        self._running: list[End] = []
        try:
            self.server = self._start("server", ends.server, ends.server_program, server_config(settings))
            if settings.mode == "tls":
                # A first packet that finds no server is sent again only after two seconds.
                self._await_ready(self.server)
            self.client = self._start("client", ends.client, ends.client_program, client_config(settings))
            self._await_ready(self.client)
            self._await_ready(self.server)
        except BaseException:
            self.close()
            raise

    def close(self) -> list[str]:
        """Ends the client, then the server; returns what did not end as it should, in words."""
        return [complaint for end in reversed(self._running) if (complaint := _end(end))]

    def _start(self, role: str, node: Node, program_name: str, config: str) -> End:
        program = PROGRAMS[program_name]
        path = self._ends.work_dir / f"{role}.conf"
        path.write_text(config)
        flags = os.O_CREAT | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC
        log_fd = os.open(f"vpn-{role}.log", flags, 0o644, dir_fd=self._ends.log_dir_fd)
        keylog = str(self.keylog) if role == self._logs_keys else None
        argv = program.command(str(path), client=role == "client", keylog=keylog)
        process = node.spawn(
            argv, env=self._environment, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, cwd="/"
        )
        end = End(role, program_name, argv, process, log_fd, time.monotonic())
        self._running.append(end)
        return end

    @staticmethod
    def _await_ready(end: End) -> None:
        pidfd = os.pidfd_open(end.process.pid)
        try:
            while READY not in (said := end.log_text()):
                if select.select([pidfd], [], [], POLL_INTERVAL)[0]:
                    raise end.failure(f"ended with code {end.process.wait()} before it was up")
                if time.monotonic() - end.started_at > READY_TIMEOUT:
                    raise end.failure(f"was not up after {READY_TIMEOUT:.0f} s")
        finally:
            os.close(pidfd)
        if READY_WITH_ERRORS in said:
            raise end.failure("came up, but could not set all of its addresses and routes")
        end.ready_after = end.ready_after or time.monotonic() - end.started_at


def _program(ends: Ends, role: str) -> str:
    return ends.client_program if role == "client" else ends.server_program


def _end(end: End) -> str | None:
    early = end.process.poll()
    if early is None:
        end.process.send_signal(signal.SIGTERM)
    try:
        code = end.process.wait(EXIT_TIMEOUT)
    except subprocess.TimeoutExpired:
        end.process.kill()
        end.process.wait()
        return f"the VPN {end.role} ({end.program}) did not end within {EXIT_TIMEOUT:.0f} s of SIGTERM and was killed"
    finally:
        os.close(end.log_fd)
    if early is not None:
        return f"the VPN {end.role} ({end.program}) ended by itself during the run, with code {code}"
    return None if code == 0 else f"the VPN {end.role} ({end.program}) ended with code {code}"
