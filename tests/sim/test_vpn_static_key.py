"""Static-key mode between two cores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.sim.inner import ip_packet, numbers
from tests.sim.network import Node, World, datagrams
from tests.sim.setups import CLIENT, KEY, SERVER, events
from vpn.drops import Drop
from vpn.events import Closed, CloseReason, Connected, TransportUnusable
from vpn.settings import Address, Cipher, Digest, KeyDirection, StaticKeySettings, Transport
from vpn.static_key_core import StaticKeyCore


def ends(world: World, settings: StaticKeySettings, directed: bool) -> tuple[Node, Node]:
    directions = (KeyDirection.INVERSE, KeyDirection.NORMAL) if directed else (KeyDirection.BIDIRECTIONAL,) * 2
    ours = replace(settings, direction=directions[0])
    theirs = replace(settings, direction=directions[1], listen=True)
    cores = (
        StaticKeyCore(ours, SERVER, random_bytes=world.random_bytes),
        StaticKeyCore(theirs, None, random_bytes=world.random_bytes),
    )
    for core in cores:
        core.start(world.now, world.unix_time)
    return world.add(cores[0], CLIENT), world.add(cores[1], SERVER)


def core(node: Node) -> StaticKeyCore:
    assert isinstance(node.core, StaticKeyCore)
    return node.core


@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("digest", list(Digest))
def test_two_ends_with_one_key_carry_packets(digest: Digest, directed: bool) -> None:
    world = World()
    client, server = ends(world, StaticKeySettings(KEY, digest=digest), directed)
    assert world.run(lambda: bool(events(server, Connected)), seconds=5)
    for number in range(10):
        core(client).receive_packet(ip_packet("10.8.0.2", "10.8.0.1", number), world.now)
        core(server).receive_packet(ip_packet("10.8.0.1", "10.8.0.2", number), world.now)
    world.run(seconds=1)
    assert numbers(client.delivered) == numbers(server.delivered) == list(range(10))
    assert client.core.drops.total == server.core.drops.total == 0


def test_a_recorded_packet_is_worth_nothing_a_second_time_and_a_restart_is_believed() -> None:
    world = World()
    client, server = ends(world, StaticKeySettings(KEY), directed=True)
    core(client).receive_packet(ip_packet("10.8.0.2", "10.8.0.1", 1), world.now)
    world.run(seconds=1)
    for _, source, target, datagram in list(world.wire):
        world.inject(datagram, source, target)
    world.run(seconds=10)
    assert numbers(server.delivered) == [1]
    assert server.core.drops[Drop.REPLAYED_DATA] == 2
    again = StaticKeyCore(core(client).settings, SERVER, random_bytes=world.random_bytes)
    again.start(world.now, world.unix_time)
    client.core = again
    again.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", 2), world.now)
    world.run(seconds=1)
    assert numbers(server.delivered) == [1, 2]


def test_another_key_is_not_heard() -> None:
    world = World()
    client, server = ends(world, StaticKeySettings(KEY), directed=True)
    stranger = StaticKeyCore(StaticKeySettings(KEY[::-1]), SERVER, random_bytes=world.random_bytes)
    stranger.start(world.now, world.unix_time)
    for datagram, _ in datagrams(stranger):
        world.inject(datagram, CLIENT, SERVER)
    del world.nodes[client.address]
    world.run(seconds=1)
    assert not events(server, Connected)
    assert server.core.drops[Drop.UNAUTHENTIC_DATA] == 1


def test_silence_ends_a_static_tunnel_that_pings_and_exit_is_told() -> None:
    world = World()
    settings = StaticKeySettings(KEY, ping=5, ping_restart=20, explicit_exit_notify=True)
    client, server = ends(world, settings, directed=False)
    world.run(seconds=100)
    assert not events(client, Closed)
    core(client).close(world.now)
    world.run(seconds=1)
    assert events(server, Closed)[0].reason is CloseReason.PEER_EXIT


def test_an_aead_cipher_is_refused_with_a_static_key() -> None:
    with pytest.raises(ValueError, match="cannot be used with a static key"):
        StaticKeyCore(StaticKeySettings(KEY, cipher=Cipher.AES_256_GCM), SERVER, random_bytes=bytes)


def test_a_stranger_on_a_listening_tcp_end_ends_his_own_connection_alone() -> None:
    world = World()
    client, server = ends(world, StaticKeySettings(KEY, transport=Transport.TCP), directed=True)
    stranger: Address = ("203.0.113.9", 5)
    core(server).receive_datagrams([b"GET / HTTP/1.1"], stranger, world.now, world.unix_time)
    core(server).transport_lost(stranger, world.now, "Connection reset by peer")
    assert world.run(lambda: bool(events(server, Connected)), seconds=5)
    core(server).receive_datagrams([b"GET / HTTP/1.1"], stranger, world.now, world.unix_time)
    core(server).transport_lost(stranger, world.now, "Connection reset by peer")
    core(client).receive_packet(ip_packet("10.8.0.2", "10.8.0.1", 1), world.now)
    core(server).receive_packet(ip_packet("10.8.0.1", "10.8.0.2", 2), world.now)
    world.run(seconds=1)
    assert (numbers(server.delivered), numbers(client.delivered)) == ([1], [2])
    assert [event.address for event in events(server, TransportUnusable)] == [stranger] * 2
    core(server).transport_lost(CLIENT, world.now, "Connection reset by peer")
    world.run(seconds=1)
    assert events(server, Closed)[0].reason is CloseReason.TRANSPORT
