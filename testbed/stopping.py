"""How a command is told to stop: by Ctrl-C, by SIGTERM, by a terminal that closes; and that it tidies up then.

The first such signal raises an exception in the main thread, so that every block on the way out tidies up behind
itself. Who presses Ctrl-C twice must not cut that short and leave half of it, so for as long as tidying may take a
further signal does nothing. After that the next one is obeyed again: an exception may have come where none gets on.
"""

from __future__ import annotations

import signal
import time
from types import FrameType

PATIENCE_S = 15.0  # longer than a lab takes to end, whatever it does (see lab.bubble)
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated", signal.SIGHUP: "the terminal was closed"}


class Stopped(BaseException):
    """Told to stop by a signal other than Ctrl-C's. Shape: `told` where a line on stderr has said so already."""

    def __init__(self, number: int) -> None:
        super().__init__(_WORDS.get(signal.Signals(number), f"stopped by {signal.Signals(number).name}"))
        self.number = number
        self.told = False

    @property
    def exit_code(self) -> int:
        """What a shell says of a program that the signal has ended."""
        return 128 + self.number


class _Obeyed:
    """The handler of all of them. Units: `since` in monotonic seconds, None while nobody has said stop."""

    def __init__(self) -> None:
        self.since: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.since is not None and now - self.since < PATIENCE_S:
            return
        self.since = now
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Stopped(number)


def heed_signals(*, interrupts: bool) -> None:
    """From here on a signal to stop is an exception: KeyboardInterrupt for Ctrl-C if wanted, `Stopped` for the others.

    What is ignored already stays so: a run under nohup goes on when its terminal closes.
    """
    handler = _Obeyed()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, handler)
    if interrupts:
        signal.signal(signal.SIGINT, handler)
