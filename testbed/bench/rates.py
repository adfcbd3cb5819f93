"""The highest rate of small packets at which none is lost, found by halving. Pure: the caller does the sending.

A trial that loses a single packet has lost. One hiccup of the machine must not decide, so a rate holds when most of
its trials (two of three) lost nothing; what counts is the rate at which the packets of those came in, for a trial is
short and a queue on the way can hold much of it.

Source: RFC 2544 section 26.1 (throughput: the fastest rate at which as many packets come out as went in)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

TRIALS = 3
CLOSE_ENOUGH = 0.03  # of the rate
FASTER_THAN_FLOODED = 1.5  # at which a tunnel may do better than when it is flooded, for then the sender takes its time
LEAST_SHARE = 0.02  # of the delivered rate; below that nothing is looked for


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of sending at some rate.

    Units: `seconds` that sending took; `last_after`, from the beginning to the last arrival, in seconds as well.
    """

    sent: int
    arrived: int
    seconds: float
    last_after: float = 0.0

    @property
    def rate(self) -> float:
        """Packets a second that were sent."""
        return self.sent / self.seconds if self.seconds else 0.0

    @property
    def delivered(self) -> float:
        """Packets a second that arrived, those included that came after the last was sent."""
        return self.arrived / max(self.seconds, self.last_after) if self.seconds else 0.0

    @property
    def clean(self) -> bool:
        return 0 < self.sent <= self.arrived


def highest_clean_rate(send: Callable[[float], Trial], flooded: Trial) -> float:
    """The highest rate that holds, in packets a second, and 0.0 where none does.

    `send` makes one trial at a rate; `flooded` is a trial at which the sender did what it could.
    """
    if flooded.clean:
        return flooded.delivered
    best, low, high = 0.0, 0.0, min(flooded.rate, flooded.delivered * FASTER_THAN_FLOODED)
    least = flooded.delivered * LEAST_SHARE
    while high - low > max(CLOSE_ENOUGH * high, least):
        rate = (low + high) / 2
        held = _rate_that_held(send, rate)
        if held is None:
            high = rate
        else:
            best, low = max(best, held), rate
    return best


def _rate_that_held(send: Callable[[float], Trial], rate: float) -> float | None:
    """The rate that came in in the trials without a loss, if those were most of them."""
    clean: list[float] = []
    for number in range(TRIALS):
        trial = send(rate)
        clean += [trial.delivered] if trial.clean else []
        if len(clean) > TRIALS // 2:
            return statistics.median(clean)
        if number + 1 - len(clean) > TRIALS // 2:
            break
    return None
