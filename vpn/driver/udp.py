"""The outer UDP socket: many datagrams per wake-up, never blocking, unconnected.

Unconnected, because the kernel then chooses the source address anew for each datagram: a client whose address changes
goes on from the new one, and the server follows (float).

Where the kernel has it, datagrams of one size go out with one call (UDP_SEGMENT) and come in so (UDP_GRO). Others are
received one behind the other into the same memory, so that many of one size are a train all the same.

Sources: udp(7) on UDP_SEGMENT and UDP_GRO; linux/Documentation/networking/segmentation-offloads.rst
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Sequence

from vpn.config.model import Family, SocketSettings
from vpn.dataplane.train import LARGE_OCTETS, LEAST_TRAIN, LONGEST_TRAIN, Outgoing, Train
from vpn.driver.errors import HostError
from vpn.driver.gathering import GATHERING_OCTETS, Run, are_worth_gathering, gathered
from vpn.driver.multihome import MultihomeSocket
from vpn.driver.transport import Arrived, Endpoint, Watcher, socket_address
from vpn.settings import Address

BATCH_DATAGRAMS = 64
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_MOST_SEGMENTS = 64  # of one call, in kernels before 6.9
_LARGEST_SEND = 65000  # below the largest UDP datagram, which bounds a call's octets
_TOO_LARGE = frozenset({errno.EINVAL, errno.EMSGSIZE})  # one datagram, for the MTU of the path to this address
_NOT_AT_ONCE = frozenset({errno.EIO, errno.EOPNOTSUPP})  # an interface that cannot
_NARROW_SENDS = 4096  # after so many to paths too narrow the kernel is asked again: what it knows of paths ends, too
_BERTH_OCTETS = 65536  # a receive call needs this much room: what does not fit is lost
_BERTHS = 5
_LONGEST_TRAIN_OCTETS = 40_000  # and one more call: larger ones no longer fit into the processor's cache
_CONTROL_OCTETS = 64
_SENT_SEGMENT, _RECEIVED_SEGMENT = struct.Struct("=H"), struct.Struct("=i")
# What the sockets hold when nothing was asked for, doubled by the kernel: some trains, whose datagrams count with all
# that the kernel needs for each. More would only make packets wait.
_BUFFER_OCTETS = 1024 * 1024
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_MTU_DISCOVERY = {"no": 0, "maybe": 1, "yes": 2}  # IP_PMTUDISC_DONT, _WANT, _DO


class UdpLink:
    """One UDP socket. `unsent` counts datagrams the kernel would not take."""

    def __init__(
        self,
        settings: SocketSettings,
        family: socket.AddressFamily,
        local: Address | None,
        watcher: Watcher,
        *,
        listens: bool = False,
    ) -> None:
        self._watcher = watcher
        self._socket = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self.octets_received = 0
        self.octets_sent = 0
        self.unsent = 0
        self._sent_singly_from = 0
        self._narrow: dict[Address, int] = {}  # from which size on datagrams to an address go one by one
        self._narrow_sends = 0
        self._begun: _Arrivals | None = None  # what `receive_one` has left to `receive`
        self._buffer = memoryview(bytearray(_BERTHS * _BERTH_OCTETS + GATHERING_OCTETS + 2 * LEAST_TRAIN + 16))
        try:
            configure(self._socket, settings, family)
            self._offload(settings)
            # A client has one peer, which is known by its address alone.
            self._traffic = MultihomeSocket(self._socket) if settings.multihome and listens else self._socket
            if local is not None:
                self._socket.bind(local)
            watcher.watch(self._socket.fileno())
        except OSError as error:
            self._socket.close()
            raise HostError(f"bind a UDP socket to {_shown(local)}", error.errno or 0) from error

    def _offload(self, settings: SocketSettings) -> None:
        for option, asked in (
            (_SO_SNDBUFFORCE, settings.send_buffer_octets),
            (_SO_RCVBUFFORCE, settings.receive_buffer_octets),
        ):
            if not asked:
                with contextlib.suppress(OSError):  # not for everybody; the host's default does, too
                    self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_OCTETS)
        if settings.multihome:
            return
        with contextlib.suppress(OSError):
            self._socket.setsockopt(_SOL_UDP, _UDP_SEGMENT, 0)  # asks whether there is such an option
            self._sent_singly_from = _BERTH_OCTETS
        with contextlib.suppress(OSError):
            self._socket.setsockopt(_SOL_UDP, _UDP_GRO, 1)

    @property
    def has_express(self) -> bool:
        """Whether `receive_one` and `send_one` may be used."""
        return self._traffic is self._socket

    def receive_one(self) -> tuple[bytes, Address] | None:
        """A datagram that has come alone, and from where. None: nothing, or something that `receive` has."""
        try:
            octets, control, _, address = self._socket.recvmsg_into((self._buffer,), _CONTROL_OCTETS)
        except OSError:
            return None  # nothing came, or an ICMP error
        self.octets_received += octets
        if control or octets >= LARGE_OCTETS:
            self._begun = _Arrivals(self._buffer)
            self._begun.note(octets, _RECEIVED_SEGMENT.unpack(control[0][2])[0] if control else 0, address)
            return None
        return bytes(self._buffer[:octets]), address

    def send_one(self, datagram: bytes, address: Address) -> None:
        try:
            self.octets_sent += self._socket.sendto(datagram, address)
        except OSError:
            self.unsent += 1  # full buffer or no route for now: lost, as on any link

    def send_few(self, datagrams: Sequence[bytes], address: Address) -> None:
        """Datagrams of one size, but for a shorter last one."""
        self._send_run(datagrams, address)

    def receive(self, descriptor: int, *, is_busy: bool = True) -> list[Arrived]:
        if isinstance(self._traffic, MultihomeSocket):
            return self._receive_singly(self._traffic)
        arrivals, self._begun = self._begun or _Arrivals(self._buffer), None
        receive, buffer = self._socket.recvmsg_into, self._buffer
        try:
            for _ in range(BATCH_DATAGRAMS if is_busy else 1):
                at = arrivals.at
                octets, control, _, address = receive((buffer[at:] if at else buffer,), _CONTROL_OCTETS)
                self.octets_received += octets
                arrivals.note(octets, _RECEIVED_SEGMENT.unpack(control[0][2])[0] if control else 0, address)
                if arrivals.is_full:
                    break
        except BlockingIOError:
            pass
        except OSError:
            pass  # an ICMP error from an earlier datagram: the protocol's own timers judge what it means
        return arrivals.taken()

    def _receive_singly(self, traffic: MultihomeSocket) -> list[Arrived]:
        groups: list[Arrived] = []
        last: Address | None = None
        datagrams: list[bytes] = []
        try:
            for _ in range(BATCH_DATAGRAMS):
                datagram, address = traffic.recvfrom(_BERTH_OCTETS)
                self.octets_received += len(datagram)
                if address != last:
                    last, datagrams = address, []
                    groups.append((address, datagrams))
                datagrams.append(datagram)
        except OSError:
            pass  # nothing left, or an ICMP error
        return groups

    def send(self, datagrams: Sequence[tuple[Outgoing, Address]]) -> None:
        run: list[bytes] = []
        octets, size, to = 0, 0, None
        for datagram, address in datagrams:
            if isinstance(datagram, Train):
                self._send_run(run, to)
                run, to = [], None
                self._send_train(datagram, address)
                continue
            length = len(datagram)
            fits = length == size and octets + length <= _LARGEST_SEND and len(run) < _MOST_SEGMENTS
            if not fits or address != to:
                self._send_run(run, to)
                run, octets, size, to = [], 0, length, address
            run.append(datagram)
            octets += length
        self._send_run(run, to)

    def _send_run(self, run: Sequence[bytes], address: Address | None) -> None:
        """Datagrams of one size: in one call if the kernel takes them so."""
        if address is None or not run:
            return
        size = len(run[0])
        if len(run) > 1 and self._may_send_at_once(size, address) and self._send_at_once(run, size, address):
            return
        for datagram in run:
            try:
                self.octets_sent += self._traffic.sendto(datagram, address)
            except OSError:
                self.unsent += 1  # full buffer or no route for now: lost, as on any link

    def _send_train(self, train: Train, address: Address) -> None:
        if len(train) == 1 and not isinstance(self._traffic, MultihomeSocket):
            try:
                self.octets_sent += self._socket.sendto(train.view, address)
            except OSError:
                self.unsent += 1
            return
        most = min(_MOST_SEGMENTS, _LARGEST_SEND // train.slot) * train.slot
        for at in range(train.at, train.at + train.octets, most):
            end = min(at + most, train.at + train.octets)
            is_sent = self._may_send_at_once(train.slot, address) and self._send_at_once(
                (train.buffer[at:end],), train.slot, address
            )
            if not is_sent:
                self._send_run(Train(train.buffer, at, end - at, train.slot).datagrams(), address)

    def _may_send_at_once(self, size: int, address: Address) -> bool:
        if not self._narrow:
            return size < self._sent_singly_from
        narrow = self._narrow.get(address, self._sent_singly_from)
        self._narrow_sends += size >= narrow
        if self._narrow_sends >= _NARROW_SENDS:
            self._narrow.clear()
            self._narrow_sends = 0
        return size < min(narrow, self._sent_singly_from)

    def _send_at_once(self, buffers: Sequence[bytes | memoryview], size: int, address: Address) -> bool:
        """False if they have to go one by one; what is only lost counts as sent."""
        try:
            control = [(_SOL_UDP, _UDP_SEGMENT, _SENT_SEGMENT.pack(size))]
            self.octets_sent += self._socket.sendmsg(buffers, control, 0, address)
        except OSError as error:
            if error.errno in _TOO_LARGE:
                self._narrow[address] = size
                return False
            if error.errno in _NOT_AT_ONCE:
                self._sent_singly_from = size  # the kernel says so for each size anew
                return False
            octets = sum(map(len, buffers))
            self.unsent += -(-octets // size)
        return True

    def writable(self, descriptor: int) -> None:
        return

    def lost(self) -> list[tuple[Address, str]]:
        return []

    def drop(self, address: Address) -> None:
        return

    def close(self) -> None:
        self._watcher.unwatch(self._socket.fileno())
        self._socket.close()


class _Arrivals:
    """Datagrams as they come, one behind the other in memory: many of one size and sender are a train."""

    __slots__ = ("_address", "_begin", "_buffer", "_is_cut", "_octets", "_runs", "_size", "at")

    def __init__(self, buffer: memoryview) -> None:
        self.at = 0  # where the next one goes
        self._buffer = buffer
        self._runs: list[Run] = []
        self._begin = self._octets = self._size = 0
        self._is_cut = False  # a shorter datagram has come: it is the last of its train
        self._address: Address = ()

    @property
    def is_full(self) -> bool:
        return self.at > (_BERTHS - 1) * _BERTH_OCTETS

    def note(self, octets: int, segment: int, address: Address) -> None:
        """One call's worth at `at`. Shape: `segment` 0 for a single datagram."""
        size = segment or octets
        if not octets:
            self._close_run()
            self._runs.append(Run(address, self.at, 0, 0))
            return
        is_long = self._octets > min(_LONGEST_TRAIN_OCTETS, LONGEST_TRAIN * size)
        if size != self._size or self._is_cut or is_long or address != self._address:
            self._close_run()
            self._begin, self._octets, self._size, self._address, self._is_cut = self.at, 0, size, address, False
        self._octets += octets
        self.at += octets
        if segment and octets % segment:
            self._is_cut = True
            # trains begin at few places only: views of them are kept
            self.at = (self.at // _BERTH_OCTETS + 1) * _BERTH_OCTETS

    def taken(self) -> list[Arrived]:
        self._close_run()
        runs = self._runs
        if are_worth_gathering(runs):
            runs = gathered(runs, self._buffer, _BERTHS * _BERTH_OCTETS)
        groups: list[Arrived] = []
        last: list[bytes] | None = None  # the datagrams of the sender that was last, if they are a list
        for run in runs:
            if run.size >= LARGE_OCTETS or run.octets >= LEAST_TRAIN * run.size > 0:
                groups += [(run.address, train) for train in self._trains(run)]
                last = None
                continue
            if last is None or groups[-1][0] != run.address:
                last = []
                groups.append((run.address, last))
            if run.octets <= run.size:
                last.append(bytes(self._buffer[run.at : run.at + run.octets]))
            else:
                last += Train(self._buffer, run.at, run.octets, run.size).datagrams()
        return groups

    def _trains(self, run: Run) -> list[Train]:
        if run.octets >= LEAST_TRAIN * run.size:
            return [Train(self._buffer, run.at, run.octets, run.size)]
        end = run.at + run.octets
        return [Train(self._buffer, at, min(run.size, end - at), run.size) for at in range(run.at, end, run.size)]

    def _close_run(self) -> None:
        if self._octets:
            self._runs.append(Run(self._address, self._begin, self._octets, self._size))
        self._octets = self._size = 0


def configure(sock: socket.socket, settings: SocketSettings, family: socket.AddressFamily) -> None:
    """Socket options of either transport. Errors: OSError."""
    if settings.send_buffer_octets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_octets)
    if settings.receive_buffer_octets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.receive_buffer_octets)
    if settings.mark is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", settings.mark))
    if settings.bind_device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, settings.bind_device.encode())
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(settings.ipv6_only))
    if settings.path_mtu_discovery:
        mode = struct.pack("=i", _MTU_DISCOVERY[settings.path_mtu_discovery])
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, mode)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, mode)


def local_address(settings: SocketSettings, family: socket.AddressFamily) -> Address | None:
    """What to bind to; None if nothing was asked for."""
    if not settings.local and not settings.local_port:
        return None
    if not settings.local:
        # No `local`: a server is reached at every address of its host, as openvpn's is.
        everywhere = "0.0.0.0" if family == socket.AF_INET else "::"  # noqa: S104
        return (everywhere, settings.local_port)
    return _resolve_local(settings, family)[1]


def listen_family(settings: SocketSettings) -> socket.AddressFamily:
    """A server's family: that of `proto`, else of `local`, else IPv4 (as openvpn decides)."""
    if settings.protocol.family is Family.IPV6:
        return socket.AF_INET6
    if settings.protocol.family is Family.ANY and settings.local:
        return _resolve_local(settings, socket.AF_UNSPEC)[0]
    return socket.AF_INET


def _resolve_local(settings: SocketSettings, family: int) -> tuple[socket.AddressFamily, Address]:
    try:
        found = socket.getaddrinfo(settings.local, settings.local_port, family, socket.SOCK_DGRAM, 0, socket.AI_PASSIVE)
    except OSError as error:
        raise HostError(f"resolve the local address {settings.local}: {error.strerror}") from error
    return found[0][0], socket_address(found[0][4])


def open_client_link(settings: SocketSettings, endpoint: Endpoint, watcher: Watcher) -> UdpLink:
    return UdpLink(settings, endpoint.family, local_address(settings, endpoint.family), watcher)


def open_server_link(settings: SocketSettings, watcher: Watcher) -> UdpLink:
    family = listen_family(settings)
    return UdpLink(settings, family, local_address(settings, family), watcher, listens=True)


def _shown(local: Address | None) -> str:
    return f"{local[0]} port {local[1]}" if local else "any port"
