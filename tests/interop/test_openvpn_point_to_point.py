"""TLS between two equal peers (`tls-server`, `tls-client`, `ifconfig`): nothing is pushed. Against openvpn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.interop.echoes import Echoes
from tests.interop.role_pairs import pairs, ping, wait_for_new_key
from tests.interop.tunnel_configs import make_keys
from tests.interop.tunnel_lab import INNER_SERVER, INNER_SERVER6, OURS, READY, SERVER, Program, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def config(keys: Path, role: str, *lines: str, transport: str = "udp", control: str = "tls-crypt") -> str:
    own, peer = (1, 2) if role == "server" else (2, 1)
    ends = {
        "server": ["dh none", f"local {SERVER}", "port 1194"],
        "client": [f"remote {SERVER} 1194", "nobind", "remote-cert-tls server"],
    }
    text = [
        f"tls-{role}",
        "dev tun0",
        f"proto {transport}" + (f"-{role}" if transport == "tcp" else ""),
        f"ifconfig 10.8.0.{own} 10.8.0.{peer}",
        f"ifconfig-ipv6 2001:db8:8::{own}/64 2001:db8:8::{peer}",
        f"ca {keys}/ca.crt",
        f"cert {keys}/{role}.crt",
        f"key {keys}/{role}.key",
        *([f"tls-crypt {keys}/tls-crypt.key"] if control == "tls-crypt" else []),
        "keepalive 10 60",
        "verb 3",
        *ends[role],
        *lines,
    ]
    return "\n".join(text) + "\n"


def connect(
    lab: TunnelLab,
    programs: tuple[str, str],
    keys: Path,
    lines: Mapping[str, tuple[str, ...]],
    transport: str = "udp",
    control: str = "tls-crypt",
) -> list[Program]:
    """Both ends up: openvpn takes a second or two more, after the handshake."""
    ends = [("vpn", "server", programs[0]), ("client", "client", programs[1])]
    found = []
    for node, role, program in ends:
        text = config(keys, role, *lines.get(role, ()), transport=transport, control=control)
        found.append(lab.tunnel(program, node, text))
        if role == "server":
            found[0].wait_for("link local (bound)" if transport == "udp" else "isten")
    for end in found:
        end.wait_for("Peer Connection Initiated")
        end.wait_for(READY)
    return found


# Transport, protection of the control channel, and lines of the server's and the client's file.
EQUALS = {
    "udp, no protection, TLS 1.2": ("udp", "none", "tls-version-max 1.2", "tls-version-max 1.2", "AES-256-GCM"),
    "udp, tls-crypt, CBC": (
        "udp",
        "tls-crypt",
        "data-ciphers AES-256-CBC\nauth SHA256",
        "data-ciphers AES-256-CBC\nauth SHA256",
        "AES-256-CBC",
    ),
    # of the ciphers in common the TLS server's first counts
    "tcp, tls-crypt, ciphers in another order": (
        "tcp",
        "tls-crypt",
        "data-ciphers AES-192-GCM:CHACHA20-POLY1305:AES-128-GCM",
        "data-ciphers AES-128-GCM:CHACHA20-POLY1305",
        "CHACHA20-POLY1305",
    ),
}


@pairs
@pytest.mark.parametrize("name", list(EQUALS))
def test_two_equal_peers_agree_on_everything_by_themselves_and_replace_their_keys_under_traffic(
    server_program: str, client_program: str, name: str, keys: Path, tmp_path: Path
) -> None:
    transport, control, server_lines, client_lines, cipher = EQUALS[name]
    lines = {"server": (server_lines,), "client": (client_lines, "reneg-pkts 8")}

    def body(lab: TunnelLab) -> None:
        ends = connect(lab, (server_program, client_program), keys, lines, transport=transport, control=control)
        for end in ends:
            end.wait_for(f"Data Channel: cipher '{cipher}'")
        ids = {int(number) for end in ends for number in re.findall(r"peer-id:? (\d+)", end.text())} - {0}
        assert len(ids) == 1  # worked out by both from TLS; openvpn's last line about it always says 0
        for number in range(4):
            for end, program in zip(ends, (server_program, client_program), strict=True):
                wait_for_new_key(end, program, number)
            ping(lab, INNER_SERVER, octets=1200, count=5)
            ping(lab, INNER_SERVER6, count=5)
            ping(lab, "10.8.0.2", node="vpn", count=5)

    in_lab(body, tmp_path)


@pytest.mark.parametrize("legacy", ["server", "client"])
def test_an_equal_peer_that_cannot_export_keys_gets_the_old_ones(legacy: str, keys: Path, tmp_path: Path) -> None:
    """openvpn at the other end follows, with the peer id that it has for such a peer."""

    def body(lab: TunnelLab) -> None:
        program = {"server": "openvpn", "client": "openvpn"} | {legacy: OURS}
        texts = {role: config(keys, role, *(["key-derivation prf"] * (role == legacy))) for role in program}
        server = lab.tunnel(program["server"], "vpn", texts["server"])
        server.wait_for("link local (bound)")
        client = lab.tunnel(program["client"], "client", texts["client"])
        other = client if legacy == "server" else server
        other.wait_for("TLS_export=0, DATA_v2=1, peer-id 7762030")
        other.wait_for(READY)
        client.wait_for(READY)
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)


@pairs
def test_a_client_that_starts_anew_takes_the_place_of_its_older_self(
    server_program: str, client_program: str, keys: Path, tmp_path: Path
) -> None:
    def body(lab: TunnelLab) -> None:
        server, client = connect(lab, (server_program, client_program), keys, {})
        ping(lab, INNER_SERVER)
        seen = server.text().count("Peer Connection Initiated")
        client.process.kill()
        client.wait()
        again = lab.tunnel(client_program, "client", config(keys, "client"))
        again.wait_for(READY)
        server.wait_for("Peer Connection Initiated", count=seen + 1)
        # until the server has its keys, too, packets of the new client are of nobody
        for _ in range(100):
            if Echoes(lab.lab.node("client"), INNER_SERVER, 1, patience=0.3).exchange():
                break
        ping(lab, INNER_SERVER)

    in_lab(body, tmp_path)
