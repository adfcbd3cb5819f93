"""`testbed bench` as a user calls it: real tunnels in the lab, figures in every cell, files, and plain failures."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]


def run_bench(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "testbed", "bench", *words, "--rounds", "1", "--seconds", "1"]
    return subprocess.run(
        argv, cwd=folder, capture_output=True, text=True, timeout=240, env={"PYTHONPATH": str(ROOT), "PATH": PATH}
    )


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_our_tunnel_beside_none_has_a_figure_in_every_cell(tmp_path: Path) -> None:
    done = run_bench("vpn", "--out", "figures", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (tmp_path / "figures/bench.json").read_text() == done.stdout
    assert ElementTree.parse(tmp_path / "figures/bench.svg").getroot().tag.endswith("svg")
    assert "ours, AES-256-GCM" in (tmp_path / "figures/bench.txt").read_text()
    none, ours = (result["contenders"][name]["measures"] for name in ("none", "vpn"))
    assert set(ours) - set(none) == {"cpu_client", "cpu_server", "memory_client", "memory_server", "start"}
    assert {"tcp_up_4", "packets", "rtt_load_p99", "loss_1", "delay_20"} <= set(none)
    assert all(measure["median"] > 0 for measures in (none, ours) for measure in measures.values())
    assert 0 < ours["tcp_up_1"]["ratio"] < 1


def test_a_vpn_of_ones_own_is_measured_by_its_two_commands(tmp_path: Path) -> None:
    key = tmp_path / "static.key"
    subprocess.run(["openvpn", "--genkey", "secret", key], check=True, capture_output=True)
    common = f"openvpn --dev tun --cipher AES-256-CBC --auth SHA256 --secret {key}"
    words = ["--own-server", f"{common} --local {{server}} --ifconfig 10.9.0.1 10.9.0.2"]
    words += ["--own-client", f"{common} --remote {{server}} --nobind --ifconfig 10.9.0.2 10.9.0.1"]
    done = run_bench(*words, "--own-address", "10.9.0.1", "--measure", "tcp", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    own = json.loads(done.stdout)["contenders"]["own"]["measures"]
    assert own["tcp_up_1"]["median"] > 0
    assert own["memory_server"]["median"] > 0


def test_a_vpn_that_does_not_start_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    words = ["--own-server", "false", "--own-client", "true", "--own-address", "10.9.0.1", "--measure", "tcp"]
    done = run_bench(*words, folder=tmp_path)
    assert done.returncode == 4
    assert "own: the server opened no port" in done.stdout
    assert "none" in done.stdout


def test_a_misspelt_contender_ends_with_2_and_the_right_spelling(tmp_path: Path) -> None:
    done = run_bench("openvnp", folder=tmp_path)
    assert done.returncode == 2
    assert "did you mean openvpn" in done.stderr


def test_the_list_names_every_contender(tmp_path: Path) -> None:
    done = run_bench("--list", folder=tmp_path)
    assert done.returncode == 0
    assert {"none", "vpn", "openvpn-48000", "wireguard-go"} <= {line.split()[0] for line in done.stdout.splitlines()}
