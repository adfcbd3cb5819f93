"""A server's status file, held against the one that openvpn writes for the same clients."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, PATIENCE_SECONDS, READY, TunnelLab, in_lab

pytestmark = [pytest.mark.root, pytest.mark.interop]

# What differs from run to run: moments, octets, ports; and the program's own name.
_CHANGING = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r"(?<=[\t,])1[5-9]\d{8}(?=[\t,\n])"), "TIME"),
    (re.compile(r"(192\.168\.0\.13):\d+"), r"\1:PORT"),
    (re.compile(r"(?m)^(TITLE[\t,]).*$"), r"\1PROGRAM"),
    (re.compile(r"(?<=[\t,])\d{3,7}(?=[\t,])"), "OCTETS"),
    (re.compile(r"(?m)^((?:GLOBAL_STATS[\t,])?Max bcast/mcast queue length[\t,])\d+$"), r"\1QUEUE"),
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def shape(text: str) -> list[str]:
    for pattern, name in _CHANGING:
        text = pattern.sub(name, text)
    # openvpn lists routes in the order of a hash table.
    return sorted(text.splitlines())


def settled(path: Path, *needed: str) -> str:
    """The file once a whole writing holds all of `needed`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    text = ""
    while time.monotonic() < deadline:
        text = path.read_text() if path.exists() else ""
        if text.rstrip().endswith("END") and all(word in text for word in needed):
            return text
        time.sleep(0.05)
    raise AssertionError(f"{needed} not in the status file in time:\n{text}")


@pytest.mark.parametrize("version", [1, 2, 3])
def test_the_status_file_of_a_server_has_openvpns_form(version: int, keys: Path, tmp_path: Path) -> None:
    """One client with addresses of both IP versions and a network behind it."""
    ccd = tmp_path / "ccd"
    ccd.mkdir()
    (ccd / "alice").write_text("iroute 10.50.0.0 255.255.0.0\niroute-ipv6 2001:db8:50::/48\n")

    def written_by(program: str) -> list[str]:
        path = tmp_path / f"status-{program}"
        lines = (f"status {path} 1", f"status-version {version}", f"client-config-dir {ccd}")
        setup = Setup(keys, PUSH_SPLIT, server_only=lines)

        def body(lab: TunnelLab) -> str:
            lab.connect(program, setup.server(), OPENVPN, setup.client())
            lab.output("client", "ping", "-n", "-c", "1", "-W", "3", "-s", "900", INNER_SERVER)
            return settled(path, "10.8.0.2", "10.50.0.0")

        folder = tmp_path / program
        folder.mkdir()
        return shape(in_lab(body, folder))

    assert written_by(OURS) == written_by(OPENVPN)


@pytest.mark.parametrize("program", [OPENVPN, OURS])
def test_the_status_file_of_a_client_names_the_same_counters(program: str, keys: Path, tmp_path: Path) -> None:
    path = tmp_path / "status"
    setup = Setup(keys, PUSH_SPLIT, client_only=(f"status {path} 1",))

    def body(lab: TunnelLab) -> str:
        lab.connect(OPENVPN, setup.server(), program, setup.client())
        lab.output("client", "ping", "-n", "-c", "1", "-W", "3", "-s", "1000", INNER_SERVER)
        return settled(path, "TUN/TAP write bytes,1")

    lines = in_lab(body, tmp_path).splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "OpenVPN STATISTICS",
        "Updated",
        "TUN/TAP read bytes",
        "TUN/TAP write bytes",
        "TCP/UDP read bytes",
        "TCP/UDP write bytes",
        "Auth read bytes",
        "END",
    ]


@pytest.mark.parametrize("program", [OPENVPN, OURS])
def test_a_client_that_left_is_gone_from_the_status_file(program: str, keys: Path, tmp_path: Path) -> None:
    path = tmp_path / "status"
    setup = Setup(keys, PUSH_SPLIT, server_only=(f"status {path} 1",), client_only=("explicit-exit-notify 1",))

    def body(lab: TunnelLab) -> None:
        server, client = lab.connect(program, setup.server(), OPENVPN, setup.client())
        settled(path, "alice,")
        assert READY in server.text()
        client.stop()
        deadline = time.monotonic() + PATIENCE_SECONDS
        while "alice" in path.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    in_lab(body, tmp_path)
