"""Exit codes, and the one place where an error becomes one line and a code.

0 every expectation holds · 1 one does not · 2 bad scenario or usage · 3 this host cannot run it (with the fix) · 4 the
lab failed · 130 interrupted · 143 terminated, 129 the terminal was closed. Errors that a person can do nothing about
keep their traceback: they are faults of this program.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

from testbed.stopping import Stopped

# Errors that are the machine's: not a fault of this program, whose traceback would help.
_OF_THE_HOST = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.EROFS,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
)


class Exit(IntEnum):
    """What a command's exit code says."""

    OK = 0
    EXPECTATION_FAILED = 1
    BAD_INPUT = 2
    HOST_CANNOT = 3
    LAB_FAILED = 4
    INTERRUPTED = 130


@contextmanager
def errors_become_exit_codes() -> Iterator[None]:
    """Turn the errors a person can act on into one message and a code; others keep their traceback."""
    try:
        yield
    except KeyboardInterrupt:
        fail(Exit.INTERRUPTED, "interrupted")
    except Stopped as stop:
        if stop.told:
            raise SystemExit(stop.exit_code) from None
        fail(stop.exit_code, str(stop))
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        fail(code, _in_words(error))


def fail(code: int, message: str) -> NoReturn:
    """End with one message; what steers a terminal, such as an escape in a file's name, is shown as its code."""
    from testbed.report.text import visible

    plain = "\n".join(visible(line) for line in message.split("\n"))
    sys.stderr.write(f"testbed: {plain}\n")
    raise SystemExit(int(code))


def _exit_code(error: Exception) -> Exit | None:
    from testbed.children import ChildFailed
    from testbed.lab.errors import HostCannot, LabFailed, NoSuchLab
    from testbed.lab.model import LabPlanError
    from testbed.report.json import ResultError
    from testbed.rundir import RunDirectoryRefused
    from testbed.scenario.errors import ScenarioErrors

    if isinstance(error, (ScenarioErrors, LabPlanError, RunDirectoryRefused, ResultError, NoSuchLab)):
        return Exit.BAD_INPUT
    if isinstance(error, PermissionError) and error.filename:
        return Exit.BAD_INPUT
    if isinstance(error, HostCannot):
        return Exit.HOST_CANNOT
    if isinstance(error, (LabFailed, ChildFailed)) or (isinstance(error, OSError) and error.errno in _OF_THE_HOST):
        return Exit.LAB_FAILED
    return None


def _in_words(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else f"cannot go on: {error.strerror}"
    return str(error)
