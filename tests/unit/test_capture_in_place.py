"""A ring block rewritten in place says what its packets say; the ring is made here, not by a kernel."""

from __future__ import annotations

import mmap
import random
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.capture import pcapng
from testbed.capture.in_place import MOST_AT_ONCE, InPlace, Rewritten
from testbed.capture.reader import CaptureReader, Frame

BLOCK_OCTETS = 1 << 20
FIRST = 48  # behind the block's own header
OUTGOING, HOST = 4, 0
VLAN_VALID, CHECKSUM_NOT_READY = 16, 8
Packet = tuple[int, bytes, int, int, int]  # time_ns, what is kept, length on the wire, status, packet type


def ring_of(packets: list[Packet], mac_octets: int) -> mmap.mmap:
    """A block as the kernel lays it out for `tap.open_ring`. Shape: `mac_octets` is 14, or 0 for raw IP."""
    ring = mmap.mmap(-1, BLOCK_OCTETS)
    ring[:] = b"\xee" * BLOCK_OCTETS  # what was in it before
    at, mac = FIRST, (68 + 16 + 15) // 16 * 16 + (2 if mac_octets else 0) - mac_octets
    for number, (time_ns, data, length, status, packet_type) in enumerate(packets):
        following = (mac + len(data) + 7) // 8 * 8
        last = number == len(packets) - 1
        head = (
            0 if last else following,
            time_ns // 10**9,
            time_ns % 10**9,
            len(data),
            length,
            status,
            mac,
            mac + mac_octets,
        )
        struct.pack_into("=IIIIIIHH", ring, at, *head)
        ring[at + 58] = packet_type
        ring[at + mac : at + mac + len(data)] = data
        at += following
    return ring


def packets_of(seed: int, count: int) -> list[Packet]:
    dice = random.Random(seed)
    found = []
    for _ in range(count):
        data = dice.randbytes(dice.choice((60, 96, 1514, dice.randrange(5, 200))))
        time_ns = 1_700_000_000_000_000_000 + dice.randrange(10**15)
        status = dice.choice((1, 1, CHECKSUM_NOT_READY | 1))
        found.append((time_ns, data, len(data) + dice.choice((0, 700)), status, dice.choice((HOST, OUTGOING))))
    return found


def written(ring: mmap.mmap, done: Rewritten, link_type: int) -> bytes:
    head = pcapng.build_section_header("x") + pcapng.build_interface("x", link_type)
    return head + ring[done.start : done.stop] + done.tail


def frames_of(content: bytes) -> list[Frame]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        with CaptureReader(file.name) as reader:
            frames = list(reader)
            assert reader.warnings == []
    return frames


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1 << 30), st.integers(1, 300), st.sampled_from([14, 0]))
def test_every_packet_of_a_block_is_in_the_file_as_the_kernel_gave_it(seed: int, count: int, mac_octets: int) -> None:
    packets = packets_of(seed, count)
    ring = ring_of(packets, mac_octets)
    done = InPlace(ring).rewrite(FIRST, count)
    assert done is not None
    assert done.packets == count
    frames = frames_of(written(ring, done, 1))
    assert [(f.time_ns, f.data, f.octets) for f in frames] == [packet[:3] for packet in packets]
    assert done.octets == sum(packet[2] for packet in packets)
    assert done.unfinished_checksums == sum(bool(packet[3] & CHECKSUM_NOT_READY) for packet in packets)


@pytest.mark.parametrize("equal", [1, 2, 47, 48, 49, 256, 300])
@pytest.mark.parametrize("others", [0, 1, 40])
def test_packets_of_one_size_are_all_found_and_so_are_those_behind_them(equal: int, others: int) -> None:
    packets = [(number, bytes([number & 255]) * 96, 1514, 1, HOST) for number in range(1, equal + 1)]
    packets += packets_of(equal, others)
    ring = ring_of(packets, 14)
    done = InPlace(ring).rewrite(FIRST, len(packets))
    assert done is not None
    assert [frame.data for frame in frames_of(written(ring, done, 1))] == [packet[1] for packet in packets]


@pytest.mark.parametrize("last", [0, 1])
def test_trains_of_any_length_with_answers_between_them_are_followed_packet_by_packet(last: int) -> None:
    packets: list[Packet] = []
    for train in (45, 1, 3, 2, 47, 48, 49, 4, 1, 97, 250, 5, last):
        packets += [(len(packets) + number, bytes([number & 255]) * 1000, 1514, 1, HOST) for number in range(train)]
        packets += [(len(packets) + number, b"answer", 6, 1, OUTGOING) for number in range(1 + train % 2)]
    ring = ring_of(packets, 14)
    done = InPlace(ring).rewrite(FIRST, len(packets))
    assert done is not None
    frames = frames_of(written(ring, done, 1))
    assert [(frame.time_ns, frame.data, frame.octets) for frame in frames] == [packet[:3] for packet in packets]


def test_directions_stand_in_the_flags_and_nothing_of_the_ring_is_left(tmp_path: Path) -> None:
    packets = [(1, bytes([number]) * 61, 61, 1, number % 2 * OUTGOING) for number in range(1, 40)]
    ring = ring_of(packets, 14)
    done = InPlace(ring).rewrite(FIRST, len(packets))
    assert done is not None
    at, content, directions = 0, ring[done.start : done.stop] + done.tail, []
    while at < len(content):
        total, kept = struct.unpack_from("=I12xI", content, at + 4)
        options = content[at + 28 + kept + -kept % 4 : at + total - 4]
        if options.startswith(struct.pack("=HH", 0x8001, 0)):  # fills the way to the next header
            options = options[4:]
        code, length, flags = struct.unpack_from("=HHI", options)
        assert (code, length) == (2, 4)
        code, length = struct.unpack_from("=HH", options, 8)
        assert code == (0x8001 if at + total < len(content) else 0)
        assert not any(options[12:])  # a local option of zero octets and the end of options
        assert not any(content[at + 28 + kept : at + 28 + kept + -kept % 4])
        assert struct.unpack_from("=I", content, at + total - 4) == (total,)
        directions.append(flags)
        at += total
    assert directions == [pcapng.OUTBOUND if number % 2 else pcapng.INBOUND for number in range(1, 40)]


@pytest.mark.parametrize("where", [0, 5, 9])
def test_a_block_with_a_vlan_tag_that_the_kernel_took_out_is_left_alone(where: int) -> None:
    packets = packets_of(1, 10)
    packets[where] = (*packets[where][:3], VLAN_VALID | 1, HOST)
    ring = ring_of(packets, 14)
    before = ring[:]
    assert InPlace(ring).rewrite(FIRST, len(packets)) is None
    assert ring[:] == before


@pytest.mark.parametrize("every", [1, 46])
def test_more_packets_than_are_rewritten_at_once_go_on_where_the_first_ones_end(every: int) -> None:
    packets = [(number, bytes(90 if number % every else 5), 90, 1, HOST) for number in range(MOST_AT_ONCE + 7)]
    ring = ring_of(packets, 14)
    rewriting = InPlace(ring)
    first = rewriting.rewrite(FIRST, len(packets))
    assert first is not None
    second = rewriting.rewrite(first.following, len(packets) - first.packets)
    assert second is not None
    assert (first.packets, second.packets) == (MOST_AT_ONCE, 7)
    content = written(ring, first, 1) + ring[second.start : second.stop] + second.tail
    assert [frame.time_ns for frame in frames_of(content)] == [packet[0] for packet in packets]


def test_packets_that_do_not_all_begin_as_far_behind_their_headers_are_left_alone() -> None:
    packets = packets_of(1, 10)
    ring = ring_of(packets, 14)
    second = FIRST + struct.unpack_from("=I", ring, FIRST)[0]
    struct.pack_into("=H", ring, second + 24, 88)
    before = ring[:]
    assert InPlace(ring).rewrite(FIRST, len(packets)) is None
    assert ring[:] == before


WRAP = 3 << 32  # where the upper half of a time changes
SECOND = 10**9


@pytest.mark.parametrize(
    "begins_ns",
    [
        (7 * SECOND - 10, 7 * SECOND + 10, 8 * SECOND),
        (WRAP - 2 * SECOND, WRAP - 10, WRAP - 2 * SECOND),  # a clock that was set back
        (WRAP - 10, WRAP + 10, WRAP + 2 * SECOND),
    ],
)
def test_times_are_right_where_a_second_begins_and_where_their_upper_half_changes(begins_ns: tuple[int, ...]) -> None:
    packets = [(begin + number, bytes(100), 100, 1, HOST) for begin in begins_ns for number in range(20)]
    ring = ring_of(packets, 14)
    rewriting, at, times = InPlace(ring), FIRST, []
    for _ in begins_ns:  # each with what the one before left in the table
        done = rewriting.rewrite(at, 20)
        assert done is not None
        times += [frame.time_ns for frame in frames_of(written(ring, done, 1))]
        at = done.following
    assert times == [packet[0] for packet in packets]


@pytest.mark.parametrize("what_follows", [0, 96, 2176, 0xFFFFFFF8])
def test_what_looks_like_the_end_of_a_train_inside_a_packet_misleads_nobody(what_follows: int) -> None:
    train = [(number, bytes([number]) * 1000, 1000, 1, HOST) for number in range(1, 46)]
    step = 1088
    crafted = struct.pack("=I", step) * 250  # where the first train's length would end the second one, too
    false_end = struct.pack("=I", what_follows) * 250
    shifted = [(number, bytes([number]) * 500, 500, 1, HOST) for number in range(5)]
    packets: list[Packet] = [*train, *shifted[:1], *train[:20], *shifted]
    packets += [(number, false_end if number == 18 else crafted, 1000, 1, HOST) for number in range(70)]
    ring = ring_of(packets, 14)
    count = len(packets) - 10  # behind the last one, a wrong way still leads from packet to packet
    done = InPlace(ring).rewrite(FIRST, count)
    assert done is not None
    assert [frame.data for frame in frames_of(written(ring, done, 1))] == [packet[1] for packet in packets[:count]]


def test_packets_of_next_to_no_octets_are_left_alone() -> None:
    packets = [(number, bytes(octets), 60, 1, HOST) for number, octets in enumerate((60, 4, 60))]
    ring = ring_of(packets, 14)
    before = ring[:]
    assert InPlace(ring).rewrite(FIRST, len(packets)) is None
    assert ring[:] == before
