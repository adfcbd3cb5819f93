"""Outer TCP connections: a client's one, a server's many, each a stream of length-prefixed packets.

Nothing blocks: a connection that cannot take more holds what is due in a queue of bounded octets, and what does not
fit is dropped whole, as a full UDP buffer would drop it (the control channel repeats, inner TCP repeats). A stream that
ends or cannot be read on is reported with `lost`, once.

A connection from which no client comes within the time of a handshake is closed, so that silent callers cannot use
the descriptors up.

Source: openvpn-protocol.md section 1
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Sequence

from vpn.config.model import SocketSettings
from vpn.dataplane.train import LARGE_OCTETS, LEAST_TRAIN, Outgoing, Train
from vpn.driver.errors import HostError
from vpn.driver.transport import Arrived, Endpoint, Watcher, socket_address
from vpn.driver.udp import configure, listen_family, local_address
from vpn.settings import Address
from vpn.wire.packet import Malformed
from vpn.wire.stream import LARGEST_FRAMED_OCTETS, MAX_PACKET_OCTETS, frame, framed_runs

RECEIVE_OCTETS = 65536
QUEUE_OCTETS = 256 * 1024  # what waits for a slow connection: more would only be old when it arrives
BACKLOG = 128
ACCEPTS_PER_TURN = 16
MOST_UNPROVEN = 256  # connections of which no client has come yet: as many as unfinished handshakes
_PAUSE_SECONDS = 1.0
_NONE_FREE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_IDLE = select.EPOLLIN
_BUSY = select.EPOLLIN | select.EPOLLOUT


class TcpConnection:
    """One stream: packets in, packets out."""

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.socket = sock
        self.address = address
        self.octets_sent = 0
        self._unfinished = b""
        self._waiting = bytearray()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    def read(self, buffer: memoryview, largest_packet: int) -> list[list[bytes] | Train]:
        """The packets that are complete now, with `buffer` for their place.

        Errors: EOFError at the end; OSError; Malformed
        """
        held = len(self._unfinished)
        buffer[:held] = self._unfinished
        try:
            received = self.socket.recv_into(buffer[held : held + RECEIVE_OCTETS])
        except BlockingIOError:
            return []
        if not received:
            raise EOFError("the other end closed the connection")
        packets: list[list[bytes] | Train] = []
        end = 0
        for at, slot, count in framed_runs(buffer, held + received, largest_packet):
            end = at + slot * count
            run = Train(buffer, at, slot * count, slot, lead=2)
            if count >= LEAST_TRAIN or (count == 1 and slot >= LARGE_OCTETS):
                packets.append(run)
            elif packets and isinstance(packets[-1], list):
                packets[-1] += run.datagrams()
            else:
                packets.append(run.datagrams())
        self._unfinished = bytes(buffer[end : held + received])
        return packets

    def write(self, packets: Sequence[Outgoing]) -> int:
        """Sends or queues; returns how many packets found no room. Errors: OSError."""
        refused = 0
        for packet in packets:
            if isinstance(packet, Train):
                refused += self._write_train(packet)
            elif len(self._waiting) + len(packet) > QUEUE_OCTETS or len(packet) > LARGEST_FRAMED_OCTETS:
                refused += 1
            else:
                self._waiting += frame(packet)
        self.drain()
        return refused

    def _write_train(self, train: Train) -> int:
        """What the kernel takes goes out without a copy."""
        self.drain()
        view = train.view
        if not self._waiting:
            with contextlib.suppress(BlockingIOError):
                sent = self.socket.send(view)
                self.octets_sent += sent
                view = view[sent:]
        room = max(0, QUEUE_OCTETS - len(self._waiting))  # the rest of a train may have taken more than there was
        if len(view) <= room or len(view) < train.octets:  # of a packet that has begun nothing may be missing
            self._waiting += view
            return 0
        kept = room // train.slot * train.slot
        self._waiting += view[:kept]
        return -(-(len(view) - kept) // train.slot)

    def drain(self) -> None:
        """Sends what the kernel takes now. Errors: OSError."""
        try:
            while self._waiting:
                sent = self.socket.send(self._waiting)
                self.octets_sent += sent
                del self._waiting[:sent]
        except BlockingIOError:
            pass


class TcpLink:
    """Connections by descriptor; the shape of `vpn.driver.transport.Link`."""

    def __init__(self, watcher: Watcher) -> None:
        self.octets_received = 0
        self.octets_sent = 0
        self.unsent = 0
        self.largest_packet = MAX_PACKET_OCTETS
        self._watcher = watcher
        self._by_descriptor: dict[int, TcpConnection] = {}
        self._by_address: dict[Address, TcpConnection] = {}
        self._lost: list[tuple[Address, str]] = []
        self._buffer = memoryview(bytearray(2 * RECEIVE_OCTETS + 64))  # what is unfinished, one more call, a tag

    def add(self, connection: TcpConnection) -> None:
        self._by_descriptor[connection.socket.fileno()] = connection
        self._by_address[connection.address] = connection
        self._watcher.watch(connection.socket.fileno(), _IDLE)

    def receive(self, descriptor: int, *, is_busy: bool = True) -> list[Arrived]:
        connection = self._by_descriptor.get(descriptor)
        if connection is None:
            return []
        try:
            packets = connection.read(self._buffer, self.largest_packet)
        except (EOFError, Malformed, OSError) as error:
            self._lose(connection, _reason(error))
            return []
        for run in packets:
            self.octets_received += run.octets if isinstance(run, Train) else sum(len(packet) + 2 for packet in run)
        return [(connection.address, run) for run in packets]

    def writable(self, descriptor: int) -> None:
        connection = self._by_descriptor.get(descriptor)
        if connection is not None:
            self._write(connection, ())

    def send(self, datagrams: Sequence[tuple[Outgoing, Address]]) -> None:
        by_address: dict[Address, list[Outgoing]] = {}
        for packet, address in datagrams:
            by_address.setdefault(address, []).append(packet)
        for address, packets in by_address.items():
            connection = self._by_address.get(address)
            if connection is None:
                self.unsent += len(packets)
            else:
                self._write(connection, packets)

    def lost(self) -> list[tuple[Address, str]]:
        """Connections that broke since the last call, and why."""
        lost, self._lost = self._lost, []
        return lost

    def drop(self, address: Address) -> None:
        """Closes one connection that is of no use any more."""
        connection = self._by_address.pop(address, None)
        if connection is not None:
            del self._by_descriptor[connection.socket.fileno()]
            self._watcher.unwatch(connection.socket.fileno())
            connection.socket.close()

    def close(self) -> None:
        for address in list(self._by_address):
            self.drop(address)

    def _write(self, connection: TcpConnection, packets: Sequence[Outgoing]) -> None:
        before = connection.octets_sent
        try:
            refused = connection.write(packets)
        except OSError as error:
            self._lose(connection, _reason(error))
            return
        self.unsent += refused
        self.octets_sent += connection.octets_sent - before
        self._watcher.watch(connection.socket.fileno(), _BUSY if connection.is_waiting else _IDLE)

    def _lose(self, connection: TcpConnection, reason: str) -> None:
        self.drop(connection.address)
        self._lost.append((connection.address, reason))


class TcpListener(TcpLink):
    """A server's connections, and the socket that accepts new ones."""

    def __init__(self, settings: SocketSettings, watcher: Watcher, patience: float) -> None:
        super().__init__(watcher)
        self._patience = patience
        self._unproven: dict[Address, float] = {}  # when each must have become a client
        self._accepts_again_at: float | None = None  # no descriptor was free
        family = listen_family(settings)
        local = local_address(settings, family)
        self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            configure(self._socket, settings, family)
            if local is not None:
                self._socket.bind(local)
            self._socket.listen(BACKLOG)
        except OSError as error:
            self._socket.close()
            raise HostError("listen on the TCP port", error.errno or 0) from error
        watcher.watch(self._socket.fileno(), _IDLE)

    def receive(self, descriptor: int, *, is_busy: bool = True) -> list[Arrived]:
        if descriptor != self._socket.fileno():
            return super().receive(descriptor)
        for _ in range(ACCEPTS_PER_TURN):
            try:
                accepted, address = self._socket.accept()
            except OSError as error:
                if error.errno in _NONE_FREE:
                    self._pause()
                break  # none left, or the caller hung up already
            accepted.setblocking(False)
            self._take_in(TcpConnection(accepted, socket_address(address)))
        return []

    def _take_in(self, connection: TcpConnection) -> None:
        if connection.address in self._by_address:
            self._give_up(connection.address, "a new connection from the same address")
        self.add(connection)
        self._unproven[connection.address] = time.monotonic() + self._patience
        if len(self._unproven) > MOST_UNPROVEN:
            self._give_up(next(iter(self._unproven)), "too many connections without a handshake")

    def _pause(self) -> None:
        """Accepts nobody for a moment: callers who wait would be told of at once, again and again."""
        self._accepts_again_at = time.monotonic() + _PAUSE_SECONDS
        self._watcher.watch(self._socket.fileno(), 0)

    def _give_up(self, address: Address, reason: str) -> None:
        self._lost.append((address, reason))
        self.drop(address)

    def keep(self, address: Address) -> None:
        """A client came of this connection: it may stay."""
        self._unproven.pop(address, None)

    def drop(self, address: Address) -> None:
        self._unproven.pop(address, None)
        super().drop(address)

    @property
    def due_at(self) -> float | None:
        """When `expire` has something to do."""
        oldest = next(iter(self._unproven.values()), None)
        moments = [moment for moment in (oldest, self._accepts_again_at) if moment is not None]
        return min(moments, default=None)

    def expire(self) -> None:
        """Closes connections that did not become clients in time; accepts again after a pause."""
        now = time.monotonic()
        for address in [address for address, until in self._unproven.items() if until <= now]:
            self._give_up(address, "no handshake in time")
        if self._accepts_again_at is not None and self._accepts_again_at <= now:
            self._accepts_again_at = None
            self._watcher.watch(self._socket.fileno(), _IDLE)

    def close(self) -> None:
        super().close()
        self._watcher.unwatch(self._socket.fileno())
        self._socket.close()


class TcpClientLink(TcpLink):
    """A client's one connection, which takes a while to stand: see `is_connected` and `failure`."""

    def __init__(self, settings: SocketSettings, endpoint: Endpoint, watcher: Watcher) -> None:
        super().__init__(watcher)
        self.is_connected = False
        self.failure = ""
        self._endpoint = endpoint
        local = local_address(settings, endpoint.family)
        kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(endpoint.family, kind)
        try:
            configure(self._socket, settings, endpoint.family)
            if local is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self._socket.bind(local)
            self._socket.connect(endpoint.address)
        except BlockingIOError:
            pass
        except OSError as error:
            self._socket.close()
            raise HostError("TCP: connect", error.errno or 0) from error
        watcher.watch(self._socket.fileno(), select.EPOLLOUT)

    def receive(self, descriptor: int, *, is_busy: bool = True) -> list[Arrived]:
        if not self.is_connected:
            self._finish_connecting()
            return []
        return super().receive(descriptor)

    def writable(self, descriptor: int) -> None:
        if self.is_connected:
            super().writable(descriptor)
        else:
            self._finish_connecting()

    def close(self) -> None:
        super().close()
        if self._socket.fileno() >= 0:
            self._watcher.unwatch(self._socket.fileno())
            self._socket.close()

    def _finish_connecting(self) -> None:
        if self.failure:
            return  # the kernel tells an error once: asked again it would say that all is well
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self.failure = os.strerror(number)
        else:
            self.is_connected = True
            self.add(TcpConnection(self._socket, self._endpoint.address))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno == errno.ECONNRESET:
        return "Connection reset by peer"
    return str(error) if not isinstance(error, OSError) else error.strerror or str(error)
