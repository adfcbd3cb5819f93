"""The search for the highest rate without a loss, and the forecast of a run's length, on lines that are invented."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import cycle

import pytest

from testbed.bench.forecast import Forecast, in_words
from testbed.bench.rates import Trial, highest_clean_rate


def line(capacity: float, *, hiccups: Iterator[bool] | None = None) -> Callable[[float], Trial]:
    """A line that carries so many packets a second and no more; at a hiccup it loses one whatever the rate."""

    def send(rate: float) -> Trial:
        lost = 1 if hiccups is not None and next(hiccups) else 0
        return Trial(int(rate), int(min(rate, capacity)) - lost, 1.0)

    return send


@pytest.mark.parametrize("capacity", [1_000.0, 77_777.0, 400_000.0])
def test_the_highest_rate_without_a_loss_is_just_below_what_the_line_carries(capacity: float) -> None:
    send = line(capacity)
    assert 0.95 * capacity <= highest_clean_rate(send, send(1_000_000)) <= capacity


def test_a_single_lost_packet_is_a_loss() -> None:
    def send(rate: float) -> Trial:
        return Trial(int(rate), int(rate) - (1 if rate > 20_000 else 0), 1.0)

    assert 18_000 <= highest_clean_rate(send, send(100_000)) <= 20_000


def test_one_hiccup_in_three_trials_does_not_decide() -> None:
    send = line(50_000)
    assert highest_clean_rate(line(50_000, hiccups=cycle((True, False, False))), send(200_000)) > 47_000


def test_a_line_that_always_loses_has_no_rate_without_a_loss() -> None:
    send = line(50_000, hiccups=cycle((True,)))
    assert highest_clean_rate(send, send(200_000)) == 0.0


def test_a_line_that_loses_nothing_when_flooded_is_as_fast_as_the_sender() -> None:
    flooded = Trial(90_000, 90_000, 0.5)
    assert highest_clean_rate(line(1.0), flooded) == 180_000


def test_what_counts_is_the_rate_that_was_sent_not_the_one_that_was_asked_for() -> None:
    def slow_sender(rate: float) -> Trial:
        return Trial(int(rate * 0.8), int(min(rate * 0.8, 50_000)), 1.0)

    assert highest_clean_rate(slow_sender, slow_sender(200_000)) <= 50_000


def test_packets_that_a_queue_held_back_do_not_make_a_line_faster() -> None:
    def with_queue(rate: float) -> Trial:
        """Carries 50,000 a second, and holds 20,000 more."""
        arrived = int(min(rate, 70_000))
        return Trial(int(rate), arrived, 1.0, arrived / 50_000)

    assert 47_000 <= highest_clean_rate(with_queue, with_queue(200_000)) <= 50_000


def test_nothing_that_arrived_is_a_rate_of_zero() -> None:
    assert highest_clean_rate(line(0.0), Trial(1000, 0, 1.0)) == 0.0


def test_the_forecast_is_mended_by_what_the_rounds_so_far_took() -> None:
    forecast = Forecast({"a": 10.0, "b": 20.0}, {"a": 70.0, "b": 110.0}, rounds=2)
    assert (forecast.remaining(), forecast.longest_at_all()) == (60.0, 360.0)
    forecast.note("a", 30.0, again=True)
    assert forecast.next_one("b") == 60.0
    assert forecast.remaining() == 30.0 + 2 * 60.0
    forecast.note("b", 40.0, again=False)
    assert (forecast.remaining(), forecast.done()) == (30.0, 3)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 s"), (89.0, "89 s"), (95.0, "1 min 40 s"), (119.0, "2 min"), (1200.0, "20 min")]
)
def test_a_time_is_told_no_more_exactly_than_a_forecast_is(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
