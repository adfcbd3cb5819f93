"""A link's options as topologies and scenarios spell them, under Mininet's names, and the `Impairment` they mean. Pure.

    bw Mbit/s · delay, jitter a time with its unit · loss, duplicate, reorder percent · max_queue_size packets

In a topology a time is text with a unit ("10ms"): Mininet hands a bare number to tc, which takes it for microseconds,
and nobody who writes 10 means those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from testbed.lab.impair.model import MAX_DELAY_S, NETEM_QUEUE_PACKETS, Impairment

TIMES = ("delay", "jitter")
SHARES = ("loss", "duplicate", "reorder")
OPTIONS = ("bw", *TIMES, *SHARES, "max_queue_size")
_MBIT, _PERCENT = 1e6, 100.0
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s)\Z")
_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


def parse_option(key: str, value: Any) -> float:
    """Return what a topology says of an option: Mbit/s, seconds, percent or packets. Errors: ValueError in words."""
    if key in TIMES:
        return _time(value)
    number = value
    if isinstance(value, str) and key in SHARES:
        number = _float(value.removesuffix("%"))
    if isinstance(number, bool) or not isinstance(number, int | float):
        number = -1
    if key == "bw" and not 1e-6 <= number < float("inf"):
        raise ValueError("it must be Mbit/s, more than 0")
    if key in SHARES and not 0 <= number <= _PERCENT:
        raise ValueError("it must be percent, from 0 to 100")
    if key == "max_queue_size" and (not float(number).is_integer() or number < 1):
        raise ValueError("it must be a number of packets, 1 or more")
    return float(number)


def impairment_of(options: Mapping[str, float]) -> Impairment:
    """Return what parsed options mean together. Errors: ValueError in words if they do not fit together."""
    for key in ("jitter", "reorder"):
        if options.get(key) and not options.get("delay"):
            raise ValueError(f"{key} needs a delay: without one nothing would differ")
    return Impairment(
        rate_bit_s=options["bw"] * _MBIT if "bw" in options else None,
        delay_s=options.get("delay", 0.0),
        jitter_s=options.get("jitter", 0.0),
        loss=options.get("loss", 0.0) / _PERCENT,
        duplicate=options.get("duplicate", 0.0) / _PERCENT,
        reorder=options.get("reorder", 0.0) / _PERCENT,
        queue_packets=int(options.get("max_queue_size", NETEM_QUEUE_PACKETS)),
    )


def _time(value: Any) -> float:
    if value == 0 and not isinstance(value, bool):
        return 0.0
    match = _TIME.match(value) if isinstance(value, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else -1.0
    if not 0 <= seconds <= MAX_DELAY_S:
        raise ValueError("it must be a time such as 10ms, of at most an hour")
    return seconds


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
