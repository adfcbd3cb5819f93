"""Both sides of a VPN server held together: who talked to whom, how often that is found, and how often it is wrong.

The traffic is made here from a seed: several clients' tunnels, the conversations that they carry, and strangers'
conversations of the same kind behind the server, of which the near side saw nothing.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from testbed.observer.model import Direction, Endpoint, Flow, Observation, Stream, Tunnel, Volume
from testbed.verdict.correlation import Confidence, correlate

SERVER = Endpoint("198.51.100.10", 1194)
OVERHEAD = 76  # IP and TCP with time stamps, and OpenVPN's data header with its tag
UP, DOWN = Direction.CLIENT_TO_SERVER, Direction.SERVER_TO_CLIENT
Packets = list[tuple[float, Direction, int]]  # seconds, direction, octets of payload


@dataclass
class Side:
    """What one tap saw, being put together."""

    flows: list[Flow] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    tunnels: list[Tunnel] = field(default_factory=list)

    def add(self, protocol: str, client: Endpoint, server: Endpoint, packets: Packets, framed: bool = False) -> None:
        none = Volume()
        index = len(self.flows)
        self.flows.append(Flow(protocol, client, server, none, none, 1, 1, 0.0, 0.0, 1))
        for direction in Direction:
            mine = sorted((time, size) for time, way, size in packets if way is direction)
            pieces = [size.to_bytes(2, "big") + bytes(size) if framed else bytes(size) for _, size in mine]
            offsets = [sum(map(len, pieces[:number])) for number in range(len(pieces))]
            times = [round(time * 1e9) for time, _ in mine]
            frames = range(1, len(mine) + 1)
            self.streams.append(Stream(index, direction, protocol, b"".join(pieces), offsets, frames, times_ns=times))

    def add_tunnel(self, client: str, packets: Packets, protocol: str = "udp") -> None:
        end = Endpoint(client, 40000)
        self.add(protocol, end, SERVER, packets, framed=protocol == "tcp")
        self.tunnels.append(Tunnel("openvpn", protocol, end, SERVER, "a rule", 1))

    def seen(self) -> Observation:
        return Observation(flows=tuple(self.flows), streams=tuple(self.streams), tunnels=tuple(self.tunnels))


def browse(noise: random.Random, start: float, exchanges: int = 3) -> Packets:
    """Requests and their answers, as a site behind the server has them."""
    packets: Packets = []
    now = start
    for _ in range(exchanges):
        packets.append((now, UP, noise.randrange(80, 600)))
        now += noise.uniform(0.005, 0.03)
        for _ in range(noise.randrange(2, 20)):
            packets.append((now, DOWN, 1448))
            now += noise.uniform(0.00005, 0.0005)
        packets.append((now, DOWN, noise.randrange(1, 1448)))
        now += noise.uniform(0.02, 0.5)
    return packets


def through(noise: random.Random, packets: Packets) -> Packets:
    """The same packets as the tunnel carries them, with the acknowledgements that only it has."""
    found: Packets = []
    for time, direction, size in packets:
        delay = noise.uniform(0.0003, 0.003)
        found.append((time - delay if direction is UP else time + delay, direction, size + OVERHEAD))
        other = DOWN if direction is UP else UP
        found.append((time + 0.001 + noise.uniform(0.0003, 0.003), other, OVERHEAD))
    return found


def pages(side: Side, starts: Sequence[float], noise: random.Random, name: str) -> list[Packets]:
    """Conversations with sites, entered at the far side."""
    found = []
    for number, start in enumerate(starts):
        packets = browse(noise, start)
        side.add("tcp", Endpoint(SERVER.address, 50000 + len(side.flows)), Endpoint(f"{name}-{number}", 443), packets)
        found.append(packets)
    return found


def one_client(seed: int, protocol: str = "udp") -> tuple[Side, Side, random.Random]:
    noise = random.Random(seed)
    near, far = Side(), Side()
    carried = [packet for page in pages(far, (1.0, 3.0), noise, "true") for packet in page]
    near.add_tunnel("192.168.0.13", through(noise, carried), protocol)
    return near, far, noise


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_clients_conversations_are_found_with_their_packets(protocol: str) -> None:
    near, far, _ = one_client(1, protocol)
    found = correlate(near.seen(), far.seen())
    assert sorted(one.site.address for one in found) == ["true-0", "true-1"]
    for one in found:
        assert (one.client.address, one.server, one.tunnel) == ("192.168.0.13", SERVER, "openvpn")
        assert (one.confidence, one.score, one.overhead_octets) == (Confidence.STRONG, 1.0, OVERHEAD)
        assert one.matched == one.packets
        assert 0.0003 < one.delay_seconds < 0.003
        assert one.p_value <= 0.01
        assert one.frames
        assert f"192.168.0.13 talked to {one.site}" in one.sentence


@pytest.mark.parametrize("start", [0.1, 0.9, 1.05, 2.2, 6.0])
def test_a_strangers_conversation_at_another_time_is_not_given_to_the_client(start: float) -> None:
    near, far, noise = one_client(2)
    pages(far, (start,), noise, "stranger")
    assert {one.site.address for one in correlate(near.seen(), far.seen())} == {"true-0", "true-1"}


def test_the_very_same_page_a_little_earlier_or_later_is_a_strangers() -> None:
    """Sizes are equal in all: only the order in time tells them apart."""
    near, far, _ = one_client(3)
    page = browse(random.Random(9), 5.0)
    near.add_tunnel("192.168.0.14", through(random.Random(10), page))
    for number, shift in enumerate((-0.06, 0.0, 0.06)):
        moved = [(time + shift, direction, size) for time, direction, size in page]
        far.add("tcp", Endpoint(SERVER.address, 60000 + number), Endpoint(f"at {shift}", 443), moved)
    strong = [one for one in correlate(near.seen(), far.seen()) if one.client.address == "192.168.0.14"]
    assert [(one.site.address, one.confidence) for one in strong] == [("at 0.0", Confidence.STRONG)]


@pytest.mark.parametrize("seconds", [0.02, 0.006])
def test_traffic_that_repeats_itself_is_never_sure(seconds: float) -> None:
    """Questions of one size at one pace fit at many times, and at any time if they are close enough."""
    ticks: Packets = [(number * seconds, direction, 60) for number in range(150) for direction in (UP, DOWN)]
    near, far = Side(), Side()
    near.add_tunnel("192.168.0.13", through(random.Random(1), ticks))
    far.add("udp", Endpoint(SERVER.address, 5000), Endpoint("clock", 123), ticks)
    assert all(one.confidence is Confidence.WEAK for one in correlate(near.seen(), far.seen()))


def test_what_passed_both_taps_in_clear_or_is_a_tunnel_itself_is_left_out() -> None:
    near, far, noise = one_client(4)
    direct, client = browse(noise, 7.0), Endpoint("192.168.0.13", 41000)
    for side in (near, far):
        side.add("tcp", client, Endpoint("direct", 443), direct)
    tunnel = far.flows[0]
    far.tunnels.append(Tunnel("wireguard", "tcp", tunnel.client, tunnel.server, "a rule", 1))
    assert {one.site.address for one in correlate(near.seen(), far.seen())} == {"true-1"}


def test_two_clients_that_carry_the_same_packets_at_once_are_told_apart_by_nobody() -> None:
    near, far, _ = one_client(5)
    again, _, _ = one_client(5)
    near.add_tunnel("192.168.0.14", [(t, w, s) for t, w, s in _packets(again)])
    assert {one.confidence for one in correlate(near.seen(), far.seen())} == {Confidence.WEAK}


def _packets(side: Side) -> Packets:
    found: Packets = []
    for stream in side.streams:
        ends = [*stream.offsets[1:], len(stream.data)]
        sizes = [end - start for start, end in zip(stream.offsets, ends, strict=True)]
        found += [(time / 1e9, stream.direction, size) for time, size in zip(stream.times_ns, sizes, strict=True)]
    return found


def crowd(seed: int, clients: int, strangers: int) -> Counter[str]:
    """So many clients with two conversations each and strangers, all within a few seconds; how each was judged."""
    noise = random.Random(seed)
    near, far = Side(), Side()
    for client in range(clients):
        starts = [noise.uniform(0, 6) for _ in range(2)]
        carried = [p for page in pages(far, starts, noise, f"10.0.0.{client}") for p in page]
        near.add_tunnel(f"10.0.0.{client}", through(noise, carried))
    pages(far, [noise.uniform(0, 6) for _ in range(strangers)], noise, "stranger")
    judged: Counter[str] = Counter()
    for one in correlate(near.seen(), far.seen()):
        right = one.site.address.startswith(f"{one.client.address}-")
        judged[f"{one.confidence.value} {'right' if right else 'wrong'}"] += 1
    return judged


def test_among_strangers_nearly_every_conversation_is_found_and_hardly_one_is_wrong(
    capsys: pytest.CaptureFixture[str],
) -> None:
    judged: Counter[str] = Counter()
    trials, clients, strangers = 6, 3, 6
    for seed in range(trials):
        judged += crowd(seed, clients, strangers)
    true = trials * clients * 2
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print(f"\ncorrelation: {true} true conversations among {trials * strangers} strangers': {dict(judged)}")
    assert judged["strong right"] >= 0.9 * true
    assert judged["strong wrong"] <= 0.01 * true
    assert judged["weak wrong"] <= 0.05 * true
