"""Short conversations summed up by the hundred give the answers of their packets taken one after the other."""

from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.capture.columns import Columns
from testbed.capture.reader import CaptureReader
from testbed.observer import Limits
from testbed.observer.brief import brief_conversations
from testbed.observer.headers import read_headers
from tests.unit.test_observer_quick_in_columns import both_ways, capture, ethernet, odds_and_ends, tagged, udp
from tests.unit.test_observer_quick_path import ENDS

FIN, SYN, RST, ACK = 1, 2, 4, 16
ODD = (
    "no SYN",
    "no SYN-ACK",
    "SYN again",
    "reset",
    "FIN again",
    "more behind FIN",
    "hole",
    "again",
    "swapped",
    "tagged",
    "contradiction",
    "SYN with data",
    "unfinished",
    "ports used again",
    "talks to itself",
)


def segment(
    version: int,
    ports: tuple[int, int],
    sender: int,
    sequence: int,
    flags: int,
    data: bytes = b"",
    itself: bool = False,
) -> bytes:
    source, destination = ENDS[version][0 if itself else sender], ENDS[version][0 if itself else 1 - sender]
    pair = ports if not sender else ports[::-1]
    octets = struct.pack("!HHIIBBHHH", *pair, sequence & 0xFFFFFFFF, 0, 5 << 4, flags, 65_535, 0, 0) + data
    if version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(octets), 0, 0, 64, 6, 0)
        return ethernet(head + source + destination + octets)
    return ethernet(struct.pack("!IHBB", 6 << 28, len(octets), 6, 64) + source + destination + octets)


def conversation(dice: random.Random, port: int, odd: str = "") -> list[bytes]:
    """A page asked for and given, each on a connection of its own; `odd` is what is not as it nearly always is."""
    version, itself = dice.choice((4, 4, 6)), odd == "talks to itself"
    ports = (port, port if itself else dice.choice((80, 443, 9_999)))
    at = [dice.choice((dice.randrange(1 << 32), (1 << 32) - 20)) for _ in range(2)]
    frames: list[bytes] = []

    def say(sender: int, flags: int, data: bytes = b"") -> None:
        frames.append(segment(version, ports, sender, at[sender], flags, data, itself))
        at[sender] += len(data) + (flags & 3 > 0)

    say(0, SYN, b"early" if odd == "SYN with data" else b"")
    say(1, SYN | ACK)
    say(0, ACK)
    for _ in range(dice.randrange(1, 4)):
        say(0, ACK, b"GET /%d HTTP/1.1\r\nHost: www.example.com\r\n\r\n" % dice.randrange(5))
        say(1, ACK)
        body = dice.randbytes(dice.randrange(0, 400))
        for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body):
            say(1, ACK, piece)
            say(0, ACK)
    for sender in (0, 1) if dice.random() < 0.5 else (1, 0):
        say(sender, FIN | ACK, dice.choice((b"", b"", b"bye")))
    say(1, ACK, b"more" if odd == "more behind FIN" else b"")
    return spoiled(dice, frames, odd) if odd else frames


def spoiled(dice: random.Random, frames: list[bytes], odd: str) -> list[bytes]:
    at = dice.randrange(3, len(frames) - 3)
    if odd in ("no SYN", "no SYN-ACK"):
        del frames[odd == "no SYN-ACK"]
    elif odd == "SYN again":
        frames.insert(dice.randrange(1, 4), frames[0])
    elif odd in ("FIN again", "again"):
        frames += [frames[-2] if odd == "FIN again" else frames[at]]
    elif odd == "hole":
        del frames[at]
    elif odd == "swapped":
        frames[5], frames[7] = frames[7], frames[5]  # of the server, behind its first acknowledgement
    elif odd == "tagged":
        frames[at] = tagged(frames[at][14:])
    elif odd == "contradiction":
        frames.append(frames[at][:-3] + b"xyz")
    elif odd == "reset":
        frames[-1] = frames[-1][: -20 + 13] + bytes((RST,)) + frames[-1][-20 + 14 :]
    elif odd == "unfinished":
        del frames[at:]
    return frames


def browsing(seed: int, odd_share: float) -> list[bytes]:
    dice = random.Random(seed)
    queues, port = [odds_and_ends(dice, dice.choice((0, 0, 3)))], 40_100
    for _ in range(dice.randrange(9, 40)):
        odd = dice.choice(ODD) if dice.random() < odd_share else ""
        port += odd != "ports used again"
        queues.append(conversation(dice, port, odd))
        if dice.random() < 0.3:
            queues.append([ethernet(udp(0, (port, 4_789), vxlan(dice, port)))] * dice.randrange(1, 3))
    at_a_time = dice.choice((1, 4, 100))
    frames = []
    while queues := [queue for queue in queues if queue]:
        queue = dice.choice(queues[:at_a_time])
        frames += queue[: (many := dice.choice((1, 2, 30)))]
        del queue[:many]
    return frames


def vxlan(dice: random.Random, port: int) -> bytes:
    """A datagram that carries a frame in clear."""
    return b"\x08\0\0\0\0\0\7\0" + segment(4, (port, 80), 0, dice.randrange(1 << 32), ACK, b"within")


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 1 << 32), st.sampled_from((0.0, 0.2, 0.6)))
def test_any_browsing_gives_the_same_both_ways(seed: int, odd_share: float) -> None:
    limits = Limits(frames_per_sighting=100)
    at_once, one_by_one = both_ways(capture(seed, browsing(seed, odd_share)), limits)
    assert at_once == one_by_one
    assert [stream.data for stream in at_once.streams] == [stream.data for stream in one_by_one.streams]
    assert at_once.addresses == one_by_one.addresses


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 1 << 32),
    st.sampled_from(
        ({"awake_flows": 2}, {"flows": 12}, {"stream_octets": 150}, {"frames_per_sighting": 7}, {"sightings": 20})
    ),
)
def test_what_limits_leave_of_browsing_is_the_same_both_ways(seed: int, limit: dict[str, int]) -> None:
    at_once, one_by_one = both_ways(capture(seed, browsing(seed, 0.2)), replace(Limits(), **limit))
    assert at_once == one_by_one
    assert [stream.data for stream in at_once.streams] == [stream.data for stream in one_by_one.streams]


@pytest.mark.parametrize("odd", ["", *ODD])
def test_one_that_is_odd_among_others_gives_the_same_both_ways(odd: str) -> None:
    dice = random.Random(11)
    several = [conversation(dice, 40_100 + number) for number in range(10)]
    several += [conversation(dice, 40_200 + number, odd) for number in range(4)]
    at_once, one_by_one = both_ways(capture(2, in_turn(several)), Limits())
    assert at_once == one_by_one
    assert [stream.data for stream in at_once.streams] == [stream.data for stream in one_by_one.streams]


@pytest.mark.parametrize("back_s", [-3, 0, 3])
def test_time_that_jumps_between_two_stretches_gives_the_same_both_ways(back_s: int) -> None:
    """A frame in a VLAN ends a stretch; what goes on behind it is summed up anew."""
    dice = random.Random(12)
    several = [conversation(dice, 40_100 + number) for number in range(10)]
    several += [conversation(dice, 40_200 + number, "no SYN-ACK") for number in range(3)]
    before, behind = in_turn([frames[:6] for frames in several]), in_turn([frames[6:] for frames in several])
    frames = [*before, tagged(before[0][14:]), *behind]
    times = [1_700_000_100 + (back_s if at > len(before) else 0) for at in range(len(frames))]
    at_once, one_by_one = both_ways(as_pcap(frames, times), Limits())
    assert at_once == one_by_one


def in_turn(several: list[list[bytes]]) -> list[bytes]:
    return [frame for row in zip_longest(*several) for frame in row if frame is not None]


@pytest.mark.parametrize("odd", ["", *ODD])
def test_a_conversation_that_is_odd_is_not_summed_up_and_all_others_are(odd: str) -> None:
    dice = random.Random(7)
    conversations = [conversation(dice, 40_100 + number) for number in range(12)]
    conversations[5] = conversation(random.Random(5), 40_200, odd)
    batch = only_batch([frame for frames in conversations for frame in frames])
    found = brief_conversations(batch, read_headers(batch), 0, len(batch.data_at))
    as_they_are = {"", "unfinished", "no SYN-ACK", "ports used again"}
    assert found is not None
    assert len(found.firsts) == 11 + (odd in as_they_are)
    assert len(found.packets) == sum(map(len, conversations)) - (0 if odd in as_they_are else len(conversations[5]))


def test_conversations_that_share_a_number_are_not_taken_for_one() -> None:
    """Numbers of conversations are computed from their ends, and whoever writes packets may make two alike."""
    dice = random.Random(1)
    conversations = [conversation(dice, 40_100 + number) for number in range(12)]
    true = read_headers(only_batch([frame for frames in conversations for frame in frames]))
    frames = conversations[0]
    ports_at = 34 if frames[0][14] >> 4 == 4 else 54
    for at in range(6, len(frames)):  # the same octets go on between other ports
        frames[at] = frames[at][:ports_at] + b"\x12\x34\x43\x21" + frames[at][ports_at + 4 :]
    batch = only_batch([frame for frames in conversations for frame in frames])
    headers = replace(read_headers(batch), conversations=true.conversations, senders=true.senders)
    found = brief_conversations(batch, headers, 0, len(batch.data_at))
    assert found is not None
    assert len(found.firsts) == 11
    assert min(found.firsts) == len(frames)


def as_pcap(frames: list[bytes], times: Sequence[int]) -> bytes:
    """Shape: `times` in seconds; frames of one second are a millisecond apart."""
    pairs = zip(frames, times, strict=True)
    records = (struct.pack("<IIII", now, at * 1000, len(d), len(d)) + d for at, (d, now) in enumerate(pairs))
    return struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1) + b"".join(records)


def only_batch(frames: list[bytes]) -> Columns:
    """Frames as the reader gives them from a file."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(as_pcap(frames, [1_700_000_000] * len(frames)) + bytes(16))
        file.flush()
        with CaptureReader(file.name) as reader:
            batch = next(reader.batches())
    assert isinstance(batch, Columns)
    return batch
