"""`testbed bench` as a user calls it: real tunnels in the lab, figures in every cell, files, and plain failures."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.bench.model import MEASURES
from tests.scenarios.running import heed_interrupts

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
QUICK = ("--rounds", "1", "--seconds", "1")


def bench_argv(*words: str) -> list[str]:
    return [sys.executable, "-m", "testbed", "bench", *words, *QUICK]


def environment(folder: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": PATH, "TMPDIR": str(folder)}


def run_bench(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        bench_argv(*words), cwd=folder, capture_output=True, text=True, timeout=240, env=environment(folder)
    )


def own_vpn(folder: Path, *, client: str = "openvpn", transport: str = "udp") -> list[str]:
    """Two openvpn with a key that both know; relative names are those of the folder that the command is called in."""
    subprocess.run(["openvpn", "--genkey", "secret", folder / "bench.key"], check=True, capture_output=True)
    common = "--dev tun --cipher AES-256-CBC --auth SHA256 --secret bench.key --proto"
    server, caller = (transport, transport) if transport == "udp" else (f"{transport}-server", f"{transport}-client")
    words = ["--own-server", f"openvpn {common} {server} --local {{server}} --ifconfig 10.9.0.1 10.9.0.2"]
    words += ["--own-client", f"{client} {common} {caller} --remote {{server}} --nobind --ifconfig 10.9.0.2 10.9.0.1"]
    return [*words, "--own-address", "10.9.0.1"]


def test_our_tunnel_beside_none_has_a_figure_in_every_cell(tmp_path: Path) -> None:
    groups = [word for group in ("cost", "packets", "trips") for word in ("--measure", group)]
    done = run_bench("vpn", *groups, "--out", "figures", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (tmp_path / "figures/bench.json").read_text() == done.stdout
    assert ElementTree.parse(tmp_path / "figures/bench.svg").getroot().tag.endswith("svg")
    assert "ours, AES-256-GCM" in (tmp_path / "figures/bench.txt").read_text()
    assert "| vpn | " in (tmp_path / "figures/bench.md").read_text()
    none, ours = (result["contenders"][name]["measures"] for name in ("none", "vpn"))
    measured = {measure.key for measure in MEASURES if measure.group in ("cost", "packets", "trips")}
    assert set(ours) == measured
    assert set(none) == {measure.key for measure in MEASURES if measure.group in ("packets", "trips")}
    assert all(
        figures["median"] > 0 for measures in (none, ours) for key, figures in measures.items() if key not in MAY_BE_0
    )
    assert result["ratios"]["vpn"]["none"]["rtt_median"] == ours["rtt_median"]["ratio"] > 1


MAY_BE_0 = {"rtt_load_lost", "packets"}  # a busy machine may lose a packet at every rate


def test_a_vpn_of_ones_own_is_measured_by_its_two_commands_and_over_tcp_no_stream_meets_the_end_of_another(
    tmp_path: Path,
) -> None:
    done = run_bench(*own_vpn(tmp_path, transport="tcp"), "--measure", "tcp", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    own = json.loads(done.stdout)["contenders"]["own"]["measures"]
    assert set(own) == {"tcp_up_1", "tcp_down_1", "tcp_up_4", "tcp_down_4"}
    assert all(measure["median"] > 0 for measure in own.values())


def test_a_vpn_that_ends_while_it_is_measured_is_named_and_keeps_the_figures_it_has(tmp_path: Path) -> None:
    (tmp_path / "short-lived.sh").write_text(SHORT_LIVED)
    words = own_vpn(tmp_path, client="sh short-lived.sh")
    done = run_bench(*words, "--measure", "tcp", "--measure", "cost", folder=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "failed    own, round 1: tcp_up_1: the client ended with code 9; it said: " in done.stdout
    assert re.search(r"^none +\d", done.stdout, re.M)
    assert re.search(r"^own +\d", done.stdout, re.M)  # how long it took to start


SHORT_LIVED = """
openvpn "$@" &
until awk '/tun0:/ && $10 > 1000000 {seen = 1} END {exit !seen}' /proc/net/dev; do sleep 0.05; done
kill $!
exit 9
"""  # field 10: octets sent


def test_a_vpn_that_does_not_start_is_named_and_the_others_are_measured(tmp_path: Path) -> None:
    words = ["--own-server", "false", "--own-client", "true", "--own-address", "10.9.0.1"]
    done = run_bench(*words, "--measure", "links", "--measure", "no-gro", folder=tmp_path)
    assert done.returncode == 4
    assert "own, round 1: the server opened no port" in done.stdout
    assert len(re.findall(r"^none +\d", done.stdout, re.M)) == 2


def test_an_interrupted_run_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    argv = bench_argv(*own_vpn(tmp_path), "--measure", "no-gro")
    before = set(tmp_path.iterdir())
    bench = subprocess.Popen(
        argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment(tmp_path), preexec_fn=heed_interrupts
    )
    assert bench.stderr is not None
    assert next(line for line in bench.stderr if line.startswith("[2/2]"))
    started = wait_for_descendant(bench.pid, "openvpn")
    assert set(tmp_path.iterdir()) - before
    bench.send_signal(signal.SIGINT)
    bench.communicate(timeout=60)
    assert bench.returncode == 130
    assert set(tmp_path.iterdir()) == before
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]


def wait_for_descendant(pid: int, name: str) -> list[int]:
    """All processes below `pid`, as soon as one is called `name`."""
    for _ in range(3000):
        found = descendants(pid)
        if any(command_name(entry) == name for entry in found):
            return found
        time.sleep(0.01)
    raise AssertionError(f"no {name} below the process {pid}")


def descendants(pid: int) -> list[int]:
    with suppress(OSError):
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return [*children, *(below for child in children for below in descendants(child))]
    return []


def command_name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def test_a_misspelt_contender_ends_with_2_and_the_right_spelling(tmp_path: Path) -> None:
    done = run_bench("openvnp", folder=tmp_path)
    assert done.returncode == 2
    assert "did you mean openvpn" in done.stderr


def test_the_list_names_every_contender(tmp_path: Path) -> None:
    done = run_bench("--list", folder=tmp_path)
    assert done.returncode == 0
    assert {"none", "vpn", "openvpn-48000", "wireguard-go"} <= {line.split()[0] for line in done.stdout.splitlines()}
