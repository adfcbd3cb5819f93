"""Stdout as a pipe, a terminal or nothing at all: a reader that leaves early changes no exit code.

Also puts something in the place of standard streams that a service manager closed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.result import RunResult


def open_standard_streams() -> None:
    """Put /dev/null where a service manager closed one of the standard three, or other files get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))


def print_text(text: str) -> None:
    with _reader_may_leave():
        sys.stdout.write(text)


def print_json(value: object) -> None:
    print_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def print_json_parts(parts: Mapping[str, object]) -> None:
    """As `print_json` of an object that has at least one part; what only can be iterated is a list, and is printed
    member by member as it is made: there may be very many."""
    with _reader_may_leave():
        before = "{"
        for name, value in parts.items():
            sys.stdout.write(f"{before}\n  {json.dumps(name)}: ")
            before = ","
            if not isinstance(value, Iterable) or isinstance(value, (str, Mapping)):
                sys.stdout.write(_indented(value, "  "))
                continue
            between, end = "[\n    ", "[]"
            for member in value:
                sys.stdout.write(between + _indented(member, "    "))
                between, end = ",\n    ", "\n  ]"
            sys.stdout.write(end)
        sys.stdout.write("\n}\n")


def _indented(value: object, margin: str) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False).replace("\n", "\n" + margin)


def show_result(result: RunResult, directory: Path) -> None:
    """The result as the terminal's table; in a pipe, plain."""
    from rich.console import Console

    from testbed.report.terminal import render_terminal

    class Terminal(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True  # rich would exit with code 1, which means that an expectation does not hold

    with _reader_may_leave():
        render_terminal(result, Terminal(highlight=False), html_path=str(directory / "report.html"))


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Print all of it, or as much as the reader of a pipe wants (`| head`): what was found stays the exit code."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _print_nowhere()
    except OSError:
        _print_nowhere()  # else Python tries the same again at its end
        raise


def _print_nowhere() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)
