"""Many clients in one process: each a core of its own with a socket of its own, against any server.

    python many_clients.py CONFIG COUNT TARGET        TARGET: the inner address that each of them pings

Each sends echo requests through its tunnel, one a second as ping does, until one is answered: the crowd may overflow a
socket's buffer, and no tunnel brings a lost datagram back. Says `all in` once every client has had its
answer, holds the connections until its input ends, and prints one line of JSON at the end. No tun device: the inner
packets are made and read here.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import time
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from vpn.client import ClientCore
from vpn.config.load import load_configuration
from vpn.events import Closed, Connected
from vpn.settings import Address, ClientSettings

SECONDS = 90.0
ECHO_REQUEST, ECHO_REPLY = 8, 0


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    folded: int = (total & 0xFFFF) + (total >> 16)
    return ~(folded + (folded >> 16)) & 0xFFFF


def echo_request(source: IPv4Address, target: IPv4Address, number: int) -> bytes:
    """An IPv4 packet with an ICMP echo request; `number` tells the clients' requests apart."""
    icmp = struct.pack("!BBHHH", ECHO_REQUEST, 0, 0, number, 1) + bytes(16)
    icmp = icmp[:2] + struct.pack("!H", checksum(icmp)) + icmp[4:]
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(icmp), number, 0, 64, 1, 0, source.packed, target.packed)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + icmp


def is_answer(packet: bytes, number: int) -> bool:
    return (
        len(packet) >= 28 and packet[9] == 1 and packet[20] == ECHO_REPLY and packet[24:26] == struct.pack("!H", number)
    )


@dataclass(slots=True)
class Client:
    """One client and how far it came."""

    number: int
    core: ClientCore
    sock: socket.socket
    server: Address
    address: IPv4Address | None = None
    answered: bool = False
    next_echo_at: float = 0.0
    closed: str = ""

    def serve(self, target: IPv4Address, *, readable: bool) -> None:
        """Takes what arrived, does what is due, sends what is ready."""
        now, unix_time = time.monotonic(), int(time.time())
        if readable:
            self.core.receive_datagrams(self._read(), self.server, now, unix_time)
        if (due := self.core.next_timeout()) is not None and due <= now:
            self.core.advance(now, unix_time)
        while (event := self.core.next_event()) is not None:
            if isinstance(event, Connected) and event.options.ifconfig is not None:
                self.address = event.options.ifconfig.ip
            elif isinstance(event, Closed):
                self.closed = f"{event.reason} {event.detail}"
        if self.address is not None and not self.answered and now >= self.next_echo_at:
            self.core.receive_packets([echo_request(self.address, target, self.number)], now)
            self.next_echo_at = now + 1.0
        for packet in self.core.packets_to_deliver():  # single ones: only trains and superpackets make others
            self.answered |= isinstance(packet, bytes) and is_answer(packet, self.number)
        for datagram, _ in self.core.datagrams_to_send():
            self.sock.send(datagram if isinstance(datagram, bytes) else datagram.view)

    def _read(self) -> list[bytes]:
        datagrams: list[bytes] = []
        try:
            while True:
                datagrams.append(self.sock.recv(65535))
        except BlockingIOError:
            return datagrams


def start(settings: ClientSettings, server: Address, number: int) -> Client:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.connect(server)
    core = ClientCore(settings, server, random_bytes=os.urandom)
    core.start(time.monotonic(), int(time.time()))
    return Client(number, core, sock, server)


def serve(clients: dict[int, Client], poll: select.epoll, target: IPv4Address) -> None:
    """One turn for all of them."""
    dues = [due for client in clients.values() if (due := client.core.next_timeout()) is not None]
    patience = max(0.0, min([*dues, time.monotonic() + 0.5]) - time.monotonic())
    ready = {descriptor for descriptor, _ in poll.poll(patience)}
    now = time.monotonic()
    for descriptor, client in clients.items():
        due = client.core.next_timeout()
        waits = client.address is not None and not client.answered and client.next_echo_at <= now
        if descriptor in ready or waits or (due is not None and due <= now):
            client.serve(target, readable=descriptor in ready)


def main() -> None:
    config, count, target = Path(sys.argv[1]), int(sys.argv[2]), IPv4Address(sys.argv[3])
    configuration = load_configuration(config)
    settings, remote = configuration.core, configuration.driver.remotes[0]
    if not isinstance(settings, ClientSettings):
        raise SystemExit("a client's configuration is needed")
    poll = select.epoll()
    clients: dict[int, Client] = {}
    began = time.monotonic()
    for number in range(1, count + 1):
        client = start(settings, (remote.host, remote.port), number)
        clients[client.sock.fileno()] = client
        poll.register(client.sock.fileno(), select.EPOLLIN)
        client.serve(target, readable=False)
    while not all(client.answered for client in clients.values()) and time.monotonic() < began + SECONDS:
        serve(clients, poll, target)
    seconds = time.monotonic() - began
    print("all in" if all(client.answered for client in clients.values()) else "not all in", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        serve(clients, poll, target)
    result = {
        "addresses": sorted(str(client.address) for client in clients.values()),
        "answered": sum(client.answered for client in clients.values()),
        "closed": [client.closed for client in clients.values() if client.closed],
        "seconds": round(seconds, 2),
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
