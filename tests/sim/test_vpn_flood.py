"""Floods, slow peers, spoiled certificates and replays: what they cost, and that they get nothing for it."""

from __future__ import annotations

import base64
import tracemalloc
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.fuzz.state import difference, state_of
from tests.sim.inner import ip_packet, numbers
from tests.sim.network import Node, World, datagrams, singles
from tests.sim.pki import make_authority
from tests.sim.setups import (
    CLIENT,
    KEY,
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
from vpn.events import (
    AdmissionRequested,
    ClientConnected,
    ClientGone,
    CloseReason,
    Connected,
    RefusalReason,
    Refused,
    Renegotiated,
)
from vpn.server import ServerCore
from vpn.settings import Address, Cipher, ClientSettings, DataSettings, StaticKeySettings
from vpn.static_key_core import StaticKeyCore

WRAPPINGS = ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"]
FLOOD = 3000
CONTROL_V1 = 4


def somewhere(number: int) -> Address:
    return (f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1024 + number % 60000)


def cores(client: Node, server: Node) -> tuple[ClientCore, ServerCore]:
    assert isinstance(client.core, ClientCore)
    assert isinstance(server.core, ServerCore)
    return client.core, server.core


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_flood_of_first_and_third_packets_from_forged_addresses_costs_no_memory(name: str) -> None:
    world = World()
    ours, theirs = protections(name)
    client, server = pair(world, client_settings(control=ours), server_settings(control=theirs))
    world.run(lambda: len(world.wire) > 3, seconds=1)
    seen = [datagram for _, source, _, datagram in world.wire if source == CLIENT]
    core = server.core

    def flood() -> None:
        for number in range(FLOOD):
            for datagram in seen:
                core.receive_datagrams([datagram], somewhere(number), world.now, world.unix_time)
            core.receive_datagrams([b"\x20" + number.to_bytes(40, "big")], somewhere(number), world.now, 1)
        core.datagrams_to_send()

    flood()
    before = state_of(core)
    tracemalloc.start()
    flood()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    after = state_of(core)
    assert before == after, difference(before, after)
    assert grown < 65536
    assert core.drops[Drop.BAD_COOKIE] + core.drops[Drop.MALFORMED] + core.drops[Drop.UNAUTHENTIC_CONTROL] >= FLOOD
    assert world.run(lambda: bool(events(client, Connected)), seconds=30)


def test_handshakes_that_failed_count_as_half_open_until_they_are_forgotten() -> None:
    world = World()
    server = add_server(world, server_settings(max_half_open=5))
    stranger = make_authority("another CA").issue("mallory")
    for number in range(12):
        tls = replace(client_settings().tls, certificate=stranger.certificate, private_key=stranger.key)
        add_client(world, client_settings(tls=tls), somewhere(number))
    world.run(seconds=3)
    assert len(events(server, Refused)) == 5
    assert server.core.drops[Drop.HALF_OPEN_LIMIT] >= 7
    world.run(lambda: len(events(server, Refused)) > 5, seconds=30)
    assert len(events(server, Refused)) > 5, "the places were never free again"


def test_a_peer_that_goes_on_talking_but_never_finishes_tls_is_let_go_in_time() -> None:
    world = World()
    client, server = pair(world)
    heard: list[bytes] = []

    def only_the_first_message(datagram: bytes, source: Address, _target: Address) -> bytes | None:
        if source != CLIENT or datagram[0] >> 3 != CONTROL_V1:
            return datagram
        heard.append(datagram)
        return datagram if len(heard) < 2 else None

    world.tap = only_the_first_message
    assert world.run(lambda: bool(events(server, ClientGone)), seconds=70)
    assert events(server, ClientGone)[0].reason is CloseReason.HANDSHAKE_TIMEOUT
    assert 58 <= world.now - 1000 <= 62
    _, core = cores(client, server)
    world.run(lambda: core.next_timeout() is None, seconds=10)
    assert core.next_timeout() is None


# -- certificates ----------------------------------------------------------------------------------------------------


def spoiled(certificate: str, tag: int) -> str:
    """A certificate whose name is of an ASN.1 string type that OpenSSL takes and a stricter parser does not."""
    octets = x509.load_pem_x509_certificate(certificate.encode()).public_bytes(serialization.Encoding.DER)
    assert b"\x0c\x07mallory" in octets
    octets = octets.replace(b"\x0c\x07mallory", bytes((tag,)) + b"\x07mall\xffry")
    text = base64.encodebytes(octets).decode()
    return f"-----BEGIN CERTIFICATE-----\n{text}-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("tag", [0x12, 0x14, 0x16])
@pytest.mark.parametrize("liar", ["client", "server"])
def test_a_certificate_that_cannot_be_read_is_refused_and_nothing_else_happens(liar: str, tag: int) -> None:
    world = World()
    stranger = make_authority("another CA").issue("mallory")

    def lying(settings: ClientSettings) -> ClientSettings:
        certificate = spoiled(stranger.certificate, tag)
        return replace(settings, tls=replace(settings.tls, certificate=certificate, private_key=stranger.key))

    if liar == "client":
        client, server = pair(world, lying(client_settings()))
    else:
        theirs = server_settings()
        tls = replace(theirs.tls, certificate=spoiled(stranger.certificate, tag), private_key=stranger.key)
        client, server = pair(world, None, replace(theirs, tls=tls))
    victim = server if liar == "client" else client
    assert world.run(lambda: bool(events(victim, Refused)), seconds=10)
    assert events(victim, Refused)[0].reason is RefusalReason.UNTRUSTED_CERTIFICATE
    assert "cannot be read" in events(victim, Refused)[0].detail
    if liar == "client":
        again = add_client(world, client_settings(), somewhere(1))
        assert world.run(lambda: bool(events(again, Connected)), seconds=10)


# -- replays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tls-auth", "tls-crypt"])
def test_packets_of_another_session_under_the_same_static_key_do_not_shut_the_replay_window(name: str) -> None:
    world = World()
    ours, theirs = protections(name)
    # with dynamic tls-crypt renegotiations have a key, and a window, that no other session has
    settings = server_settings(control=theirs, dynamic_tls_crypt=False)
    client, server = connect(world, client_settings(control=ours), settings)
    world.run(seconds=30)
    later = len(world.wire)
    other = add_client(world, client_settings("other", control=ours), somewhere(1))
    assert world.run(lambda: bool(events(other, Connected)), seconds=10)
    for _, source, target, datagram in world.wire[later:]:
        if source == SERVER and target == other.address:
            world.inject(datagram, SERVER, CLIENT)
        elif source == other.address:
            world.inject(datagram, CLIENT, SERVER)
    world.run(seconds=1)
    ours_core, _ = cores(client, server)
    assert ours_core.request_renegotiation(world.now)
    assert world.run(lambda: bool(events(client, Renegotiated)), seconds=10), ours_core.drops.by_reason()


@pytest.mark.parametrize("name", WRAPPINGS)
def test_a_recorded_session_with_renegotiation_replayed_is_accepted_nowhere_in_any_order(name: str) -> None:
    world = World(7)
    ours, theirs = protections(name)
    client, server = connect(world, client_settings(control=ours), server_settings(control=theirs))
    ours_core, theirs_core = cores(client, server)
    for renegotiating in (False, True):
        if renegotiating:
            assert ours_core.request_renegotiation(world.now)
        for number in range(10):
            ours_core.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", number + 10 * renegotiating), world.now)
            theirs_core.receive_packet(ip_packet("10.8.0.1", "10.8.0.2", number + 10 * renegotiating), world.now)
        world.run(seconds=3)
    assert events(client, Renegotiated)
    recorded = [(source, target, datagram) for _, source, target, datagram in world.wire]
    before = [list(node.delivered) for node in (client, server)]
    for _ in range(3):
        world.random.shuffle(recorded)
        for source, target, datagram in recorded:
            world.inject(datagram, source, target)
            world.inject(datagram, somewhere(9), target)
        world.run(seconds=2)
    assert [node.delivered for node in (client, server)] == before
    assert len(events(server, ClientConnected)) == 1
    assert theirs_core.connected[0].address == CLIENT
    ours_core.receive_packet(ip_packet("10.8.0.2", "10.8.0.1", 99), world.now)
    assert world.run(lambda: numbers(server.delivered)[-1] == 99, seconds=2)


@pytest.mark.parametrize("cipher", [Cipher.AES_256_GCM, Cipher.CHACHA20_POLY1305, Cipher.AES_256_CBC])
def test_a_packet_63_late_is_taken_once_and_one_64_late_never(cipher: Cipher) -> None:
    world = World()
    data = DataSettings(data_ciphers=(cipher,))
    client, server = connect(world, client_settings(data=data), server_settings(data=data))
    ours, _ = cores(client, server)
    ours.receive_packets([ip_packet("10.8.0.2", "10.8.0.1", number) for number in range(100)], world.now)
    sent = [datagram for datagram, _ in datagrams(ours)]
    for number in (99, 99 - 63, 99 - 64, 99 - 63, 99):
        server.core.receive_datagrams([sent[number]], CLIENT, world.now, world.unix_time)
    assert numbers(singles(server.core.packets_to_deliver())) == [99, 99 - 63]
    assert server.core.drops[Drop.REPLAYED_DATA] == 3


def test_the_window_has_the_same_edge_with_a_static_key() -> None:
    world = World()
    client = StaticKeyCore(StaticKeySettings(KEY), SERVER, random_bytes=world.random_bytes)
    server = StaticKeyCore(StaticKeySettings(KEY, listen=True), None, random_bytes=world.random_bytes)
    for core in (client, server):
        core.start(world.now, world.unix_time)
    client.datagrams_to_send()
    client.receive_packets([ip_packet("10.8.0.2", "10.8.0.1", number) for number in range(100)], world.now)
    sent = [datagram for datagram, _ in datagrams(client)]
    for number in (99, 99 - 63, 99 - 64, 99 - 63, 99):
        server.receive_datagram(sent[number], CLIENT, world.now, world.unix_time)
    assert numbers(singles(server.packets_to_deliver())) == [99, 99 - 63]
    assert server.drops[Drop.REPLAYED_DATA] == 3


def test_clients_whose_passwords_are_being_checked_count_as_half_open() -> None:
    world = World()
    server = add_server(world, server_settings(max_half_open=3, external_admission=True))
    for number in range(8):
        add_client(world, client_settings(username=f"user{number}", password="x"), somewhere(number))
    world.run(seconds=3)
    assert len(events(server, AdmissionRequested)) == 3
    assert server.core.drops[Drop.HALF_OPEN_LIMIT] > 0
