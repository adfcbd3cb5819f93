"""What a configuration comes to: the settings of core and driver for the texts people write."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address
from pathlib import Path

import pytest

from vpn.config.client_file import parse_client_file
from vpn.config.errors import ConfigurationError
from vpn.config.load import load_configuration
from vpn.config.model import Configuration, Family, Protocol, Remote
from vpn.config.network import parse_protocol, parse_socket_address
from vpn.config.option import Handling
from vpn.config.table import OPTIONS
from vpn.pki.commands import run_pki
from vpn.push import RedirectGateway, Route
from vpn.settings import (
    Cipher,
    ClientSettings,
    Compression,
    Digest,
    KeyDirection,
    NameRule,
    PullFilter,
    ServerSettings,
    StaticKeySettings,
    Topology,
    Transport,
    Wrapping,
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "keys"
    assert run_pki(["init", str(folder), "--server", "vpn.example", "--client", "alice"]) == 0
    return folder


class Loader:
    """Settings of a client or server with the lines under test added."""

    def __init__(self, keys: Path, folder: Path) -> None:
        self._keys = keys
        self._path = folder / "test.conf"

    def load(self, text: str) -> Configuration:
        self._path.write_text(text)
        return load_configuration(self._path)

    def _identity(self, name: str) -> str:
        return f"ca {self._keys}/ca.crt\ncert {self._keys}/{name}.crt\nkey {self._keys}/{name}.key\n"

    def client_configuration(self, *lines: str) -> Configuration:
        remote = "" if any("remote " in line for line in lines) else "remote 192.0.2.1\n"
        return self.load(f"client\n{remote}{self._identity('client')}" + "\n".join(lines) + "\n")

    def client(self, *lines: str) -> ClientSettings:
        core = self.client_configuration(*lines).core
        assert isinstance(core, ClientSettings)
        return core

    def server_configuration(self, *lines: str) -> Configuration:
        return self.load("mode server\ntls-server\n" + self._identity("server") + "\n".join(lines) + "\n")

    def server(self, *lines: str) -> ServerSettings:
        core = self.server_configuration("server 10.8.0.0 255.255.255.0", *lines).core
        assert isinstance(core, ServerSettings)
        return core


@pytest.fixture
def loader(keys: Path, tmp_path: Path) -> Loader:
    return Loader(keys, tmp_path)


def test_remotes_of_blocks_come_first_with_their_own_ports_and_protocols(loader: Loader) -> None:
    configuration = loader.client_configuration(
        "proto udp",
        "<connection>",
        "remote a.example 443 tcp",
        "</connection>",
        "<connection>",
        "remote b.example",
        "port 53",
        "proto udp6",
        "</connection>",
        "remote c.example 1195",
    )
    assert configuration.driver.remotes == (
        Remote("a.example", 443, Protocol(Transport.TCP)),
        Remote("b.example", 53, Protocol(Transport.UDP, Family.IPV6)),
        Remote("c.example", 1195, Protocol(Transport.UDP)),
    )


@pytest.mark.parametrize(
    "word", ["udp", "udp4", "udp6", "tcp", "tcp4", "tcp6", "tcp-client", "tcp4-server", "tcp6-client"]
)
def test_protocols_are_read(word: str) -> None:
    expected = Protocol(Transport(word[:3]), Family(word[3:4] if word[3:4] in "46" else ""))
    assert parse_protocol(word) == expected


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ([], 0),
        (["nobind"], 0),
        (["lport 5000"], 5000),
        (["port 5001"], 0),
        (["bind"], 1194),
        (["port 5001", "bind"], 5001),
    ],
)
def test_a_client_binds_only_when_asked(loader: Loader, lines: list[str], port: int) -> None:
    assert loader.client_configuration(*lines).driver.socket.local_port == port


def test_a_server_listens_on_its_port(loader: Loader) -> None:
    configuration = loader.server_configuration("server 10.8.0.0 255.255.255.0")
    assert configuration.driver.socket.local_port == 1194


def test_a_servers_pool_and_own_addresses_follow_from_server_lines(loader: Loader) -> None:
    configuration = loader.server_configuration(
        "topology subnet", "server 10.8.0.0 255.255.255.0", "server-ipv6 2001:db8:8::/64"
    )
    assert isinstance(configuration.core, ServerSettings)
    pool, own = configuration.core.pool, configuration.driver.server
    assert (pool.ipv4, pool.ipv6, pool.topology) == (
        IPv4Network("10.8.0.0/24"),
        IPv6Network("2001:db8:8::/64"),
        Topology.SUBNET,
    )
    assert own is not None
    assert (own.ipv4, own.ipv4_peer, own.ipv6) == (
        IPv4Interface("10.8.0.1/24"),
        None,
        IPv6Interface("2001:db8:8::1/64"),
    )


def test_net30_is_a_servers_default_topology_with_a_peer_address(loader: Loader) -> None:
    own = loader.server_configuration("server 10.8.0.0 255.255.255.0").driver.server
    assert own is not None
    assert (own.ipv4, own.ipv4_peer) == (IPv4Interface("10.8.0.1/32"), IPv4Address("10.8.0.2"))


def test_keepalive_is_doubled_at_the_server_and_pushed_to_clients(loader: Loader) -> None:
    server = loader.server("keepalive 10 60")
    assert (server.timers.ping, server.timers.ping_restart) == (10, 120)
    assert (server.push_ping, server.push_ping_restart) == (10, 60)


def test_network_options_of_the_file_take_the_form_of_pushed_ones(loader: Loader) -> None:
    options = loader.client_configuration(
        "route 10.1.0.0 255.255.0.0 default 7",
        "route 10.2.0.1",
        "route 203.0.113.0 255.255.255.0 net_gateway",
        "route-ipv6 2001:db8:5::/48",
        "redirect-gateway def1",
        "redirect-gateway ipv6",
        "dhcp-option DNS 10.8.0.1",
        "dhcp-option DNS6 2001:db8::53",
        "dhcp-option DOMAIN corp.example",
        "dns server 1 address 192.0.2.53:53 [2001:db8::2]:53",
        "dns server 1 resolve-domains a.example b.example",
        "dns search-domains s.example",
    ).driver.local_options
    assert options.routes == (
        Route(IPv4Network("10.1.0.0/16"), "", 7),
        Route(IPv4Network("10.2.0.1/32")),
        Route(IPv4Network("203.0.113.0/24"), "net_gateway"),
        Route(IPv6Network("2001:db8:5::/48")),
    )
    assert options.redirect_gateway == RedirectGateway(frozenset({"def1", "ipv6"}))
    assert options.dns_addresses == (IPv4Address("10.8.0.1"), IPv6Address("2001:db8::53"))
    assert options.dns_domain == "corp.example"
    assert options.dns_search == ("s.example",)
    (server,) = options.dns_servers
    assert server.addresses == ((IPv4Address("192.0.2.53"), 53), (IPv6Address("2001:db8::2"), 53))
    assert server.resolve_domains == ("a.example", "b.example")


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("192.0.2.1", ("192.0.2.1", None)),
        ("192.0.2.1:5353", ("192.0.2.1", 5353)),
        ("2001:db8::1", ("2001:db8::1", None)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("[2001:db8::1]:53", ("2001:db8::1", 53)),
    ],
)
def test_resolver_addresses_are_read(word: str, expected: tuple[str, int | None]) -> None:
    assert parse_socket_address(word) == (ip_address(expected[0]), expected[1])


@pytest.mark.parametrize("word", ["", "x", "1.2.3.4:0", "1.2.3.4:99999", "[::1", "[::1]x", "::1]:53"])
def test_what_is_no_resolver_address_is_refused(word: str) -> None:
    with pytest.raises(ValueError, match=r"address|port"):
        parse_socket_address(word)


def test_control_protection_reads_its_key_file(loader: Loader, keys: Path) -> None:
    plain = loader.client()
    auth = loader.client(f"tls-auth {keys}/static.key 1", "auth SHA512").control
    crypt = loader.client(f"tls-crypt {keys}/tls-crypt.key").control
    v2 = loader.client(f"tls-crypt-v2 {keys}/tls-crypt-v2-client.key").control
    v2_server = loader.server(f"tls-crypt-v2 {keys}/tls-crypt-v2-server.key force-cookie").control
    assert plain.control.wrapping is Wrapping.NONE
    assert (auth.wrapping, auth.direction, auth.digest) == (Wrapping.TLS_AUTH, KeyDirection.INVERSE, Digest.SHA512)
    assert (crypt.wrapping, len(crypt.static_key)) == (Wrapping.TLS_CRYPT, 256)
    assert (len(v2.static_key), len(v2.wrapped_client_key)) == (256, 299)
    assert (len(v2_server.server_key), v2_server.force_cookie) == (128, True)


def test_key_direction_may_stand_on_a_line_of_its_own_beside_an_inline_key(loader: Loader, keys: Path) -> None:
    inline = (keys / "static.key").read_text()
    control = loader.client("key-direction 1", "<tls-auth>", inline, "</tls-auth>").control
    assert control.direction is KeyDirection.INVERSE


def test_two_protections_at_once_are_refused(loader: Loader, keys: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used together"):
        loader.client(f"tls-auth {keys}/static.key", f"tls-crypt {keys}/tls-crypt.key")


def test_ciphers_are_read_in_their_order_without_regard_to_case(loader: Loader) -> None:
    data = loader.client(
        "data-ciphers aes-128-gcm:?FUTURE-1:CHACHA20-POLY1305", "data-ciphers-fallback AES-256-CBC"
    ).data
    assert data.data_ciphers == (Cipher.AES_128_GCM, Cipher.CHACHA20_POLY1305)
    assert data.fallback_cipher is Cipher.AES_256_CBC


@pytest.mark.parametrize(
    ("lines", "mssfix"),
    [
        ([], 1492),
        (["mssfix"], 1492),
        (["mssfix 0"], None),
        (["mssfix 1400"], 1428),
        (["mssfix 1400 mtu"], 1400),
        (["tun-mtu 1400", "mssfix 1300 mtu"], 1300),
    ],
)
def test_mssfix_counts_as_openvpn_counts(loader: Loader, lines: list[str], mssfix: int | None) -> None:
    data = loader.client(*lines).data
    assert (data.mssfix, data.mssfix_inner) == (mssfix, False)


@pytest.mark.parametrize(
    ("lines", "mssfix"), [(["mssfix 1300 fixed"], 1300), (["tun-mtu 1400"], 1400), (["tun-mtu 1400", "mssfix"], 1400)]
)
def test_mssfix_may_be_the_size_of_inner_packets(loader: Loader, lines: list[str], mssfix: int) -> None:
    data = loader.client(*lines).data
    assert (data.mssfix, data.mssfix_inner) == (mssfix, True)


@pytest.mark.parametrize(
    ("line", "framing"),
    [
        ("comp-lzo no", Compression.COMP_LZO),
        ("compress", Compression.STUB),
        ("compress stub-v2", Compression.STUB_V2),
        ("compress migrate", Compression.NONE),
    ],
)
def test_compression_options_keep_only_their_framing_and_warn(loader: Loader, line: str, framing: Compression) -> None:
    configuration = loader.client_configuration(line)
    assert isinstance(configuration.core, ClientSettings)
    assert configuration.core.data.compression is framing
    assert any("DEPRECATED OPTION" in warning for warning in configuration.warnings)


def test_credentials_are_read_from_a_file_or_inline_and_make_a_certificate_unnecessary(
    loader: Loader, keys: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "login"
    secret.touch(0o600)
    secret.write_text("alice\npass word\n")
    core = loader.client(f"auth-user-pass {secret}")
    assert (core.username, core.password) == ("alice", "pass word")
    inline = loader.load(
        f"client\nremote ::1\nca {keys}/ca.crt\n<auth-user-pass>\nbob\nsesame\n</auth-user-pass>\n"
    ).core
    assert isinstance(inline, ClientSettings)
    assert (inline.username, inline.password, inline.tls.certificate) == ("bob", "sesame", "")
    assert "pass word" not in repr(core)


def test_a_password_check_needs_script_security(loader: Loader) -> None:
    with pytest.raises(ConfigurationError, match="script-security 2"):
        loader.server("auth-user-pass-verify /bin/true via-file")
    core = loader.server("auth-user-pass-verify '/bin/check --strict' via-file", "script-security 2")
    assert (core.external_admission, core.password_required) == (True, True)


def test_filters_names_and_timers_reach_the_core(loader: Loader) -> None:
    core = loader.client(
        "pull-filter ignore redirect",
        "pull-filter accept route",
        "route-nopull",
        "verify-x509-name vpn.example name",
        "reneg-sec 30",
        "hand-window 20",
        "tran-window 40",
        "ping-restart 15",
        "explicit-exit-notify 0",
    )
    assert core.pull_filters == (PullFilter("ignore", "redirect"), PullFilter("accept", "route"))
    assert core.route_nopull
    assert (core.tls.verify_name, core.tls.verify_name_rule) == ("vpn.example", NameRule.NAME)
    timers = core.timers
    assert (timers.reneg_sec, timers.hand_window, timers.tran_window, timers.ping_restart) == (30, 20, 40, 15)
    assert not core.explicit_exit_notify


def test_a_static_key_needs_a_cbc_cipher(loader: Loader, keys: Path) -> None:
    base = f"secret {keys}/static.key 1\nremote 192.0.2.1\nifconfig 10.8.0.2 10.8.0.1\n"
    core = loader.load(base + "cipher AES-256-CBC\nauth SHA256\n").core
    assert isinstance(core, StaticKeySettings)
    assert (core.cipher, core.digest, core.direction, core.listen) == (
        Cipher.AES_256_CBC,
        Digest.SHA256,
        KeyDirection.INVERSE,
        False,
    )
    with pytest.raises(ConfigurationError, match="needs a CBC cipher"):
        loader.load(base + "cipher AES-256-GCM\n")


def test_a_clients_own_file_is_read(tmp_path: Path) -> None:
    text = (
        'ifconfig-push 10.8.0.77 255.255.255.0\niroute 192.168.7.0 255.255.255.0\npush "route 10.9.0.0"\npush-reset\n'
    )
    overrides = parse_client_file(text + "ifconfig-ipv6-push 2001:db8:8::77/64\niroute-ipv6 fd07::/48\n", "alice")
    assert overrides.ifconfig == IPv4Address("10.8.0.77")
    assert overrides.ifconfig_ipv6 == IPv6Address("2001:db8:8::77")
    assert overrides.iroutes == (IPv4Network("192.168.7.0/24"), IPv6Network("fd07::/48"))
    assert (overrides.push, overrides.push_reset, overrides.disable) == (("route 10.9.0.0",), True, False)


def test_an_option_of_the_server_itself_is_refused_in_a_clients_own_file() -> None:
    with pytest.raises(ConfigurationError, match="alice:1: verb: not allowed in this place"):
        parse_client_file("verb 3\n", "alice")


def test_a_key_readable_by_others_is_warned_of(loader: Loader, keys: Path, tmp_path: Path) -> None:
    exposed = tmp_path / "exposed.key"
    exposed.write_bytes((keys / "tls-crypt.key").read_bytes())
    exposed.chmod(0o644)
    assert any("group or others accessible" in w for w in loader.client_configuration(f"tls-crypt {exposed}").warnings)


@pytest.mark.interop
def test_every_option_of_openvpns_help_has_a_row_in_the_table() -> None:
    """Nothing that a 2.6 configuration may hold is answered with a mere `unknown option`."""
    import subprocess

    said = subprocess.run(["openvpn", "--help"], capture_output=True, text=True, timeout=20).stdout
    names = {name for line in said.splitlines() for name in re.findall(r"^--([a-z0-9-]+)", line)}
    assert len(names) > 200
    assert names - set(OPTIONS) == set()


def test_what_openvpn_takes_without_speaking_of_it_is_refused_with_a_reason_too() -> None:
    """Found by giving openvpn 2.6.14 every word of its program: its help leaves these out."""
    silent = {"compat-mode", "force-tls-key-material-export", "http-proxy-override", "http-proxy-timeout", "udp-mtu"}
    silent |= {"ifconfig-push-constraint", "ip-remote-hint", "peer-id", "protocol-flags", "push-continuation"}
    silent |= {"show-curves", "show-groups"}
    assert silent - set(OPTIONS) == set()


def test_every_row_that_does_nothing_or_refuses_says_why() -> None:
    silent = [o.name for o in OPTIONS.values() if o.handling is not Handling.USED and len(o.note) < 10]
    assert silent == []


def test_policy_routing_uses_the_table_with_the_marks_number_or_the_one_named(loader: Loader) -> None:
    socket = loader.client_configuration("mark 51820", "policy-routing").driver.socket
    assert (socket.mark, socket.policy_table) == (51820, 51820)
    assert loader.client_configuration("mark 7", "policy-routing 1000").driver.socket.policy_table == 1000


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("policy-routing",), "needs mark N"),
        (("mark 0", "policy-routing"), "needs mark N"),
        (("mark 254", "policy-routing"), "belongs to the system"),
        (("mark 4294967296", "policy-routing"), "below 2^32"),
    ],
)
def test_policy_routing_without_a_mark_or_in_a_table_of_the_system_is_refused(
    lines: tuple[str, ...], reason: str, loader: Loader
) -> None:
    with pytest.raises(ConfigurationError, match=reason.replace("^", r"\^")) as caught:
        loader.client_configuration(*lines)
    assert caught.value.problems[0].place.line > 0


@pytest.mark.parametrize(("lines", "port"), [("", 1194), ("port 5001\n", 5001), ("nobind\n", 0), ("proto tcp\n", 0)])
def test_a_static_key_peer_over_udp_binds_unless_told_not_to(lines: str, port: int, keys: Path, loader: Loader) -> None:
    text = (
        f"dev tun\nremote 192.0.2.1\nsecret {keys}/static.key\ncipher AES-256-CBC\nifconfig 10.8.0.1 10.8.0.2\n{lines}"
    )
    assert loader.load(text).driver.socket.local_port == port


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("replay-window 65537", "at most 65536"),
        ("sndbuf 2147483648", "below 2 GiB"),
        ("rcvbuf 99999999999", "below 2 GiB"),
        ("txqueuelen 4294967296", "below 2^32"),
        ("route-metric 4294967296", "below 2^32"),
        ("nice 20", "-20 to 19"),
        ("nice -99999999999", "-20 to 19"),
    ],
)
def test_a_number_that_the_kernel_cannot_take_is_refused_before_the_tunnel_starts(
    line: str, reason: str, loader: Loader
) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(reason)):
        loader.client_configuration(line)
