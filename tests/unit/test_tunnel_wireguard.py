"""What is started for WireGuard, and how the descriptions of ends are filled in."""

from __future__ import annotations

import base64
from ipaddress import ip_network
from pathlib import Path

import pytest

from testbed.scenario.values import Command, PerEnd, TunnelSpec
from testbed.tunnels.ends import End, with_values, write_files
from testbed.tunnels.programs import missing_program, needed_programs
from testbed.tunnels.wireguard import KeyPair, client_end, make_key_pair, server_end

OWN, OTHER = KeyPair("own-private", "own-public"), KeyPair("other-private", "other-public")


def script(*prefixes: str, endpoint: str = "198.51.100.10", dns: bool = True) -> list[str]:
    networks = [ip_network(prefix) for prefix in prefixes]
    end = client_end(
        OWN,
        OTHER,
        device="wg0",
        endpoint=endpoint,
        prefixes=networks,
        dns_in_tunnel=dns,
        around=("192.168.0.1", "client-eth0"),
    )
    return end.files["start.sh"].splitlines()


def test_a_default_route_goes_in_as_two_halves_and_the_server_stays_outside() -> None:
    lines = script("0.0.0.0/0", "::/0")
    routes = [line.split()[3] for line in lines if line.startswith("ip route add")]
    assert routes == ["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]
    assert "ip route replace 198.51.100.10 via 192.168.0.1 dev client-eth0" in lines


def test_a_split_tunnel_allows_its_prefixes_and_the_inner_networks_alone() -> None:
    lines = script("203.0.113.0/24")
    (configured,) = [line for line in lines if line.startswith("wg set")]
    assert "allowed-ips 10.8.0.0/24,2001:db8:8::/64,203.0.113.0/24 " in configured
    assert not [line for line in lines if line.startswith("ip route replace")]


def test_a_server_known_by_ipv6_is_written_in_brackets() -> None:
    (configured,) = [line for line in script(endpoint="2001:db8:3::10") if line.startswith("wg set")]
    assert "endpoint [2001:db8:3::10]:51820" in configured


def test_the_resolver_is_set_only_where_names_are_looked_up_in_the_tunnel() -> None:
    assert any("nameserver 10.8.0.1" in line for line in script("0.0.0.0/0"))
    assert not any("resolv.conf" in line for line in script("0.0.0.0/0", dns=False))


def test_the_server_takes_from_its_client_nothing_but_the_clients_addresses() -> None:
    text = server_end(OTHER, OWN).files["start.sh"]
    assert "listen-port 51820" in text
    assert "peer own-public allowed-ips 10.8.0.2/32,2001:db8:8::2/128\n" in text


def test_keys_are_32_octets_each_new_and_shown_nowhere() -> None:
    first, second = make_key_pair(), make_key_pair()
    assert [len(base64.b64decode(key)) for key in (first.private, first.public)] == [32, 32]
    assert first.private != second.private
    assert first.private not in repr(first)
    assert "other-private" not in repr(server_end(OTHER, OWN))


def test_only_known_names_in_braces_are_filled_in() -> None:
    end = End(("vpn", "{server}", "{json: 1}"), {"a.conf": "peer { key {keys}/a; } {other}"})
    placed = with_values(end, {"server": "192.0.2.1", "keys": "/k"})
    assert placed.argv == ("vpn", "192.0.2.1", "{json: 1}")
    assert placed.files == {"a.conf": "peer { key /k/a; } {other}"}


def test_files_of_an_end_are_for_their_owner_alone(tmp_path: Path) -> None:
    write_files(tmp_path, End(("x",), {"secret.key": "k", "go.sh": "#!/bin/sh"}))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"secret.key": 0o600, "go.sh": 0o700}


def command(client: str) -> TunnelSpec:
    argv = PerEnd((client,), ("sh",))
    return TunnelSpec(
        "command", "command", "command", "", "", "", "all", "tunnel", command=Command(argv, folder="/there")
    )


@pytest.mark.parametrize(
    ("client", "needed"), [("./my-vpn", "/there/my-vpn"), ("/opt/vpn", "/opt/vpn"), ("vpn", "vpn")]
)
def test_a_command_is_looked_for_where_it_will_run(client: str, needed: str) -> None:
    assert needed in needed_programs(command(client))


def test_what_is_missing_is_named_with_its_package_or_its_path() -> None:
    assert missing_program("sh") is None
    assert missing_program("no-such-vpn") == "sudo apt-get install no-such-vpn"
    assert "no program at /there/my-vpn" in str(missing_program("/there/my-vpn"))
