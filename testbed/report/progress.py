"""How a run gets on while it runs: one line that changes on a terminal, one line per step elsewhere, nothing for
`--json`.

No thread refreshes it: the front process forks the lab's bubble, and a fork from a process with threads may inherit a
held lock. The line changes only when the caller reports something. The cursor is never hidden, so a killed run leaves
a usable terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.control import Control
from rich.segment import ControlType
from rich.text import Text

from testbed.report.text import shorten

_ERASE_LINE = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class Phase(StrEnum):
    """What a variant is at, in the words that are shown."""

    LAB = "building the lab"
    SERVICES = "starting the services"
    TUNNEL = "bringing up the tunnel"
    WORKLOAD = "workload"
    OBSERVE = "reading the captures"
    JUDGE = "judging"


class Progress:
    """Reports a run's steps to a stream, usually standard error.

    Shape: `clock` returns monotonic seconds; without it no durations are shown
    """

    def __init__(
        self,
        variants: Sequence[str],
        stream: TextIO,
        *,
        silent: bool = False,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._variants = tuple(variants)
        self._console = Console(file=stream, highlight=False, markup=False, emoji=False)
        self._silent = silent
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._clock = clock
        self._started: dict[str, float] = {}
        self._line_open = False

    def phase(self, variant: str, phase: Phase) -> None:
        """A variant enters a phase."""
        self._step(variant, str(phase))

    def action(self, variant: str, number: int, total: int, words: str) -> None:
        """The client does the action `number` of `total`; `words` say which, as `words.action_in_words` does."""
        self._step(variant, f"{Phase.WORKLOAD} {number} of {total}: {words}")

    def fault(self, variant: str, words: str) -> None:
        """An event of the scenario's timeline happens; `words` say which."""
        self._step(variant, f"event: {words}")

    def finished(self, variant: str, *, ok: bool = True, reason: str = "") -> None:
        """A variant is done; its line stays."""
        sign = ("ok" if ok else "failed") if not self._unicode else ("✓" if ok else "✗")
        words = "done" if ok else (reason or "failed")
        line = Text.assemble(
            (sign, "green" if ok else "bold red"), " ", self._cut(f"{variant}: {words}{self._took(variant)}")
        )
        self._print_line(line)

    def close(self) -> None:
        """Removes the changing line, so that what follows starts in the first column."""
        if self._line_open:
            self._console.control(_ERASE_LINE)
            self._line_open = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _unicode(self) -> bool:
        return self._console.encoding.lower().startswith("utf")

    def _step(self, variant: str, words: str) -> None:
        if self._clock is not None:
            self._started.setdefault(variant, self._clock())
        if self._silent:
            return
        if not self._live:
            self._print_line(Text(self._cut(f"{variant}: {words}")))
            return
        self.close()
        place = f"[{self._variants.index(variant) + 1}/{len(self._variants)}] " if variant in self._variants else ""
        text = Text(place, "dim").append(self._cut(f"{variant}: {words}", len(place)), "default")
        self._console.print(text, end="", no_wrap=True, crop=True)
        self._console.file.flush()
        self._line_open = True

    def _cut(self, words: str, taken: int = 2) -> str:
        """One column stays free: a line of exactly the width would make the terminal scroll."""
        width = self._console.width if self._live else 200
        return shorten(words, width - taken - 1, "…" if self._unicode else "...")

    def _took(self, variant: str) -> str:
        if self._clock is None or variant not in self._started:
            return ""
        return f" in {self._clock() - self._started[variant]:.2f} s"

    def _print_line(self, line: Text) -> None:
        if self._silent:
            return
        self.close()
        self._console.print(line, soft_wrap=True)
        self._console.file.flush()
