"""The express way through whole cores and the UDP link: nothing is lost, repeated or seen differently because of it."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP, UDP

from tests.sim.inner import ip_packet, numbers
from tests.sim.network import Node, Weather, World
from tests.sim.setups import CLIENT, SERVER, client_settings, connect, events, server_settings
from vpn.client import ClientCore
from vpn.config.model import Family, Protocol, SocketSettings
from vpn.dataplane.offload import read
from vpn.dataplane.train import Train
from vpn.driver.udp import UdpLink
from vpn.drops import Drop
from vpn.events import Closed, CloseReason, Floated, Renegotiated
from vpn.server import ServerCore
from vpn.settings import Address, Timers, Transport

HERE, THERE, NOWHERE = "10.8.0.2", "10.8.0.1", "10.8.0.77"
ELSEWHERE: Address = ("192.0.2.99", 1)
PATIENCE_SECONDS = 10.0


class Quick:
    """A core as the event loop uses it: express first, the way of all others where it declines."""

    def __init__(self, core: ClientCore | ServerCore) -> None:
        self._core = core
        self.drops = core.drops
        self.sent = self.opened = 0  # by express
        self._out: list[Any] = []
        self._packets: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None:
        for datagram in untrusted:
            packet = self._core.open_one(datagram, address, now)
            if packet is None:
                self._core.receive_datagrams((datagram,), address, now, unix_time)
            else:
                self.opened += 1
                self._packets.append(packet)

    def receive_packet(self, packet: bytes, now: float) -> None:
        sealed = self._core.seal_one(packet, now)
        if sealed is None:
            self._core.receive_packets((packet,), now)
        else:
            self.sent += 1
            self._out.append(sealed)

    def datagrams_to_send(self) -> list[Any]:
        out, self._out = self._out, []
        return out + self._core.datagrams_to_send()

    def packets_to_deliver(self) -> list[Any]:
        packets, self._packets = self._packets, []
        return packets + self._core.packets_to_deliver()

    def advance(self, now: float, unix_time: int) -> None:
        self._core.advance(now, unix_time)

    def next_timeout(self) -> float | None:
        return self._core.next_timeout()

    def next_event(self) -> Any:
        return self._core.next_event()


def quickened(*nodes: Node) -> list[Quick]:
    """From here on the nodes' cores are used so."""
    quick = []
    for node in nodes:
        assert isinstance(node.core, ClientCore | ServerCore)
        quick.append(Quick(node.core))
        node.core = quick[-1]
    return quick


def test_renegotiations_under_express_traffic_lose_and_repeat_no_packet() -> None:
    world = World()
    client, server = connect(world, client_settings(timers=Timers(reneg_sec=20)))
    here, there = quickened(client, server)
    for number in range(3000):
        here.receive_packet(ip_packet(HERE, THERE, number), world.now)
        there.receive_packet(ip_packet(THERE, HERE, number), world.now)
        world.run(seconds=0.05)
    world.run(seconds=1.0)
    assert numbers(client.delivered) == numbers(server.delivered) == list(range(3000))
    assert [event.key_id for event in events(client, Renegotiated)][:5] == [1, 2, 3, 4, 5]
    assert here.drops.total == there.drops.total == 0
    assert min(here.sent, there.sent, here.opened, there.opened) > 2500


def test_packets_lost_late_and_twice_are_delivered_once_at_most() -> None:
    world = World(3)
    client, server = connect(world, client_settings(timers=Timers(reneg_sec=20)))
    here, there = quickened(client, server)
    world.weather = Weather(loss=0.1, duplication=0.2, reordering=0.3, delay=0.03)
    for number in range(1500):
        here.receive_packet(ip_packet(HERE, THERE, number), world.now)
        there.receive_packet(ip_packet(THERE, HERE, number), world.now)
        world.run(seconds=0.05)
    for node, core in ((client, here), (server, there)):
        got = numbers(node.delivered)
        assert len(set(got)) == len(got) > 1200
        assert core.drops[Drop.REPLAYED_DATA] > 50
    assert not events(client, Closed)


def test_express_traffic_is_traffic_for_every_timer() -> None:
    timers = Timers(ping=5, ping_restart=20, inactive=10)
    world = World()
    client, server = connect(world, client_settings(timers=timers, pull=True), server_settings(timers=timers))
    here, there = quickened(client, server)
    for number in range(300):
        here.receive_packet(ip_packet(HERE, THERE, number), world.now)
        there.receive_packet(ip_packet(THERE, HERE, number), world.now)
        world.run(seconds=0.25)
    assert not events(client, Closed)
    assert min(here.sent, there.opened) > 250
    assert world.run(lambda: bool(events(client, Closed)), seconds=60)
    assert events(client, Closed)[0].reason in (CloseReason.INACTIVE, CloseReason.PEER_EXIT, CloseReason.PING_TIMEOUT)


@pytest.mark.parametrize("quota", [{"reneg_pkts": 50}, {"reneg_bytes": 4000}])
def test_a_renegotiation_after_so_much_is_not_passed_by(quota: dict[str, int]) -> None:
    world = World()
    client, server = connect(world, client_settings(timers=Timers(reneg_sec=0, **quota)))
    here, there = quickened(client, server)
    for number in range(400):
        here.receive_packet(ip_packet(HERE, THERE, number), world.now)
        world.run(seconds=0.05)
    assert len(events(client, Renegotiated)) >= 4
    assert (here.sent, there.opened > 0) == (0, True)
    assert numbers(server.delivered) == list(range(400))


def test_a_datagram_from_another_address_is_followed_and_one_with_anothers_source_is_dropped() -> None:
    world = World()
    client, server = connect(world)
    here, there = quickened(client, server)
    datagram, _ = here.seal_one(ip_packet(HERE, THERE, 1), world.now)
    assert there.open_one(datagram, ELSEWHERE, world.now) is None
    assert there.open_one(datagram, CLIENT, world.now) == ip_packet(HERE, THERE, 1)
    spoofed, _ = here.seal_one(ip_packet(NOWHERE, THERE, 2), world.now)
    there.receive_datagrams([spoofed], CLIENT, world.now, world.unix_time)
    assert there.drops[Drop.SPOOFED_SOURCE] == 1
    assert there.seal_one(ip_packet(THERE, NOWHERE, 3), world.now) is None
    answer, to = there.seal_one(ip_packet(THERE, HERE, 4), world.now)
    assert to == CLIENT
    assert here.open_one(answer, ELSEWHERE, world.now) is None
    assert here.open_one(answer, SERVER, world.now) == ip_packet(THERE, HERE, 4)
    world.move(client, ELSEWHERE)
    here.receive_packet(ip_packet(HERE, THERE, 5), world.now)
    world.run(seconds=1.0)
    assert [event.new for event in events(server, Floated)] == [ELSEWHERE]
    assert there.seal_one(ip_packet(THERE, HERE, 6), world.now)[1] == ELSEWHERE


@pytest.mark.parametrize("untrusted", [b"", b"\x48", b"\x48\x00\x00", b"\x48\x00\x00\x00", b"\x4f" * 60, b"\x38" * 20])
def test_octets_of_nobody_are_declined(untrusted: bytes) -> None:
    world = World()
    client, server = connect(world)
    for core, address in zip(quickened(client, server), (SERVER, CLIENT), strict=True):
        assert core.open_one(untrusted, address, world.now) is None
        assert core.drops.total == 0


class Watched:
    def watch(self, descriptor: int, events: int = select.EPOLLIN) -> None:
        self.descriptor = descriptor

    def unwatch(self, descriptor: int) -> None:
        assert descriptor == self.descriptor


@pytest.fixture
def ends() -> Iterator[tuple[UdpLink, int, socket.socket]]:
    """A link, its descriptor, and a socket that is connected to it."""
    watched, settings = Watched(), SocketSettings(protocol=Protocol(Transport.UDP, Family.IPV4))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        link = UdpLink(settings, socket.AF_INET, ("127.0.0.1", 0), watched)
        with socket.socket(fileno=watched.descriptor) as own:
            peer.connect(own.getsockname())
            own.detach()
        yield link, watched.descriptor, peer
        link.close()


def test_what_came_together_is_left_to_the_way_of_all_and_nothing_is_lost(
    ends: tuple[UdpLink, int, socket.socket],
) -> None:
    link, descriptor, peer = ends
    datagrams = [bytes([number]) * 100 for number in range(8)]
    sizes = [bytes(9000), b"", b"alone", b"".join(datagrams)]
    assert link.receive_one() is None
    for octets in sizes[:3]:
        peer.send(octets)
    peer.sendmsg([sizes[3]], [(17, 103, (100).to_bytes(2, "little"))])
    got: list[bytes] = []
    while len(got) < 11:
        if not select.select([descriptor], [], [], PATIENCE_SECONDS)[0]:
            raise AssertionError(f"{len(got)} datagrams came, then nothing")
        one = link.receive_one()
        if one is not None:
            got.append(one[0])
            assert one[1] == peer.getsockname()
            continue
        for address, several in link.receive(descriptor, is_busy=False):
            assert address == peer.getsockname()
            got += several.datagrams() if isinstance(several, Train) else several
    assert got == [*sizes[:3], *datagrams]
    link.send_one(b"back", peer.getsockname())
    assert peer.recv(100) == b"back"


@pytest.mark.parametrize(("transport", "offset", "expected"), [(TCP, 16, 0), (UDP, 6, 0xFFFF)])
def test_a_checksum_of_zero_left_to_the_interface_is_what_the_kernel_writes(
    transport: type[TCP | UDP], offset: int, expected: int
) -> None:
    def packet(payload: int) -> bytes:
        return bytes(IP(src=HERE, dst=THERE) / transport(sport=1000, dport=53) / payload.to_bytes(2, "big"))

    at = 20 + offset
    sum_without = int.from_bytes(packet(0)[at : at + 2], "big")
    right = packet(sum_without)  # this payload brings the checksum to zero
    assert int.from_bytes(right[at : at + 2], "big") == expected
    length, protocol = len(right) - 20, right[9]
    words = [*right[12:20], 0, protocol, *length.to_bytes(2, "big")]
    pseudo = sum(words[index] << 8 | words[index + 1] for index in range(0, len(words), 2))
    pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    left = right[:at] + pseudo.to_bytes(2, "big") + right[at + 2 :]
    assert read(struct.pack("=BBHHHH", 1, 0, 0, 0, 20, offset) + left) == right
