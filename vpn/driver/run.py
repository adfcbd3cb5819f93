"""`run` and `check`: configuration to exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from vpn.config.errors import ConfigurationError
from vpn.config.load import load_configuration
from vpn.config.model import Configuration
from vpn.driver.errors import HostError
from vpn.driver.log import BRIEF, FATAL, Log
from vpn.driver.pump import Signals
from vpn.settings import ServerSettings
from vpn.tls import BadTlsSettings
from vpn.version import IV_VERSION

CLEAN, FAILED, USAGE = 0, 1, 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def check_configuration(argv: Sequence[str]) -> int:
    """Reads the configuration and reports every mistake; nothing is started."""
    return CLEAN if _load(argv) is not None else FAILED


def run_tunnel(argv: Sequence[str]) -> int:
    """Runs the tunnel that the configuration describes until it ends."""
    # numpy is loaded in the middle of the first stream, and nothing is multiplied: threads would only cost their start
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    signals = Signals(_SIGNALS)
    try:
        while True:
            configuration = _load(argv)
            if configuration is None:
                return FAILED
            code = _run(configuration, signals)
            if code is not None:
                return code
    finally:
        signals.close()


def _load(argv: Sequence[str]) -> Configuration | None:
    words = list(argv)
    if words[:1] == ["--config"]:
        words = words[1:]
    if not words or words[0].startswith("--"):
        print("usage: python -m vpn run CONFIG [--option value ...]", file=sys.stderr)
        return None
    try:
        return load_configuration(Path(words[0]), words[1:])
    except ConfigurationError as error:
        for problem in error.problems:
            print(f"Options error: {problem}", file=sys.stderr)
        return None


def _run(configuration: Configuration, signals: Signals) -> int | None:
    """One life of the tunnel; None if SIGHUP asks for another with the configuration read again."""
    settings = configuration.driver
    log: Log | None = None
    pid_file = settings.output.pid_file
    try:
        log = Log(settings.output)
        log.write(f"{IV_VERSION}: an OpenVPN peer in Python", BRIEF)
        for warning in configuration.warnings:
            log.write(warning, BRIEF)
        if pid_file is not None:
            _write_pid(pid_file)
        if settings.niceness:
            _renice(settings.niceness)
        return _drive(configuration, log, signals)
    except (HostError, BadTlsSettings) as error:
        if log is None:
            print(f"vpn: {error}", file=sys.stderr)
        else:
            log.write(f"ERROR: {error}", FATAL)
            log.write("Exiting due to fatal error", FATAL)
        return FAILED
    finally:
        if pid_file is not None:
            pid_file.unlink(missing_ok=True)
        if log is not None:
            log.close()


def _drive(configuration: Configuration, log: Log, signals: Signals) -> int | None:
    # Each role's core is imported only where it runs: import time is most of the way to the first packet.
    from vpn.driver.keylog import KeyLog
    from vpn.driver.outcome import Outcome

    core, settings = configuration.core, configuration.driver
    path = settings.output.keylog_file
    keylog = KeyLog(path) if path is not None else None
    try:
        if isinstance(core, ServerSettings):
            from vpn.driver.server import ServerDriver

            outcome = ServerDriver(core, settings, log, signals, keylog).run()
        else:
            from vpn.driver.client import ClientDriver

            outcome = ClientDriver(core, settings, log, signals, keylog).run()
    finally:
        if keylog is not None:
            keylog.close()
    return {Outcome.CLEAN: CLEAN, Outcome.FAILED: FAILED, Outcome.RELOAD: None}[outcome]


def _write_pid(path: Path) -> None:
    try:
        path.write_text(f"{os.getpid()}\n")
    except OSError as error:
        raise HostError(f"write the process id to {path}", error.errno or 0) from error


def _renice(niceness: int) -> None:
    try:
        os.nice(niceness)
    except OSError as error:
        raise HostError(f"set the priority to {niceness}", error.errno or 0) from error
