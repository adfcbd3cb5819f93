"""Trains through whole cores: what is checked of one packet is checked of many at once."""

from __future__ import annotations

from typing import Any

from tests.sim.inner import ip_packet
from tests.sim.network import Node, World, datagrams
from tests.sim.setups import CLIENT, SERVER, client_settings, connect, server_settings
from vpn.dataplane.mss import MssLimits
from vpn.dataplane.rows import Rows
from vpn.dataplane.train import Train
from vpn.dataplane.workbench import Workbench
from vpn.drops import Drop
from vpn.settings import DataSettings
from vpn.wire.occ import PING

HERE, THERE, NOWHERE = "10.8.0.2", "10.8.0.1", "10.8.0.77"
COUNT = 10


def ends() -> tuple[World, Node, Node]:
    """The client clamps nothing: so the server has to."""
    world = World()
    client, server = connect(world, client_settings(data=DataSettings(mssfix=None)), server_settings())
    world.run(seconds=1)
    server.core.packets_to_deliver()
    return world, client, server


def given_at_once(world: World, node: Node, sealed: list[bytes]) -> list[bytes]:
    """What the end delivers of datagrams that come as one train."""
    octets = b"".join(sealed)
    train = Train(memoryview(bytearray(octets + bytes(16))), 0, len(octets), len(sealed[0]))
    core: Any = node.core
    core.receive_train(train, SERVER if node.address == CLIENT else CLIENT, world.now, world.unix_time, Workbench())
    found: list[bytes] = []
    for packets in core.packets_to_deliver():
        found += packets.packets() if isinstance(packets, Rows) else [packets]
    return found


def sealed_by(client: Node, world: World, packets: list[bytes]) -> list[bytes]:
    core: Any = client.core
    core.receive_packets(packets, world.now)
    return [datagram for datagram, _ in datagrams(core)]


def test_a_train_with_anothers_source_is_dropped_and_one_with_its_own_is_delivered() -> None:
    world, client, server = ends()
    own = [ip_packet(HERE, THERE, number, 300) for number in range(COUNT)]
    forged = [ip_packet(NOWHERE, THERE, number, 300) for number in range(COUNT)]
    assert given_at_once(world, server, sealed_by(client, world, own)) == own
    assert given_at_once(world, server, sealed_by(client, world, forged)) == []
    assert server.core.drops[Drop.SPOOFED_SOURCE] == COUNT


def test_the_syns_of_a_train_are_clamped() -> None:
    world, client, server = ends()
    syn = bytearray(ip_packet(HERE, THERE, 0, 24))
    syn[9], syn[32], syn[33] = 6, 0x60, 0x02
    syn[40:44] = b"\2\4" + (9000).to_bytes(2, "big")
    found = given_at_once(world, server, sealed_by(client, world, [bytes(syn)] * COUNT))
    assert len(found) == COUNT
    assert {int.from_bytes(packet[42:44], "big") for packet in found} <= set(range(1000, 1460))
    assert MssLimits(1400, 1380).clamp_batch([bytes(syn)]) != [bytes(syn)], "it is no SYN that would be clamped"


def test_a_ping_at_the_end_of_a_train_is_not_delivered() -> None:
    world, client, server = ends()
    own = [ip_packet(HERE, THERE, number, 300) for number in range(COUNT)]
    assert given_at_once(world, server, sealed_by(client, world, [*own, PING])) == own
    assert given_at_once(world, server, sealed_by(client, world, [PING] * COUNT)) == []
    own = [ip_packet(THERE, HERE, number, 300) for number in range(COUNT)]
    peer: Any = server.core
    peer.connected[0].session.send_packets([*own, PING], world.now)
    sealed = [datagram for datagram in peer.connected[0].session.datagrams(world.now) if isinstance(datagram, bytes)]
    assert given_at_once(world, client, sealed) == own


def test_a_client_takes_nothing_from_another_address_than_its_servers() -> None:
    world, client, server = ends()
    core: Any = server.core
    core.receive_packets([ip_packet(THERE, HERE, 1)], world.now)
    ((datagram, _),) = datagrams(core)
    client.core.receive_datagrams([datagram], ("203.0.113.5", 1194), world.now, world.unix_time)
    assert client.core.packets_to_deliver() == []
    assert client.core.drops[Drop.UNKNOWN_SENDER] == 1
    client.core.receive_datagrams([datagram], SERVER, world.now, world.unix_time)
    assert len(client.core.packets_to_deliver()) == 1
