"""Who may come in, as far as files and programs of the host decide it.

`client-config-dir`: the file named after the client's common name, or `DEFAULT`, says what it gets; with
`ccd-exclusive` there must be one of its own. `auth-user-pass-verify PROGRAM via-file`: the program gets the name of a
file with user name and password on one line each, readable by this user alone, and says yes by exit code 0. The
program runs beside the tunnel: its end is waited for in the event loop, so that a slow one delays no other client.

Source: openvpn(8), "--client-config-dir" and "--auth-user-pass-verify"
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from vpn.config.client_file import parse_client_file
from vpn.config.errors import ConfigurationError
from vpn.config.model import Admission
from vpn.driver.log import BRIEF, NORMAL, Log
from vpn.driver.printable import printable
from vpn.driver.pump import Pump
from vpn.driver.transport import show_address
from vpn.events import AdmissionRequested
from vpn.server import ServerCore
from vpn.settings import ClientOverrides

VERIFY_SECONDS = 30.0  # half of hand-window: the client still hears the answer
_UNSAFE = re.compile(r"[^A-Za-z0-9_.@-]")


@dataclass(slots=True)
class _Check:
    """A running password check."""

    request: AdmissionRequested
    child: subprocess.Popen[bytes]
    pidfd: int
    file: Path | None
    ends_at: float


class Admitter:
    """Answers the core's admission requests."""

    def __init__(self, settings: Admission, core: ServerCore, log: Log, pump: Pump) -> None:
        self._settings = settings
        self._core = core
        self._log = log
        self._pump = pump
        self._checks: list[_Check] = []

    @property
    def due_at(self) -> float | None:
        return min((check.ends_at for check in self._checks), default=None)

    def ask(self, request: AdmissionRequested) -> None:
        """Starts the check that the settings ask for, or answers at once."""
        wants_password = bool(self._settings.verify_command)
        if not wants_password or (self._settings.password_optional and not request.username):
            self._admit(request)
            return
        try:
            self._checks.append(self._start(request))
        except OSError as error:
            self._log.write(f"auth-user-pass-verify: cannot run {self._settings.verify_command[0]}: {error.strerror}")
            self._refuse(request, "")

    def collect(self) -> None:
        """Takes the answers of programs that have ended, and ends those that take too long."""
        for check in list(self._checks):
            code = check.child.poll()
            if code is None and time.monotonic() < check.ends_at:
                continue
            if code is None:
                self._log.write("auth-user-pass-verify: no answer in time")
            self._finish(check)
            if code == 0:
                self._admit(check.request)
            else:
                self._refuse(check.request, "")

    def close(self) -> None:
        for check in list(self._checks):
            self._finish(check)

    def _start(self, request: AdmissionRequested) -> _Check:
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "common_name": printable(request.common_name),
            "username": printable(request.username),
            "untrusted_ip": str(request.address[0]),
            "untrusted_port": str(request.address[1]),
            "script_type": "user-pass-verify",
        }
        argv = list(self._settings.verify_command)
        path: Path | None = None
        if self._settings.verify_by_file:
            path = self._credentials_file(request)
            argv.append(str(path))
        else:
            environment["password"] = request.password.reveal()
        try:
            child = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL)
        except OSError:
            if path is not None:
                path.unlink(missing_ok=True)
            raise
        pidfd = os.pidfd_open(child.pid)
        self._pump.watch_other(pidfd)
        return _Check(request, child, pidfd, path, time.monotonic() + VERIFY_SECONDS)

    def _credentials_file(self, request: AdmissionRequested) -> Path:
        """Made by mkstemp: 0600, new, with a name nobody can foresee."""
        descriptor, name = tempfile.mkstemp(prefix="vpn_up_", suffix=".tmp", dir=self._settings.temporary_directory)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{printable(request.username)}\n{printable(request.password.reveal())}\n")
        return Path(name)

    def _finish(self, check: _Check) -> None:
        self._checks.remove(check)
        self._pump.unwatch_other(check.pidfd)
        os.close(check.pidfd)
        if check.child.poll() is None:
            check.child.send_signal(signal.SIGKILL)
            check.child.wait()
        if check.file is not None:
            check.file.unlink(missing_ok=True)

    def _admit(self, request: AdmissionRequested) -> None:
        overrides = self._overrides(request)
        if overrides is None:
            self._refuse(request, "")
            return
        self._core.admit(request.peer, overrides, time.monotonic(), int(time.time()))

    def _refuse(self, request: AdmissionRequested, reason: str) -> None:
        name = request.username or request.common_name
        self._log.write(f"{show_address(request.address)} TLS Auth Error: verification failed for peer {name!r}", BRIEF)
        self._core.refuse(request.peer, reason, time.monotonic())

    def _overrides(self, request: AdmissionRequested) -> ClientOverrides | None:
        """What the client's file says; None keeps the client out."""
        directory = self._settings.client_config_directory
        if directory is None:
            return ClientOverrides()
        own = directory / _file_name(request.common_name)
        path = own if os.path.isfile(own) else directory / "DEFAULT"  # says no, too, to a name too long for a file
        if self._settings.client_config_required and path != own:
            self._log.write(f"no file {own} for {request.common_name!r} (ccd-exclusive)", BRIEF)
            return None
        if not path.is_file():
            return ClientOverrides()
        try:
            overrides = parse_client_file(path.read_text("utf-8"), str(path))
        except (OSError, UnicodeDecodeError, ConfigurationError) as error:
            self._log.write(f"client file {path}: {error}", BRIEF)
            return None
        self._log.write(f"OPTIONS IMPORT: reading client specific options from: {path}", NORMAL)
        return overrides


def _file_name(common_name: str) -> str:
    """A name inside of the directory, whatever the certificate says: no slash, no leading dot, as openvpn maps it."""
    name = _UNSAFE.sub("_", common_name)
    return name if not name.startswith(".") else f"_{name[1:]}"
