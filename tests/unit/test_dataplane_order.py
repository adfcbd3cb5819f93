"""What does not wait behind data: the answer to a control packet, however much the device has to send."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.sim.network import World
from tests.sim.setups import SERVER, client_settings, connect
from vpn.client import ClientCore
from vpn.dataplane.backlog import BATCH_SUPERPACKETS
from vpn.dataplane.offload import TCP, Superpacket
from vpn.dataplane.train import Outgoing, Train
from vpn.driver.pump import Pump, Signals
from vpn.server import ServerCore
from vpn.settings import Address
from vpn.wire.packet import Opcode

SEGMENTS, SEGMENT_OCTETS = 8, 1000
DATA = (Opcode.DATA_V1, Opcode.DATA_V2)
HEADERS = (
    bytes((0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, TCP, 0, 0, 10, 8, 0, 2, 10, 8, 0, 1)) + bytes((0, 1, 0, 2)) + bytes(8)
)
SUPERPACKET = Superpacket(
    HEADERS + bytes((0x50, 0x10)) + bytes(6) + bytes(SEGMENTS * SEGMENT_OCTETS), 20, 40, SEGMENT_OCTETS, TCP
)


class Readable:
    """A descriptor that is readable for as long as this lives."""

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe()
        os.write(self._writer, b"x")

    def fileno(self) -> int:
        return self._reader

    def close(self) -> None:
        os.close(self._reader)
        os.close(self._writer)


class FullDevice(Readable):
    """A tun device whose other side never stops sending."""

    overflowed = 0
    is_holding = False

    def read_packets(self, most: int) -> list[list[bytes] | Superpacket]:
        return [SUPERPACKET] * BATCH_SUPERPACKETS

    def write_packets(self, packets: Sequence[object], bench: object) -> None:
        raise AssertionError("nothing comes back")


class Wire(Readable):
    """A link that hands the core one control packet in mid-stream, and ends the turn when it is answered."""

    octets_received = octets_sent = unsent = 0

    def __init__(self, control: Sequence[bytes], turns_before: int) -> None:
        super().__init__()
        self._control, self._turns_left = list(control), turns_before
        self.data_before_answer: list[int] = []  # datagrams of data between the control packet and each answer
        self._data = 0

    def receive(self, descriptor: int, *, is_busy: bool = True) -> list[tuple[Address, list[bytes]]]:
        self._turns_left -= 1
        if self._turns_left > 0:
            return [(SERVER, [b"\xff"])]  # of nobody: counted and dropped
        control, self._control, self._data = self._control, [], 0 if self._control else self._data
        return [] if self.data_before_answer or self._turns_left < -100 else [(SERVER, control or [b"\xff"])]

    def send(self, datagrams: Sequence[tuple[Outgoing, Address]]) -> None:
        for datagram, _ in datagrams:
            first = datagram.first_octet if isinstance(datagram, Train) else datagram[0]
            if first >> 3 in DATA:
                self._data += len(datagram) if isinstance(datagram, Train) else 1
            else:
                self.data_before_answer.append(self._data)

    def writable(self, descriptor: int) -> None:
        return

    def lost(self) -> list[tuple[Address, str]]:
        return []


@pytest.fixture
def pump() -> Iterator[Pump]:
    signals = Signals(())
    made = Pump(signals)
    yield made
    made.close()
    signals.close()


def test_a_control_packet_is_answered_after_one_superpacket_at_most_however_many_wait(pump: Pump) -> None:
    world = World()
    world.now = time.monotonic()  # the event loop's clock is the real one
    client, server = connect(world, client_settings())
    assert isinstance(client.core, ClientCore)
    assert isinstance(server.core, ServerCore)
    world.run(seconds=0.5)
    assert server.core.request_renegotiation(1, world.now)
    control: list[bytes] = [bytes(_octets(datagram)) for datagram, _ in server.core.datagrams_to_send()]
    assert control
    assert control[0][0] >> 3 == Opcode.CONTROL_SOFT_RESET_V1
    device, wire = FullDevice(), Wire(control, turns_before=5)
    loop: Any = pump  # takes whatever looks like its parts
    loop.attach_tun(device)
    loop.attach_link(wire)
    pump.watch(wire.fileno())
    pump.core = client.core
    pump.turn()
    assert wire.data_before_answer
    assert wire.data_before_answer[0] <= SEGMENTS
    loop.attach_tun(None)
    device.close()
    wire.close()


def _octets(datagram: Outgoing) -> bytes | memoryview:
    return datagram.view if isinstance(datagram, Train) else datagram
