"""The program `testbed` and `python -m testbed`: the command line, and silence about a Ctrl-C before it is loaded."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what `signal` wraps; importing that takes as long as Python's start
import os

TYPE_CHECKING = False  # the import of typing alone would double the time in which an interruption is not expected
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Load the command line and run it. Until it is loaded nothing has been built, so an interruption just ends."""
    interruptible = _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler  # not under nohup
    if interruptible:
        _signal.signal(_signal.SIGINT, _leave)
    from testbed import cli

    cli.main(interrupts=interruptible)


def _leave(_number: int, _frame: object) -> NoReturn:
    os.write(2, b"testbed: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    main()
