"""Progress: one changing line on a terminal, plain lines elsewhere, silence for `--json`, and never a thread."""

from __future__ import annotations

import io
import os
import pty
import re
import threading
from collections.abc import Iterator

import pytest

from testbed.report.progress import Phase, Progress


def play(progress: Progress) -> None:
    with progress:
        progress.phase("without", Phase.LAB)
        progress.action("without", 1, 2, "opened http://a.example/\x1b[2J")
        progress.finished("without")
        progress.phase("with", Phase.TUNNEL)
        progress.finished("with", ok=False, reason="the tunnel did not come up")


def test_a_pipe_gets_one_plain_line_per_step() -> None:
    stream = io.StringIO()
    ticks = iter([10.0, 10.1, 11.25, 20.0, 20.5])
    play(Progress(["without", "with"], stream, clock=lambda: next(ticks)))
    assert stream.getvalue().splitlines() == [
        "without: building the lab",
        "without: workload 1 of 2: opened http://a.example/\\x1b[2J",
        "✓ without: done in 1.25 s",
        "with: bringing up the tunnel",
        "✗ with: the tunnel did not come up in 0.50 s",
    ]


def test_silent_progress_writes_nothing() -> None:
    stream = io.StringIO()
    play(Progress(["without", "with"], stream, silent=True))
    assert stream.getvalue() == ""


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, io.TextIOWrapper]]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    front, back = pty.openpty()
    with open(back, "w", encoding="utf-8") as stream:
        yield front, stream
    os.close(front)


def test_a_terminal_gets_one_line_that_is_erased_and_no_hidden_cursor(terminal: tuple[int, io.TextIOWrapper]) -> None:
    front, stream = terminal
    play(Progress(["without", "with"], stream))
    written = ""
    while written.count("\n") < 2:  # a terminal hands over what it has, not all that was written
        written += os.read(front, 1 << 16).decode()
    assert "[1/2]" in written
    assert written.count("\r\x1b[2K") == 3  # before the second step and before each final line
    assert "\x1b[?25l" not in written
    assert "\x1b[2J" not in written
    assert written.count("\n") == 2


def test_the_changing_line_never_fills_the_terminal(terminal: tuple[int, io.TextIOWrapper]) -> None:
    front, stream = terminal
    progress = Progress(["v"], stream)
    progress.action("v", 1, 1, "opened http://" + "x" * 300)
    shown = os.read(front, 1 << 16).decode()
    assert len(re.sub(r"\x1b\[[0-9;]*m", "", shown)) < 40


def test_no_thread_is_started(terminal: tuple[int, io.TextIOWrapper]) -> None:
    _, stream = terminal
    before = threading.enumerate()
    progress = Progress(["without"], stream)
    progress.phase("without", Phase.LAB)
    progress.phase("without", Phase.SERVICES)
    assert threading.enumerate() == before
    progress.close()
