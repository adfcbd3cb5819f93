"""What many senders sent in turns is put together by sender: nothing lost, each sender's order kept."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from vpn.driver.gathering import GATHERING_OCTETS, LEAST_GATHERED, Run, are_worth_gathering, gathered
from vpn.settings import Address

ROOM_AT = 300_000


def sender(number: int) -> Address:
    return ("192.0.2.1", number)


def laid_out(datagrams: list[tuple[Address, bytes]]) -> tuple[list[Run], memoryview]:
    """The datagrams as they would have come, one behind the other."""
    buffer = memoryview(bytearray(ROOM_AT + GATHERING_OCTETS))
    runs, at = [], 0
    for address, datagram in datagrams:
        buffer[at : at + len(datagram)] = datagram
        runs.append(Run(address, at, len(datagram), len(datagram)))
        at += len(datagram)
    return runs, buffer


def by_sender(runs: list[Run], buffer: memoryview) -> dict[Address, bytes]:
    found: dict[Address, bytes] = defaultdict(bytes)
    for run in runs:
        found[run.address] += bytes(buffer[run.at : run.at + run.octets])
    return found


def test_datagrams_of_two_senders_in_turns_become_one_run_of_each() -> None:
    came = [(sender(number % 2), bytes([number]) * 1400) for number in range(40)]
    runs, buffer = laid_out(came)
    found = gathered(runs, buffer, ROOM_AT)
    assert [(run.address, run.octets // run.size) for run in found] == [(sender(0), 20), (sender(1), 20)]
    assert by_sender(found, buffer) == by_sender(runs, buffer)


def test_what_is_too_little_for_a_train_stays_where_it_is() -> None:
    came = [(sender(number % 10), bytes([number]) * 1400) for number in range(10 * (LEAST_GATHERED - 1))]
    runs, buffer = laid_out(came)
    found = gathered(runs, buffer, ROOM_AT)
    assert sorted(run.at for run in found) == [run.at for run in runs]


def test_empty_datagrams_are_in_no_train() -> None:
    came = [(sender(number % 2), b"") for number in range(4 * LEAST_GATHERED)]
    runs, buffer = laid_out(came)
    assert sorted(run.address for run in gathered(runs, buffer, ROOM_AT)) == sorted(run.address for run in runs)


def test_a_shorter_datagram_is_the_last_of_its_train() -> None:
    came = [(sender(number % 2), bytes([number]) * 1400) for number in range(20)]
    runs, buffer = laid_out(came)
    cut = Run(sender(0), 50_000, 3 * 1400 + 100, 1400)
    found = gathered([*runs, cut, *[Run(sender(0), 60_000, 1400, 1400)] * LEAST_GATHERED], buffer, ROOM_AT)
    own = [run.octets for run in found if run.address == sender(0)]
    assert own == [10 * 1400 + 3 * 1400 + 100, LEAST_GATHERED * 1400]


def test_runs_of_several_datagrams_are_put_together_whole() -> None:
    came = [(sender(number // 2 % 2), bytes([number]) * 1400) for number in range(40)]
    singles, buffer = laid_out(came)
    runs = [Run(run.address, run.at, 2 * 1400, 1400) for run in singles[::2]]
    found = gathered(runs, buffer, ROOM_AT)
    assert len(found) == 2
    assert by_sender(found, buffer) == by_sender(runs, buffer)


@pytest.mark.parametrize("seed", range(30))
def test_every_sender_has_the_same_octets_in_the_same_order_as_before(seed: int) -> None:
    draw = random.Random(seed)
    sizes = [draw.choice([60, 200, 1400]) for _ in range(3)]
    came = [(sender(draw.randrange(6)), draw.randbytes(draw.choice(sizes))) for _ in range(150)]
    runs, buffer = laid_out(came)
    before = by_sender(runs, buffer)
    found = gathered(runs, buffer, ROOM_AT)
    assert by_sender(found, buffer) == before
    assert all(run.at + run.octets <= len(buffer) for run in found)


@pytest.mark.parametrize(
    ("senders", "datagrams", "worth"),
    [(1, 64, False), (2, 64, True), (2, 2 * LEAST_GATHERED - 1, False), (5, 64, True), (6, 64, False), (64, 64, False)],
)
def test_it_is_worth_gathering_when_several_have_sent_a_dozen_each(senders: int, datagrams: int, worth: bool) -> None:
    runs, _ = laid_out([(sender(number % senders), bytes(100)) for number in range(datagrams)])
    assert are_worth_gathering(runs) is worth
