"""One configuration, TLS over UDP with tls-crypt and AES-256-GCM, against the distribution's openvpn in both roles."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.interop.inner_services import ADDRESS, ADDRESS6, NAME, octets
from tests.interop.role_pairs import PAIRS, pairs, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import (
    INNER_SERVER,
    INNER_SERVER6,
    OPENVPN,
    OURS,
    PATIENCE_SECONDS,
    READY,
    SERVER,
    SERVER6,
    WEB,
    Program,
    TunnelLab,
    in_lab,
)

pytestmark = [pytest.mark.root, pytest.mark.interop]

MEGABYTE = 1_000_000


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def exchange_megabyte(lab: TunnelLab, host: str) -> None:
    """1 MB down and up, compared octet by octet."""
    source, target = lab.folder / "up", lab.folder / "down"
    source.write_bytes(octets(MEGABYTE))
    curl = ("curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--noproxy", "*")
    lab.output("client", *curl, "-o", str(target), f"http://{host}/octets/{MEGABYTE}")
    assert target.read_bytes() == octets(MEGABYTE)
    answer = lab.output("client", *curl, "--data-binary", f"@{source}", f"http://{host}/")
    assert answer == hashlib.sha256(octets(MEGABYTE)).hexdigest()


@pairs
def test_ping_dns_and_a_megabyte_each_way_pass_over_both_inner_ip_versions(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys)

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        lab.serve()
        ping(lab, INNER_SERVER, INNER_SERVER6)
        for kind, expected in (("A", ADDRESS), ("AAAA", ADDRESS6)):
            for resolver in (INNER_SERVER, INNER_SERVER6):
                answer = lab.output("client", "dig", "+short", "+time=3", f"@{resolver}", NAME, kind)
                assert answer.strip() == expected
        exchange_megabyte(lab, INNER_SERVER)
        exchange_megabyte(lab, f"[{INNER_SERVER6}]")

    in_lab(body, tmp_path)


@pairs
def test_a_clean_exit_of_the_client_is_seen_by_the_server_at_once(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, client_only=("explicit-exit-notify 1",))

    def body(lab: TunnelLab) -> int:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        code = client.stop()
        server.wait_for("exit message received by peer" if server_program == OPENVPN else "remote-exit")
        assert "tun0" not in lab.output("client", "ip", "link")
        return code

    assert in_lab(body, tmp_path) == 0


@pairs
def test_a_clean_exit_of_the_server_makes_the_client_reconnect(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, client_only=("connect-retry 1 1",))

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(server_program, setup.server(), client_program, setup.client())
        assert server.stop() == 0
        client.wait_for("server-pushed-connection-reset")
        again = lab.tunnel(server_program, "vpn", setup.server())
        again.wait_for(READY)
        client.wait_for(READY, count=2)
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


@pytest.mark.parametrize("address", [SERVER, SERVER6])
def test_all_traffic_goes_through_the_tunnel_but_what_goes_to_the_vpn_server(
    address: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, address=address, proto="udp6" if ":" in address else "udp")

    def body(lab: TunnelLab) -> None:
        routes, resolver, link = lab.routes(), lab.resolv_conf(), lab.egress(WEB)
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        for target in (WEB, "8.8.8.8", "2001:db8:4::34", "2606::1", "fd00::1"):
            assert lab.egress(target) == "tun0", target
        assert lab.egress(address) == link
        assert lab.egress("192.168.0.1") == link  # the local network itself is more specific than def1
        assert f"nameserver {INNER_SERVER}\nnameserver {INNER_SERVER6}\n" in lab.resolv_conf()
        assert client.stop() == 0
        assert lab.routes() == routes
        assert lab.resolv_conf() == resolver

    in_lab(body, tmp_path)


def test_a_split_tunnel_carries_the_pushed_prefixes_and_nothing_else(keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, push=PUSH_SPLIT)

    def body(lab: TunnelLab) -> None:
        resolver, link = lab.resolv_conf(), lab.egress(WEB)
        lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        inside = [lab.egress(address) for address in ("10.20.0.10", "2001:db8:20::10", INNER_SERVER, INNER_SERVER6)]
        outside = [lab.egress(address) for address in (WEB, "2001:db8:4::34", SERVER, "10.21.0.1")]
        assert inside == ["tun0"] * 4
        assert outside == [link] * 4
        assert lab.resolv_conf() == resolver

    in_lab(body, tmp_path)


def test_our_routes_are_the_ones_openvpn_sets(keys: Path, tmp_path: Path) -> None:
    """The same pushed options, once set by openvpn and once by us: the kernel's answers are the same."""
    setup = Setup(keys, push=("redirect-gateway def1 ipv6", *PUSH_SPLIT, "route 198.18.0.0 255.254.0.0 net_gateway 7"))

    def routes_with(program: str) -> list[str]:
        def body(lab: TunnelLab) -> list[str]:
            lab.connect(OPENVPN, setup.server(), program, setup.client())
            return [" ".join(word for word in line.split() if word not in ("proto", "static")) for line in lab.routes()]

        folder = tmp_path / program
        folder.mkdir()
        return [line for line in in_lab(body, folder) if not line.startswith("fe80")]

    assert routes_with(OURS) == routes_with(OPENVPN)


def test_route_nopull_leaves_routes_and_resolver_alone(keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, client_only=("route-nopull",))

    def body(lab: TunnelLab) -> None:
        resolver, link = lab.resolv_conf(), lab.egress(WEB)
        lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        assert lab.egress(WEB) == link
        assert lab.egress(INNER_SERVER) == "tun0"
        assert lab.resolv_conf() == resolver

    in_lab(body, tmp_path)


def test_the_segment_size_in_a_syn_is_clamped_as_between_two_openvpns(keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys)
    syn = "(tcp dst port 80 and tcp[tcpflags] & tcp-syn != 0) or (ip6 and tcp dst port 80 and ip6[53] & 2 != 0)"

    def sizes(server_program: str, client_program: str) -> list[int]:
        def body(lab: TunnelLab) -> list[int]:
            lab.connect(server_program, setup.server(), client_program, setup.client())
            lab.serve()
            capture = lab.folder / "syn.pcap"
            sniffer = lab.start("vpn", ["tcpdump", "-i", "tun0", "-c", "2", "-U", "-w", str(capture), syn])
            sniffer.wait_for("listening on")
            for host in (INNER_SERVER, f"[{INNER_SERVER6}]"):
                lab.output("client", "curl", "--silent", "--fail", "--max-time", "10", f"http://{host}/octets/1")
            sniffer.wait()
            fields = ("-T", "fields", "-e", "tcp.options.mss_val")
            return [int(word) for word in lab.output("vpn", "tshark", "-r", str(capture), *fields).split()]

        folder = tmp_path / f"{client_program}-to-{server_program}"
        folder.mkdir()
        found: list[int] = in_lab(body, folder)
        return found

    expected = sizes(OPENVPN, OPENVPN)
    assert len(expected) == 2
    assert all(size < 1440 for size in expected)
    assert {pair: sizes(*pair) for pair in PAIRS} == dict.fromkeys(PAIRS, expected)


def failing_pair(lab: TunnelLab, server_program: str, server: str, client_program: str, client: str) -> list[Program]:
    serving = lab.tunnel(server_program, "vpn", server)
    serving.wait_for(READY)
    return [serving, lab.tunnel(client_program, "client", client, "--hand-window", "3")]


@pairs
def test_a_client_of_another_ca_is_refused_with_the_reason_in_both_logs(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other")
    for name in ("tls-crypt.key", "ca.crt"):
        (other / name).write_bytes((keys / name).read_bytes())
    server, client = Setup(keys).server(), Setup(other, client_only=("tls-exit",)).client()

    def body(lab: TunnelLab) -> None:
        serving, joining = failing_pair(lab, server_program, server, client_program, client)
        serving.wait_for("VERIFY ERROR")
        joining.wait_for("TLS Error")
        assert READY not in joining.text()
        assert joining.wait() != 0 or client_program == OPENVPN

    in_lab(body, tmp_path)


@pairs
def test_a_server_of_another_ca_is_refused_with_the_reason_in_the_clients_log(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other")
    (other / "tls-crypt.key").write_bytes((keys / "tls-crypt.key").read_bytes())
    server, client = Setup(keys).server(), Setup(other, client_only=("tls-exit",)).client()

    def body(lab: TunnelLab) -> None:
        _, joining = failing_pair(lab, server_program, server, client_program, client)
        joining.wait_for("VERIFY ERROR")
        joining.wait_for("TLS handshake failed")
        joining.wait()
        assert READY not in joining.text()

    in_lab(body, tmp_path)


@pairs
def test_a_client_with_another_tls_crypt_key_gets_no_answer_and_gives_up_in_time(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    other = make_keys(tmp_path / "other")
    server = Setup(keys).server()
    client = Setup(keys, client_only=("tls-exit",)).client().replace(f"{keys}/tls-crypt.key", f"{other}/tls-crypt.key")

    def body(lab: TunnelLab) -> None:
        serving, joining = failing_pair(lab, server_program, server, client_program, client)
        joining.wait_for("TLS key negotiation failed to occur within 3 seconds", PATIENCE_SECONDS)
        joining.wait()
        if server_program == OURS:
            assert serving.stop() == 0
            assert "Dropped: UNAUTHENTIC_CONTROL" in serving.text()
        else:
            serving.wait_for("tls-crypt unwrap error: packet authentication failed")

    in_lab(body, tmp_path)
