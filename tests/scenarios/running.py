"""Runs `testbed` as a person would: as a program, in a directory of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120


@dataclass(frozen=True)
class Ran:
    """What a command left. Shape: `out` is the run directory, where it made one."""

    code: int
    stdout: str
    stderr: str
    out: Path

    @property
    def result(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.out / "result.json").read_text())
        return loaded

    def failed_expectations(self) -> list[dict[str, Any]]:
        return [row for row in self.result["expectations"] if not row["holds"]]


def heed_interrupts() -> None:
    """For a child that shall feel Ctrl-C and a closed terminal: in the background, or under nohup, they are ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_testbed(*arguments: str | Path, cwd: Path, out: Path | None = None) -> Ran:
    """Run `testbed ARGUMENTS` in `cwd`, with --out where `out` is given."""
    words = [str(argument) for argument in arguments]
    if out is not None:
        words += ["--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "testbed", *words],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr, out or cwd)


def run_text(text: str, cwd: Path, *arguments: str) -> Ran:
    """Write a scenario into `cwd` and run it."""
    (cwd / "scenario.yaml").write_text(text)
    return run_testbed("run", "scenario.yaml", *arguments, cwd=cwd, out=cwd / "out")
