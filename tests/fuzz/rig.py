"""Real tunnels for the fuzzer: real sockets on the loopback, real tun devices and the real event loop, in one process.

    kernel -> tun device -> pump, core -> UDP or TCP link -> loopback -> link -> pump, core -> tun device -> kernel

Each end is moved on in turns (`Tunnel.step`), so that an exception shows where it arises. Packets go into a device, and
come out of one, through packet sockets: no address or route of the kernel is in the way. Runs in a network namespace
of its own, as its root.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from tests.sim.inner import ip_packet, numbers
from tests.sim.setups import KEY, client_settings, protections, server_settings
from vpn.client import ClientCore
from vpn.config.model import Family, Protocol, SocketSettings
from vpn.driver.pump import Pump, Signals
from vpn.driver.tcp import TcpClientLink, TcpListener
from vpn.driver.transport import Endpoint, Link
from vpn.driver.tun import TunDevice
from vpn.driver.udp import open_client_link, open_server_link
from vpn.events import ClientConnected, ClientGone, Closed, Connected, Event, TransportUnusable
from vpn.pki.commands import run_pki
from vpn.server import ServerCore
from vpn.settings import Address, CertificateRole, KeyDirection, StaticKeySettings, TlsSettings, Transport
from vpn.static_key_core import StaticKeyCore

HOST, PORT = "127.0.0.1", 1194
INNER = ("10.8.0.1", "10.8.0.2", "10.8.0.3")  # the server's, then the clients' in the order they come
PATIENCE_SECONDS = 30.0
_TURN_SECONDS = 0.0005  # long enough for a lone packet to go the express way
_MTU = 1500
_SEGMENT = 1360  # octets of TCP
_WARM_UP = 22  # streams, a mebibyte: from then on many packets are worked on at once
_ETH_P_ALL, _SOL_PACKET, _PACKET_VNET_HDR = 3, 263, 15
_OUTGOING = 4
_EXPERIMENTAL = 253


class Broken(AssertionError):
    """The tunnel does not do what it should."""


@dataclass(slots=True)
class End:
    """One end of a tunnel: what it is made of, and what it has told."""

    name: str
    pump: Pump
    tun: TunDevice
    link: Link
    core: Any
    kernel: socket.socket  # the kernel's side of the device
    events: list[Event] = field(default_factory=list)
    delivered: list[bytes] = field(default_factory=list)

    def step(self) -> None:
        """A turn of the loop, then what a driver does with its events."""
        now = time.monotonic()
        self.pump.turn(now + _TURN_SECONDS)
        if isinstance(self.link, TcpListener):
            self.link.expire()
        while (event := self.core.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, TransportUnusable):
                self.link.drop(event.address)
            elif isinstance(self.link, TcpListener) and isinstance(event, ClientConnected):
                self.link.keep(event.address)
            elif isinstance(self.link, TcpListener) and isinstance(event, ClientGone):
                self.pump.flush()
                self.link.drop(event.address)
        self.pump.flush()
        self._listen()

    def inject(self, packet: bytes, prefix: bytes = bytes(10)) -> None:
        """Lets the kernel give the packet to the device. Errors: OSError if it does not take such a packet."""
        self.kernel.send(prefix + packet)

    def _listen(self) -> None:
        try:
            while True:
                frame, about = self.kernel.recvfrom(70000)
                if about[2] != _OUTGOING:
                    self.delivered.append(frame[10:])
        except BlockingIOError:
            pass

    def take_numbers(self) -> list[int]:
        """The numbers of our own packets that came out of the device since the last call."""
        own = [packet for packet in self.delivered if len(packet) >= 28 and packet[0] == 0x45]
        self.delivered.clear()
        return numbers([packet for packet in own if packet[9] == _EXPERIMENTAL])


class Tunnel:
    """A server and its clients.

    Shape: `kind` is `udp`, `tcp`, `static-udp` or `static-tcp`; `wrapping` as in `setups`
    """

    def __init__(self, kind: str, wrapping: str = "tls-crypt", clients: int = 1, **server: Any) -> None:
        self.kind = kind
        self._next = 1
        self._signals = Signals(())
        self.ends: list[End] = []
        self._transport = Transport.TCP if kind.endswith("tcp") else Transport.UDP
        self._wrapping = wrapping
        _run("ip", "route", "flush", "cache")  # what forged ICMP errors told of the paths
        self._make_server(server)
        for number in range(clients):
            self._make_client(number)

    @property
    def server(self) -> End:
        return self.ends[0]

    @property
    def clients(self) -> list[End]:
        return self.ends[1:]

    def connect(self) -> None:
        """Until all clients are in."""
        for client in self.clients:
            self.run(partial(_has_told, client, Connected), "connected")
            if self.kind.startswith("static"):
                break
        for _ in range(0 if self.kind.startswith("static") else _WARM_UP):
            self.stream()
        self.exchange()

    def stream(self, segments: int = 40) -> None:
        """A superpacket of TCP each way: all of its octets must come out, in whatever pieces. Errors: Broken."""
        client = self.clients[self._next % len(self.clients)]
        inner = INNER[1 + self.clients.index(client)]
        first = self._next * 100_000 & 0x7FFFFFFF
        self._next += 1
        payload = first.to_bytes(4, "big") * (segments * _SEGMENT // 4 - 1) + b"end"
        client.inject(*superpacket(inner, INNER[0], first, payload))
        self.server.inject(*superpacket(INNER[0], inner, first, payload))
        for end in (self.server, client):
            found = bytearray(len(payload))
            self.run(partial(_has_collected, end, first, found, payload), "through with a stream")

    def step(self) -> None:
        for end in self.ends:
            end.step()

    def run(self, until: Callable[[], bool], what: str) -> None:
        """Turns until the condition holds. Errors: Broken if it does not in time."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not until():
            if time.monotonic() > deadline:
                raise Broken(f"not {what} within {PATIENCE_SECONDS:.0f} s: {self.told()}")
            self.step()

    def drain(self, quiet_turns: int = 3) -> None:
        """Turns until nothing arrives any more."""
        quiet = 0
        while quiet < quiet_turns:
            before = [(end.link.octets_received, end.tun.octets_read) for end in self.ends]
            self.step()
            quiet = quiet + 1 if before == [(end.link.octets_received, end.tun.octets_read) for end in self.ends] else 0

    def exchange(self, count: int = 8) -> None:
        """Numbered packets of several sizes both ways: each must come out once. Errors: Broken."""
        self.drain()
        self.stream()
        self.drain()
        for end in self.ends:
            end.take_numbers()
        for client, inner in zip(self.clients, INNER[1:], strict=False):
            which = list(range(self._next, self._next + count))
            self._next += count
            for number in which:
                octets = (60, 400, 1300, 1300)[number % 4]
                client.inject(ip_packet(inner, INNER[0], number, octets))
                self.server.inject(ip_packet(INNER[0], inner, number, octets))
            found: dict[str, list[int]] = {client.name: [], self.server.name: []}

            def arrived(found: dict[str, list[int]] = found, client: End = client, which: list[int] = which) -> bool:
                for end in (client, self.server):
                    found[end.name] += end.take_numbers()
                return all(set(which) <= set(numbers) for numbers in found.values())

            self.run(arrived, f"through with packets {which[0]} to {which[-1]} of {client.name}, found {found}")
            self.drain()
            arrived()
            if any(sorted(numbers) != which for numbers in found.values()):
                raise Broken(f"sent {which}, delivered {found}")

    def check(self, sessions: int | None = None) -> None:
        """The sessions are those of the beginning, and nothing has piled up. Errors: Broken."""
        for client in self.clients:
            if any(isinstance(event, Closed) for event in client.events):
                raise Broken(f"a client's session ended: {self.told()}")
        gone = [event for event in self.server.events if isinstance(event, Closed)]
        if gone:
            raise Broken(f"the server ended: {self.told()}")
        if isinstance(self.server.core, ServerCore):
            connected = len(self.server.core.connected)
            if connected != len(self.clients):
                raise Broken(f"{connected} clients are connected, not {len(self.clients)}: {self.told()}")

    def told(self) -> str:
        return "; ".join(f"{end.name}: {end.events[-6:]}, {end.core.drops.by_reason()}" for end in self.ends)

    def close(self) -> None:
        for end in self.ends:
            end.pump.attach_tun(None)
            end.link.close()
            end.tun.close()
            end.kernel.close()
            end.pump.close()
        self._signals.close()

    # -- making ends -------------------------------------------------------------------------------------------------

    def _make_server(self, changes: dict[str, Any]) -> None:
        pump = Pump(self._signals)
        settings = SocketSettings(protocol=Protocol(self._transport, Family.IPV4), local=HOST, local_port=PORT)
        udp = self._transport is Transport.UDP
        link: Link = open_server_link(settings, pump) if udp else TcpListener(settings, pump, 5.0)
        core: Any
        if self.kind.startswith("static"):
            core = StaticKeyCore(self._static(listen=True), None, random_bytes=os.urandom)
        else:
            control = protections(self._wrapping)[1]
            made = server_settings(
                tls=_tls("server"), control=control, transport=self._transport, duplicate_cn=True, **changes
            )
            core = ServerCore(made, random_bytes=os.urandom)
        self._add("server", pump, link, core)
        self.server.tun.share()

    def _make_client(self, number: int) -> None:
        pump = Pump(self._signals)
        settings = SocketSettings(protocol=Protocol(self._transport, Family.IPV4), local=HOST)
        endpoint = Endpoint(self._transport, socket.AF_INET, (HOST, PORT))
        link: Link
        if self._transport is Transport.UDP:
            link = open_client_link(settings, endpoint, pump)
        else:
            link = tcp = TcpClientLink(settings, endpoint, pump)
            pump.attach_link(tcp)
            while not tcp.is_connected:
                pump.turn(time.monotonic() + _TURN_SECONDS)
        core: Any
        if self.kind.startswith("static"):
            core = StaticKeyCore(self._static(listen=False), (HOST, PORT), random_bytes=os.urandom)
        else:
            own = client_settings(tls=_tls("client"), control=protections(self._wrapping)[0], transport=self._transport)
            core = ClientCore(own, (HOST, PORT), random_bytes=os.urandom)
        self._add(f"client{number}", pump, link, core)

    def _static(self, *, listen: bool) -> StaticKeySettings:
        # with a direction: without one, whoever sends an end its own packets makes it deaf for the other end's
        direction = KeyDirection.NORMAL if listen else KeyDirection.INVERSE
        return replace(StaticKeySettings(KEY), transport=self._transport, listen=listen, direction=direction)

    def _add(self, name: str, pump: Pump, link: Link, core: Any) -> None:
        tun = TunDevice(Path("/dev/net/tun"))
        tun.attach(name, _MTU)
        _run("ip", "link", "set", name, "mtu", str(_MTU), "up")
        kernel = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        kernel.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
        kernel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        kernel.bind((name, _ETH_P_ALL))
        pump.attach_tun(tun)
        pump.attach_link(link)
        pump.core = core
        end = End(name, pump, tun, link, core, kernel)
        pump.on_lost = lambda address, reason: _lost(end, address, reason)
        self.ends.append(end)
        core.start(time.monotonic(), int(time.time()))
        pump.flush()


def superpacket(source: str, target: str, sequence: int, payload: bytes) -> tuple[bytes, bytes]:
    """A TCP packet of any size, and what tells the kernel that it stands for many."""
    addresses = socket.inet_aton(source) + socket.inet_aton(target)
    total = 40 + len(payload)
    head = struct.pack(">BBHHHBBH", 0x45, 0, total, 7, 0x4000, 64, socket.IPPROTO_TCP, 0) + addresses
    pseudo = sum(struct.unpack(">6H", addresses + struct.pack(">HH", socket.IPPROTO_TCP, total - 20)))
    while pseudo >> 16:
        pseudo = (pseudo & 0xFFFF) + (pseudo >> 16)
    tcp = struct.pack(">HHIIBBHHH", 4000, 5000, sequence, 1, 0x50, 0x10, 1000, pseudo, 0)
    return head + tcp + payload, struct.pack("=BBHHHH", 1, 1, 40, _SEGMENT, 20, 16)


def _has_told(end: End, kind: type[Event]) -> bool:
    return any(isinstance(event, kind) for event in end.events)


def _has_collected(end: End, first: int, found: bytearray, payload: bytes) -> bool:
    """Puts what has come of a stream to its place; whether all of it is there."""
    for packet in end.delivered:
        if len(packet) > 40 and packet[0] == 0x45 and packet[9] == socket.IPPROTO_TCP and packet[32] == 0x50:
            at = int.from_bytes(packet[24:28], "big") - first
            octets = packet[40 : int.from_bytes(packet[2:4], "big")]
            if at >= 0 and at + len(octets) <= len(found):
                found[at : at + len(octets)] = octets
    end.delivered.clear()
    return found == payload


def _lost(end: End, address: Address, reason: str) -> None:
    if isinstance(end.core, ClientCore):
        end.core.transport_lost(time.monotonic(), reason)
    else:
        end.core.transport_lost(address, time.monotonic(), reason)


def enter() -> None:
    """What the namespace needs before the first tunnel."""
    _run("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")


@cache
def _keys() -> Path:
    """Certificates that are good today; those of the simulations are of another year."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-keys-"))
    atexit.register(shutil.rmtree, folder)
    with contextlib.redirect_stdout(None):
        if run_pki(["init", str(folder), "--server", "server", "--client", "client"]):
            raise Broken("the PKI could not be made")
    return folder


def _tls(name: str) -> TlsSettings:
    ca, certificate, key = ((_keys() / file).read_text() for file in ("ca.crt", f"{name}.crt", f"{name}.key"))
    other = CertificateRole.CLIENT if name == "server" else CertificateRole.SERVER
    return TlsSettings(ca, certificate, key, remote_cert_tls=other)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


def udp_from(source: Address, target: Address, payload: bytes) -> bytes:
    """A whole IPv4 packet with a UDP datagram; the kernel fills in the IP checksum, and UDP has none."""
    octets = 28 + len(payload)
    head = struct.pack(">BBHHHBBH", 0x45, 0, octets, 0, 0, 64, 17, 0)
    addresses = socket.inet_aton(str(source[0])) + socket.inet_aton(str(target[0]))
    return head + addresses + struct.pack(">HHHH", int(source[1]), int(target[1]), octets - 20, 0) + payload
