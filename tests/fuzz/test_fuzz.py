"""A fixed hundred thousand generated datagrams for parsers and live cores; `make fuzz` feeds a hundred times more."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz.engine import SEED, fuzz
from tests.fuzz.mutation import Mutator
from tests.fuzz.parsers import all_targets
from tests.fuzz.strangers import Forger, Trace, Violation, finish, reach
from vpn.settings import Cipher

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows

DATAGRAMS = 100_000


@pytest.mark.slow
def test_a_hundred_thousand_generated_datagrams_break_no_rule(capsys: pytest.CaptureFixture[str]) -> None:
    tally = fuzz(SEED, DATAGRAMS)
    assert tally.failure is None, f"episode {tally.failure.number}, {tally.failure.what}:\n{tally.failure.error}"
    assert tally.total >= DATAGRAMS
    assert len(tally.datagrams) == 5, "a kind of episode never came"
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
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


class Flawed:
    """A core with one flaw, for the rules to find."""

    def __init__(self, core: Any, flaw: str) -> None:
        self.core, self.flaw = core, flaw
        self.seen: list[object] = []
        self.given = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, name)

    def receive_datagrams(self, untrusted: list[bytes], address: Any, now: float, unix_time: int) -> None:
        if self.flaw == "remembers":
            self.seen.append(address)
        if self.flaw == "computes":
            sum(len(str(number)) for number in range(5000))
        if self.flaw == "stumbles" and untrusted[0][:1] == b"\xff":
            raise IndexError(0)
        self.core.receive_datagrams(untrusted, address, now, unix_time)
        if self.flaw == "keeps silent":
            self.core.drops = type(self.core.drops)()

    def packets_to_deliver(self) -> list[bytes | Rows]:
        packets: list[bytes | Rows] = self.core.packets_to_deliver()
        return packets * 2 if self.flaw == "repeats" else packets


@pytest.mark.parametrize(
    ("flaw", "found"),
    [
        ("remembers", "forged datagrams changed"),
        ("computes", "calls for a datagram"),
        ("stumbles", "0"),
        ("keeps silent", "drops counted"),
        ("repeats", "accepted twice"),
    ],
)
def test_a_core_with_a_flaw_is_found_out(flaw: str, found: str) -> None:
    mutator = Mutator("flaws")
    world, client, server = reach("traffic", 0, "tls-crypt", Cipher.AES_256_GCM, mutator)
    flawed: Any = Flawed(server.core, flaw)
    server.core = flawed
    forger = Forger(world, client, server, "tls-crypt", mutator, Trace())

    def episode() -> None:
        forger.feed(3000)
        finish(world, client, server)

    with pytest.raises((Violation, IndexError), match=found):
        episode()
