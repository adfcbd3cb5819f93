"""A fixed hundred thousand generated datagrams for parsers and live cores; `make fuzz` feeds a hundred times more."""

from __future__ import annotations

import pytest

from tests.fuzz.engine import SEED, fuzz
from tests.fuzz.mutation import Mutator
from tests.fuzz.parsers import all_targets

DATAGRAMS = 100_000


@pytest.mark.slow
def test_a_hundred_thousand_generated_datagrams_break_no_rule(capsys: pytest.CaptureFixture[str]) -> None:
    tally = fuzz(SEED, DATAGRAMS)
    assert tally.failure is None, f"episode {tally.failure.number}, {tally.failure.what}:\n{tally.failure.error}"
    assert tally.total >= DATAGRAMS
    assert len(tally.datagrams) == 5, "a kind of episode never came"
    with capsys.disabled():
        print(f"\nfuzzed with {tally.total:,} datagrams in {tally.episodes} episodes: {dict(tally.datagrams)}")


def test_the_same_seed_makes_the_same_datagrams() -> None:
    def some(seed: str) -> list[bytes]:
        mutator = Mutator(seed)
        return [mutator.datagram([b"one datagram", b"another one"]) for _ in range(200)]

    assert some("a") == some("a")
    assert some("a") != some("b")


def test_every_parser_gets_what_it_accepts_as_well_as_what_it_refuses() -> None:
    """A corpus whose every item is refused at once would fuzz nothing but the refusal."""
    for target in all_targets():
        if not target.corpus:
            continue
        accepted = 0
        for octets in target.corpus:
            try:
                target.read(octets)
                accepted += 1
            except target.allowed:
                continue
        assert accepted, target.name
