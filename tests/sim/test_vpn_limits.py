"""How long a session may last and how many there may be: idle, overlong, too many."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network
from typing import Any, cast

import pytest

from tests.sim.inner import ip_packet
from tests.sim.network import Node, World
from tests.sim.setups import POOL, add_client, add_server, client_settings, connect, events, server_settings
from vpn.client import ClientCore
from vpn.clientele import Clientele
from vpn.dataplane.channel import DataChannel
from vpn.dataplane.train import Train
from vpn.departures import Departures
from vpn.drops import Drops
from vpn.events import AuthFailed, ClientConnected, ClientGone, Closed, CloseReason, Connected, RefusalReason, Refused
from vpn.outlets import Outlets
from vpn.pool import AddressPool
from vpn.server import ServerCore
from vpn.server_peer import Peer, Stage
from vpn.session import Session
from vpn.settings import DataSettings, Pool, Timers, Transport
from vpn.wire.peer_info import PeerInfo, Protocol

INNER_CLIENT, INNER_SERVER = "10.8.0.2", "10.8.0.1"


def say(world: World, client: Node, octets: int = 8) -> None:
    assert isinstance(client.core, ClientCore)
    client.core.receive_packet(ip_packet(INNER_CLIENT, INNER_SERVER, 1, octets), world.now)


def gone(server: Node) -> list[CloseReason]:
    return [event.reason for event in events(server, ClientGone)]


def test_a_server_ends_a_session_that_only_pings() -> None:
    world = World()
    timers = Timers(ping=2, ping_restart=0, inactive=10)
    client, server = connect(world, None, server_settings(timers=timers, push_ping=2))
    for _ in range(5):
        world.run(seconds=8)
        say(world, client)
    assert gone(server) == []
    world.run(seconds=12)
    assert gone(server) == [CloseReason.INACTIVE]
    assert isinstance(server.core, ServerCore)
    assert server.core.connected == []
    assert not events(client, Closed)  # it is not told, as with the real server


def test_too_little_traffic_is_none() -> None:
    world = World()
    timers = Timers(ping_restart=0, inactive=10, inactive_octets=1000)
    client, server = connect(world, None, server_settings(timers=timers))
    for _ in range(4):
        world.run(seconds=6)
        say(world, client, 1200)
    assert gone(server) == []
    for _ in range(2):
        say(world, client, 100)
        world.run(seconds=6)
    assert gone(server) == [CloseReason.INACTIVE]


def test_a_server_ends_a_busy_session_after_its_time() -> None:
    world = World()
    client, server = connect(world, None, server_settings(timers=Timers(ping_restart=0, session_timeout=20)))
    for _ in range(18):
        world.run(seconds=1)
        say(world, client)
    assert gone(server) == []
    world.run(seconds=3)
    assert gone(server) == [CloseReason.SESSION_TIMEOUT]


@pytest.mark.parametrize(
    ("pushed", "reason"),
    [("inactive 10", CloseReason.INACTIVE), ("session-timeout 10", CloseReason.SESSION_TIMEOUT)],
)
def test_a_client_leaves_by_a_pushed_limit_and_says_so(pushed: str, reason: CloseReason) -> None:
    world = World()
    client, server = connect(world, None, server_settings(push=(pushed,)))
    world.run(seconds=9)
    assert not events(client, Closed)
    world.run(seconds=2)
    assert [(event.reason, event.retry) for event in events(client, Closed)] == [(reason, False)]
    assert gone(server) == [CloseReason.PEER_EXIT]


def test_a_full_server_asks_the_next_client_to_come_again_and_then_takes_it() -> None:
    world = World()
    server = add_server(world, server_settings(max_clients=1))
    first = add_client(world, client_settings("first"), ("10.1.1.1", 1))
    assert world.run(lambda: bool(events(first, Connected)), seconds=10)
    second = add_client(world, client_settings("second"), ("10.1.1.2", 1))
    assert world.run(lambda: bool(events(second, Closed)), seconds=10)
    assert events(second, AuthFailed)[0].temporary
    assert events(second, Closed)[0].retry
    assert events(server, Refused)[0].reason is RefusalReason.SERVER_FULL
    assert isinstance(first.core, ClientCore)
    first.core.close(world.now)
    again = add_client(world, client_settings("second"), ("10.1.1.2", 2))
    assert world.run(lambda: bool(events(again, Connected)), seconds=10)
    assert len(events(server, ClientConnected)) == 2


class Listener:
    """Stands for a session: notes what would be said."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.data = DataChannel(Drops())

    def send_text(self, text: str, now: float) -> None:
        self.said.append(text)


@pytest.mark.parametrize(
    ("protocol", "reason", "said"),
    [
        (Protocol.AUTH_FAIL_TEMP, RefusalReason.SERVER_FULL, ["AUTH_FAILED,TEMP:why"]),
        (Protocol.DATA_V2, RefusalReason.SERVER_FULL, []),
        (Protocol.DATA_V2, RefusalReason.BAD_CREDENTIALS, ["AUTH_FAILED,why"]),
    ],
)
def test_a_client_too_old_to_come_again_is_told_nothing_by_a_full_server(
    protocol: Protocol, reason: RefusalReason, said: list[str]
) -> None:
    departures = Departures(Clientele(), AddressPool(POOL, 1), Outlets())
    listener = Listener()
    peer = Peer(1, ("192.0.2.1", 1), cast("Session", listener), stage=Stage.ADMISSION)
    peer.info = PeerInfo.parse(f"IV_PROTO={int(protocol)}\n")
    departures.refuse(peer, reason, "why", 0.0)
    assert listener.said == said
    assert peer.stage is Stage.LEAVING


@pytest.mark.parametrize("transport", [Transport.UDP, Transport.TCP])
def test_packets_of_the_largest_mtu_are_sealed_or_left_to_the_link_to_drop(transport: Transport) -> None:
    world = World()
    data = DataSettings(tun_mtu=65535, mssfix=None)
    client, _ = connect(
        world, client_settings(data=data, transport=transport), server_settings(data=data, transport=transport)
    )
    core: Any = client.core
    for octets in (64_000, 65_400, 65_511, 65_515):
        core.receive_packets([ip_packet("10.8.0.2", "10.8.0.1", 1, octets)], world.now)
        ((datagram, _),) = core.datagrams_to_send()
        framing = 2 if isinstance(datagram, Train) and transport is Transport.TCP else 0
        assert (datagram.octets if isinstance(datagram, Train) else len(datagram)) == octets + 44 + framing


@pytest.mark.parametrize(
    ("prefix", "first"),
    [(64, "2001:db8:8::1000"), (111, "2001:db8:8::1000"), (112, "2001:db8:8::2"), (124, "2001:db8:8::2")],
)
def test_clients_get_in_whatever_size_the_ipv6_network_has(prefix: int, first: str) -> None:
    world = World()
    pool = Pool(IPv4Network("10.8.0.0/24"), IPv6Network(f"2001:db8:8::/{prefix}"))
    server = add_server(world, server_settings(pool=pool))
    for number in range(3):
        add_client(world, client_settings(f"client{number}"), ("192.0.2.1", 40000 + number))
    world.run(seconds=3)
    given = sorted(event.ifconfig_ipv6 for event in events(server, ClientConnected) if event.ifconfig_ipv6 is not None)
    assert given == [IPv6Address(first) + number for number in range(3)]
