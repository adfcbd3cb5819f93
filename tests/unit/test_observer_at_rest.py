"""Conversations rest in little room while nobody speaks: answers are the same, and memory hardly grows with them."""

from __future__ import annotations

import json
import random
import struct
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.observer import Limits, observe
from testbed.observer.lazy import Lazy
from testbed.output import print_json, print_json_parts
from tests.unit.test_observer_quick_in_columns import CAPTURES, capture, ethernet, ipv4, mixture
from tests.unit.test_observer_quick_path import tcp

SYN, FIN, RST, ACK = 2, 1, 4, 16
WIDE_AWAKE = Limits(frames_per_sighting=100)
SLEEPY = replace(WIDE_AWAKE, awake_flows=1)
MEASURED = Limits(awake_flows=64, frames_per_sighting=20)  # so that what all have in common does not count


def answers(content: bytes, **how: Any) -> tuple[Any, ...]:
    """All that is told, and the octets of all streams."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        found = observe(file.name, **how)
        return found.to_dict(), found.addresses, [(replace(s, octets=b""), s.data) for s in found.streams]


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1 << 32), st.booleans())
def test_whoever_rests_any_mixture_of_packets_gives_the_same(seed: int, in_columns: bool) -> None:
    content = capture(seed, mixture(seed))
    assert answers(content, limits=SLEEPY, in_columns=in_columns) == answers(content, limits=WIDE_AWAKE)


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_recorded_captures_give_the_same_with_and_without_rest_and_streams(path: Path) -> None:
    content = path.read_bytes()
    told, addresses, _ = expected = answers(content)
    assert answers(content, limits=Limits(awake_flows=1)) == expected
    assert answers(content, limits=Limits(awake_flows=1), keep_streams=False) == (told, addresses, [])


def segment(port: int, sequence: int, flags: int, payload: bytes = b"", back: bool = False) -> bytes:
    """Of the conversation of one client port; `back` is from the server."""
    octets = bytearray(ethernet(tcp(4, 1, sequence, flags, payload)))
    ends = (80, port) if back else (port, 80)
    octets[34:38] = b"".join(end.to_bytes(2, "big") for end in ends)
    if back:
        octets[26:34] = octets[30:34] + octets[26:30]
    return bytes(octets)


def conversation(port: int, start: int = 1000) -> list[bytes]:
    page = b"GET /page HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
    return [
        segment(port, start - 1, SYN),
        segment(port, start - 1, SYN | ACK, back=True),
        segment(port, start, ACK, page),
        segment(port, start, ACK, b"HTTP/1.1 204 No Content\r\n\r\n", back=True),
        segment(port, start + len(page), FIN | ACK),
        segment(port, start + 27, FIN | ACK, back=True),
    ]


def test_a_packet_that_comes_late_counts_for_its_conversation_and_a_new_syn_begins_another() -> None:
    late = [segment(5001, 1000 + 46, ACK), segment(5001, 7000, SYN), segment(5001, 7001, ACK, b"again")]
    frames = conversation(5001) + conversation(5002) + conversation(5003) + late
    told, _, streams = answers(capture(2, frames), limits=SLEEPY)
    assert [flow["packets_sent"] + flow["packets_received"] for flow in told["flows"]] == [7, 6, 6, 2]
    assert (told, _, streams) == answers(capture(2, frames), limits=WIDE_AWAKE)


def test_a_syn_on_the_ports_of_one_that_is_over_and_rests_begins_another() -> None:
    again = [segment(5001, 7000, SYN), segment(5001, 7001, ACK, b"again")]
    others = conversation(5003) + conversation(5004)
    frames = conversation(5001) + conversation(5002) + again + others + [segment(5001, 7006, ACK, b"and again")]
    told, _, streams = answers(capture(2, frames), limits=SLEEPY)
    assert [flow["packets_sent"] + flow["packets_received"] for flow in told["flows"]] == [6, 6, 3, 6, 6]
    assert (told, _, streams) == answers(capture(2, frames), limits=WIDE_AWAKE)


def test_an_end_that_one_side_said_is_remembered_at_rest_and_the_other_sides_closes_the_conversation() -> None:
    """Only then a SYN that has the number of the first one begins another."""
    first, others = conversation(5001), conversation(5002) + conversation(5003)
    again = [segment(5001, 999, SYN), segment(5001, 1000, ACK, b"again")]
    for ends in (first[4:], first[:3:-1]):
        frames = [*first[:4], ends[0], *others, ends[1], *conversation(5004), *again]
        told, _, streams = answers(capture(2, frames), limits=SLEEPY)
        assert [flow["packets_sent"] + flow["packets_received"] for flow in told["flows"]] == [6, 6, 6, 6, 2]
        assert (told, _, streams) == answers(capture(2, frames), limits=WIDE_AWAKE)


def test_of_an_address_in_many_packets_the_first_ones_are_told() -> None:
    woven = [frame for frames in zip(*map(conversation, range(5001, 5041)), strict=True) for frame in frames]
    for how in ({"keep_streams": False}, {"keep_streams": True}):
        few = answers(capture(2, woven), limits=Limits(frames_per_sighting=5), **how)[1]
        assert few == dict.fromkeys(few, (1, 2, 3, 4, 5))


def test_segments_that_wait_behind_a_hole_are_there_when_their_conversation_wakes() -> None:
    first, last = conversation(5001), conversation(5002)
    page = b"GET /page HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
    torn = [first[0], first[1], segment(5001, 1010, ACK, page[10:]), *last, segment(5001, 1000, ACK, page[:10])]
    told, _, streams = answers(capture(2, torn), limits=SLEEPY)
    assert (told, _, streams) == answers(capture(2, torn), limits=WIDE_AWAKE)
    assert streams[0][1] == page


def most_octets(directory: Path, conversations: int) -> int:
    """The most memory that observing so many conversations takes."""
    path = directory / f"{conversations}.pcapng"
    frames = [frame for number in range(conversations) for frame in conversation(1024 + number % 60_000)]
    path.write_bytes(capture(3, frames))
    del frames
    tracemalloc.start()
    try:
        found = observe(path, limits=MEASURED, keep_streams=False)
        assert len(found.flows) == conversations
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_further_conversations_take_a_few_hundred_octets_each_and_no_more(tmp_path: Path) -> None:
    """Counted by the allocator, not timed: the same on every machine."""
    most_octets(tmp_path, 50)  # what is imported and remembered once
    few, many = most_octets(tmp_path, 1600), most_octets(tmp_path, 2800)  # both longer than a chunk of the file
    assert (many - few) / 1200 < 600


def download(octets: int) -> bytes:
    data = random.Random(4).randbytes(octets)
    frames = [ethernet(tcp(4, 1, 999, SYN | ACK))]
    frames += [ethernet(tcp(4, 1, 1000 + at, ACK, data[at : at + 1400])) for at in range(0, octets, 1400)]
    return capture(2, frames)


@pytest.mark.parametrize("in_columns", [False, True])
def test_of_a_long_download_that_nobody_can_read_the_same_is_told_where_it_is_not_kept(in_columns: bool) -> None:
    content = download(4_000_000)
    told, addresses, _ = answers(content, in_columns=in_columns)
    assert answers(content, in_columns=in_columns, keep_streams=False) == (told, addresses, [])
    limits = Limits(stream_octets=3_000_000)
    cut, addresses, _ = answers(content, limits=limits, in_columns=in_columns)
    assert cut["warnings"]
    assert answers(content, limits=limits, in_columns=in_columns, keep_streams=False) == (cut, addresses, [])


def test_members_of_a_lazy_sequence_are_made_when_they_are_asked_for() -> None:
    made = []

    def square(at: int) -> int:
        made.append(at)
        return at * at

    squares = Lazy(5, square)
    assert (len(squares), made) == (5, [])
    assert (squares[2], squares[-1], squares[1:3], list(squares)) == (4, 16, (1, 4), [0, 1, 4, 9, 16])
    assert squares == (0, 1, 4, 9, 16)
    assert squares != (0, 1, 4, 9)
    with pytest.raises(IndexError):
        squares[5]


@pytest.mark.parametrize("value", [{"a": [], "n": 1}, {"a": [{"b": ["x", {}]}, "é\n"], "t": True, "s": "y"}])
def test_parts_are_printed_as_the_whole_would_be(value: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    print_json(value)
    whole = capsys.readouterr().out
    print_json_parts({name: iter(part) if isinstance(part, list) else part for name, part in value.items()})
    assert capsys.readouterr().out == whole
    assert json.loads(whole) == value


def echo(identifier: int, reply: bool = False) -> bytes:
    return ethernet(ipv4(1, struct.pack("!BBHHH", 0 if reply else 8, 0, 0, identifier, 1) + b"ping", sender=int(reply)))


def test_what_a_filter_needs_besides_the_ends_is_remembered_at_rest() -> None:
    frames = [echo(7), *conversation(5001), echo(8), *conversation(5002), echo(7, reply=True), *conversation(5003)]
    told, _, streams = answers(capture(2, frames), limits=SLEEPY)
    filters = {sighting["filter"] for sighting in told["sightings"] if sighting["value"].startswith("icmp ")}
    assert {text.rpartition(" && ")[2] for text in filters} == {"icmp.ident == 7", "icmp.ident == 8"}
    assert (told, _, streams) == answers(capture(2, frames), limits=WIDE_AWAKE)
