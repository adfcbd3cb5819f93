"""DEVIATIONS.md names a test in every row, and the rows that no larger test proves are proven here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sim.network import World
from tests.sim.setups import client_settings, connect, pair, protections, server_settings
from vpn.config.errors import ConfigurationError
from vpn.config.load import load_configuration
from vpn.introduction import peer_info
from vpn.pki.commands import run_pki
from vpn.settings import ClientSettings, ServerSettings, TlsVersion
from vpn.wire.message import RestartRequest
from vpn.wire.packet import Opcode

ROOT = Path(__file__).resolve().parents[2]
CLIENT = "client\nremote 192.0.2.1\nremote-cert-tls server\nca {0}/ca.crt\ncert {0}/client.crt\nkey {0}/client.key\n"
SERVER = "server 10.8.0.0 255.255.255.0\nca {0}/ca.crt\ncert {0}/server.crt\nkey {0}/server.key\ndh none\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pki") / "keys"
    assert run_pki(["init", str(folder), "--server", "vpn.example", "--client", "alice"]) == 0
    return folder


def load(folder: Path, text: str) -> ClientSettings | ServerSettings:
    path = folder / "test.conf"
    path.write_text(text)
    core = load_configuration(path).core
    assert isinstance(core, ClientSettings | ServerSettings)
    return core


def test_every_row_of_the_table_of_deviations_names_a_test_that_exists() -> None:
    rows = [line for line in (ROOT / "DEVIATIONS.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith(("| what ", "| ---"))]
    assert len(rows) > 20
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named, row
        for file, name in named:
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), f"{file}::{name}"


def test_our_client_says_that_it_is_not_openvpn() -> None:
    assert "IV_VER=2.6_vpn-testbed\n" in peer_info(client_settings())


def test_the_flag_n_of_a_restart_means_the_next_server() -> None:
    assert RestartRequest.parse("RESTART,[N]").next_remote
    assert not RestartRequest.parse("RESTART").next_remote


def test_the_replay_id_of_a_tls_crypt_v2_client_begins_after_the_base() -> None:
    world = World()
    ours, theirs = protections("tls-crypt-v2")
    pair(world, client_settings(control=ours), server_settings(control=theirs))
    world.run(seconds=0)
    first = world.wire[0][3]
    assert first[0] >> 3 == Opcode.CONTROL_HARD_RESET_CLIENT_V3
    assert first[9:13] == bytes.fromhex("0f000001")


def test_a_client_hello_of_any_size_is_cut_to_the_size_of_control_packets() -> None:
    world = World()
    client, _ = connect(world)
    sent = [octets for _, source, _, octets in world.wire if source == client.address]
    assert max(len(octets) for octets in sent if octets[0] >> 3 == Opcode.CONTROL_V1) <= 1250 - 28


def test_a_client_says_goodbye_unless_the_file_says_it_shall_not(keys: Path, tmp_path: Path) -> None:
    for line, says in (("", True), ("explicit-exit-notify 2", True), ("explicit-exit-notify 0", False)):
        assert load(tmp_path, CLIENT.format(keys) + line).explicit_exit_notify == says


def test_tls_below_1_2_is_never_used(keys: Path, tmp_path: Path) -> None:
    settings = load(tmp_path, CLIENT.format(keys) + "tls-version-min 1.0")
    assert settings.tls.minimum_version is TlsVersion.TLS_1_2


def test_tokens_have_their_own_renewal_time(keys: Path, tmp_path: Path) -> None:
    settings = load(tmp_path, SERVER.format(keys) + "auth-gen-token 3600 300")
    assert isinstance(settings, ServerSettings)
    assert (settings.auth_token_lifetime, settings.auth_token_renewal) == (3600, 300)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("auth-gen-token 3600 300 external-auth", "external-auth"),
        ("auth-gen-token 3600 soon", "number of seconds"),
        ("fragment 1200", "mssfix"),
        ("client-connect /bin/true", "scripts"),
    ],
)
def test_a_server_option_that_would_mean_less_than_it_says_is_refused(
    line: str, reason: str, keys: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load(tmp_path, SERVER.format(keys) + line)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CLIENT.replace("client\n", "tls-client\n", 1), "each end needs its own address"),
        (SERVER.replace("server 10.8.0.0 255.255.255.0", "tls-server"), "each end needs its own address"),
        (
            SERVER.replace("server 10.8.0.0 255.255.255.0", 'tls-server\nifconfig 10.8.0.1 10.8.0.2\npush "ping 9"'),
            "needs clients",
        ),
    ],
)
def test_a_point_to_point_file_that_lacks_addresses_or_has_clients_is_refused(
    text: str, reason: str, keys: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        load(tmp_path, text.format(keys))
