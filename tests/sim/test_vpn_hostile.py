"""What a stranger sends changes nothing but counters; what was recorded is worth nothing a second time."""

from __future__ import annotations

import random
from ipaddress import IPv4Network

import pytest

from tests.sim.inner import ip_packet, numbers
from tests.sim.network import Node, World, datagrams
from tests.sim.setups import (
    CLIENT,
    SERVER,
    add_client,
    add_server,
    client_settings,
    connect,
    events,
    pair,
    protections,
    server_settings,
)
from vpn.client import ClientCore
from vpn.drops import Drop
from vpn.events import ClientConnected, ClientGone, Closed, CloseReason, Connected
from vpn.server import ServerCore
from vpn.settings import Address, ClientOverrides, Timers

MALLORY: Address = ("203.0.113.66", 666)


def cores(client: Node, server: Node) -> tuple[ClientCore, ServerCore]:
    assert isinstance(client.core, ClientCore)
    assert isinstance(server.core, ServerCore)
    return client.core, server.core


@pytest.mark.parametrize("name", ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_a_flood_of_resets_from_forged_addresses_leaves_no_state(name: str) -> None:
    world = World()
    ours, theirs = protections(name)
    server = add_server(world, server_settings(control=theirs))
    core = server.core
    assert isinstance(core, ServerCore)
    client = ClientCore(client_settings(control=ours), SERVER, random_bytes=world.random_bytes)
    client.start(world.now, world.unix_time)
    ((reset, _),) = datagrams(client)
    for number in range(1000):
        core.receive_datagram(reset, (f"10.0.{number >> 8}.{number & 255}", number), world.now, world.unix_time)
    replies = datagrams(core)
    assert len(replies) == 100
    assert core.drops[Drop.RATE_LIMITED] == 900
    assert core.next_timeout() is None
    assert core.next_event() is None


def test_a_cookie_is_worth_nothing_from_another_address() -> None:
    world = World()
    client, server = pair(world)
    third: list[bytes] = []
    world.tap = lambda datagram, source, _target: keep_third(datagram, source, third)
    world.run(lambda: bool(third), seconds=5)
    world.inject(third[0], MALLORY, SERVER)
    world.run(seconds=1)
    assert server.core.drops[Drop.BAD_COOKIE] == 1
    assert not events(server, ClientConnected)
    assert client.core.drops.total == 0


def keep_third(datagram: bytes, source: Address, third: list[bytes]) -> bytes | None:
    if source == CLIENT and datagram[0] >> 3 == 4:
        third.append(datagram)
        return None
    return datagram


@pytest.mark.parametrize("name", ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_a_whole_recorded_session_replayed_is_accepted_nowhere(name: str) -> None:
    world = World()
    ours, theirs = protections(name)
    client, server = connect(world, client_settings(control=ours), server_settings(control=theirs))
    ours_core, theirs_core = cores(client, server)
    for number in range(20):
        ours_core.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", number), world.now)
        theirs_core.receive_packet(ip_packet("10.8.0.1", "10.8.0.2", number), world.now)
    world.run(seconds=2)
    recorded = list(world.wire)
    before = [list(node.delivered) for node in (client, server)]
    for _, source, target, datagram in recorded:
        world.inject(datagram, source, target)
        world.inject(datagram, MALLORY, target)
    world.run(seconds=5)
    assert [node.delivered for node in (client, server)] == before
    assert len(events(server, ClientConnected)) == 1
    assert theirs_core.connected[0].address == CLIENT
    assert server.core.drops[Drop.REPLAYED_DATA] >= 40
    ours_core.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", 99), world.now)
    assert world.run(lambda: numbers(server.delivered)[-1] == 99, seconds=2)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_forged_packets_during_and_after_the_handshake_change_nothing(name: str, seed: int) -> None:
    world = World(seed)
    draw = random.Random(seed)
    ours, theirs = protections(name)
    client, server = pair(world, client_settings(control=ours), server_settings(control=theirs))

    def forge(datagram: bytes, source: Address, target: Address) -> bytes:
        for _ in range(3):
            # past the opcode: the key id of DATA_V1 and of CBC packets is not authenticated by design
            changed = bytearray(datagram)
            changed[draw.randrange(1, len(changed))] ^= 1 << draw.randrange(8)
            world.inject(bytes(changed), source, target)
        world.inject(draw.randbytes(draw.randrange(0, 200)), source, target)
        return datagram

    world.tap = forge
    assert world.run(lambda: bool(events(client, Connected)), seconds=30)
    ours_core, theirs_core = cores(client, server)
    for number in range(50):
        ours_core.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", number), world.now)
        theirs_core.receive_packet(ip_packet("10.8.0.1", "10.8.0.2", number), world.now)
        world.run(seconds=0.1)
    assert numbers(client.delivered) == numbers(server.delivered) == list(range(50))
    assert not events(client, Closed)
    assert not events(server, ClientGone)
    assert client.core.drops.total > 100
    assert server.core.drops.total > 100


def test_a_forged_packet_does_not_move_a_client() -> None:
    world = World()
    client, server = connect(world)
    ours, theirs = cores(client, server)
    ours.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", 1), world.now)
    ((datagram, _),) = datagrams(ours)
    forged = datagram[:-1] + bytes((datagram[-1] ^ 1,))
    world.inject(forged, MALLORY, SERVER)
    world.run(seconds=1)
    assert theirs.connected[0].address == CLIENT
    assert server.core.drops[Drop.UNAUTHENTIC_DATA] == 1


def test_a_client_that_stops_in_the_middle_is_forgotten() -> None:
    world = World()
    client, server = pair(world)
    world.run(lambda: any(octets[0] >> 3 == 4 for _, source, _, octets in world.wire if source == SERVER), seconds=5)
    world.tap = lambda _datagram, _source, _target: None
    world.run(seconds=70)
    _, core = cores(client, server)
    assert [event.reason for event in events(server, ClientGone)] == [CloseReason.HANDSHAKE_TIMEOUT]
    assert core.next_timeout() is None


def test_unfinished_handshakes_are_limited() -> None:
    world = World()
    server = add_server(world, server_settings(max_half_open=5))
    for number in range(12):
        add_client(world, client_settings(), ("10.1.1.1", number))
    world.tap = lambda datagram, source, _target: datagram if source != SERVER or datagram[0] >> 3 == 8 else None
    world.run(seconds=1)
    assert server.core.drops[Drop.HALF_OPEN_LIMIT] >= 7


def test_a_client_cannot_send_with_an_address_that_is_not_its_own() -> None:
    world = World()
    client, server = connect(world)
    ours, _ = cores(client, server)
    ours.receive_packets([ip_packet("10.8.0.3", "10.8.0.1", 1), ip_packet("10.8.0.2", "10.8.0.1", 2)], world.now)
    assert world.run(lambda: bool(server.delivered), seconds=2)
    assert numbers(server.delivered) == [2]
    assert server.core.drops[Drop.SPOOFED_SOURCE] == 1


def test_clients_reach_each_other_only_where_that_is_allowed() -> None:
    for allowed in (False, True):
        world = World()
        server = add_server(world, server_settings(client_to_client=allowed))
        nodes = [add_client(world, client_settings(name), (f"10.1.1.{name}", 1)) for name in ("1", "2")]
        assert world.run(lambda nodes=nodes: all(events(node, Connected) for node in nodes), seconds=10)  # type: ignore[misc]
        addresses = [str(event.ifconfig) for event in events(server, ClientConnected)]
        sender = next(node for node in nodes if str(events(node, Connected)[0].options.ifconfig.ip) == addresses[0])  # type: ignore[union-attr]
        receiver = next(node for node in nodes if node is not sender)
        sender.core.receive_packet(ip_packet(addresses[0], addresses[1], 7), world.now)  # type: ignore[attr-defined]
        world.run(seconds=1)
        assert (numbers(receiver.delivered) == [7]) is allowed
        assert (numbers(server.delivered) == [7]) is not allowed


def test_the_same_certificate_again_replaces_the_older_session_unless_duplicates_are_allowed() -> None:
    for duplicates, left in ((False, 1), (True, 2)):
        world = World()
        server = add_server(world, server_settings(duplicate_cn=duplicates))
        for number in (1, 2):
            node = add_client(world, client_settings(), ("10.1.1.1", number))
            assert world.run(lambda node=node: bool(events(node, Connected)), seconds=10)  # type: ignore[misc]
        assert isinstance(server.core, ServerCore)
        assert len(server.core.connected) == left


def test_a_client_that_restarts_from_the_same_port_gets_in_again() -> None:
    world = World()
    client, server = connect(world)
    del world.nodes[client.address]
    again = add_client(world, client_settings())
    assert world.run(lambda: bool(events(again, Connected)), seconds=10)
    assert isinstance(server.core, ServerCore)
    assert len(server.core.connected) == 1


def test_a_full_server_says_so() -> None:
    world = World()
    server = add_server(world, server_settings(max_clients=1))
    nodes = [add_client(world, client_settings(name), (f"10.1.1.{name}", 1)) for name in ("1", "2")]
    assert world.run(lambda: any(events(node, Closed) for node in nodes), seconds=10)
    assert len(events(server, ClientConnected)) == 1


def test_networks_behind_a_client_are_reached_through_it() -> None:
    world = World()
    client, server = pair(world, None, server_settings(external_admission=True, timers=Timers(ping_restart=0)))
    ours, theirs = cores(client, server)
    overrides = ClientOverrides(iroutes=(IPv4Network("192.168.7.0/24"),))
    world.run(seconds=2)
    theirs.admit(1, overrides, world.now, world.unix_time)
    assert world.run(lambda: bool(events(client, Connected)), seconds=10)
    theirs.receive_packet(ip_packet("10.8.0.1", "192.168.7.9", 3), world.now)
    ours.receive_packet(ip_packet("192.168.7.9", "10.8.0.1", 4), world.now)
    world.run(seconds=1)
    assert (numbers(client.delivered), numbers(server.delivered)) == ([3], [4])
