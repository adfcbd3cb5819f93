"""A client core and a server core find each other in every mode, carry packets, renegotiate and part."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from tests.sim.inner import ip_packet, numbers
from tests.sim.network import Node, Weather, World, datagrams
from tests.sim.setups import POOL, client_settings, connect, events, pair, protections, server_settings
from vpn.client import ClientCore
from vpn.events import (
    AdmissionRequested,
    ClientConnected,
    ClientGone,
    Closed,
    CloseReason,
    Connected,
    Renegotiated,
    Restart,
    TlsEstablished,
)
from vpn.server import ServerCore
from vpn.settings import (
    Cipher,
    ClientOverrides,
    Compression,
    DataSettings,
    Digest,
    Pool,
    Timers,
    TlsVersion,
    Topology,
    Transport,
)
from vpn.wire.packet import Opcode

HERE4, THERE4, HERE6, THERE6 = "10.8.0.2", "10.8.0.1", "2001:db8:8::1000", "2001:db8:8::1"


def client_core(node: Node) -> ClientCore:
    assert isinstance(node.core, ClientCore)
    return node.core


def server_core(node: Node) -> ServerCore:
    assert isinstance(node.core, ServerCore)
    return node.core


def exchange(world: World, client: Node, server: Node, first: int = 1, count: int = 5) -> None:
    """Packets of both families, both ways, must all arrive, once and in order."""
    client.delivered.clear()
    server.delivered.clear()
    wanted = list(range(first, first + count))
    for source, target in ((HERE4, THERE4), (HERE6, THERE6)):
        client_core(client).receive_packets([ip_packet(source, target, number) for number in wanted], world.now)
        server_core(server).receive_packets([ip_packet(target, source, number) for number in wanted], world.now)
    assert world.run(lambda: len(client.delivered) == len(server.delivered) == 2 * count, seconds=5)
    assert numbers(client.delivered) == numbers(server.delivered) == wanted * 2


@pytest.mark.parametrize("transport", list(Transport))
@pytest.mark.parametrize("name", ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_cores_connect_and_carry_packets_with_every_control_protection(name: str, transport: Transport) -> None:
    world = World()
    ours, theirs = protections(name)
    client, server = connect(
        world,
        client_settings(control=ours, transport=transport),
        server_settings(control=theirs, transport=transport),
    )
    exchange(world, client, server)
    assert client.core.drops.total == server.core.drops.total == 0


@pytest.mark.parametrize("cipher", list(Cipher))
def test_cores_carry_packets_with_every_cipher(cipher: Cipher) -> None:
    world = World()
    data = DataSettings(data_ciphers=(cipher,), digest=Digest.SHA256)
    client, server = connect(world, client_settings(data=data), server_settings(data=data))
    assert events(client, Connected)[0].cipher is cipher
    exchange(world, client, server)


@pytest.mark.parametrize("key_export", [True, False])
@pytest.mark.parametrize("version", list(TlsVersion))
def test_cores_agree_on_keys_with_and_without_the_exporter(key_export: bool, version: TlsVersion) -> None:
    world = World()
    settings = client_settings(tls_key_export=key_export)
    settings = replace(settings, tls=replace(settings.tls, maximum_version=version))
    client, server = connect(world, settings)
    assert ("tls-ekm" in events(client, Connected)[0].options.protocol_flags) is key_export
    assert events(client, TlsEstablished)[0].version == ("TLSv1.3" if version == TlsVersion.TLS_1_3 else "TLSv1.2")
    exchange(world, client, server)


@pytest.mark.parametrize("compression", list(Compression))
def test_compression_framing_is_pushed_and_carries_packets_uncompressed(compression: Compression) -> None:
    world = World()
    client, server = connect(world, None, server_settings(data=DataSettings(compression=compression)))
    exchange(world, client, server)


def test_the_server_pushes_everything_a_client_needs() -> None:
    world = World()
    server = server_settings(
        push=("route 10.20.0.0 255.255.255.0", "dhcp-option DNS 10.8.0.1", "redirect-gateway def1 ipv6"),
        push_ping=10,
        push_ping_restart=60,
    )
    client, _ = connect(world, None, server)
    options = events(client, Connected)[0].options
    assert str(options.ifconfig) == "10.8.0.2/24"
    assert str(options.ifconfig_ipv6) == "2001:db8:8::1000/64"
    assert options.route_gateway == IPv4Address("10.8.0.1")
    assert [route.network for route in options.routes] == [IPv4Network("10.20.0.0/24")]
    assert options.dns_addresses == (IPv4Address("10.8.0.1"),)
    assert options.redirect_gateway is not None
    assert options.redirect_gateway.flags == {"def1", "ipv6"}
    assert (options.ping, options.ping_restart, options.tun_mtu, options.peer_id) == (10, 60, 1500, 0)
    assert options.protocol_flags == {"cc-exit", "tls-ekm", "dyn-tls-crypt"}
    assert options.ignored == ()


def test_net30_gives_each_client_four_addresses() -> None:
    world = World()
    pool = Pool(IPv4Network("10.8.0.0/24"), None, Topology.NET30)
    client, _ = connect(world, None, server_settings(pool=pool))
    options = events(client, Connected)[0].options
    assert options.topology is Topology.NET30
    assert (str(options.ifconfig), str(options.ifconfig_peer)) == ("10.8.0.6/32", "10.8.0.5")


def test_a_hundred_routes_come_in_several_messages_and_all_arrive() -> None:
    world = World()
    routes = tuple(f"route 10.{number}.0.0 255.255.0.0" for number in range(100, 200))
    client, server = connect(world, None, server_settings(push=routes))
    assert len(server_core(server).connected[0].replies) > 2
    assert [str(route.network) for route in events(client, Connected)[0].options.routes] == [
        f"10.{number}.0.0/16" for number in range(100, 200)
    ]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_cores_connect_through_thirty_percent_loss_reordering_and_duplication(name: str, seed: int) -> None:
    world = World(seed, Weather(loss=0.3, duplication=0.2, reordering=0.3, delay=0.02))
    ours, theirs = protections(name)
    client, server = pair(world, client_settings(control=ours), server_settings(control=theirs))
    assert world.run(lambda: bool(events(client, Connected)), seconds=60), client.events
    assert len(events(server, ClientConnected)) == 1


@pytest.mark.parametrize("initiator", ["client", "server"])
@pytest.mark.parametrize("name", ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"])
def test_renegotiations_under_traffic_lose_and_repeat_no_packet(name: str, initiator: str) -> None:
    world = World()
    quick, never = Timers(reneg_sec=20), Timers(reneg_sec=0)
    ours, theirs = protections(name)
    client, server = connect(
        world,
        client_settings(control=ours, timers=quick if initiator == "client" else never),
        server_settings(control=theirs, timers=quick if initiator == "server" else never),
    )
    sent = stream_both_ways(world, client, server, seconds=200)
    assert numbers(client.delivered) == numbers(server.delivered) == list(range(sent))
    key_ids = [event.key_id for event in events(client, Renegotiated)]
    assert key_ids[:8] == [1, 2, 3, 4, 5, 6, 7, 1]
    assert client.core.drops.total == server.core.drops.total == 0


def stream_both_ways(
    world: World, client: Node, server: Node, seconds: float, first: int = 0, settle: float = 1.0
) -> int:
    sent = first
    for _ in range(int(20 * seconds)):
        client_core(client).receive_packet(ip_packet(HERE4, THERE4, sent), world.now)
        server_core(server).receive_packet(ip_packet(THERE4, HERE4, sent), world.now)
        sent += 1
        world.run(seconds=0.05)
    world.run(seconds=settle)
    return sent


@pytest.mark.parametrize("seed", range(6))
def test_renegotiations_through_loss_and_reordering_deliver_nothing_twice(seed: int) -> None:
    world = World(seed)
    client, server = connect(world, client_settings(timers=Timers(reneg_sec=20)))
    world.weather = Weather(loss=0.1, duplication=0.2, reordering=0.3, delay=0.03)
    sent = stream_both_ways(world, client, server, seconds=120)
    for node in (client, server):
        got = numbers(node.delivered)
        assert len(set(got)) == len(got)
        assert len(got) > 0.85 * sent
    assert len(events(client, Renegotiated)) >= 4
    assert not events(client, Closed)


@pytest.mark.parametrize("initiator", ["client", "server", "both"])
@pytest.mark.parametrize(("delay", "pause"), [(0.0003, 0.001), (0.001, 0.02), (0.03, 0.02), (0.2, 0.02)])
def test_keys_that_last_for_four_echoes_lose_none_whether_paths_are_shorter_or_longer_than_a_key_lives(
    initiator: str, delay: float, pause: float
) -> None:
    world = World(weather=Weather(delay=delay))
    short, long = Timers(reneg_pkts=8, reneg_sec=0), Timers(reneg_sec=0)
    client, server = connect(
        world,
        client_settings(timers=long if initiator == "server" else short),
        server_settings(timers=long if initiator == "client" else short),
    )
    echoed = 0
    for number in range(100):
        client_core(client).receive_packet(ip_packet(HERE4, THERE4, number), world.now)
        echoed = echo(world, server, echoed, pause)
    for _ in range(20):
        echoed = echo(world, server, echoed, delay)
    world.run(seconds=10 * delay)
    assert numbers(client.delivered) == numbers(server.delivered) == list(range(100))
    assert len(events(client, Renegotiated)) >= 3
    assert client.core.drops.total == server.core.drops.total == 0


def echo(world: World, server: Node, echoed: int, seconds: float) -> int:
    """Let time pass, and the server answer what it has not answered yet; returns how many are answered now."""
    world.run(lambda: len(server.delivered) > echoed, seconds=seconds)
    requests = numbers(server.delivered[echoed:])
    server_core(server).receive_packets([ip_packet(THERE4, HERE4, number) for number in requests], world.now)
    world.run(seconds=seconds)
    return echoed + len(requests)


@pytest.mark.parametrize("initiator", ["client", "server"])
def test_renegotiations_lose_no_packet_while_a_password_is_being_checked(initiator: str) -> None:
    world = World()
    short, long = Timers(reneg_pkts=40, reneg_sec=0), Timers(reneg_sec=0)
    client, server = pair(
        world,
        client_settings(timers=short if initiator == "client" else long, username="alice", password="s3cret"),
        server_settings(timers=short if initiator == "server" else long, external_admission=True),
    )
    admitted = sent = 0
    for _ in range(40):
        world.run(seconds=0.5)
        requests = events(server, AdmissionRequested)
        for request in requests[admitted:]:
            server_core(server).admit(request.peer, ClientOverrides(), world.now, world.unix_time)
        admitted = len(requests)
        if events(client, Connected):
            sent = stream_both_ways(world, client, server, seconds=0.5, first=sent, settle=0)
    world.run(seconds=1)
    assert numbers(client.delivered) == numbers(server.delivered) == list(range(sent))
    assert len(events(client, Renegotiated)) >= 3
    assert client.core.drops.total == server.core.drops.total == 0


def test_both_ends_may_begin_a_renegotiation_at_the_same_moment() -> None:
    world = World()
    client, server = connect(world)
    assert client_core(client).request_renegotiation(world.now)
    assert server_core(server).request_renegotiation(1, world.now)
    assert world.run(lambda: bool(events(client, Renegotiated)) and bool(events(server, Renegotiated)), seconds=20)
    exchange(world, client, server)


def test_a_packet_under_way_since_before_two_renegotiations_still_arrives_once() -> None:
    world = World()
    client, server = connect(world)
    client_core(client).receive_packet(ip_packet(HERE4, THERE4, 7), world.now)
    [(late, _)] = datagrams(client_core(client))
    for count in (1, 2):
        assert client_core(client).request_renegotiation(world.now)
        world.run(seconds=3)
        assert len(events(server, Renegotiated)) == len(events(client, Renegotiated)) == count
    for _ in range(2):
        server_core(server).receive_datagram(late, client.address, world.now, world.unix_time)
    world.run(seconds=0)
    assert numbers(server.delivered) == [7]


@pytest.mark.parametrize("limit", [{"reneg_bytes": 15_000}, {"reneg_pkts": 100}])
def test_a_key_that_has_carried_enough_is_replaced(limit: dict[str, int]) -> None:
    world = World()
    client, server = connect(world, client_settings(timers=Timers(**limit)))
    stream_both_ways(world, client, server, seconds=10)
    assert len(events(client, Renegotiated)) >= 2


def test_renegotiation_packets_are_protected_by_the_dynamic_key() -> None:
    world = World()
    ours, theirs = protections("none")
    client, server = connect(world, client_settings(control=ours), server_settings(control=theirs))
    client_core(client).request_renegotiation(world.now)
    assert world.run(lambda: bool(events(server, Renegotiated)), seconds=10)
    resets = [octets for _, _, _, octets in world.wire if octets[0] >> 3 == Opcode.CONTROL_SOFT_RESET_V1]
    assert [len(octets) for octets in resets] == [54, 54 + 12]  # 40 more than without protection


def test_a_client_that_leaves_is_forgotten_at_once() -> None:
    world = World()
    client, server = connect(world)
    client_core(client).close(world.now)
    assert world.run(lambda: bool(events(client, Closed)), seconds=2)
    assert events(client, Closed)[0].reason is CloseReason.LOCAL
    assert [event.reason for event in events(server, ClientGone)] == [CloseReason.PEER_EXIT]
    assert server_core(server).connected == []


def test_a_client_without_exit_messages_leaves_with_a_data_packet() -> None:
    world = World()
    client, server = connect(world, None, server_settings(tls_key_export=False, push=("protocol-flags",)))
    client_core(client).close(world.now)
    assert world.run(lambda: bool(events(server, ClientGone)), seconds=2)
    assert events(server, ClientGone)[0].reason is CloseReason.PEER_EXIT


def test_a_closing_server_asks_its_clients_to_come_again() -> None:
    world = World()
    client, server = connect(world)
    server_core(server).close(world.now)
    assert world.run(lambda: bool(events(client, Closed)), seconds=2)
    assert events(client, Restart) == [Restart("", False, False)]
    assert events(client, Closed)[0].retry
    assert world.run(lambda: bool(events(server, Closed)), seconds=2)


def test_pings_keep_an_idle_tunnel_and_silence_ends_it() -> None:
    world = World()
    timers = Timers(ping=5, ping_restart=30)
    client, server = connect(world, None, server_settings(timers=timers, push_ping=5, push_ping_restart=15))
    world.run(seconds=300)
    assert not events(client, Closed)
    world.tap = lambda _datagram, _source, _target: None
    world.run(seconds=60)
    assert events(client, Closed)[0].reason is CloseReason.PING_TIMEOUT
    assert events(server, ClientGone)[0].reason is CloseReason.PING_TIMEOUT


def test_a_client_without_a_server_gives_up_after_the_handshake_window() -> None:
    world = World()
    world.tap = lambda _datagram, _source, _target: None
    client, _ = pair(world)
    started = world.now
    assert world.run(lambda: bool(events(client, Closed)), seconds=100)
    assert events(client, Closed)[0].reason is CloseReason.HANDSHAKE_TIMEOUT
    assert world.now - started == pytest.approx(60)
    resets = [round(at - started) for at, _, _, octets in world.wire if octets[0] >> 3 == 7]
    assert resets == [0, 2, 6, 14, 22, 30, 38, 46, 54]


def test_a_client_that_moves_is_followed_by_its_data_packets() -> None:
    world = World()
    client, server = connect(world)
    world.move(client, ("203.0.113.77", 5555))
    client_core(client).receive_packet(ip_packet(HERE4, THERE4, 1), world.now)
    world.run(seconds=1)
    exchange(world, client, server, first=2)
    assert server_core(server).connected[0].address == ("203.0.113.77", 5555)


def test_the_pool_of_the_setups_is_dual_stack() -> None:
    assert POOL.ipv4 is not None
    assert POOL.ipv6 is not None
