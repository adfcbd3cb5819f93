"""What waits for a server's tunnel: in order for each destination, in turns between them, bounded for each."""

from __future__ import annotations

import random
import sys
from collections import defaultdict

import pytest

from tests.sim.inner import ip_packet, numbers
from vpn.dataplane.offload import TCP, UDP, Superpacket
from vpn.driver.lanes import TURN_OCTETS, Lanes, Waiting

ALICE, BOB, CAROL = "10.8.0.2", "10.8.0.3", "10.8.0.4"
OCTETS = 1380


def packet_to(target: str, number: int = 0, octets: int = OCTETS) -> bytes:
    return ip_packet("10.20.0.10", target, number, octets)


def superpacket_to(target: str, segments: int = 40) -> Superpacket:
    return Superpacket(packet_to(target, octets=8 + OCTETS * segments), 20, 28, OCTETS, UDP)


def all_of(lanes: Lanes) -> list[Waiting]:
    return [lanes.pop() for _ in range(len(lanes))]


def singles(packets: list[Waiting]) -> list[bytes]:
    return [packet for packet in packets if isinstance(packet, bytes)]


def test_a_lone_packet_comes_before_all_backlogs_for_others() -> None:
    lanes = Lanes()
    others = [f"10.8.0.{number}" for number in range(10, 15)]
    for number in range(200):
        for other in others:
            lanes.push(packet_to(other, number))
    for _ in range(2 * len(others) * TURN_OCTETS // OCTETS):
        lanes.pop()
    lanes.push(packet_to(BOB, 7))
    assert lanes.pop() == packet_to(BOB, 7)


def test_a_ping_to_a_client_comes_before_the_stream_to_it() -> None:
    lanes = Lanes()
    stream = bytearray(packet_to(BOB))
    stream[9] = TCP
    for _ in range(200):
        lanes.push(bytes(stream))
    for _ in range(2 * TURN_OCTETS // OCTETS):
        lanes.pop()
    lanes.push(packet_to(BOB, 7))
    assert lanes.pop() == packet_to(BOB, 7)


def test_two_destinations_get_the_same_octets_whatever_the_size_of_their_packets() -> None:
    lanes = Lanes()
    for _ in range(60):
        lanes.push(superpacket_to(ALICE))
    for number in range(60 * 40):
        lanes.push(packet_to(BOB, number))
    octets: dict[bool, int] = defaultdict(int)
    for _ in range(800):
        packet = lanes.pop()
        is_alice = isinstance(packet, Superpacket)
        octets[is_alice] += len(packet.octets) if isinstance(packet, Superpacket) else len(packet)
    assert abs(octets[True] - octets[False]) <= 2 * TURN_OCTETS


def test_those_who_always_have_one_packet_do_not_keep_a_backlog_from_its_turn() -> None:
    lanes = Lanes()
    for number in range(300):
        lanes.push(packet_to(ALICE, number))
    for _ in range(TURN_OCTETS // OCTETS + 1):
        lanes.pop()
    served = 0
    for number in range(200):
        lanes.push(packet_to((BOB, CAROL)[number % 2], number))
        packet = lanes.pop()
        served += isinstance(packet, bytes) and packet[16:20] == packet_to(ALICE)[16:20]
    assert served >= 60


def flood(lanes: Lanes, draw: random.Random, count: int = 40) -> None:
    """Packets to ever new destinations: somebody looks for hosts in the tunnel's network."""
    for _ in range(count):
        lanes.push(packet_to(f"10.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(256)}", octets=60))
        lanes.shrink(500, 1 << 20)


def packet_to_bob() -> bytes:
    return packet_to(BOB, 7)


def test_packets_to_ever_new_destinations_keep_no_stream_from_its_turns() -> None:
    lanes, draw = Lanes(), random.Random(1)
    served = 0
    for _ in range(200):
        lanes.push(packet_to_bob())
        lanes.shrink(500, 1 << 20)
        flood(lanes, draw)
        served += [lanes.pop() for _ in range(32)].count(packet_to_bob())
    assert served >= 150


def test_lanes_that_have_become_empty_do_not_pile_up_beside_a_flood() -> None:
    lanes, draw = Lanes(), random.Random(1)
    for _ in range(200):
        flood(lanes, draw, 33)
        for _ in range(32):
            lanes.pop()
    assert lanes.destinations <= len(lanes) + 2 * 32


def test_of_very_many_lanes_a_packet_is_taken_with_few_steps() -> None:
    lanes, draw = Lanes(), random.Random(1)
    flood(lanes, draw, 2000)
    looked = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal looked
        looked += event == "call"

    before = sys.getprofile()
    lanes.push(packet_to_bob())
    sys.setprofile(count)
    try:
        lost = lanes.shrink(50, 1 << 20)
    finally:
        sys.setprofile(before)
    assert lost > 1000
    assert looked < 200 * lost


def test_packets_without_octets_are_bounded_too() -> None:
    lanes = Lanes()
    for _ in range(100):
        lanes.push(b"")
        lanes.push(packet_to_bob())
        lanes.shrink(10, 1 << 20)
    assert len(lanes) <= 20


def test_what_is_too_much_is_taken_from_the_longest_lane_and_counted() -> None:
    lanes = Lanes()
    lanes.push(packet_to(BOB, 1))
    lost = 0
    for number in range(300):
        lanes.push(packet_to(ALICE, number))
        lost += lanes.shrink(50, 1 << 20)
    assert lost == 301 - 2 * 50
    assert len(lanes) == 2 * 50
    assert packet_to(BOB, 1) in all_of(lanes)


def test_a_superpacket_that_finds_no_room_counts_as_all_its_packets() -> None:
    lanes = Lanes()
    for _ in range(4):
        lanes.push(superpacket_to(ALICE))
    assert lanes.shrink(500, 3 * 60000) == 40
    assert len(lanes) == 3


@pytest.mark.parametrize("seed", range(20))
def test_each_destinations_packets_keep_their_order_and_nothing_else_is_lost(seed: int) -> None:
    draw = random.Random(seed)
    lanes = Lanes()
    sent: dict[str, list[int]] = defaultdict(list)
    got: dict[str, list[int]] = defaultdict(list)
    for number in range(2000):
        if draw.random() < 0.6 or not len(lanes):
            target = f"10.8.0.{draw.randrange(2, 9)}"
            lanes.push(packet_to(target, number, draw.randrange(20, 1400)))
            sent[target].append(number)
        else:
            for packet in singles([lanes.pop()]):
                got[".".join(map(str, packet[16:20]))] += numbers([packet])
    for packet in singles(all_of(lanes)):
        got[".".join(map(str, packet[16:20]))] += numbers([packet])
    assert got == sent
    assert (len(lanes), lanes.octets) == (0, 0)


def test_what_is_no_ip_packet_waits_in_a_lane_of_its_own() -> None:
    lanes = Lanes()
    lanes.push(b"\x00\x01")
    lanes.push(packet_to(BOB))
    assert set(singles(all_of(lanes))) == {b"\x00\x01", packet_to(BOB)}


def test_a_lane_that_serves_again_for_another_destination_begins_with_a_whole_turn() -> None:
    lanes = Lanes()
    lanes.push(superpacket_to(ALICE))
    lanes.pop()
    lanes.push(packet_to(ALICE))
    all_of(lanes)
    with pytest.raises(IndexError):
        lanes.pop()  # nothing waits: what was Alice's is put by, with most of its turn used up
    for number in range(60):
        lanes.push(packet_to(BOB, number))
        lanes.push(packet_to(CAROL, number))
    turns = [packet[19] for packet in singles(all_of(lanes))]
    first_turn = turns.index(turns[-1])
    assert first_turn == -(-TURN_OCTETS // len(packet_to(BOB)))
    assert sorted(turns) == [3] * 60 + [4] * 60
