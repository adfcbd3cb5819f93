"""The lab's own child processes: how they are called, and how each is waited for, stopped and complained about.

A child is a Python module of this project that runs as a process of its own (tap, services, workload) and speaks JSON
lines on stdout. What a child says wrong, or its early end, becomes a `ChildFailed` with its last words.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PACKAGE_ROOT = str(Path(__file__).resolve().parent.parent)
STOP_TIMEOUT = 10.0
_CHUNK = 65536


class ChildFailed(Exception):
    """A part of the lab ended or answered wrongly. Says which, its exit code and its last words."""


def module_argv(module: str, *arguments: str) -> list[str]:
    """The argument list that runs one of this project's modules with the running interpreter."""
    return [sys.executable, "-m", module, *arguments]


def lean_environment() -> dict[str, str]:
    """The environment of a child outside any node: whatever else a person's shell holds is no business of a lab."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"PATH": os.defpath, **kept, "LANG": "C.UTF-8", **child_environment()}


def child_environment() -> dict[str, str]:
    """What a child of ours needs to find the project's packages, installed or not."""
    return {"PYTHONPATH": PACKAGE_ROOT, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


class Child:
    """A running child with pipes on stdin and stdout, and its stderr in a file of the run directory.

    `text` is what it is told on stdin, which is closed behind it.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], error_fd: int, text: str = "") -> None:
        if process.stdin is None or process.stdout is None:
            raise ValueError("a child needs pipes on stdin and stdout")
        self.name = name
        self.process = process
        self._error_fd = error_fd
        self._out = process.stdout.fileno()
        self._unread = b""
        with contextlib.suppress(BrokenPipeError):  # it ended already: reading from it will say so
            process.stdin.write(text.encode())
            process.stdin.close()

    def lines(self, timeout: float) -> Iterator[dict[str, Any]]:
        """The JSON lines the child writes until it closes stdout. Errors: ChildFailed when it stays silent too long."""
        while True:
            line = self.read_line(timeout)
            if line is None:
                return
            yield line

    def has_line(self, timeout: float) -> bool:
        """Whether there is something to read, or the end, within `timeout` seconds."""
        return b"\n" in self._unread or bool(select.select([self._out], [], [], max(0.0, timeout))[0])

    def read_line(self, timeout: float) -> dict[str, Any] | None:
        """The next JSON line, or None at the end. Errors: ChildFailed after `timeout` seconds of silence."""
        give_up_at = time.monotonic() + timeout
        while b"\n" not in self._unread:
            wait = give_up_at - time.monotonic()
            if wait <= 0 or not select.select([self._out], [], [], wait)[0]:
                raise self.failure(f"said nothing for {timeout:.0f} s")
            chunk = os.read(self._out, _CHUNK)
            if not chunk:
                return None
            self._unread += chunk
        line, self._unread = self._unread.split(b"\n", 1)
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise self.failure(f"wrote a line that is no JSON object: {line[:200]!r}")
        return value

    def stop(self) -> dict[str, Any]:
        """End the child with SIGTERM; returns the last JSON line it wrote, or nothing. Errors: ChildFailed."""
        self.process.terminate()
        last: dict[str, Any] = {}
        for line in self.lines(STOP_TIMEOUT):
            last = line
        self.wait()
        return last

    def wait(self) -> None:
        """Wait for the child's end. Errors: ChildFailed if it is late or its exit code is not 0."""
        try:
            code = self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {STOP_TIMEOUT:.0f} s") from None
        if code != 0:
            raise self.failure(f"ended with code {code}")

    def failure(self, what: str) -> ChildFailed:
        size = os.fstat(self._error_fd).st_size
        words = os.pread(self._error_fd, min(size, _CHUNK), max(0, size - _CHUNK)).decode("utf-8", "replace")
        last = "\n".join(f"    {line}" for line in words.splitlines()[-12:])
        return ChildFailed(f"the {self.name} process {what}" + (f"; its last words:\n{last}" if last else ""))
