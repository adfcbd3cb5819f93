"""Episodes one after another: which one comes is drawn from the seed and its number, what happens in it likewise.

So two processes share the work by odd and even numbers, and one failing episode can be run again alone.
"""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.fuzz.corpus import recorded_datagrams
from tests.fuzz.insiders import fuzz_hostile_client, fuzz_hostile_server
from tests.fuzz.mutation import Mutator
from tests.fuzz.parsers import Target, all_targets
from tests.fuzz.strangers import PER_STAGE, Episode, Trace, fuzz_static_key, fuzz_strangers

SEED = "vpn-testbed"


@cache
def _targets() -> tuple[Target, ...]:
    return all_targets()


def fuzz_parser(mutator: Mutator, trace: Trace) -> None:
    """One episode: many inputs for one parser."""
    target = mutator.pick(_targets())
    trace.what = f"parser: {target.name}"
    corpus = target.corpus or recorded_datagrams()
    for _ in range(PER_STAGE):
        datagram = mutator.datagram(corpus)
        trace.note(target.name, datagram)
        target.feed(datagram)


# kind, what it does, out of a hundred episodes
_KINDS: tuple[tuple[str, Episode, int], ...] = (
    ("strangers", fuzz_strangers, 50),
    ("parsers", fuzz_parser, 34),
    ("static key", fuzz_static_key, 6),
    ("hostile clients", fuzz_hostile_client, 5),
    ("hostile servers", fuzz_hostile_server, 5),
)
_BY_LOT = tuple((kind, play) for kind, play, share in _KINDS for _ in range(share))


@dataclass(slots=True)
class Failure:
    """An episode that broke a rule: enough to see what happened, and to run it again."""

    seed: str
    number: int
    kind: str
    what: str
    error: str
    datagrams: list[tuple[str, str]]

    def write(self, path: Path) -> None:
        content = {name: getattr(self, name) for name in self.__slots__}
        path.write_text(json.dumps(content, indent=1) + "\n")


@dataclass(slots=True)
class Tally:
    """What was done."""

    episodes: int = 0
    datagrams: Counter[str] = field(default_factory=Counter)
    stages: set[str] = field(default_factory=set)
    failure: Failure | None = None

    @property
    def total(self) -> int:
        return sum(self.datagrams.values())


def play_episode(seed: str, number: int) -> tuple[str, Trace, Failure | None]:
    """One episode: its kind, what it did, and how it failed if it did."""
    mutator = Mutator(f"{seed}/{number}")
    kind, play = mutator.pick(_BY_LOT)
    trace = Trace()
    try:
        play(mutator, trace)
    except Exception:  # every exception that a datagram can cause is what is looked for
        datagrams = [(target, datagram.hex()) for target, datagram in trace.datagrams]
        return kind, trace, Failure(seed, number, kind, trace.what, traceback.format_exc(), datagrams)
    return kind, trace, None


def fuzz(
    seed: str,
    datagrams: int,
    *,
    first: int = 0,
    stride: int = 1,
    progress: Callable[[int, int], None] = lambda _number, _datagrams: None,
) -> Tally:
    """Episodes first, first + stride, … until so many datagrams are fed or one fails.

    `progress` hears the number of the episode that begins and how many datagrams came before it.
    """
    tally = Tally()
    number = first
    while tally.total < datagrams:
        progress(number, tally.total)
        kind, trace, tally.failure = play_episode(seed, number)
        tally.episodes += 1
        tally.datagrams[kind] += trace.count
        tally.stages.add(trace.what)
        if tally.failure is not None:
            break
        number += stride
    progress(number, tally.total)
    return tally
