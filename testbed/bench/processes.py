"""What an end of a tunnel cost: CPU time and memory of all processes of its session, from /proc.

A program that a node runs leads a session of its own (`Node.spawn`), so its children count without being known.
Time the kernel spends for it outside its processes (interrupts, softirqs) is nobody's here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_SESSION, _UTIME, _STIME = 3, 11, 12  # fields of /proc/PID/stat behind the name


@dataclass(frozen=True, slots=True)
class Usage:
    """Units: seconds of CPU so far; MiB of memory at the most so far."""

    cpu_seconds: float
    memory_mib: float


def session_usage(session: int) -> Usage:
    """What the processes of a session used until now; those that have ended count no more."""
    ticks, kib = 0, 0
    for pid, fields in _processes():
        if int(fields[_SESSION]) == session:
            ticks += int(fields[_UTIME]) + int(fields[_STIME])
            kib += _most_resident_kib(pid)
    return Usage(ticks / _TICKS_PER_SECOND, kib / 1024)


def _processes() -> Iterator[tuple[int, list[str]]]:
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        yield int(entry), text.rpartition(")")[2].split()


def _most_resident_kib(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("VmHWM:")), 0)
