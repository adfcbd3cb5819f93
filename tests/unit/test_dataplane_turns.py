"""Which way the event loop lets packets go: one by one while few come, in batches when many do, always in order."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.unit.test_dataplane_express import Watched
from vpn.config.model import Family, Protocol, SocketSettings
from vpn.dataplane.offload import TCP, Superpacket
from vpn.dataplane.train import LEAST_TRAIN, Train
from vpn.driver.pump import Pump, Signals
from vpn.driver.udp import UdpLink
from vpn.drops import Drops
from vpn.settings import Address, Transport

LAST = b"last"
MANY = 40  # more than go one by one
BURSTS = 30  # enough to become what is usual
PEER: Address = ("127.0.0.1", 9)


class Device:
    """A tun device: packets are given to it before the loop turns."""

    overflowed = 0

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK)
        self.waiting: list[bytes | Superpacket] = []
        self.written: list[bytes] = []
        self.is_holding = False

    def fileno(self) -> int:
        return self._reader

    def give(self, packet: bytes | Superpacket) -> None:
        self.waiting.append(packet)
        os.write(self._writer, b"x")

    def read_one(self) -> bytes | Superpacket:
        if not self.is_holding:
            os.read(self._reader, 1)
        return self.waiting.pop(0)

    def hold(self, packet: bytes | Superpacket) -> None:
        self.waiting.insert(0, packet)
        self.is_holding = True

    def read_packets(self, most: int) -> list[list[bytes] | Superpacket]:
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, most)
        packets, self.waiting, self.is_holding = self.waiting[:most], self.waiting[most:], False
        return [packet if isinstance(packet, Superpacket) else [packet] for packet in packets]

    def write_one(self, packet: bytes) -> None:
        self.written.append(packet)

    def write_packets(self, packets: Sequence[Any], bench: object) -> None:
        self.written += packets

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class Core:
    """Passes everything on as it is; says that it has news when the last packet has come."""

    def __init__(self) -> None:
        self.drops = Drops()
        self.singly = 0
        self.together: list[int] = []
        self.has_events = False
        self._packets: list[bytes] = []

    def next_timeout(self) -> float | None:
        return None

    def advance(self, now: float, unix_time: int) -> None:
        raise AssertionError("nothing is ever due")

    def seal_one(self, packet: bytes, now: float) -> tuple[bytes, Address] | None:
        self.singly += 1
        return packet, PEER

    def seal_few(self, superpacket: Superpacket, now: float) -> tuple[list[bytes], Address] | None:
        self.singly += superpacket.segments < LEAST_TRAIN
        return ([b"few"], PEER) if superpacket.segments < LEAST_TRAIN else None

    def open_one(self, untrusted: bytes, address: Address, now: float) -> bytes | None:
        if untrusted == LAST:
            return None
        self.singly += 1
        return untrusted

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None:
        self.together.append(len(untrusted))
        self._packets += untrusted
        self.has_events |= LAST in untrusted

    def receive_train(self, untrusted: Train, address: Address, now: float, unix_time: int, bench: object) -> None:
        self.receive_datagrams(untrusted.datagrams(), address, now, unix_time)

    def receive_packets(self, packets: Sequence[bytes], now: float) -> None:
        self.together.append(len(packets))
        self.has_events |= LAST in packets

    def receive_superpacket(self, superpacket: Superpacket, now: float, bench: object) -> None:
        self.together.append(superpacket.segments)
        self.has_events = True

    def datagrams_to_send(self) -> list[Any]:
        return []

    def packets_to_deliver(self) -> list[bytes]:
        packets, self._packets = self._packets, []
        return packets


class Stage:
    def __init__(self) -> None:
        self.signals = Signals(())
        self.pump, self.device, self.core, watched = Pump(self.signals), Device(), Core(), Watched()
        settings = SocketSettings(protocol=Protocol(Transport.UDP, Family.IPV4))
        self.link = UdpLink(settings, socket.AF_INET, ("127.0.0.1", 0), watched)
        self.peer = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(fileno=os.dup(watched.descriptor)) as own:
            self.peer.connect(own.getsockname())
        loop: Any = self.pump  # takes whatever looks like its parts
        loop.attach_tun(self.device)
        self.pump.attach_link(self.link)
        self.pump.watch(watched.descriptor)
        loop.core = self.core
        self.descriptor = watched.descriptor

    def arrive(self, datagrams: Sequence[bytes], packets: Sequence[bytes | Superpacket] = ()) -> None:
        """After a pause: all are there before the loop looks, which then runs until the last."""
        self.pump.turn(time.monotonic())
        for datagram in datagrams:
            self.peer.send(datagram)
        for packet in packets:
            self.device.give(packet)
        self.core.has_events = False
        while not self.core.has_events:
            self.pump.turn()

    def close(self) -> None:
        loop: Any = self.pump
        loop.attach_tun(None)
        self.pump.unwatch(self.descriptor)
        self.link.close()
        self.device.close()
        self.peer.close()
        self.pump.close()
        self.signals.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()


def several(count: int) -> list[bytes]:
    return [b"%03d" % number for number in range(count)]


def test_a_few_datagrams_that_wait_go_one_by_one(stage: Stage) -> None:
    stage.arrive([*several(5), LAST])
    assert stage.device.written == [*several(5), LAST]
    assert (stage.core.singly, stage.core.together) == (5, [1])


def test_many_datagrams_go_together_as_soon_as_that_shows_and_in_order(stage: Stage) -> None:
    stage.arrive([*several(MANY), LAST])
    assert stage.device.written == [*several(MANY), LAST]
    singly = stage.core.singly
    assert 5 < singly < MANY
    assert sum(stage.core.together) == MANY + 1 - singly


def test_what_usually_comes_decides_how_many_go_one_by_one(stage: Stage) -> None:
    for _ in range(BURSTS):
        stage.arrive([*several(MANY), LAST])
    singly = stage.core.singly
    stage.arrive([*several(MANY), LAST])
    assert stage.core.singly == singly + 1
    for _ in range(BURSTS):
        stage.arrive([LAST])
    singly = stage.core.singly
    stage.arrive([*several(5), LAST])
    assert stage.core.singly == singly + 5


def test_superpackets_of_few_segments_and_packets_go_one_by_one_both_ways(stage: Stage) -> None:
    few, many = (
        Superpacket(bytes((0x45, *bytes(39))) + bytes(segments * 10), 20, 40, 10, TCP) for segments in (2, LEAST_TRAIN)
    )
    stage.arrive(several(3), [b"alone", few, b"alone", many])
    assert stage.device.written == several(3)
    assert (stage.core.singly, stage.core.together) == (6, [LEAST_TRAIN])
