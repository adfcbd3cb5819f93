"""The commands beside `run`, and its options."""

from __future__ import annotations

import json
import re
import select
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.running import ROOT, environment, heed_interrupts, run_testbed, run_text

TINY = """
title: Tiny
sites:
  www.example.com: {address: 93.184.216.34, node: web, http: true, https: true}
workload: [{https: https://www.example.com/}, {run: [curl, -sS, https://www.example.com/]}]
taps: [isp]
expect: [{variant: only, observer: isp, sees: [dns-name, tls-name]}]
"""
WAIT_S = 120.0


def test_list_names_the_shipped_scenarios(tmp_path: Path) -> None:
    ran = run_testbed("list", cwd=tmp_path)
    assert ran.code == 0
    assert "what-a-vpn-hides What does a VPN hide from your ISP?" in " ".join(ran.stdout.split())
    entries = json.loads(run_testbed("list", "--json", cwd=tmp_path).stdout)
    assert all(Path(entry["file"]).is_file() for entry in entries)


def test_check_needs_no_lab_and_says_what_it_found(tmp_path: Path) -> None:
    ran = run_testbed("check", "what-a-vpn-hides", cwd=tmp_path)
    assert ran.code == 0
    assert "variants without, with, split" in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_schema_is_a_json_schema_of_the_scenario_file(tmp_path: Path) -> None:
    schema = json.loads(run_testbed("schema", cwd=tmp_path).stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"title", "sites", "tunnel", "workload", "taps", "variants", "expect"} <= set(schema["properties"])


def test_a_dry_run_prints_the_plan_and_builds_nothing(tmp_path: Path) -> None:
    ran = run_testbed("run", "what-a-vpn-hides", "--dry-run", cwd=tmp_path)
    assert ran.code == 0
    for words in (
        "node client",
        "192.168.0.13/24",
        "route 0.0.0.0/0 via 192.168.0.1",
        "net.ipv4.ip_forward",
        "masquerade",
    ):
        assert words in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_observe_reads_a_capture_of_real_peers(tmp_path: Path) -> None:
    capture = ROOT / "tests/data/captures/openvpn-plain.pcapng"
    answer = json.loads(run_testbed("observe", capture, "--json", cwd=tmp_path).stdout)
    assert [tunnel["protocol"] for tunnel in answer["tunnels"]] == ["openvpn"]
    assert set(answer) >= {"names", "flows", "tunnels", "cleartext", "warnings"}
    assert "openvpn" in run_testbed("observe", capture, cwd=tmp_path).stdout.lower()


def test_doctor_says_what_this_host_can_do(tmp_path: Path) -> None:
    ran = run_testbed("doctor", "--json", cwd=tmp_path)
    checks = json.loads(ran.stdout)
    assert ran.code == (3 if any(check["state"] == "fail" for check in checks) else 0)
    assert any("root" in check["found"] or "user namespace" in check["found"] for check in checks)


def test_help_and_version_answer_without_loading_the_heavy_parts(tmp_path: Path) -> None:
    assert run_testbed("--version", cwd=tmp_path).stdout.startswith("testbed ")
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "testbed", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "run" in listing.stdout
    for heavy in ("pyroute2", "pydantic", "OpenSSL", "jinja2", "scapy"):
        assert f"| {heavy}\n" not in listing.stderr.replace("  ", "")


@pytest.mark.root
def test_json_prints_the_result_and_nothing_else(tmp_path: Path) -> None:
    ran = run_text(TINY, tmp_path, "--json", "--junit", str(tmp_path / "junit.xml"), "--seed", "7")
    assert ran.code == 0, ran.stderr
    assert json.loads(ran.stdout) == ran.result
    assert ran.result["seed"] == 7
    assert ran.stderr == ""
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert int(suite.get("tests", "0")) == 2
    assert int(suite.get("failures", "1")) == 0


@pytest.mark.root
def test_curl_in_the_clients_node_just_works(tmp_path: Path) -> None:
    ran = run_text(TINY, tmp_path)
    actions = {action["id"]: action for action in ran.result["variants"]["only"]["actions"]}
    assert actions["2-run"]["ok"], actions["2-run"]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A lab that is kept, ended by Ctrl-C."""
    (tmp_path / "scenario.yaml").write_text(TINY)
    process = subprocess.Popen(
        [sys.executable, "-m", "testbed", "run", "scenario.yaml", "--keep", "--out", "out"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def wait_for_lab(process: subprocess.Popen[str]) -> str:
    """The id of the held lab, which the program says once its run is over."""
    assert process.stderr is not None
    said = []
    give_up_at = time.monotonic() + WAIT_S
    while select.select([process.stderr], [], [], max(0.0, give_up_at - time.monotonic()))[0]:
        line = process.stderr.readline()
        said.append(line)
        if found := re.search(r"lab (\w+) is held", line):
            return found[1]
        assert line, said
    raise AssertionError(said)


@pytest.mark.root
def test_a_kept_lab_is_listed_entered_and_ended_by_ctrl_c(held: subprocess.Popen[str], tmp_path: Path) -> None:
    lab = wait_for_lab(held)
    fetched = run_testbed("exec", "--lab", lab, "client", "curl", "-sS", "https://www.example.com/", cwd=tmp_path)
    assert fetched.code == 0, fetched.stderr
    assert "<html" in fetched.stdout.lower()
    assert run_testbed("exec", "--lab", lab, "web", "sh", "-c", "exit 42", cwd=tmp_path).code == 42
    separated = run_testbed("exec", "--lab", lab, "client", "--", "echo", "--", "-x", cwd=tmp_path)
    assert (separated.code, separated.stdout) == (0, "-- -x\n")
    nameless = run_testbed("exec", "--lab", lab, "client", "", cwd=tmp_path)
    assert (nameless.code, nameless.stderr) == (127, "testbed: : not found\n")
    nodes = run_testbed("exec", "--lab", lab, "client", "ip", "netns", "list", cwd=tmp_path)
    assert {line.split()[0] for line in nodes.stdout.splitlines()} == {
        "client",
        "isp",
        "private",
        "transit",
        "vpn",
        "web",
    }
    assert run_testbed("exec", "--lab", lab, "nowhere", "true", cwd=tmp_path).code == 2
    held.send_signal(signal.SIGINT)
    assert held.wait(WAIT_S) == 0
    assert lab not in run_testbed("ps", cwd=tmp_path).stdout


def test_a_dry_run_says_what_happens_when(tmp_path: Path) -> None:
    (tmp_path / "timed.yaml").write_text(
        """title: Timed
sites: {www.example.com: {address: 93.184.216.34, node: web, http: true}}
tunnel: {}
workload:
  - dns: www.example.com
  - http: {url: "http://www.example.com/", at: 2s}
events:
  - {at: 3s, link: client-isp, down: true}
  - {at: 500ms, kill: vpn-server}
variants: {timed: {}, quiet: {events: [], workload: [dns: www.example.com]}}
"""
    )
    ran = run_testbed("run", "timed.yaml", "--dry-run", cwd=tmp_path)
    timed, quiet = ran.stdout.split("variant quiet\n")
    assert timed.endswith(
        """timeline, from the start of the workload
     0.5 s  event   vpn-server gets SIGKILL
       2 s  action  2-http: http http://www.example.com/
       3 s  event   link client-isp carries nothing
  one after the other: 1-dns

"""
    )
    assert "timeline" not in quiet
