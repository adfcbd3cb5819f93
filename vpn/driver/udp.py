"""The outer UDP socket: many datagrams per wake-up, never blocking, unconnected.

Unconnected, because the kernel then chooses the source address anew for each datagram: a client whose address changes
goes on from the new one, and the server follows (float).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

from vpn.config.model import Family, SocketSettings
from vpn.driver.errors import HostError
from vpn.driver.multihome import MultihomeSocket
from vpn.driver.transport import Endpoint, Watcher, socket_address
from vpn.settings import Address

BATCH_DATAGRAMS = 32
_DATAGRAM_OCTETS = 65535
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
        try:
            configure(self._socket, settings, family)
            # A client has one peer, which is known by its address alone.
            self._traffic = MultihomeSocket(self._socket) if settings.multihome and listens else self._socket
            if local is not None:
                self._socket.bind(local)
            watcher.watch(self._socket.fileno())
        except OSError as error:
            self._socket.close()
            raise HostError(f"bind a UDP socket to {_shown(local)}", error.errno or 0) from error

    def receive(self, descriptor: int) -> list[tuple[Address, list[bytes]]]:
        groups: list[tuple[Address, list[bytes]]] = []
        last: Address | None = None
        datagrams: list[bytes] = []
        receive = self._traffic.recvfrom
        try:
            for _ in range(BATCH_DATAGRAMS):
                datagram, address = receive(_DATAGRAM_OCTETS)
                self.octets_received += len(datagram)
                if address != last:
                    last, datagrams = address, []
                    groups.append((address, datagrams))
                datagrams.append(datagram)
        except BlockingIOError:
            pass
        except OSError:
            pass  # an ICMP error from an earlier datagram: the protocol's own timers judge what it means
        return groups

    def send(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        send = self._traffic.sendto
        for datagram, address in datagrams:
            try:
                self.octets_sent += send(datagram, address)
            except OSError:
                self.unsent += 1  # full buffer or no route for now: lost, as on any link

    def writable(self, descriptor: int) -> None:
        return

    def lost(self) -> list[tuple[Address, str]]:
        return []

    def drop(self, address: Address) -> None:
        return

    def close(self) -> None:
        self._watcher.unwatch(self._socket.fileno())
        self._socket.close()


def configure(sock: socket.socket, settings: SocketSettings, family: socket.AddressFamily) -> None:
    """Socket options of either transport. Errors: OSError."""
    if settings.send_buffer_octets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.send_buffer_octets)
    if settings.receive_buffer_octets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.receive_buffer_octets)
    if settings.mark is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, settings.mark)
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
