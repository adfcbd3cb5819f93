"""Many clients in one process, told what to do line by line: what a server costs, and whom it lets wait.

    python crowd.py CONFIG TARGET SERVER < orders > answers     TARGET: an inner address that answers echo requests
                                                                SERVER: the server's process

Orders and answers are lines of JSON. Each client is a core of its own with a socket of its own; the packets through its
tunnel are made and read here, so that two hundred of them need neither devices nor processes.

    {"order": "connect", "clients": 10}              so many, one after the other; how long each handshake took
    {"order": "up", "packets": 9000, "burst": 1}     to the server, the clients in turns, `burst` packets each time
    {"order": "down", "packets": 9000, "burst": 1}   the same back, from `inner_source.py`
    {"order": "flood", "seconds": 2, "heavy": 1, "light": 1, "burst": 40}   see `flood`

`up` and `down` go in rounds: the server is halted while one is sent, so that it finds all of it at once, as under full
load, however fast the sender is; the next comes when all is answered, so that nothing is lost to a full buffer.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from tests.interop.many_clients import checksum, echo_request
from vpn.client import ClientCore
from vpn.config.load import load_configuration
from vpn.dataplane.offload import UDP, Superpacket
from vpn.dataplane.train import Train
from vpn.dataplane.workbench import Workbench
from vpn.events import Closed, Connected, Event, Renegotiated
from vpn.settings import Address, ClientSettings

ROUND = 160  # packets before an answer is waited for: all queues on the way hold so many
INNER_OCTETS = 1400
SINK = IPv4Address("10.66.0.1")  # where the server's host drops what comes
SOURCE_PORT = 4000  # of `inner_source.py`
PING_EVERY = 0.005
PATIENCE = 5.0
_SOL_UDP, _UDP_SEGMENT = 17, 103
_BUFFER_OCTETS = 4 << 20


class CrowdClient:
    """One client: a core, a socket, and what it has heard."""

    def __init__(self, settings: ClientSettings, server: Address, number: int) -> None:
        self.number = number
        self.server = server
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_OCTETS)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
        self.sock.connect(server)
        self.core = ClientCore(settings, server, random_bytes=os.urandom)
        self.began_at = time.monotonic()
        self.address: IPv4Address | None = None
        self.joined_after = 0.0
        self._single = b""
        self.events: list[Event] = []
        self.core.start(self.began_at, int(time.time()))
        self.send()

    def receive(self) -> list[bytes]:
        """The inner packets that have come."""
        now, datagrams = time.monotonic(), []
        try:
            while True:
                datagrams.append(self.sock.recv(65535))
        except OSError:
            pass  # nothing left, or an ICMP error: not what is measured
        if datagrams:
            self.core.receive_datagrams(datagrams, self.server, now, int(time.time()))
        self.advance()
        return [packet for packet in self.core.packets_to_deliver() if isinstance(packet, bytes)]

    def drain(self) -> int:
        """How many datagrams have come; they are not opened."""
        count = 0
        try:
            while self.sock.recv_into(_DRAINED) >= INNER_OCTETS:
                count += 1
        except OSError:
            pass
        return count

    def advance(self) -> None:
        now = time.monotonic()
        if (due := self.core.next_timeout()) is not None and due <= now:
            self.core.advance(now, int(time.time()))
        while (event := self.core.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, Connected) and event.options.ifconfig is not None:
                self.address, self.joined_after = event.options.ifconfig.ip, time.monotonic() - self.began_at
            elif isinstance(event, Closed):
                raise SystemExit(f"client {self.number} was closed: {event.reason} {event.detail}")
        self.send()

    def send_packets(self, packets: Sequence[bytes]) -> None:
        self.core.receive_packets(packets, time.monotonic())
        self.send()

    def send_many(self, count: int, bench: Workbench) -> None:
        """`count` packets to the sink, in as few calls as can be."""
        payload = INNER_OCTETS - 28
        superpacket = Superpacket(self._to_sink(payload * count), 20, 28, payload, UDP)
        self.core.receive_superpacket(superpacket, time.monotonic(), bench)
        self.send()

    def single(self) -> bytes:
        """A packet to the sink, its checksums right: only such packets are joined for the server's kernel."""
        if not self._single:
            packet = self._to_sink(INNER_OCTETS - 28)
            head = packet[:10] + struct.pack("!H", checksum(packet[:20])) + packet[12:20]
            pseudo = packet[12:20] + struct.pack("!HH", UDP, INNER_OCTETS - 20)
            self._single = head + packet[20:26] + struct.pack("!H", checksum(pseudo + packet[20:])) + packet[28:]
        return self._single

    def _to_sink(self, octets: int) -> bytes:
        source = (self.address or SINK).packed
        head = struct.pack("!BBHHHBBH", 0x45, 0, (28 + octets) & 0xFFFF, 0, 0x4000, 64, UDP, 0) + source + SINK.packed
        return head + struct.pack("!HHHH", 9, 9, (8 + octets) & 0xFFFF, 0) + bytes(octets)

    def send(self) -> None:
        run: list[bytes] = []
        for datagram, _ in self.core.datagrams_to_send():
            if isinstance(datagram, Train):
                self._send_train(datagram)
            else:
                run.append(datagram)
        if len(run) > 1 and len(set(map(len, run))) == 1:
            self._try(lambda: self.sock.sendmsg(run, [_segments_of(len(run[0]))]))
            return
        for single in run:
            self._try(lambda single=single: self.sock.send(single))  # type: ignore[misc]

    def _send_train(self, train: Train) -> None:
        most = 60000 // train.slot * train.slot
        for at in range(train.at, train.at + train.octets, most):
            part = train.buffer[at : min(at + most, train.at + train.octets)]
            self._try(lambda part=part: self.sock.sendmsg([part], [_segments_of(train.slot)]))  # type: ignore[misc]

    def _try(self, send: Callable[[], object]) -> None:
        """A full buffer loses what is sent, as any link does."""
        try:
            send()
        except OSError:
            return


_DRAINED = bytearray(65536)


def _segments_of(octets: int) -> tuple[int, int, bytes]:
    return (_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", octets))


class Crowd:
    def __init__(self, settings: ClientSettings, server: Address, target: IPv4Address, server_process: int) -> None:
        self._settings = settings
        self._server = server
        self._target = target
        self._server_process = server_process
        self._clients: list[CrowdClient] = []
        self._bench = Workbench()
        self._asked = 0

    def connect(self, order: dict[str, Any]) -> dict[str, Any]:
        """Clients one after the other, until there are so many."""
        seconds = []
        while len(self._clients) < order["clients"]:
            client = self._begin()
            self._wait(lambda client=client: client.address is not None, [client])  # type: ignore[misc]
            seconds.append(client.joined_after)
        return {"clients": len(self._clients), "seconds": seconds}

    def _begin(self) -> CrowdClient:
        client = CrowdClient(self._settings, self._server, len(self._clients) + 1)
        self._clients.append(client)
        return client

    def addresses(self, order: dict[str, Any]) -> dict[str, Any]:
        """The clients' inner addresses."""
        return {"addresses": [str(self._of(client)) for client in self._clients]}

    # -- what a packet costs -----------------------------------------------------------------------------------------

    def up(self, order: dict[str, Any]) -> dict[str, Any]:
        burst, sent = order["burst"], 0
        turns = _in_turns(self._clients)
        while sent < order["packets"]:
            whose = [next(turns) for _ in range(ROUND // burst)]
            os.kill(self._server_process, signal.SIGSTOP)
            try:
                for client in whose:
                    self._burst(client, burst)
            finally:
                os.kill(self._server_process, signal.SIGCONT)
            sent += len(whose) * burst
            self._ask(next(turns))
        return {"packets": sent}

    def _ask(self, client: CrowdClient) -> None:
        """Returns when everything sent before has been dealt with: the server takes it in order."""
        self._asked = self._asked % 60000 + 1
        client.send_packets([echo_request(self._of(client), self._target, self._asked)])
        number = struct.pack("!H", self._asked)

        def is_answered() -> bool:
            return any(packet[9] == 1 and packet[24:26] == number for packet in client.receive())

        self._wait(is_answered, [client])

    def down(self, order: dict[str, Any]) -> dict[str, Any]:
        """The source is asked for a round, through the tunnel of the first client."""
        received, asked, burst = 0, 0, order["burst"]
        rounds = _in_turns([self._of(client).packed for client in self._clients])
        poll = select.epoll()
        by_descriptor = {client.sock.fileno(): client for client in self._clients}
        for descriptor in by_descriptor:
            poll.register(descriptor, select.EPOLLIN)
        while asked < order["packets"]:
            addresses = b"".join(next(rounds) for _ in range(ROUND // burst))
            self._clients[0].send_packets([self._request(struct.pack("!HH", burst, INNER_OCTETS - 28) + addresses)])
            expected, deadline = received + ROUND // burst * burst, time.monotonic() + PATIENCE
            while received < expected and time.monotonic() < deadline:
                received += sum(by_descriptor[descriptor].drain() for descriptor, _ in poll.poll(0.1))
            asked += ROUND // burst * burst
        return {"packets": received, "asked": asked}

    def _request(self, payload: bytes) -> bytes:
        """A UDP packet from the first client to the source."""
        octets = 28 + len(payload)
        head = struct.pack("!BBHHHBBH", 0x45, 0, octets, 0, 0x4000, 64, UDP, 0)
        head += self._of(self._clients[0]).packed + self._target.packed
        total = sum(struct.unpack("!10H", head))
        head = head[:10] + struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF) + head[12:]
        return head + struct.pack("!HHHH", 9, SOURCE_PORT, 8 + len(payload), 0) + payload

    # -- who has to wait ---------------------------------------------------------------------------------------------

    def flood(self, order: dict[str, Any]) -> dict[str, Any]:
        """The first `heavy` clients send as fast as they can, the last `light` ones ping, for `seconds`.

        With `renegotiate` the first light client does so, with `join` so many new clients come, one after the other.
        """
        heavy = self._clients[: order["heavy"]]
        light = self._clients[-order["light"] :]
        pings = Pings(light, self._target)
        joined: list[CrowdClient] = []
        ends_at = time.monotonic() + order["seconds"]
        renewed = _renewals(light[0])
        if order.get("renegotiate"):
            light[0].core.request_renegotiation(time.monotonic())
            light[0].send()
        began_at, renewed_after = time.monotonic(), None
        turns, sent = _in_turns(heavy) if heavy else None, 0
        while (now := time.monotonic()) < ends_at:
            if turns is not None:
                self._burst(next(turns), order["burst"])
                sent += order["burst"]
            pings.serve(now)
            if len(joined) < order.get("join", 0) and (not joined or joined[-1].address is not None):
                joined.append(self._begin())
            for client in joined[-1:]:
                client.receive()
            if renewed_after is None and _renewals(light[0]) > renewed:
                renewed_after = now - began_at
            if turns is None:
                select.select([client.sock for client in (*light, *joined[-1:])], [], [], PING_EVERY / 2)
        self._wait(lambda: all(client.address is not None for client in joined), joined)
        pings.finish()
        return {
            "sent": sent,
            "asked": pings.asked,
            "answered": len(pings.seconds),
            "round_trips": sorted(pings.seconds),
            "joined": [client.joined_after for client in joined],
            "seconds": time.monotonic() - began_at,
            "renewed_after": renewed_after,
        }

    def _burst(self, client: CrowdClient, burst: int) -> None:
        if burst == 1:
            client.send_packets([client.single()])
        else:
            client.send_many(burst, self._bench)

    # -- small parts -------------------------------------------------------------------------------------------------

    def _of(self, client: CrowdClient) -> IPv4Address:
        if client.address is None:
            raise SystemExit(f"client {client.number} has no address")
        return client.address

    def _wait(self, until: Callable[[], bool], clients: Sequence[CrowdClient]) -> None:
        """Serves these clients until the condition holds."""
        deadline = time.monotonic() + PATIENCE * 6
        while not until():
            if time.monotonic() > deadline:
                raise SystemExit("no answer from the server")
            select.select([client.sock for client in clients], [], [], 0.01)
            for client in clients:
                if client.address is None:
                    client.receive()
                else:
                    client.advance()


class Pings:
    """Echo requests of some clients, one every few milliseconds each, and how long the answers took."""

    def __init__(self, clients: Sequence[CrowdClient], target: IPv4Address) -> None:
        self.asked = 0
        self.seconds: list[float] = []
        self._clients = clients
        self._target = target
        self._due = dict.fromkeys(range(len(clients)), 0.0)
        self._under_way: dict[tuple[int, int], float] = {}

    def serve(self, now: float) -> None:
        for place, client in enumerate(self._clients):
            for packet in client.receive():
                if packet[9] == 1:
                    began = self._under_way.pop((place, int.from_bytes(packet[24:26], "big")), None)
                    if began is not None:
                        self.seconds.append(time.monotonic() - began)
            if self._due[place] <= now and client.address is not None:
                self._due[place] = now + PING_EVERY
                self.asked += 1
                self._under_way[place, self.asked & 0xFFFF] = now
                client.send_packets([echo_request(client.address, self._target, self.asked & 0xFFFF)])

    def finish(self) -> None:
        """Waits a while for the last answers."""
        ends_at = time.monotonic() + 0.3
        self._due = dict.fromkeys(self._due, float("inf"))
        while self._under_way and time.monotonic() < ends_at:
            select.select([client.sock for client in self._clients], [], [], 0.02)
            self.serve(time.monotonic())


def _renewals(client: CrowdClient) -> int:
    return sum(isinstance(event, Renegotiated) for event in client.events)


def _in_turns(several: Sequence[Any]) -> Iterator[Any]:
    while True:
        yield from several


def main() -> None:
    configuration = load_configuration(Path(sys.argv[1]))
    settings, remote = configuration.core, configuration.driver.remotes[0]
    if not isinstance(settings, ClientSettings):
        raise SystemExit("a client's configuration is needed")
    crowd = Crowd(settings, (remote.host, remote.port), IPv4Address(sys.argv[2]), int(sys.argv[3]))
    orders = {
        "connect": crowd.connect,
        "up": crowd.up,
        "down": crowd.down,
        "flood": crowd.flood,
        "addresses": crowd.addresses,
    }
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(orders[order["order"]](order)), flush=True)


if __name__ == "__main__":
    main()
