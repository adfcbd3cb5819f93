"""A TCP client that takes nothing: what waits for it is bounded and counted, and nobody else notices."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from vpn.dataplane.train import Train
from vpn.driver.tcp import QUEUE_OCTETS, TcpConnection, TcpLink
from vpn.settings import Address
from vpn.wire.stream import Deframer, frame

SLOW: Address = ("192.0.2.1", 1)
QUICK: Address = ("192.0.2.2", 2)
PACKET = bytes(1400)


class Watched:
    """What the event loop is asked to look at."""

    def __init__(self) -> None:
        self.events: dict[int, int] = {}

    def watch(self, descriptor: int, events: int = select.EPOLLIN) -> None:
        self.events[descriptor] = events

    def unwatch(self, descriptor: int) -> None:
        self.events.pop(descriptor, None)


class Server:
    """A link with two connections, and their other ends."""

    def __init__(self) -> None:
        self.watched = Watched()
        self.link = TcpLink(self.watched)
        self.ends: dict[Address, socket.socket] = {}
        for address in (SLOW, QUICK):
            ours, theirs = _connected()
            self.link.add(TcpConnection(ours, address))
            self.ends[address] = theirs

    def take(self, address: Address) -> int:
        """How many octets the client finds."""
        self.ends[address].setblocking(False)
        octets = 0
        try:
            while received := self.ends[address].recv(1 << 20):
                octets += len(received)
        except BlockingIOError:
            pass
        return octets


def _connected() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    return ours, theirs


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.link.close()
    for end in made.ends.values():
        end.close()


def stuff(server: Server) -> int:
    """Sends to the slow client until it takes no more; returns how many packets that took."""
    for times in range(1, 1000):
        server.link.send([(PACKET, SLOW)] * 50)
        if server.link.unsent:
            return times * 50
    raise AssertionError("all of it found room")


def test_what_waits_for_a_slow_client_is_bounded_and_the_rest_is_counted(server: Server) -> None:
    sent = stuff(server)
    lost = server.link.unsent
    for _ in range(20):
        server.link.send([(PACKET, SLOW)] * 50)
    assert server.link.unsent == lost + 20 * 50
    slow = next(iter(server.watched.events))
    taken = octets = server.take(SLOW)
    while taken or server.watched.events[slow] & select.EPOLLOUT:
        server.link.writable(slow)
        taken = server.take(SLOW)
        octets += taken
    assert octets == (sent - lost) * len(frame(PACKET)), "something was lost that was not counted"
    assert octets > QUEUE_OCTETS


def test_a_slow_client_keeps_nothing_from_the_others(server: Server) -> None:
    stuff(server)
    for _ in range(10):
        server.link.send([(PACKET, SLOW), (PACKET, QUICK)])
        assert select.select([server.ends[QUICK]], [], [], 30)[0]
        assert server.take(QUICK) == len(frame(PACKET))
    assert not server.link.lost()


def test_of_a_train_that_has_begun_nothing_is_missing_in_the_stream(server: Server) -> None:
    packets = [bytes((number % 251,)) * 1400 for number in range(600)]
    framed = b"".join(map(frame, packets))
    train = Train(memoryview(bytearray(framed)), 0, len(framed), 1402, lead=2)
    server.link.send([(train, SLOW)])
    server.link.send([(train, SLOW), (b"too much", SLOW)])
    assert server.link.unsent == 601, "what had begun has no place, or more has"
    (slow, *_), stream = server.watched.events, bytearray()
    server.ends[SLOW].setblocking(False)
    while server.watched.events[slow] & select.EPOLLOUT or len(stream) < len(framed):
        server.link.writable(slow)
        stream += server.ends[SLOW].recv(1 << 20)
    server.link.send([(b"the end", SLOW)])
    stream += server.ends[SLOW].recv(1 << 20)
    assert Deframer().feed(bytes(stream)) == [*packets, b"the end"]
    assert server.link.octets_sent == len(stream), "octets are counted that were never sent"


def test_octets_are_counted_as_they_pass_alone_and_in_trains(server: Server) -> None:
    descriptor = list(server.watched.events)[1]
    for packets in ([b"one"], [b"and"] * 30, [b"four", b"5"]):
        server.ends[QUICK].sendall(b"".join(map(frame, packets)))
        assert select.select([descriptor], [], [], 30)[0]
        server.link.receive(descriptor)
    assert server.link.octets_received == 5 + 30 * 5 + 6 + 3
