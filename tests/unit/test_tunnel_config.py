"""The configuration text that both VPN programs read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.tunnels.openvpn_config import TunnelSettings, client_config, pushed_options, server_config

SETTINGS = TunnelSettings(
    server="198.51.100.10",
    keys="/run/testbed/keys",
    cipher="AES-256-GCM",
    control="tls-crypt",
    mode="tls",
    transport="udp",
    routes=None,
    dns_in_tunnel=True,
)


@pytest.mark.parametrize(
    ("routes", "options"),
    [
        (None, ["redirect-gateway def1 ipv6"]),
        (("0.0.0.0/0",), ["redirect-gateway def1"]),
        (("::/0",), ["redirect-gateway def1 ipv6 !ipv4"]),
        (("0.0.0.0/0", "::/0"), ["redirect-gateway def1 ipv6"]),
        (("10.20.0.0/24", "2001:db8:20::/64"), ["route 10.20.0.0 255.255.255.0", "route-ipv6 2001:db8:20::/64"]),
        (("0.0.0.0/0", "2001:db8:20::/64"), ["redirect-gateway def1", "route-ipv6 2001:db8:20::/64"]),
        ((), []),
    ],
)
def test_routes_become_the_options_openvpn_has_for_them(routes: tuple[str, ...] | None, options: list[str]) -> None:
    assert pushed_options(replace(SETTINGS, routes=routes, dns_in_tunnel=False)) == options


def test_a_resolver_is_pushed_only_where_names_are_looked_up_in_the_tunnel() -> None:
    assert "dhcp-option DNS 10.8.0.1" in pushed_options(SETTINGS)
    assert not any("DNS" in option for option in pushed_options(replace(SETTINGS, dns_in_tunnel=False)))


@pytest.mark.parametrize(
    ("control", "server_line", "client_line"),
    [
        ("tls-crypt", "tls-crypt /run/testbed/keys/tls-crypt.key", "tls-crypt /run/testbed/keys/tls-crypt.key"),
        ("tls-auth", "tls-auth /run/testbed/keys/static.key 0", "tls-auth /run/testbed/keys/static.key 1"),
        (
            "tls-crypt-v2",
            "tls-crypt-v2 /run/testbed/keys/tls-crypt-v2-server.key",
            "tls-crypt-v2 /run/testbed/keys/tls-crypt-v2-client.key",
        ),
    ],
)
def test_both_ends_wrap_the_control_channel_alike(control: str, server_line: str, client_line: str) -> None:
    settings = replace(SETTINGS, control=control)
    assert server_line in server_config(settings).splitlines()
    assert client_line in client_config(settings).splitlines()


def test_an_ipv6_server_address_chooses_the_ipv6_transport() -> None:
    settings = replace(SETTINGS, server="2001:db8:3::10")
    assert "proto udp6" in client_config(settings).splitlines()
    assert "proto tcp6-server" in server_config(replace(settings, transport="tcp")).splitlines()


def test_a_client_over_tcp_does_not_announce_its_exit() -> None:
    assert "explicit-exit-notify" in client_config(SETTINGS)
    assert "explicit-exit-notify" not in client_config(replace(SETTINGS, transport="tcp"))


def test_static_key_peers_use_the_two_directions_of_one_key_and_hold_their_routes_themselves() -> None:
    settings = replace(SETTINGS, mode="static-key", cipher="AES-256-CBC", control="none")
    server, client = server_config(settings).splitlines(), client_config(settings).splitlines()
    assert "secret /run/testbed/keys/static.key 0" in server
    assert "secret /run/testbed/keys/static.key 1" in client
    assert "redirect-gateway def1 ipv6" in client
    assert not any(line.startswith("push") for line in server)
