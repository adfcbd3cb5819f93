"""A server while one client sends all it can: everybody else's data and control packets get through as if it did not.

Nothing here is timed: a full batch of the flooding client stands between any two steps of everybody else.
"""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from tests.sim.inner import ip_packet, numbers
from tests.sim.network import Node, World, datagrams, singles
from tests.sim.setups import SERVER, add_client, add_server, client_settings, events, server_settings
from vpn.client import ClientCore
from vpn.events import ClientConnected, ClientGone, Connected, Renegotiated
from vpn.server import ServerCore
from vpn.settings import Address, Pool, Timers, Transport

BATCH = 64
TIMERS = Timers(ping=10, ping_restart=30)
TRANSPORTS = [Transport.UDP, Transport.TCP]


class Crowd:
    """A server, one client that floods, and others."""

    def __init__(self, transport: Transport = Transport.UDP, others: int = 2) -> None:
        self.world = World()
        self.transport = transport
        pool = Pool(IPv4Network("10.8.0.0/24"))
        self.server = add_server(
            self.world, server_settings(pool=pool, duplicate_cn=True, transport=transport, timers=TIMERS)
        )
        self.heavy, *self.others = [self.join(number) for number in range(1 + others)]
        assert self.world.run(lambda: all(events(node, Connected) for node in (self.heavy, *self.others)))
        self.flooded = 0

    def join(self, number: int) -> Node:
        return add_client(self.world, client_settings(transport=self.transport, timers=TIMERS), address_of(number))

    def flood(self) -> None:
        """One full batch of the heavy client, straight into the server, and one for it from the interface."""
        core, server = self.heavy.core, self.server.core
        assert isinstance(core, ClientCore)
        assert isinstance(server, ServerCore)
        inner = inner_of(self.heavy)
        core.receive_packets([ip_packet(inner, "10.8.0.1", number) for number in range(BATCH)], self.world.now)
        sent = [datagram for datagram, _ in datagrams(core)]
        server.receive_datagrams(sent, self.heavy.address, self.world.now, self.world.unix_time)
        server.receive_packets([ip_packet("10.8.0.1", inner, number) for number in range(BATCH)], self.world.now)
        self.flooded += BATCH

    def run_flooded(self, until: Node, kind: type[Renegotiated] | type[Connected], moments: int) -> bool:
        """Whether the client has told such an event after so many moments, each of them with a flood."""
        before = len(events(until, kind))
        for _ in range(moments):
            self.flood()
            if self.world.run(lambda: len(events(until, kind)) > before, seconds=0.02):
                return True
        return False


def address_of(number: int) -> Address:
    return ("192.0.2.1", 40000 + number)


def inner_of(node: Node) -> str:
    options = events(node, Connected)[0].options
    assert options.ifconfig is not None
    return str(options.ifconfig.ip)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_new_client_comes_in_while_another_one_floods(transport: Transport) -> None:
    crowd = Crowd(transport)
    quiet = Crowd(transport)
    moments = 0
    comer = quiet.join(9)
    while not quiet.world.run(lambda: bool(events(comer, Connected)), seconds=0.02):
        moments += 1
    assert crowd.run_flooded(crowd.join(9), Connected, moments + 2), "it took more round trips than without a flood"
    assert crowd.flooded >= BATCH


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_renegotiation_ends_while_another_client_floods(transport: Transport) -> None:
    crowd = Crowd(transport)
    light = crowd.others[0]
    assert isinstance(light.core, ClientCore)
    assert light.core.request_renegotiation(crowd.world.now)
    assert crowd.run_flooded(light, Renegotiated, 20)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_server_renegotiates_with_the_one_that_floods(transport: Transport) -> None:
    crowd = Crowd(transport)
    server = crowd.server.core
    assert isinstance(server, ServerCore)
    number = events(crowd.server, ClientConnected)[0].peer
    assert server.request_renegotiation(number, crowd.world.now)
    assert crowd.run_flooded(crowd.heavy, Renegotiated, 20)


def test_keepalive_pings_go_out_to_the_idle_while_another_client_floods() -> None:
    crowd = Crowd()
    for _ in range(60):
        crowd.flood()
        crowd.world.run(seconds=1.5)  # in all three times as long as anybody may be silent
    assert not events(crowd.server, ClientGone)
    for node in crowd.others:
        assert len(node.events) == len([*events(node, Connected)]) + 1, node.events  # TLS, and in; nobody restarted


def test_each_clients_packets_of_one_batch_get_through_in_order_whoever_stands_between_them() -> None:
    crowd = Crowd(others=5)
    server, world = crowd.server.core, crowd.world
    sent: list[tuple[bytes, Address]] = []
    for number in range(30):
        for node in (crowd.heavy, crowd.heavy, crowd.heavy, *crowd.others):
            assert isinstance(node.core, ClientCore)
            node.core.receive_packets([ip_packet(inner_of(node), "10.8.0.1", number)], world.now)
            sent += [(datagram, node.address) for datagram, _ in datagrams(node.core)]
    for datagram, address in sent:
        server.receive_datagrams([datagram], address, world.now, world.unix_time)
    delivered = singles(server.packets_to_deliver())
    for node in crowd.others:
        own = bytes(map(int, inner_of(node).split(".")))
        assert numbers([packet for packet in delivered if packet[12:16] == own]) == list(range(30))


def test_packets_for_many_clients_in_turns_leave_together_for_each_and_in_order() -> None:
    crowd = Crowd(others=3)
    server, world = crowd.server.core, crowd.world
    assert isinstance(server, ServerCore)
    nodes = (crowd.heavy, *crowd.others)
    packets = [ip_packet("10.8.0.1", inner_of(node), number) for number in range(8) for node in nodes]
    server.receive_packets(packets, world.now)
    sent = datagrams(server)
    assert [address for _, address in sent] == [node.address for node in nodes for _ in range(8)]
    for datagram, address in sent:
        world.inject(datagram, SERVER, address)
    world.run(seconds=1)
    assert all(numbers(node.delivered) == list(range(8)) for node in nodes)
