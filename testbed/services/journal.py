"""Logs of JSON lines: one file per site or name server, one line per record, complete at every moment.

A record is one `write` on a descriptor opened for appending, so that a reader never meets half a line and nothing waits
in a buffer when the process ends. File names come from checked host and node names; links are not followed.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Journal:
    """One log file."""

    descriptor: int

    def write(self, record: dict[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=True, separators=(",", ":")) + "\n"
        octets = memoryview(line.encode("ascii"))
        while octets:
            octets = octets[os.write(self.descriptor, octets) :]


@dataclass(frozen=True, slots=True)
class LogDirectory:
    """The directory of the logs, by descriptor: it may lie outside what the process can reach by path."""

    descriptor: int

    @classmethod
    def open(cls, place: str | int) -> LogDirectory:
        """Shape: a path, or an inherited descriptor of a directory."""
        return cls(place if isinstance(place, int) else os.open(place, os.O_RDONLY | os.O_DIRECTORY))

    def journal(self, name: str) -> Journal:
        """The log `<name>.jsonl`, created where missing. Errors: ValueError for a name that is no plain file name."""
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} does not name a log file")
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return Journal(os.open(f"{name}.jsonl", flags, 0o644, dir_fd=self.descriptor))
