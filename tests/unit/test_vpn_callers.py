"""TCP connections as a stranger makes them, and a server that is not there: real sockets on the loopback."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from tests.unit.test_dataplane_udp import Watched
from vpn.config.model import Family, Protocol, SocketSettings
from vpn.driver.pump import Pump, Signals
from vpn.driver.tcp import MOST_UNPROVEN, TcpClientLink, TcpConnection, TcpLink, TcpListener
from vpn.driver.transport import Endpoint
from vpn.settings import Address, Transport

SETTINGS = SocketSettings(protocol=Protocol(Transport.TCP, Family.IPV4), local="127.0.0.1")
PATIENCE_SECONDS = 20.0


class Masks(Watched):
    """Which events the link waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: dict[int, int] = {}

    def watch(self, descriptor: int, events: int = select.EPOLLIN) -> None:
        self.masks[descriptor] = events

    def unwatch(self, descriptor: int) -> None:
        del self.masks[descriptor]


class Server:
    """A listener, and what it is asked to look at."""

    def __init__(self) -> None:
        self.masks = Masks()
        self.link = TcpListener(SETTINGS, self.masks, 60.0)
        (self.descriptor,) = self.masks.masks
        self.callers: list[socket.socket] = []

    @property
    def address(self) -> Address:
        with socket.socket(fileno=socket.dup(self.descriptor)) as own:
            found: Address = own.getsockname()
        return found

    def call(self, source: Address = ("127.0.0.1", 0)) -> socket.socket:
        caller = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        caller.bind(source)
        caller.connect(self.address)
        self.callers.append(caller)
        return caller

    def accept(self) -> None:
        assert select.select([self.descriptor], [], [], PATIENCE_SECONDS)[0]
        self.link.receive(self.descriptor)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.link.close()
    for caller in made.callers:
        caller.close()


def hang_up_at_once(caller: socket.socket) -> None:
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    caller.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline


def test_a_server_that_refuses_is_not_taken_for_one_that_answers() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        signals = Signals(())
        pump = Pump(signals)
        link = TcpClientLink(SETTINGS, Endpoint(Transport.TCP, socket.AF_INET, taken.getsockname()), pump)
        pump.attach_link(link)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not link.failure and not link.is_connected and time.monotonic() < deadline:
            pump.turn(deadline)
        assert not link.is_connected
        assert link.failure == "Connection refused"
        link.close()
        pump.close()
        signals.close()


def test_strangers_who_say_nothing_are_bounded_and_the_oldest_go_first(server: Server) -> None:
    first = server.call()
    server.accept()
    for _ in range(MOST_UNPROVEN + 10):
        server.call()
        server.accept()
    assert len(server.masks.masks) - 1 == MOST_UNPROVEN
    assert len(server.link.lost()) == 11
    assert first.recv(1) == b"", "the oldest is still there"


def test_who_has_become_a_client_does_not_go_for_a_stranger(server: Server) -> None:
    client = server.call()
    server.accept()
    server.link.keep(client.getsockname())
    for _ in range(MOST_UNPROVEN + 10):
        server.call()
        server.accept()
    assert client.getsockname() not in [address for address, _ in server.link.lost()]


def test_a_new_connection_from_the_address_of_a_broken_one_is_another(server: Server) -> None:
    old = server.call()
    address = old.getsockname()
    server.accept()
    (old_descriptor,) = set(server.masks.masks) - {server.descriptor}
    hang_up_at_once(old)
    server.call(address).sendall(b"\0\4abcd")
    server.accept()
    assert [lost for lost, _ in server.link.lost()] == [address]
    (descriptor,) = set(server.masks.masks) - {server.descriptor}
    assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0]
    assert server.link.receive(descriptor) == [(address, [b"abcd"])]
    if old_descriptor != descriptor:
        assert server.link.receive(old_descriptor) == []
    assert server.link.lost() == []


def test_without_a_free_descriptor_nobody_is_accepted_for_a_moment_instead_of_asking_without_end(
    server: Server,
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    server.call()
    lowest = socket.socket()
    in_use = lowest.fileno()  # the next free one
    lowest.close()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use, before[1]))
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            socket.socket()
        server.link.receive(server.descriptor)
        assert server.masks.masks[server.descriptor] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    due = server.link.due_at
    assert due is not None
    assert due < time.monotonic() + 5

    def accepts_again() -> bool:
        server.link.expire()
        return server.masks.masks[server.descriptor] == select.EPOLLIN

    until(accepts_again)
    server.accept()
    assert len(server.masks.masks) == 2


def test_a_packet_too_large_for_a_length_field_is_left_out_and_counted() -> None:
    link = TcpLink(Masks())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    address: Address = theirs.getsockname()
    link.add(TcpConnection(ours, address))
    link.send([(b"one", address), (bytes(65536), address), (b"two", address)])
    assert theirs.recv(100) == b"\0\3one\0\3two"
    assert link.unsent == 1
    link.close()
    theirs.close()


def test_a_caller_of_whom_no_client_comes_in_time_is_hung_up_on() -> None:
    masks = Masks()
    link = TcpListener(SETTINGS, masks, 0.0)
    (descriptor,) = masks.masks
    with (
        socket.socket(fileno=os.dup(descriptor)) as own,
        socket.create_connection(own.getsockname(), PATIENCE_SECONDS) as caller,
    ):
        assert select.select([descriptor], [], [], PATIENCE_SECONDS)[0]
        link.receive(descriptor)
        link.expire()
        assert caller.recv(1) == b""
        assert [address for address, _ in link.lost()] == [caller.getsockname()]
    link.close()
