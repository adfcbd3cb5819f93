"""`observe`: one pass over a capture file, frame by frame, then the conversations that came of it."""

from __future__ import annotations

from pathlib import Path

from testbed.observer.model import Limits, Observation

DEFAULT_LIMITS = Limits()


def observe(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> Observation:
    """All that somebody who recorded this file can know.

    Errors: OSError if the file cannot be opened; nothing else, whatever is in it
    """
    raise NotImplementedError
