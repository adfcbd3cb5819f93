"""Small parts of the core: keys as text, address pool, negotiation, tokens, cookies, TLS settings, secrets in repr."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import pytest

from tests.sim.network import World
from tests.sim.pki import client_certificate, make_authority
from tests.sim.setups import KEY, SERVER_KEY, client_settings, server_settings
from vpn.client import ClientCore
from vpn.crypto.auth_token import TokenMint
from vpn.crypto.client_key import ClientKey, wrap_client_key
from vpn.crypto.cookie import CookieJar
from vpn.crypto.static_key import (
    build_client_key,
    build_server_key,
    build_static_key,
    parse_client_key,
    parse_server_key,
    parse_static_key,
)
from vpn.key_session import TRANSITIONS, Input, State
from vpn.negotiation import NoSharedCipher, agree_as_server, cipher_as_client
from vpn.pool import AddressPool, PoolExhausted
from vpn.push import PushedOptions
from vpn.server import ServerCore
from vpn.settings import Cipher, ClientOverrides, DataSettings, Pool, StaticKeySettings, TlsSettings, Topology
from vpn.tls import BadTlsSettings, TlsContext
from vpn.wire.occ import LinkDescription, build_options
from vpn.wire.packet import Malformed, SessionId
from vpn.wire.peer_info import PeerInfo

REAL_CLIENT = PeerInfo.parse(
    "IV_VER=2.6.14\nIV_MTU=1600\nIV_NCP=2\nIV_CIPHERS=AES-256-GCM:AES-128-GCM:CHACHA20-POLY1305\nIV_PROTO=990\n"
)
NOBODY = ClientOverrides()


def test_key_files_survive_build_and_parse() -> None:
    assert parse_static_key(build_static_key(KEY)) == KEY
    wrapped = wrap_client_key(ClientKey(KEY), SERVER_KEY)
    assert parse_client_key(build_client_key(KEY, wrapped)) == (KEY, wrapped)
    assert parse_server_key(build_server_key(SERVER_KEY)) == SERVER_KEY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN OpenVPN Static key V1-----\n00ff\n-----END OpenVPN Static key V1-----",
        "-----BEGIN OpenVPN Static key V1-----\nxyz\n-----END OpenVPN Static key V1-----",
        build_static_key(KEY).replace("END", "end"),
    ],
)
def test_a_broken_static_key_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_static_key(text)
    assert "xyz" not in str(caught.value)
    assert "00ff" not in str(caught.value)


@pytest.mark.parametrize("parse", [parse_client_key, parse_server_key])
def test_a_broken_pem_key_is_refused(parse: object) -> None:
    assert callable(parse)
    for inside in ("AAAA", "!!!!"):
        for name in ("client", "server"):
            label = f"OpenVPN tls-crypt-v2 {name} key"
            with pytest.raises(Malformed):
                parse(f"-----BEGIN {label}-----\n{inside}\n-----END {label}-----")


def test_the_options_string_is_the_real_peers() -> None:
    default = "V4,dev-type tun,link-mtu 1541,tun-mtu 1500,proto UDPv4,auth SHA1,keysize 128,key-method 2,tls-client"
    assert build_options(LinkDescription(tls_server=False)) == default
    assert build_options(LinkDescription(tls_server=True)) == default.replace("tls-client", "tls-server")


def test_the_pool_gives_the_real_servers_addresses_and_the_same_again() -> None:
    pool = AddressPool(Pool(IPv4Network("10.8.0.0/24"), IPv6Network("fd00::/64")), 10)
    first, second = pool.lease("a", NOBODY), pool.lease("b", NOBODY)
    assert (first.ipv4, first.ipv6) == (IPv4Address("10.8.0.2"), IPv6Address("fd00::1000"))
    assert (second.ipv4, second.ipv6) == (IPv4Address("10.8.0.3"), IPv6Address("fd00::1001"))
    pool.release(first)
    assert pool.lease("c", NOBODY).ipv4 == IPv4Address("10.8.0.4")
    assert pool.lease("a", NOBODY) == first


def test_a_pool_without_a_free_address_says_so() -> None:
    pool = AddressPool(Pool(IPv4Network("10.8.0.0/29")), 100)
    leases = [pool.lease(str(number), NOBODY) for number in range(5)]
    assert [str(lease.ipv4) for lease in leases] == [f"10.8.0.{number}" for number in range(2, 7)]
    with pytest.raises(PoolExhausted):
        pool.lease("one too many", NOBODY)
    pool.release(leases[2])
    assert pool.lease("one too many", NOBODY).ipv4 == leases[2].ipv4


def test_net30_addresses_do_not_overlap_and_stay_inside() -> None:
    pool = AddressPool(Pool(IPv4Network("10.8.0.0/28"), None, Topology.NET30), 100)
    assert [str(pool.lease(str(number), NOBODY).ipv4) for number in range(3)] == ["10.8.0.6", "10.8.0.10", "10.8.0.14"]
    with pytest.raises(PoolExhausted):
        pool.lease("x", NOBODY)


def test_a_fixed_address_is_nobody_elses() -> None:
    pool = AddressPool(Pool(IPv4Network("10.8.0.0/24")), 10)
    fixed = ClientOverrides(ifconfig=IPv4Address("10.8.0.2"))
    assert pool.lease("a", fixed).ipv4 == IPv4Address("10.8.0.2")
    assert pool.lease("b", NOBODY).ipv4 == IPv4Address("10.8.0.3")
    with pytest.raises(PoolExhausted):
        pool.lease("c", fixed)


def agree(info: PeerInfo, options: str = "", data: DataSettings | None = None) -> tuple[str, ...]:
    agreement = agree_as_server(info, options, data or DataSettings(), key_export=True, dynamic_tls_crypt=True)
    return agreement.pushed


def test_a_real_client_is_offered_what_a_real_server_offers() -> None:
    assert agree(REAL_CLIENT) == (
        "cipher AES-256-GCM",
        "protocol-flags cc-exit tls-ekm dyn-tls-crypt",
        "tun-mtu 1500",
    )


def test_the_servers_order_of_ciphers_decides() -> None:
    data = DataSettings(data_ciphers=(Cipher.CHACHA20_POLY1305, Cipher.AES_256_GCM))
    assert agree(REAL_CLIENT, data=data)[0] == "cipher CHACHA20-POLY1305"


def test_older_clients_are_met_where_they_stand() -> None:
    assert agree(PeerInfo.parse("IV_NCP=2\nIV_PROTO=2\n")) == ("cipher AES-256-GCM",)
    assert agree(PeerInfo.parse("IV_NCP=2\nIV_PROTO=10\n")) == ("cipher AES-256-GCM", "key-derivation tls-ekm")
    assert agree(PeerInfo(), "V4,cipher AES-128-GCM,auth SHA1") == ()
    with pytest.raises(NoSharedCipher):
        agree(PeerInfo(), "V4,cipher BF-CBC,auth SHA1")
    assert agree(PeerInfo(), "", DataSettings(fallback_cipher=Cipher.AES_256_CBC)) == ()


def test_a_client_takes_only_a_cipher_it_offered() -> None:
    data = DataSettings(data_ciphers=(Cipher.AES_128_GCM,))
    assert cipher_as_client(PushedOptions(cipher=Cipher.AES_128_GCM), "", data) is Cipher.AES_128_GCM
    with pytest.raises(NoSharedCipher):
        cipher_as_client(PushedOptions(cipher=Cipher.AES_256_CBC), "", data)
    assert cipher_as_client(PushedOptions(), "V4,cipher AES-128-GCM", data) is Cipher.AES_128_GCM
    with pytest.raises(NoSharedCipher):
        cipher_as_client(PushedOptions(), "V4,cipher AES-256-CBC", data)


def test_a_token_is_good_for_its_user_and_its_time() -> None:
    mint = TokenMint(b"secret", lifetime=100, renewal=50)
    token = mint.issue("alice", bytes(12), 1000, 1000)
    assert mint.check("alice", token, 1050) is not None
    assert mint.check("bob", token, 1000) is None
    assert mint.check("alice", token, 1051) is None
    assert mint.check("alice", mint.issue("alice", bytes(12), 1000, 1090), 1101) is None
    assert TokenMint(b"other", 100, 50).check("alice", token, 1000) is None
    assert mint.check("alice", "SESS_ID_AT_rubbish", 1000) is None


def test_a_cookie_lives_for_three_slots_of_half_a_window() -> None:
    jar, client = CookieJar(b"secret", 60.0), SessionId(b"12345678")
    cookie = jar.bake(("192.0.2.1", 1), client, 3000)
    assert [jar.verify(cookie, ("192.0.2.1", 1), client, time) for time in (3000, 3089, 3090, 2999)] == [
        True,
        True,
        False,
        False,
    ]
    assert not jar.verify(cookie, ("192.0.2.1", 2), client, 3000)
    assert not jar.verify(cookie, ("192.0.2.1", 1), SessionId(b"87654321"), 3000)


def test_the_handshakes_table_leads_every_state_to_an_end() -> None:
    for state in State:
        assert (state is State.FAILED) == ((state, Input.FAILURE) not in TRANSITIONS)
    reached = {State.AWAIT_RESET} | set(TRANSITIONS.values())
    assert reached == set(State)


@pytest.mark.parametrize(
    ("changes", "blamed"),
    [
        ({"ca": "nothing"}, "ca"),
        ({"certificate": "nothing"}, "cert"),
        ({"private_key": "nothing"}, "key"),
        ({"crl": "nothing"}, "crl-verify"),
        ({"ciphers": "ROT13"}, "tls-cipher"),
    ],
)
def test_tls_settings_that_cannot_be_used_are_blamed_on_their_option(changes: dict[str, str], blamed: str) -> None:
    settings = replace(client_settings().tls, **changes)  # type: ignore[arg-type]
    with pytest.raises(BadTlsSettings, match=f"^{blamed}:"):
        TlsContext(settings, is_server=False)


def test_a_key_of_another_certificate_is_refused() -> None:
    other = make_authority("x").issue("x")
    settings = replace(client_settings().tls, private_key=other.key)
    with pytest.raises(BadTlsSettings, match=r"^key:"):
        TlsContext(settings, is_server=False)


def test_secrets_do_not_show_in_repr() -> None:
    secrets = [KEY.hex()[:40], repr(KEY)[:40], client_certificate().key[40:80], "s3cret"]
    world = World()
    settings = client_settings(username="alice", password="s3cret")
    client = ClientCore(settings, ("192.0.2.1", 1), random_bytes=world.random_bytes)
    server = ServerCore(server_settings(), random_bytes=world.random_bytes)
    shown = repr([settings, server_settings(), client, server, StaticKeySettings(KEY), dataclasses.asdict])
    for secret in secrets:
        assert secret not in shown
    assert isinstance(settings.tls, TlsSettings)
