"""What a link's options mean, and what one direction of an impaired link does to frames, example by example."""

from __future__ import annotations

from typing import Any

import pytest

from testbed.lab.impair.draws import seeded_draws
from testbed.lab.impair.model import Impairment
from testbed.lab.impair.options import impairment_of, parse_option
from testbed.lab.impair.shaper import BLOCK_PACKETS, NS_PER_S, Shaper

MS = 1_000_000


def through(shaper: Shaper, *arrivals: tuple[int, bytes]) -> list[tuple[int, bytes]]:
    """Return when which frame leaves."""
    for at, frame in arrivals:
        shaper.accept(frame, at)
    left = []
    while (at_next := shaper.next_departure_at()) is not None:
        left += [(at_next, frame) for frame in shaper.due(at_next)]
    return left


def always(value: float) -> Any:
    return lambda _purpose, _block: [value] * BLOCK_PACKETS


def chosen(**by_purpose: set[int]) -> Any:
    """Draws that pick exactly the packets named per purpose (of the first block)."""
    return lambda purpose, _block: [
        0.0 if number in by_purpose.get(purpose.replace("-", "_"), set()) else 0.999 for number in range(BLOCK_PACKETS)
    ]


@pytest.mark.parametrize(
    ("key", "value", "number"),
    [
        ("bw", 10, 10.0),
        ("delay", "10ms", 0.010),
        ("delay", "250us", 0.00025),
        ("jitter", "1.5s", 1.5),
        ("delay", 0, 0.0),
        ("loss", 2.5, 2.5),
        ("duplicate", "3%", 3.0),
        ("max_queue_size", 50, 50.0),
    ],
)
def test_options_are_read_as_mininet_users_write_them(key: str, value: Any, number: float) -> None:
    assert parse_option(key, value) == pytest.approx(number)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("bw", value) for value in (0, -1, "10", float("inf"), float("nan"), True)],
        *[("delay", value) for value in (10, "10", "-1ms", "2h", True, "1e9s")],
        *[("loss", value) for value in (-0.1, 100.1, "many", "5 percent", False, float("nan"))],
        *[("max_queue_size", value) for value in (0, 1.5, "all", float("inf"))],
    ],
)
def test_options_that_no_link_can_have_are_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match="it must be"):
        parse_option(key, value)


def test_options_become_an_impairment_in_units_of_the_si() -> None:
    options = {"bw": 10.0, "delay": 0.02, "jitter": 0.001, "loss": 1.0, "duplicate": 2.0, "reorder": 25.0}
    assert impairment_of({**options, "max_queue_size": 50.0}) == Impairment(1e7, 0.02, 0.001, 0.01, 0.02, 0.25, 50)


@pytest.mark.parametrize("wrong", [{"loss": 1.1}, {"delay_s": -1}, {"rate_bit_s": 0}, {"queue_packets": 0}])
def test_an_impairment_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Impairment(**wrong)


def test_a_plain_cable_hands_every_frame_on_at_once() -> None:
    assert through(Shaper(Impairment(), always(0.0)), (5, b"a"), (9, b"b")) == [(5, b"a"), (9, b"b")]
    assert Shaper(Impairment(), always(0.0)).next_departure_at() is None


def test_delay_is_counted_from_the_arrival_however_late_a_frame_is_read() -> None:
    shaper = Shaper(Impairment(delay_s=0.010), always(0.5))
    assert through(shaper, (1 * MS, b"a"), (4 * MS, b"b")) == [(11 * MS, b"a"), (14 * MS, b"b")]


def test_the_rate_counts_every_octet_of_a_frame_and_frames_wait_for_each_other() -> None:
    shaper = Shaper(Impairment(rate_bit_s=8e6), always(0.5))  # an octet per microsecond
    left = through(shaper, (0, bytes(1000)), (0, bytes(500)), (4 * MS, bytes(100)))
    assert [at for at, _frame in left] == [1 * MS, 1_500_000, 4 * MS + 100_000]


def test_a_full_queue_drops_the_newest_and_what_left_makes_room() -> None:
    shaper = Shaper(Impairment(rate_bit_s=8e6, queue_packets=2), always(0.5))
    arrivals = [(0, bytes(1000) + b"a"), (0, bytes(1000) + b"b"), (0, bytes(1000) + b"c"), (2 * MS, bytes(1000) + b"d")]
    assert [frame[-1:] for _at, frame in through(shaper, *arrivals)] == [b"a", b"b", b"d"]
    assert shaper.counts.overflowed == 1


def test_a_lost_frame_takes_no_time_on_the_line() -> None:
    shaper = Shaper(Impairment(rate_bit_s=8e6, loss=0.5), chosen(loss={0}))
    assert through(shaper, (0, bytes(1000)), (0, bytes(500))) == [(500_000, bytes(500))]
    assert (shaper.counts.accepted, shaper.counts.lost, shaper.counts.delivered) == (2, 1, 1)


def test_a_copy_follows_its_original_and_can_be_lost_without_it() -> None:
    draws = chosen(duplicate={0, 1}, copy_loss={1})
    shaper = Shaper(Impairment(duplicate=0.5, loss=0.5), draws)
    assert [frame for _at, frame in through(shaper, (0, b"a"), (0, b"b"), (0, b"c"))] == [b"a", b"a", b"b", b"c"]
    assert (shaper.counts.duplicated, shaper.counts.lost) == (2, 1)


def test_a_frame_picked_to_overtake_skips_the_delay_but_not_the_line() -> None:
    shaper = Shaper(Impairment(rate_bit_s=8e6, delay_s=0.010, reorder=0.5), chosen(reorder={1}))
    left = through(shaper, (0, bytes(1000)), (0, bytes(500)), (0, bytes(100)))
    assert [(at, len(frame)) for at, frame in left] == [(1_500_000, 500), (11 * MS, 1000), (11_600_000, 100)]


@pytest.mark.parametrize(("draw", "delay"), [(0.0, 8 * MS), (0.5, 10 * MS), (0.75, 11 * MS)])
def test_uniform_jitter_lies_within_its_bounds(draw: float, delay: int) -> None:
    shaper = Shaper(Impairment(delay_s=0.010, jitter_s=0.002), always(draw))
    assert through(shaper, (0, b"a")) == [(delay, b"a")]


def test_normal_jitter_has_the_deviation_asked_for_and_no_frame_leaves_before_it_came() -> None:
    shaper = Shaper(Impairment(delay_s=1.0, jitter_s=0.1, jitter_shape="normal"), seeded_draws("normal"))
    pause = 10 * NS_PER_S  # so that keeping the order changes nothing
    delays = [at - number * pause for number in range(2000) for at, _ in through(shaper, (number * pause, b""))]
    mean = sum(delays) / len(delays)
    deviation = (sum((delay - mean) ** 2 for delay in delays) / len(delays)) ** 0.5
    assert mean == pytest.approx(1.0 * NS_PER_S, rel=0.012)  # five standard errors
    assert deviation == pytest.approx(0.1 * NS_PER_S, rel=0.08)
    early = Shaper(Impairment(delay_s=0.001, jitter_s=1.0, jitter_shape="normal"), always(0.0))
    assert through(early, (7, b"a")) == [(7, b"a")]


def test_jitter_alone_keeps_the_order() -> None:
    shaper = Shaper(Impairment(delay_s=0.010, jitter_s=0.010), seeded_draws("order"))
    frames = [bytes([number]) for number in range(200)]
    assert [frame for _at, frame in through(shaper, *((n * MS, frame) for n, frame in enumerate(frames)))] == frames


def test_a_change_holds_for_frames_after_it_and_keeps_the_order() -> None:
    shaper = Shaper(Impairment(delay_s=0.100), always(0.5))
    shaper.accept(b"a", 0)
    shaper.change(Impairment(delay_s=0.001))
    assert through(shaper, (1 * MS, b"b"), (200 * MS, b"c")) == [(100 * MS, b"a"), (100 * MS, b"b"), (201 * MS, b"c")]


def test_a_packets_draw_depends_on_nothing_but_seed_purpose_and_number() -> None:
    def lost(change_at: int) -> list[int]:
        shaper = Shaper(Impairment(loss=0.3), seeded_draws("7/a>b"))
        found = []
        for number in range(3 * BLOCK_PACKETS):
            if number == change_at:
                shaper.change(Impairment(loss=0.3, duplicate=0.5, delay_s=0.001, jitter_s=0.001))
            before = shaper.counts.lost + shaper.counts.duplicated
            shaper.accept(bytes([number % 256]), number)
            after = shaper.counts.lost + shaper.counts.duplicated
            if number < change_at and after > before:
                found.append(number)
        return found

    whole = lost(3 * BLOCK_PACKETS)
    assert lost(1500) == [number for number in whole if number < 1500]
    assert len(whole) == pytest.approx(0.3 * 3 * BLOCK_PACKETS, abs=5 * (3 * BLOCK_PACKETS * 0.3 * 0.7) ** 0.5)


def test_other_seeds_and_purposes_draw_otherwise() -> None:
    blocks = [seeded_draws(seed)(purpose, block) for seed in "12" for purpose in ("loss", "jitter") for block in (0, 1)]
    assert len({tuple(block) for block in blocks}) == len(blocks)
    assert seeded_draws("1")("loss", 0) == blocks[0]
