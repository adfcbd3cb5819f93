"""Who may not in stays out, both ends say why, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.sim.network import Node, World
from tests.sim.pki import Issued, authority, make_authority
from tests.sim.setups import KEY, client_settings, connect, events, pair, server_settings
from vpn.client import ClientCore
from vpn.drops import Drop
from vpn.events import (
    AdmissionRequested,
    AuthFailed,
    ClientConnected,
    Closed,
    CloseReason,
    Connected,
    RefusalReason,
    Refused,
    Renegotiated,
)
from vpn.server import ServerCore
from vpn.settings import (
    Cipher,
    ClientCertificate,
    ClientOverrides,
    ClientSettings,
    ControlProtection,
    DataSettings,
    NameRule,
    ServerSettings,
    Wrapping,
)


def outcome(client: ClientSettings, server: ServerSettings) -> tuple[World, Node, Node]:
    world = World()
    ours, theirs = pair(world, client, server)
    assert world.run(lambda: bool(events(ours, Closed)), seconds=90), ours.events
    world.run(seconds=1)
    assert not events(ours, Connected)
    assert not events(theirs, ClientConnected)
    return world, ours, theirs


def with_certificate(settings: ClientSettings, issued: Issued) -> ClientSettings:
    return replace(settings, tls=replace(settings.tls, certificate=issued.certificate, private_key=issued.key))


def test_a_client_refuses_a_server_of_another_authority_and_both_say_why() -> None:
    settings = client_settings()
    settings = replace(settings, tls=replace(settings.tls, ca=make_authority("other CA").pem))
    _, client, server = outcome(settings, server_settings())
    assert events(client, Refused)[0].reason is RefusalReason.UNTRUSTED_CERTIFICATE
    assert "not the configured one" in events(client, Refused)[0].detail
    assert events(server, Refused)[0].reason is RefusalReason.REFUSED_BY_PEER
    assert events(client, Closed)[0].reason is CloseReason.REFUSED


CLIENT_FAULTS: list[tuple[Callable[[], Issued], RefusalReason]] = [
    (lambda: make_authority("other CA").issue("client"), RefusalReason.UNTRUSTED_CERTIFICATE),
    (lambda: authority().issue("client", ends_in=timedelta(hours=-1)), RefusalReason.EXPIRED_CERTIFICATE),
    (lambda: authority().issue("client", begins_in=timedelta(days=2)), RefusalReason.EXPIRED_CERTIFICATE),
    (lambda: authority().issue("client", ExtendedKeyUsageOID.SERVER_AUTH), RefusalReason.WRONG_PURPOSE),
    (lambda: authority().issue("client", None), RefusalReason.WRONG_PURPOSE),
    (lambda: authority().issue("client", key_usage=False), RefusalReason.WRONG_PURPOSE),
]


@pytest.mark.parametrize(("make", "reason"), CLIENT_FAULTS)
def test_a_server_refuses_a_faulty_client_certificate_and_both_say_so(
    make: Callable[[], Issued], reason: RefusalReason
) -> None:
    _, client, server = outcome(with_certificate(client_settings(), make()), server_settings())
    assert events(server, Refused)[0].reason is reason
    assert events(client, Refused)[0].reason in (RefusalReason.REFUSED_BY_PEER, RefusalReason.TLS_FAILURE)


def test_a_server_refuses_a_client_without_a_certificate() -> None:
    settings = client_settings()
    settings = replace(settings, tls=replace(settings.tls, certificate="", private_key=""))
    _, _, server = outcome(settings, server_settings())
    assert events(server, Refused)[0].reason is RefusalReason.NO_CERTIFICATE


def test_a_revoked_certificate_is_refused_and_another_is_not() -> None:
    revoked = authority().issue("client")
    server = server_settings()
    server = replace(server, tls=replace(server.tls, crl=authority().revoke(revoked.serial)))
    _, _, node = outcome(with_certificate(client_settings(), revoked), server)
    assert events(node, Refused)[0].reason is RefusalReason.REVOKED_CERTIFICATE
    connect(World(), client_settings(), server)


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (NameRule.NAME, "server", "serve"),
        (NameRule.NAME_PREFIX, "ser", "client"),
        (NameRule.SUBJECT, "CN=server", "server"),
    ],
)
def test_the_server_must_have_the_required_name(rule: NameRule, good: str, bad: str) -> None:
    settings = client_settings()
    named = [replace(settings.tls, verify_name=name, verify_name_rule=rule) for name in (good, bad)]
    connect(World(), replace(settings, tls=named[0]))
    _, client, _ = outcome(replace(settings, tls=named[1]), server_settings())
    assert events(client, Refused)[0].reason is RefusalReason.WRONG_NAME


def test_a_client_certificate_cannot_stand_in_for_a_servers() -> None:
    server = server_settings()
    own = authority().issue("server")
    server = replace(server, tls=replace(server.tls, certificate=own.certificate, private_key=own.key))
    _, client, _ = outcome(client_settings(), server)
    assert events(client, Refused)[0].reason is RefusalReason.WRONG_PURPOSE


@pytest.mark.parametrize("wrapping", [Wrapping.TLS_CRYPT, Wrapping.TLS_AUTH])
def test_a_wrong_control_key_meets_silence_and_a_counter(wrapping: Wrapping) -> None:
    client = client_settings(control=ControlProtection(wrapping, KEY[::-1]))
    world, ours, server = outcome(client, server_settings(control=ControlProtection(wrapping, KEY)))
    assert events(ours, Closed)[0].reason is CloseReason.HANDSHAKE_TIMEOUT
    assert server.core.drops[Drop.UNAUTHENTIC_CONTROL] == 9
    assert not [octets for _, source, _, octets in world.wire if source == server.address]


def test_ends_without_a_common_cipher_part_with_a_reason() -> None:
    client = client_settings(data=DataSettings(data_ciphers=(Cipher.AES_128_GCM,)))
    server = server_settings(data=DataSettings(data_ciphers=(Cipher.AES_256_GCM,)))
    _, ours, theirs = outcome(client, server)
    assert "no shared cipher" in events(ours, AuthFailed)[0].reason
    assert events(theirs, Refused)[0].reason is RefusalReason.NO_SHARED_CIPHER


def ask(world: World, client: Node, server: Node, number: int = 0) -> AdmissionRequested:
    assert world.run(lambda: len(events(server, AdmissionRequested)) > number, seconds=10)
    return events(server, AdmissionRequested)[number]


def core(node: Node) -> ServerCore:
    assert isinstance(node.core, ServerCore)
    return node.core


def test_the_driver_decides_about_user_name_and_password() -> None:
    world = World()
    client, server = pair(
        world, client_settings(username="alice", password="s3cret"), server_settings(external_admission=True)
    )
    request = ask(world, client, server)
    assert (request.username, request.password.reveal(), request.common_name) == ("alice", "s3cret", "client")
    assert "s3cret" not in repr(request)
    world.run(seconds=3)
    assert not events(client, Connected)
    core(server).admit(request.peer, ClientOverrides(), world.now, world.unix_time)
    assert world.run(lambda: bool(events(client, Connected)), seconds=10)


def test_a_refused_password_is_told_to_the_client() -> None:
    world = World()
    client, server = pair(
        world, client_settings(username="alice", password="wrong"), server_settings(external_admission=True)
    )
    core(server).refuse(ask(world, client, server).peer, "no such user", world.now)
    assert world.run(lambda: bool(events(client, Closed)), seconds=10)
    assert events(client, AuthFailed)[0].reason == "no such user"
    assert not events(client, Closed)[0].retry
    assert not events(client, Connected)


def test_a_client_without_certificate_gets_in_by_password_where_that_is_enough() -> None:
    world = World()
    client, server = client_settings(username="bob", password="x"), server_settings(username_as_common_name=True)
    client = replace(client, tls=replace(client.tls, certificate="", private_key=""))
    tls = replace(server.tls, client_certificate=ClientCertificate.NONE, remote_cert_tls=None)
    _, node = connect(world, client, replace(server, tls=tls))
    assert events(node, ClientConnected)[0].common_name == "bob"


def test_a_password_is_asked_for_again_at_renegotiation_and_old_keys_serve_until_then() -> None:
    world = World()
    settings = server_settings(external_admission=True)
    client, server = pair(world, client_settings(username="alice", password="s3cret"), settings)
    core(server).admit(ask(world, client, server).peer, ClientOverrides(), world.now, world.unix_time)
    assert world.run(lambda: bool(events(client, Connected)), seconds=10)
    assert isinstance(client.core, ClientCore)
    client.core.request_renegotiation(world.now)
    request = ask(world, client, server, 1)
    assert request.renegotiation
    assert not events(server, Renegotiated)
    core(server).refuse(request.peer, "", world.now)
    assert world.run(lambda: bool(events(client, Closed)), seconds=10)
    assert events(client, Closed)[0].reason is CloseReason.AUTH_FAILED


def test_a_token_takes_the_passwords_place_at_renegotiation() -> None:
    world = World()
    settings = server_settings(external_admission=True, auth_token_lifetime=3600.0)
    client, server = pair(world, client_settings(username="alice", password="s3cret"), settings)
    core(server).admit(ask(world, client, server).peer, ClientOverrides(), world.now, world.unix_time)
    assert world.run(lambda: bool(events(client, Connected)), seconds=10)
    assert isinstance(client.core, ClientCore)
    client.core.request_renegotiation(world.now)
    assert world.run(lambda: bool(events(client, Renegotiated)), seconds=10)
    world.run(seconds=1)
    assert len(events(server, AdmissionRequested)) == 1
    assert "SESS_ID_AT_" not in repr(client.events)
