"""The log: one line per event, in the words of openvpn's own log where people's tools wait for them.

Lines go to standard output or to the file of `log`, unbuffered, so that a reader sees a line when it happened. The
level of a line is the lowest `verb` that shows it: 0 fatal, 1 connections and errors, 3 a summary of what goes on, 4
and more detail.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from vpn.config.model import OutputSettings
from vpn.driver.errors import HostError

FATAL, BRIEF, NORMAL, DETAIL = 0, 1, 3, 4
LOG_MODE = 0o600  # names and addresses of users are nobody else's business


class Log:
    """Writes lines up to `verb`. Close it at the end."""

    def __init__(self, settings: OutputSettings) -> None:
        self.verb = settings.verb
        self.listener: Callable[[str, int], None] | None = None  # gets each line written, and its level
        self._timestamps = settings.timestamps
        self._file = _open(settings.log_file, append=settings.append) if settings.log_file else None

    def shows(self, level: int) -> bool:
        return level <= self.verb

    def write(self, text: str, level: int = BRIEF) -> None:
        """One line. Control characters of a peer's text are shown escaped, so that they cannot forge lines."""
        if level > self.verb:
            return
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
        if self.listener is not None:
            self.listener(text, level)
        line = f"{time.strftime('%Y-%m-%d %H:%M:%S ')}{text}\n" if self._timestamps else f"{text}\n"
        descriptor = self._file if self._file is not None else sys.stdout.fileno()
        # The reader of a pipe may go away, or the disk be full: the tunnel goes on without a log.
        with contextlib.suppress(OSError):
            os.write(descriptor, line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _open(path: Path, *, append: bool) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND | (0 if append else os.O_TRUNC)
    try:
        return os.open(path, flags, LOG_MODE)
    except OSError as error:
        raise HostError(f"open the log {path}", error.errno or 0) from error
