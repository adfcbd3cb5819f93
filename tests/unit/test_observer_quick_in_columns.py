"""Packets taken many at once give the answers of packets taken one after the other, whatever they are mixed with."""

from __future__ import annotations

import gzip
import random
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.capture import pcapng
from testbed.capture.columns import Columns
from testbed.capture.reader import CaptureReader
from testbed.observer import Limits, Observation, observe
from testbed.observer.headers import read_headers
from tests.unit.test_observer_quick_path import tcp

ACK, SYN, FIN, RST = 16, 2, 1, 4
CLIENT, SERVER = bytes([192, 168, 0, 13]), bytes([93, 184, 216, 34])
WIREGUARD_INITIATION = b"\x01\0\0\0" + bytes(range(144))
WIREGUARD_RESPONSE = b"\x02\0\0\0" + bytes(range(4)) + b"\0\1\2\3" + bytes(80)
DNS_QUESTION = bytes.fromhex("12340100000100000000000003777777076578616d706c6503636f6d0000010001")
CAPTURES = sorted((Path(__file__).parents[1] / "data" / "captures").glob("*.pcapng"))


def ethernet(packet: bytes) -> bytes:
    return bytes(12) + (b"\x08\x00" if packet[0] >> 4 == 4 else b"\x86\xdd") + packet


def tagged(packet: bytes) -> bytes:
    """The same in a VLAN: of the same conversation, but not ordinary."""
    return bytes(12) + b"\x81\x00\x00\x07" + ethernet(packet)[12:]


def ipv4(protocol: int, payload: bytes, fragment: int = 0, options: bytes = b"", sender: int = 0) -> bytes:
    ends = (CLIENT, SERVER) if not sender else (SERVER, CLIENT)
    length = 20 + len(options) + len(payload)
    head = struct.pack("!BBHHHBBH", 0x45 + len(options) // 4, 0, length, 7, fragment, 64, protocol, 0)
    return head + ends[0] + ends[1] + options + payload


def udp(sender: int, ports: tuple[int, int], data: bytes) -> bytes:
    pair = ports if not sender else ports[::-1]
    return ipv4(17, struct.pack("!HHHH", *pair, 8 + len(data), 0) + data, sender=sender)


def download(dice: random.Random, version: int, segments: int) -> list[bytes]:
    """A conversation with long runs in order, some broken by loss, repetition, a pause or the wrap of the sequence."""
    at = [(1 << 32) - dice.randrange(1, 60_000), dice.randrange(1 << 32)]
    frames = [ethernet(tcp(version, 0, at[0] - 1, SYN)), ethernet(tcp(version, 1, at[1] - 1, SYN | ACK))]
    text = dice.random() < 0.5
    for _ in range(segments):
        sender = int(dice.random() < 0.7)
        data = (
            b"" if dice.random() < 0.3 else dice.choice((b"words and more ", dice.randbytes(40))) * dice.randrange(1, 9)
        )
        data = data if not text else data.translate(bytes(32 + octet % 90 for octet in range(256)))
        segment = tcp(version, sender, at[sender], ACK, data)
        chance = dice.random()
        if chance < 0.97:
            frames.append(ethernet(segment))
        elif chance < 0.98:
            frames.append(tagged(segment))
        elif chance < 0.99:
            frames += [ethernet(segment), ethernet(segment)]
        at[sender] += len(data)
    frames += [ethernet(tcp(version, side, at[side], FIN | ACK)) for side in (0, 1)]
    return frames + ([ethernet(tcp(version, 0, at[0], dice.choice((RST, ACK))))] if dice.random() < 0.5 else [])


def tunnel(dice: random.Random, datagrams: int) -> list[bytes]:
    ports = (dice.randrange(1024, 60_000), 51_820)
    data = [
        b"\x04\0\0\0" + bytes(4) + struct.pack("<Q", n) + dice.randbytes(16 * dice.randrange(1, 9))
        for n in range(datagrams)
    ]
    sent = [(0, WIREGUARD_INITIATION), (1, WIREGUARD_RESPONSE), *((dice.randrange(2), one) for one in data)]
    return [ethernet(udp(sender, ports, one)) for sender, one in sent]


def odds_and_ends(dice: random.Random, count: int) -> list[bytes]:
    """What is neither: questions, text, ICMP, fragments, options, other link protocols, nonsense."""
    segment = tcp(4, 0, dice.randrange(1 << 32), ACK, b"stray")
    kinds = (
        lambda: ethernet(udp(0, (40_001, 53), DNS_QUESTION)),
        lambda: ethernet(udp(0, (40_002, 9_999), b"readable text %d" % dice.randrange(99))),
        lambda: ethernet(ipv4(1, b"\x08\0\0\0\0\x07\0\x01ping")),
        lambda: ethernet(ipv4(17, struct.pack("!HHHH", 40_003, 9, 24, 0) + bytes(8), fragment=0x2000)),
        lambda: ethernet(ipv4(17, b"the rest", fragment=2)),
        lambda: ethernet(ipv4(6, segment[20:], options=b"\1\1\1\0")),
        lambda: bytes(12) + b"\x08\x06\0\1\x08\0\6\4\0\1" + bytes(18),
        lambda: bytes(12) + b"\x88\xcc" + bytes(40),
        lambda: dice.randbytes(dice.randrange(80)),
        lambda: ethernet(segment)[: dice.randrange(14, 60)],
    )
    return [dice.choice(kinds)() for _ in range(count)]


def mixture(seed: int) -> list[bytes]:
    dice = random.Random(seed)
    queues = [download(dice, dice.choice((4, 6)), dice.randrange(10, 300)) for _ in range(dice.randrange(1, 3))]
    queues += [tunnel(dice, dice.randrange(0, 120)) for _ in range(dice.randrange(3))]
    queues.append(odds_and_ends(dice, dice.choice((0, 5, 60))))
    frames = []
    while queues := [queue for queue in queues if queue]:
        queue = dice.choice(queues)
        many = dice.choice((1, 3, 50))
        frames += queue[:many]
        del queue[:many]
    if dice.random() < 0.3:
        frames = [damaged(dice, frame) if dice.random() < 0.05 else frame for frame in frames]
    return frames


def damaged(dice: random.Random, frame: bytes) -> bytes:
    octets = bytearray(frame) or bytearray(1)
    octets[dice.randrange(min(len(octets), 60))] = dice.randrange(256)
    return bytes(octets)


def capture(seed: int, frames: list[bytes]) -> bytes:
    """As pcapng or as pcap, with times that mostly go forward."""
    dice = random.Random(seed)
    now, times = 1_700_000_000_000_000_000, []
    for _ in frames:
        now += dice.choice((0, 1000, 1_000_000, 1_000_000, -5000, 1_500_000_000 if dice.random() < 0.1 else 7))
        times.append(now)
    if dice.random() < 0.5:
        packets = (pcapng.build_packet(0, at, data, len(data) + 4) for at, data in zip(times, frames, strict=True))
        return b"".join((pcapng.build_section_header("x"), pcapng.build_interface("x", 1), *packets))
    order = dice.choice("<>")
    records = (
        struct.pack(order + "IIII", at // 10**9, at % 10**9, len(d), len(d)) + d
        for at, d in zip(times, frames, strict=True)
    )
    return struct.pack(order + "IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 65_535, 1) + b"".join(records)


def both_ways(content: bytes, limits: Limits) -> tuple[Observation, Observation]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        return tuple(observe(file.name, limits=limits, in_columns=way) for way in (True, False))  # type: ignore[return-value]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 32))
def test_any_mixture_of_packets_gives_the_same_both_ways(seed: int) -> None:
    at_once, one_by_one = both_ways(capture(seed, mixture(seed)), Limits(frames_per_sighting=100))
    assert at_once == one_by_one
    assert [stream.data for stream in at_once.streams] == [stream.data for stream in one_by_one.streams]


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1 << 32), st.integers(1, 3000))
def test_what_a_limit_on_streams_leaves_is_the_same_both_ways(seed: int, most: int) -> None:
    content = capture(seed, download(random.Random(seed), 4, 200))
    at_once, one_by_one = both_ways(content, Limits(stream_octets=most))
    assert at_once == one_by_one


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(CAPTURES), st.integers(0, 1 << 32), st.integers(0, 40), st.floats(0, 1))
def test_a_damaged_capture_gives_the_same_both_ways(path: Path, seed: int, changes: int, keep: float) -> None:
    dice, content = random.Random(seed), bytearray(path.read_bytes())
    del content[max(1, int(len(content) * keep)) :]
    for _ in range(changes):
        content[dice.randrange(len(content))] = dice.randrange(256)
    at_once, one_by_one = both_ways(bytes(content), Limits())
    assert at_once == one_by_one


@pytest.mark.parametrize("seed", range(6))
def test_a_compressed_capture_gives_what_the_plain_one_gives(seed: int) -> None:
    """Its octets cannot be read again where they stand, so they are kept."""
    content = capture(seed, mixture(seed))
    plain, compressed = both_ways(content, Limits()), both_ways(gzip.compress(content), Limits())
    assert plain == compressed
    assert plain[0] == plain[1]


@pytest.mark.parametrize("version", [4, 6])
def test_a_long_download_is_taken_whole(version: int) -> None:
    """All of it is there, in order, after the wrap of the sequence number and over several chunks of the file."""
    octets = random.Random(3).randbytes(9_000_000)
    start = (1 << 32) - 1_000_000
    frames = [ethernet(tcp(version, 1, start - 1, SYN | ACK))]
    frames += [ethernet(tcp(version, 1, start + at, ACK, octets[at : at + 1400])) for at in range(0, len(octets), 1400)]
    at_once, one_by_one = both_ways(capture(1, frames), Limits())
    assert [stream.data for stream in at_once.streams] == [octets]
    assert at_once == one_by_one


def told_both_ways(directory: Path, frames: list[bytes], limits: Limits) -> Observation:
    """As told in columns, which is as told one by one."""
    path = directory / "x.pcapng"
    path.write_bytes(capture(3, frames))
    one_by_one, in_columns = (observe(path, limits=limits, in_columns=way) for way in (False, True))
    assert in_columns.to_dict() == one_by_one.to_dict()
    for mine, theirs in zip(in_columns.streams, one_by_one.streams, strict=True):
        assert (mine.data, mine.gaps, list(mine.frames)) == (theirs.data, theirs.gaps, list(theirs.frames))
    return in_columns


def test_segments_that_fill_a_hole_many_at_once_lead_on_to_what_waits_behind_it(tmp_path: Path) -> None:
    segments = [ethernet(tcp(4, 1, 1000 + 50 * n, ACK, bytes((n,)) * 50)) for n in range(84)]
    frames = [ethernet(tcp(4, 1, 999, SYN | ACK)), segments[60], *segments[:60], *segments[61:]]
    (stream,) = told_both_ways(tmp_path, frames, Limits()).streams
    assert (len(stream.data), stream.gaps) == (84 * 50, ())


@pytest.mark.parametrize("most", [1, 2, 17, 20, 21, 22, 40, 41, 42])
def test_the_first_packets_are_told_up_to_the_limit_whichever_way_they_came(most: int, tmp_path: Path) -> None:
    segments = [ethernet(tcp(4, 1, 1000 + 50 * n, ACK, bytes(50))) for n in range(40)]
    frames = [ethernet(tcp(4, 1, 999, SYN | ACK)), *segments[:20], tagged(segments[20][14:]), *segments[21:]]
    found = told_both_ways(tmp_path, frames, Limits(frames_per_sighting=most))
    volumes = [sighting.frames for sighting in found.sightings if sighting.kind == "volume"]
    assert volumes == [tuple(range(1, min(most, 41) + 1))]


def test_packets_of_other_ends_or_another_protocol_are_told_apart_whatever_their_numbers_are(tmp_path: Path) -> None:
    """The numbers that conversations are put together by may be the same by chance; the ends are compared."""
    first = ethernet(tcp(4, 0, 1000, ACK, b"words"))
    other_port = first[:35] + bytes((first[35] ^ 1,)) + first[36:]
    frames = [first, first, other_port, ethernet(tcp(4, 1, 1000, ACK)), ethernet(tcp(6, 0, 1000, ACK)),
              ethernet(udp(0, (80, 81), b"words"))]  # fmt: skip
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture(3, [*frames, *20 * [first]]))
    with CaptureReader(path) as reader:
        (batch,) = [batch for batch in reader.batches() if isinstance(batch, Columns)]
        differing = read_headers(batch).differing(np.arange(len(frames)))
    assert differing.tolist() == [False, False, True, True, True, True]
