"""One direction of an impaired link against a slow, obvious model of what each option means."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.lab.impair.draws import seeded_draws
from testbed.lab.impair.model import Impairment
from testbed.lab.impair.shaper import BLOCK_PACKETS, Shaper

shares = st.sampled_from([0.0, 0.05, 0.3, 0.5, 1.0])
impairments = st.builds(
    Impairment,
    rate_bit_s=st.one_of(st.none(), st.sampled_from([1e4, 1e6, 8e6, 1e9])),
    delay_s=st.sampled_from([0.0, 0.000001, 0.001, 0.02]),
    jitter_s=st.sampled_from([0.0, 0.000001, 0.001, 0.03]),
    loss=shares,
    duplicate=shares,
    reorder=shares,
    queue_packets=st.sampled_from([1, 2, 5, 1000]),
)
arrivals = st.lists(st.tuples(st.integers(0, 2_000_000), st.integers(0, 1500)), max_size=60)


@dataclass
class Sent:
    departure: int
    frame: bytes


def model(frames: list[tuple[int, bytes]], says: list[Impairment], seed: str) -> tuple[list[bytes], int, int]:
    """Return the frames in the order in which they leave, how many were lost, and how many found no room."""
    draw = seeded_draws(seed)
    sent: list[Sent] = []
    in_order: list[Sent] = []
    line_free_at, lost, overflowed = 0, 0, 0
    for number, ((now, frame), link) in enumerate(zip(frames, says, strict=True)):

        def chance(purpose: str, number: int = number) -> float:
            return draw(purpose, number // BLOCK_PACKETS)[number % BLOCK_PACKETS]

        for prefix in ["", *(["copy-"] if chance("duplicate") < link.duplicate else [])]:
            if chance(prefix + "loss") < link.loss:
                lost += 1
                continue
            if len([one for one in sent if one.departure > now]) >= link.queue_packets:
                overflowed += 1
                continue
            leaves = now
            if link.rate_bit_s:
                leaves = max(now, line_free_at) + round(Fraction(len(frame) * 8 * 10**9) / Fraction(link.rate_bit_s))
                line_free_at = leaves
            if chance(prefix + "reorder") < link.reorder:
                sent.append(Sent(leaves, frame))
                continue
            extra = round(link.delay_s * 1e9)
            if link.jitter_s:
                extra = max(0, extra + round((2 * chance(prefix + "jitter") - 1) * round(link.jitter_s * 1e9)))
            leaves = max([leaves + extra, *(one.departure for one in in_order)])
            in_order.append(Sent(leaves, frame))
            sent.append(in_order[-1])
    return [one.frame for one in sorted(sent, key=lambda one: one.departure)], lost, overflowed


def absolute(gaps: list[tuple[int, int]]) -> list[tuple[int, bytes]]:
    """Return arrival times and distinguishable frames from gaps and lengths."""
    now, frames = 0, []
    for number, (gap, octets) in enumerate(gaps):
        now += gap
        frames.append((now, number.to_bytes(2, "big") + bytes(octets)))
    return frames


@settings(max_examples=300, deadline=None)
@given(impairments, impairments, st.integers(0, 60), arrivals, st.integers(0, 5), st.integers(1, 7), st.booleans())
def test_every_frame_has_the_fate_that_the_model_gives_it(
    first: Impairment,
    second: Impairment,
    change_at: int,
    gaps: list[tuple[int, int]],
    seed: int,
    ask_every: int,
    at_once: bool,
) -> None:
    frames = absolute(gaps)
    says = [first if number < change_at else second for number in range(len(frames))]
    shaper = Shaper(first, seeded_draws(str(seed)))
    left: list[bytes] = []
    for number, (arrived_at, frame) in enumerate(frames):
        if number == change_at:
            shaper.change(second)
        if number % ask_every == 0:
            left += shaper.due(arrived_at - 1)
        shaper.accept(frame, arrived_at)
    counts = shaper.counts
    assert counts.accepted + counts.duplicated == counts.lost + counts.overflowed + counts.delivered + shaper.held
    if at_once:
        left += shaper.due(1 << 62)
    while (at := shaper.next_departure_at()) is not None:
        if at > frames[-1][0]:
            assert not shaper.due(at - 1)
        left += shaper.due(at)
    assert (left, counts.lost, counts.overflowed) == model(frames, says, str(seed))
    assert (shaper.held, counts.delivered) == (0, len(left))
