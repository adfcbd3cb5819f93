"""What strangers do to a real tunnel: one function per kind of attack, each drawing from the seeded generator.

Attackers are anywhere (`Strangers.sockets`), or on the path: those send with the addresses of the tunnel's own ends and
have seen its datagrams. None has a key, so none may change a session, stop the program or keep what comes after it
from passing. Of TCP streams an attacker has only those that he opens himself.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

from tests.fuzz.corpus import recorded_datagrams
from tests.fuzz.mutation import Mutator
from tests.fuzz.rig import HOST, INNER, PORT, Broken, Tunnel, udp_from
from tests.sim.inner import ip_packet
from vpn.settings import Address

TARGET: Address = (HOST, PORT)
_UDP_SEGMENT = 103
_SIZES = (0, 0, 1, 2, 3, 4, 8, 20, 24, 25, 40, 49, 60, 100, 1200, 1400, 1424, 1500, 4095, 4096, 4097, 9000, 65507)
_HEADERS = 28  # of a captured IPv4 packet with UDP in it
_LENGTHS = (0, 1, 2, 3, 14, 24, 1400, 1768, 1769, 4096, 32767, 65534, 65535)
_MOST_CONNECTIONS = 40
_KEPT = 400


class Strangers:
    """The attackers' sockets, and what they have seen on the path."""

    def __init__(self, tunnel: Tunnel, mutator: Mutator) -> None:
        self.tunnel, self.mutator = tunnel, mutator
        self.sockets = [_bound(socket.SOCK_DGRAM) for _ in range(4)]
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.connections: list[socket.socket] = []
        self.thrown = 0
        self._ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(0x0800))
        self._ear.bind(("lo", 0x0800))
        self.seen: list[tuple[Address, Address, bytes]] = []

    def listen(self) -> None:
        """Takes down what has passed between the ends; of much the latest."""
        ours = {address for address in map(self.address_of, range(len(self.tunnel.ends))) if address is not None}
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self._ear.recv(70000)
                source, target = _ends(packet)
                if packet[9] == socket.IPPROTO_UDP and source in ours and target in ours:
                    self.seen.append((source, target, packet[_HEADERS:]))
        del self.seen[:-_KEPT]

    def address_of(self, end: int) -> Address | None:
        """Where an end is reached; None if it has told nobody yet. Shape: 0 is the server."""
        if end == 0:
            return TARGET
        core = self.tunnel.server.core
        if hasattr(core, "connected"):
            found = [peer.address for peer in core.connected]
            return found[end - 1] if len(found) >= end else None
        sent_to = [event.server for event in self.tunnel.server.events if hasattr(event, "server")]
        return sent_to[-1] if sent_to else None

    def datagram(self) -> bytes:
        """Something to throw: sized, recorded elsewhere, or made from what has been seen."""
        mutator = self.mutator
        if mutator.chance(0.3):
            return bytes((mutator.below(256),)) * mutator.pick(_SIZES)
        corpus = [octets for _, _, octets in self.seen[-60:]] if mutator.chance(0.7) else []
        return mutator.datagram(corpus or recorded_datagrams())

    def close(self) -> None:
        for one in (*self.sockets, self.raw, self._ear, *self.connections):
            one.close()


Attack: TypeAlias = Callable[[Strangers], None]


def burst(strangers: Strangers) -> None:
    """Datagrams of several strangers in turns, of one size each or of mixed sizes."""
    mutator = strangers.mutator
    senders = strangers.sockets[: 1 + mutator.below(len(strangers.sockets))]
    datagrams = [strangers.datagram() for _ in range(1 + mutator.below(4))]
    for number in range(mutator.pick((1, 8, 64, 200))):
        for place, sender in enumerate(senders):
            _throw(strangers, sender, datagrams[(number * mutator.below(2) + place) % len(datagrams)])


def superpackets(strangers: Strangers) -> None:
    """Datagrams that leave, and may arrive, many at once."""
    mutator = strangers.mutator
    for _ in range(mutator.pick((1, 3, 20))):
        sender, size = mutator.pick(strangers.sockets), mutator.pick((1, 2, 24, 60, 500, 1400, 1424))
        base = strangers.datagram() or b"\x48"
        count = 1 + mutator.below(min(60, 60000 // size))
        octets = (base * (1 + size * count // len(base)))[: size * count - mutator.below(size)]
        control = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("=H", size))]
        with _refused():
            sender.sendmsg([octets], control, 0, TARGET)
        strangers.thrown += 1


def on_the_path(strangers: Strangers) -> None:
    """Forged, changed and repeated datagrams in the name of either end."""
    mutator = strangers.mutator
    strangers.listen()
    if not strangers.seen:
        return
    for _ in range(mutator.pick((1, 10, 100))):
        source, target, octets = mutator.pick(strangers.seen)
        forged = octets if mutator.chance(0.3) else strangers.datagram()
        if mutator.chance(0.2):
            forged = octets[: mutator.below(len(octets) + 1)]
        with _refused():
            strangers.raw.sendto(udp_from(source, target, forged[:65000]), (HOST, 0))
        strangers.thrown += 1


def among_the_genuine(strangers: Strangers) -> None:
    """Forged datagrams of the same size between those of a stream, so that they arrive as one."""
    mutator, tunnel = strangers.mutator, strangers.tunnel
    client = mutator.pick(tunnel.clients)
    for number in range(40):
        client.inject(ip_packet(INNER[1 + tunnel.clients.index(client)], "192.0.2.99", number, 1300))
    for _ in range(1 + mutator.below(3)):
        client.step()
        on_the_path(strangers)
        tunnel.server.step()


def icmp_errors(strangers: Strangers) -> None:
    """Unreachable, too large and the like, about datagrams that were sent."""
    mutator = strangers.mutator
    strangers.listen()
    if not strangers.seen:
        return
    for _ in range(mutator.pick((1, 10))):
        source, target, octets = mutator.pick(strangers.seen)
        about = udp_from(source, target, octets)[: 28 + mutator.below(20)]
        code, mtu = mutator.pick(((3, 0), (4, 68), (4, 576), (4, 1280), (1, 0), (13, 0)))
        message = struct.pack(">BBHHH", 3, code, 0, 0, mtu) + about
        message = message[:2] + _checksum(message) + message[4:]
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0)
        addresses = socket.inet_aton(str(target[0])) + socket.inet_aton(str(source[0]))
        with _refused():
            strangers.raw.sendto(head + addresses + message, (HOST, 0))
        strangers.thrown += 1


def wild_packets(strangers: Strangers) -> None:
    """What hosts behind the tunnel may send: packets that are none, headers that lie, unusual options."""
    mutator, tunnel = strangers.mutator, strangers.tunnel
    for _ in range(mutator.pick((1, 20, 80))):
        place = mutator.below(len(tunnel.ends))
        end, peer = tunnel.ends[place], INNER[0] if place else mutator.pick(INNER)
        packet = wild_packet(mutator, INNER[place], peer)
        with _refused():
            end.inject(packet, _prefix(mutator, packet))
        strangers.thrown += 1


def wild_packet(mutator: Mutator, source: str, target: str) -> bytes:
    """An inner packet that is nearly right, or not at all."""
    octets = mutator.pick((0, 1, 8, 20, 60, 500, 1300, 1480))
    packet = bytearray(ip_packet(source, target, 0, octets))
    packet[9] = mutator.pick((0, 1, 6, 6, 6, 17, 41, 50, 255))
    if mutator.chance(0.3):  # extension headers, or a payload of TCP with whatever flags and options
        packet = bytearray(ip_packet("2001:db8:8::1000", "2001:db8:8::1", 0, octets))
        packet[6] = mutator.pick((0, 6, 17, 43, 44, 58, 60, 255))
    if len(packet) > 60 and mutator.chance(0.5):
        at = 20 if packet[0] >> 4 == 4 else 40
        packet[at + 12 : at + 14] = bytes((mutator.below(16) << 4, mutator.pick((2, 0x12, 0x10, 0xFF))))
        packet[at + 20 : at + 24] = mutator.pick((b"\2\4\xff\xff", b"\2\0\5\xb4", b"\1\2\4\xff", b"\2\4\xff\0"))
    for _ in range(mutator.below(4)):
        packet[mutator.below(min(len(packet), 40))] = mutator.below(256)
    return bytes(packet[: 1 + mutator.below(len(packet))] if mutator.chance(0.2) else packet)


def _prefix(mutator: Mutator, packet: bytes) -> bytes:
    """Mostly none; else the kernel is asked to take the packet for a superpacket, or to leave the checksum to us."""
    if mutator.chance(0.5):
        return bytes(10)
    start = 20 if packet[0] >> 4 == 4 else 40
    kind, offset = mutator.pick(((0, 16), (0, 6), (1, 16), (4, 16), (5, 6)))
    size = 0 if kind == 0 else mutator.pick((1, 8, 48, 100, 536, 1360))
    return struct.pack("=BBHHHH", 1, kind, start + 20, size, start + mutator.pick((0, 0, 0, 1, 7)), offset)


def tcp_callers(strangers: Strangers) -> None:
    """Connections that say something wrong, half of something right, or nothing, and go or stay."""
    mutator = strangers.mutator
    for _ in range(mutator.pick((1, 5, 20))):
        caller = _bound(socket.SOCK_STREAM)
        caller.setblocking(False)
        with _refused():
            caller.connect(TARGET)
        strangers.connections.append(caller)
    for caller in strangers.connections:
        length = mutator.pick(_LENGTHS)
        content = strangers.datagram()[:2000]
        if mutator.chance(0.5):
            length = len(content)
        with _refused():
            caller.send((length.to_bytes(2, "big") + content)[: mutator.pick((1, 2, 3, 9, 70000))])
        strangers.thrown += 1
    _leave(strangers)


def cut_streams(strangers: Strangers) -> None:
    """A recorded beginning, an octet or a few at a time."""
    mutator = strangers.mutator
    caller = _bound(socket.SOCK_STREAM)
    strangers.connections.append(caller)
    caller.connect(TARGET)
    packet = mutator.pick(recorded_datagrams())
    stream = (len(packet).to_bytes(2, "big") + packet) * 2
    while stream:
        octets = mutator.pick((1, 1, 2, 30, 500))
        with _refused():
            caller.send(stream[:octets])
        stream = stream[octets:]
        strangers.thrown += 1
        if mutator.chance(0.3):
            strangers.tunnel.server.step()
    _leave(strangers)


def _leave(strangers: Strangers) -> None:
    """Some hang up, some with a reset; too many never stay."""
    mutator, staying = strangers.mutator, strangers.connections
    while staying and (len(staying) > _MOST_CONNECTIONS or mutator.chance(0.5)):
        caller = staying.pop(mutator.below(len(staying)))
        if mutator.chance(0.5):
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        caller.close()


OF_UDP: tuple[Attack, ...] = (burst, superpackets, on_the_path, among_the_genuine, icmp_errors, wild_packets)
OF_TCP: tuple[Attack, ...] = (tcp_callers, tcp_callers, cut_streams, wild_packets)


def _bound(kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET, kind)
    made.bind((HOST, 0))
    return made


def _throw(strangers: Strangers, sender: socket.socket, datagram: bytes) -> None:
    with _refused():
        sender.sendto(datagram[:65507], TARGET)
    strangers.thrown += 1


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """The kernel need not take everything an attacker would like to send."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EBADF, errno.EFAULT):
            raise Broken(f"the attacker's own mistake: {error}") from error


def _ends(packet: bytes) -> tuple[Address, Address]:
    source, target = struct.unpack_from(">HH", packet, 20) if len(packet) >= _HEADERS else (0, 0)
    return (socket.inet_ntoa(packet[12:16]), source), (socket.inet_ntoa(packet[16:20]), target)


def _checksum(octets: bytes) -> bytes:
    total: int = sum(struct.unpack(f">{len(octets) // 2}H", octets[: len(octets) // 2 * 2]))
    total += octets[-1] << 8 if len(octets) % 2 else 0
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")
