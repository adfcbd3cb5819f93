"""Every control-channel protection, cipher, transport and role against openvpn, each value with each other.

The full product would take minutes; the rows below hold every pair of values of any two columns (pairwise).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import sys
from pathlib import Path

import pytest

from tests.interop.role_pairs import PAIRS, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import (
    INNER_SERVER,
    INNER_SERVER6,
    OPENVPN,
    OURS,
    READY,
    SERVER,
    SERVER6,
    TunnelLab,
    in_lab,
)

pytestmark = [pytest.mark.root, pytest.mark.interop]

CONTROLS = ["none", "tls-auth", "tls-crypt", "tls-crypt-v2"]
CIPHERS = ["AES-256-GCM", "AES-192-GCM", "AES-128-GCM", "CHACHA20-POLY1305", "AES-256-CBC"]
TRANSPORTS = ["udp", "udp6", "tcp", "tcp6"]
AUTHS = ["SHA1", "SHA256", "SHA512"]


def pairwise(columns: list[list[str]]) -> list[tuple[str, ...]]:
    """Rows that contain every pair of values of any two columns: greedily, the row with most new pairs first."""
    positions = list(itertools.combinations(range(len(columns)), 2))
    missing = {(i, j, a, b) for i, j in positions for a in columns[i] for b in columns[j]}
    rows: list[tuple[str, ...]] = []
    while missing:
        row = max(
            itertools.product(*columns), key=lambda row: sum((i, j, row[i], row[j]) in missing for i, j in positions)
        )
        missing -= {(i, j, row[i], row[j]) for i, j in positions}
        rows.append(row)
    return rows


ROLES = [f"{client}-to-{server}" for server, client in PAIRS]
ROWS = pairwise([ROLES, CONTROLS, CIPHERS, TRANSPORTS, AUTHS])


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


@pytest.mark.parametrize(("roles", "control", "cipher", "transport", "auth"), ROWS, ids=["-".join(r) for r in ROWS])
def test_packets_pass_with(
    roles: str, control: str, cipher: str, transport: str, auth: str, keys: Path, tmp_path: Path
) -> None:
    server_program, client_program = PAIRS[ROLES.index(roles)]
    address = SERVER6 if transport.endswith("6") else SERVER
    setup = Setup(keys, PUSH_SPLIT, address, transport, control=control, cipher=cipher, both=(f"auth {auth}",))

    def body(lab: TunnelLab) -> None:
        lab.connect(server_program, setup.server(), client_program, setup.client())
        ping(lab, INNER_SERVER, INNER_SERVER6, octets=1300)

    in_lab(body, tmp_path)


UNDIRECTED_ROWS = list(itertools.product(PAIRS, AUTHS))


@pytest.mark.parametrize(("pair", "auth"), UNDIRECTED_ROWS)
def test_packets_pass_with_tls_auth_without_a_direction(
    pair: tuple[str, str], auth: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, PUSH_SPLIT, control="none", both=(f"tls-auth {keys}/static.key", f"auth {auth}"))

    def body(lab: TunnelLab) -> None:
        lab.connect(pair[0], setup.server(), pair[1], setup.client())
        ping(lab, INNER_SERVER, INNER_SERVER6, octets=1300)

    in_lab(body, tmp_path)


def test_the_matrix_holds_every_pair_of_values_and_says_how_many_rows_that_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    columns = [ROLES, CONTROLS, CIPHERS, TRANSPORTS, AUTHS]
    for (i, left), (j, right) in itertools.combinations(enumerate(columns), 2):
        assert {(row[i], row[j]) for row in ROWS} == set(itertools.product(left, right))
    everything = math.prod(len(column) for column in columns)
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print(
            f"\n{len(ROWS)} combinations of {everything} hold every pair, {len(STATIC_ROWS)} more with a static key, "
            f"{len(UNDIRECTED_ROWS)} with tls-auth without a direction"
        )


STATIC_ROWS = [
    row
    for row in itertools.product(PAIRS, ["udp", "tcp"], ["directed", "undirected"])
    if row[1] == "udp" or row[2] == "directed"
]


def static_config(keys: Path, transport: str, directed: str, own: int, peer: int) -> str:
    role = "server" if own == 1 else "client"
    lines = [
        "dev tun0",
        f"proto {transport}" + (f"-{role}" if transport == "tcp" else ""),
        f"ifconfig 10.8.0.{own} 10.8.0.{peer}",
        f"ifconfig-ipv6 2001:db8:8::{own}/64 2001:db8:8::{peer}",
        f"secret {keys}/static.key" + (f" {own - 1}" if directed == "directed" else ""),
        "cipher AES-256-CBC",
        "auth SHA256",
        "keepalive 10 60",
        "verb 3",
    ]
    ends = [f"local {SERVER}", "port 1194"] if own == 1 else [f"remote {SERVER} 1194", "nobind"]
    return "\n".join([*lines, *ends]) + "\n"


@pytest.mark.parametrize(("pair", "transport", "directed"), STATIC_ROWS)
def test_packets_pass_with_a_static_key(
    pair: tuple[str, str], transport: str, directed: str, keys: Path, tmp_path: Path
) -> None:
    def body(lab: TunnelLab) -> None:
        server = lab.tunnel(pair[0], "vpn", static_config(keys, transport, directed, 1, 2))
        server.wait_for("link local (bound)" if transport == "udp" else "isten")
        client = lab.tunnel(pair[1], "client", static_config(keys, transport, directed, 2, 1))
        client.wait_for("Initialization Sequence Completed")
        server.wait_for("Initialization Sequence Completed")
        ping(lab, INNER_SERVER, INNER_SERVER6, octets=1300)

    in_lab(body, tmp_path)


CALLS = """
import contextlib, socket
for said in (b"", b"\\0\\4abcd", b"GET / HTTP/1.1\\r\\n\\r\\n", b"\\xff\\xff"):
    with socket.create_connection(("%s", 1194), 10) as caller:
        caller.sendall(said)
        with contextlib.suppress(OSError):
            caller.shutdown(socket.SHUT_WR)
            while caller.recv(100):
                pass
"""


def test_strangers_who_call_a_listening_end_with_a_static_key_disturb_neither_it_nor_its_peer(
    keys: Path, tmp_path: Path
) -> None:
    def body(lab: TunnelLab) -> list[int]:
        server = lab.tunnel(OURS, "vpn", static_config(keys, "tcp", "directed", 1, 2))
        server.wait_for("isten")
        lab.output("web", "python3", "-c", CALLS % SERVER)
        client = lab.tunnel(OPENVPN, "client", static_config(keys, "tcp", "directed", 2, 1))
        client.wait_for(READY)
        server.wait_for(READY)
        lab.output("web", "python3", "-c", CALLS % SERVER)
        ping(lab, INNER_SERVER, INNER_SERVER6, octets=1300)
        return [program.text().count("restarting") for program in (server, client)]

    assert in_lab(body, tmp_path) == [0, 0]
