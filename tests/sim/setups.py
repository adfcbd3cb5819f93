"""Ready-made settings and pairs of cores for simulations."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any, TypeVar

from tests.sim.network import Node, World
from tests.sim.pki import authority, client_certificate, server_certificate
from vpn.client import ClientCore
from vpn.crypto.client_key import ClientKey, timestamp_metadata, wrap_client_key
from vpn.events import Connected, Event
from vpn.server import ServerCore
from vpn.settings import (
    Address,
    CertificateRole,
    ClientSettings,
    ControlProtection,
    KeyDirection,
    Pool,
    ServerSettings,
    TlsSettings,
    Wrapping,
)

CLIENT: Address = ("192.0.2.1", 40000)
SERVER: Address = ("198.51.100.10", 1194)
KEY = bytes(range(256))
SERVER_KEY = bytes(range(128))
POOL = Pool(IPv4Network("10.8.0.0/24"), IPv6Network("2001:db8:8::/64"))
SomeEvent = TypeVar("SomeEvent", bound=Event)

TLS_CRYPT = ControlProtection(Wrapping.TLS_CRYPT, KEY)


def client_settings(name: str = "client", **changes: Any) -> ClientSettings:
    own = client_certificate(name)
    tls = TlsSettings(authority().pem, own.certificate, own.key, remote_cert_tls=CertificateRole.SERVER)
    return replace(ClientSettings(tls, control=TLS_CRYPT), **changes)


def server_settings(**changes: Any) -> ServerSettings:
    own = server_certificate()
    tls = TlsSettings(authority().pem, own.certificate, own.key, remote_cert_tls=CertificateRole.CLIENT)
    return replace(ServerSettings(tls, POOL, control=TLS_CRYPT), **changes)


def protections(name: str) -> tuple[ControlProtection, ControlProtection]:
    """(client's, server's) protection of the control channel."""
    if name == "none":
        return ControlProtection(), ControlProtection()
    if name == "tls-auth":
        return (
            ControlProtection(Wrapping.TLS_AUTH, KEY, KeyDirection.INVERSE),
            ControlProtection(Wrapping.TLS_AUTH, KEY, KeyDirection.NORMAL),
        )
    if name == "tls-crypt":
        return TLS_CRYPT, TLS_CRYPT
    wrapped = wrap_client_key(ClientKey(KEY, timestamp_metadata(1)), SERVER_KEY)
    return (
        ControlProtection(Wrapping.TLS_CRYPT_V2, KEY, wrapped_client_key=wrapped),
        ControlProtection(Wrapping.TLS_CRYPT_V2, server_key=SERVER_KEY),
    )


def add_server(world: World, settings: ServerSettings) -> Node:
    return world.add(ServerCore(settings, random_bytes=world.random_bytes), SERVER)


def add_client(world: World, settings: ClientSettings, address: Address = CLIENT) -> Node:
    core = ClientCore(settings, SERVER, random_bytes=world.random_bytes)
    core.start(world.now, world.unix_time)
    return world.add(core, address)


def pair(world: World, client: ClientSettings | None = None, server: ServerSettings | None = None) -> tuple[Node, Node]:
    """A client and a server that have not spoken yet."""
    server_node = add_server(world, server or server_settings())
    return add_client(world, client or client_settings()), server_node


def connect(
    world: World, client: ClientSettings | None = None, server: ServerSettings | None = None
) -> tuple[Node, Node]:
    client_node, server_node = pair(world, client, server)
    assert world.run(lambda: bool(events(client_node, Connected))), (client_node.events, server_node.events)
    return client_node, server_node


def events(node: Node, kind: type[SomeEvent]) -> list[SomeEvent]:
    return [event for event in node.events if isinstance(event, kind)]
