"""A few rounds of attacks on real tunnels of every kind: the sessions go on, and what they carry arrives once."""

from __future__ import annotations

import contextlib
import sys

import pytest

from tests.fuzz.engine import SEED
from tests.fuzz.hostilities import OF_TCP, OF_UDP
from tests.fuzz.live import KINDS, run_apart


@pytest.mark.root
@pytest.mark.slow
def test_real_tunnels_go_on_through_all_that_strangers_throw_at_them(capsys: pytest.CaptureFixture[str]) -> None:
    done = run_apart(0.0, 4, SEED)
    assert sum(done["tunnels"].values()) == len(KINDS)
    assert set(done["attacks"]) == {attack.__name__ for attack in (*OF_UDP, *OF_TCP)}, "a kind of attack never came"
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print(f"\n{done['thrown']:,} things thrown at real tunnels in {done['seconds']:.1f} s: {done['attacks']}")
