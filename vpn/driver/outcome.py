"""How a run of either role ended."""

from __future__ import annotations

from enum import Enum, auto


class Outcome(Enum):
    CLEAN = auto()
    FAILED = auto()
    RELOAD = auto()  # SIGHUP: read the configuration again
