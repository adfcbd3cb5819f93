"""TCP segments put in order, and IP fragments put together, whatever order they come in."""

from __future__ import annotations

import random

import pytest

from testbed.observer.ip import Packet, Reassembler, parse_ip
from testbed.observer.streams import Budget, Reassembly, Recorder

TEXT = bytes(range(65, 91)) * 4


def reassembly(limit: int = 1 << 20, stream_limit: int = 1 << 20) -> Reassembly:
    return Reassembly(Recorder(stream_limit, Budget(1 << 20)), limit)


def feed(stream: Reassembly, start: int, *segments: tuple[int, int]) -> Reassembly:
    """Segments as (from, to) of TEXT, in frames 1, 2, …; `start` is the sequence number of its first octet."""
    stream.syn((start - 1) & 0xFFFFFFFF)
    for frame, (begin, end) in enumerate(segments, 1):
        stream.add((start + begin) & 0xFFFFFFFF, TEXT[begin:end], frame, frame * 1000)
    stream.finish()
    return stream


@pytest.mark.parametrize("start", [1, 1000, 0xFFFFFFF0, 0xFFFFFFFF])
@pytest.mark.parametrize(
    "segments",
    [
        [(0, 30), (30, 60), (60, 104)],
        [(60, 104), (30, 60), (0, 30)],
        [(0, 30), (0, 30), (30, 60), (10, 40), (60, 104)],
        [(0, 30), (60, 104), (20, 70)],
        [(0, 50), (60, 90), (55, 104), (40, 61)],
    ],
)
def test_segments_in_any_order_give_the_octets_once(start: int, segments: list[tuple[int, int]]) -> None:
    stream = feed(reassembly(), start, *segments)
    assert stream.recorder.data() == TEXT
    assert not stream.recorder.gaps
    assert stream.waiting_octets == 0


def test_the_frame_that_carried_an_octet_and_the_frame_that_completed_it_differ_behind_a_hole() -> None:
    stream = feed(reassembly(), 1, (0, 10), (20, 30), (10, 20))
    assert [stream.recorder.carrier(at) for at in (0, 15, 25)] == [1, 3, 2]
    assert [stream.recorder.completed(end)[0] for end in (10, 20, 30)] == [1, 3, 3]
    assert stream.recorder.completed(30)[1] == 3000


def test_what_lies_behind_a_hole_was_there_when_it_came_and_not_when_the_hole_was_given_up() -> None:
    stream = feed(reassembly(), 1, (0, 10), (40, 60), (20, 40), (80, 104))
    assert stream.recorder.gaps == [10, 50]
    assert [stream.recorder.completed(end) for end in (10, 30, 50, 74)] == [(1, 1000), (3, 3000), (3, 3000), (4, 4000)]


def test_where_segments_overlap_what_came_first_stays() -> None:
    stream = reassembly()
    stream.syn(0)
    stream.add(1, b"aaaa", 1, 1)
    stream.add(3, b"bbbb", 2, 2)
    assert stream.recorder.data() == b"aaaabb"


@pytest.mark.parametrize(
    ("segments", "contradicts"),
    [
        ([(0, b"abcd"), (0, b"abcd"), (2, b"cdef")], 0),
        ([(0, b"abcd"), (0, b"abXd")], 1),
        ([(0, b"ab"), (2, b"cd"), (1, b"bX"), (1, b"Xcde")], 2),
        ([(0, b"ab"), (4, b"ef"), (2, b"cdXf")], 0),
        ([(0, b"abcd"), (3, b"X")], 0),
    ],
    ids=["the same again", "others", "over several", "what waits", "a keep-alive"],
)
def test_segments_that_come_again_with_other_octets_are_noted(
    segments: list[tuple[int, bytes]], contradicts: int
) -> None:
    stream = reassembly()
    stream.syn(999)
    for number, (at, data) in enumerate(segments, 1):
        stream.add(1000 + at, data, number, number)
    assert sum(stream.recorder.budget.contradictions.values()) == contradicts
    assert set(stream.recorder.budget.contradictions) <= {2, 3}


def test_fragments_that_overlap_and_differ_are_noted() -> None:
    same, other = fragments(b"x" * 24, [16, 8]), fragments(b"y" * 24, [16, 8])
    for second, contradicts in ((same[0], 0), (other[0], 2)):
        reassembler = Reassembler(1 << 20)
        for frame, (packet, data) in enumerate((same[0], second, same[1]), 1):
            reassembler.add(packet, data, frame, len(data))
        assert reassembler.contradiction == contradicts


def test_a_lost_segment_leaves_a_gap_and_the_rest_is_kept() -> None:
    stream = feed(reassembly(), 1, (0, 10), (20, 30), (40, 50))
    assert stream.recorder.data() == TEXT[0:10] + TEXT[20:30] + TEXT[40:50]
    assert stream.recorder.gaps == [10, 20]
    assert [run.data for run in stream.recorder.runs()] == [TEXT[0:10], TEXT[20:30], TEXT[40:50]]
    assert [run.start for run in stream.recorder.runs()] == [0, 10, 20]


def test_a_hole_is_given_up_when_too_much_waits_behind_it() -> None:
    stream = reassembly(limit=2000)
    stream.syn(0)
    for number in range(100):
        stream.add(11 + 10 * number, b"x" * 10, number, number)
    assert stream.waiting_octets <= 2000
    assert stream.recorder.size == 1000
    assert stream.recorder.gaps == [0]


def test_a_capture_that_begins_in_the_middle_is_read_from_there() -> None:
    stream = reassembly()
    stream.add(5000, b"middle", 1, 1)
    stream.add(5006, b" of it", 2, 2)
    assert stream.recorder.data() == b"middle of it"


def test_a_stream_beyond_its_limit_is_cut_and_says_so() -> None:
    stream = feed(reassembly(stream_limit=25), 1, (0, 20), (20, 40), (40, 60))
    assert stream.recorder.data() == TEXT[:20]
    assert stream.recorder.truncated


def test_the_fin_is_reached_only_when_everything_before_it_is_there() -> None:
    stream = reassembly()
    stream.syn(0)
    stream.fin(11, 1, 1)
    assert stream.fin_frame == 0
    stream.add(6, b"world", 2, 2)
    stream.add(1, b"hello", 3, 3)
    assert stream.fin_frame == 3


def fragments(data: bytes, sizes: list[int], identification: int = 7) -> list[tuple[Packet, bytes]]:
    out, at = [], 0
    for index, size in enumerate(sizes):
        piece = data[at : at + size]
        more = 0x2000 if index < len(sizes) - 1 else 0
        header = bytes((0x45, 0)) + (20 + len(piece)).to_bytes(2, "big") + identification.to_bytes(2, "big")
        header += (more | at // 8).to_bytes(2, "big") + bytes((64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2))
        packet = parse_ip(header + piece, 0)
        assert packet is not None
        out.append((packet, header + piece))
        at += size
    return out


def test_fragments_in_any_order_with_repeats_give_the_datagram_with_their_frames() -> None:
    data = random.Random(1).randbytes(4000)
    pieces = fragments(data, [1480, 1480, 1040])
    for order in ([0, 1, 2], [2, 1, 0], [1, 1, 2, 0]):
        reassembler = Reassembler(1 << 20)
        results = [reassembler.add(*pieces[index], frame, 1500) for frame, index in enumerate(order, 1)]
        assert results[:-1] == [None] * (len(order) - 1)
        whole = results[-1]
        assert whole is not None
        assert (whole.data, whole.frames) == (data, tuple(range(1, len(order) + 1)))
        assert whole.frame_octets == 1500 * len(order)
        assert reassembler.unfinished == 0


def test_overlapping_fragments_do_not_make_up_for_a_hole() -> None:
    reassembler = Reassembler(1 << 20)
    for offset, size, more in ((0, 1480, True), (8, 1480, True), (2000, 8, False)):
        packet = Packet(b"aaaa", b"bbbb", 17, 0, size, offset, more, 7)
        assert reassembler.add(packet, b"x" * size, 1, size) is None
    assert reassembler.unfinished == 1


def test_unfinished_datagrams_are_bounded_and_counted() -> None:
    reassembler = Reassembler(10_000)
    for identification in range(100):
        packet, data = fragments(b"x" * 2000, [1000, 1000], identification)[0]
        assert reassembler.add(packet, data, 1, 1020) is None
    assert reassembler.unfinished == 100
    assert reassembler.held_octets <= 10_000


def test_a_packet_never_reaches_beyond_its_frame_and_padding_is_not_part_of_it() -> None:
    packet, data = fragments(b"y" * 50, [50])[0]
    assert (packet.start, packet.end) == (20, 70)
    assert parse_ip(data + b"padding", 0) == packet
    cut = parse_ip(data[:40], 0)
    assert cut is not None
    assert cut.end == 40
    for nonsense in (b"", b"\x45", b"\x44" + data[1:], b"\x4f" + data[1:30], b"\x60" * 39, b"\x25" + data[1:]):
        assert parse_ip(nonsense, 0) is None


def test_ipv6_extension_headers_are_walked_to_the_transport() -> None:
    addresses = b"\x20\x01" + b"\0" * 30
    extensions = bytes((60, 0)) + b"\0" * 6 + bytes((44, 1)) + b"\0" * 14 + bytes((17, 0, 0, 0, 0, 0, 0, 9))
    payload = b"transport"
    header = b"\x60\0\0\0" + (len(extensions) + len(payload)).to_bytes(2, "big") + bytes((0, 64)) + addresses
    packet = parse_ip(header + extensions + payload, 0)
    assert packet is not None
    assert packet.protocol == 17
    assert (header + extensions + payload)[packet.start : packet.end] == payload
    assert packet.fragment_offset is None  # an atomic fragment is a whole packet
