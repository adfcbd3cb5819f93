"""What is wrong with a configuration: every mistake with its file, its line and the option, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """Where a directive stands. Shape: `line` is 1-based; 0 for the command line, where `file` says so."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


COMMAND_LINE = Place("command line")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. `option` is empty where the line has none (a bad quote)."""

    place: Place
    option: str
    message: str

    def __str__(self) -> str:
        subject = f"{self.option}: " if self.option else ""
        return f"{self.place}: {subject}{self.message}"


class ConfigurationError(Exception):
    """The configuration cannot be used; `problems` says why, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)
