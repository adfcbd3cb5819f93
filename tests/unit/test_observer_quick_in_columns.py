"""Packets taken many at once give the answers of packets taken one after the other, whatever they are mixed with."""

from __future__ import annotations

import gzip
import random
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.capture import pcapng
from testbed.observer import Limits, Observation, observe
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
