"""The shipped scenario, run as a person runs it; its evidence is opened with tshark."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.running import Ran, run_testbed
from tests.scenarios.truth import assert_tshark_agrees

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = tmp_path_factory.mktemp("shipped")
    return run_testbed("run", "what-a-vpn-hides", cwd=place, out=place / "out")


def frames_matching(capture: Path, display_filter: str) -> set[int]:
    """The frame numbers tshark finds with a display filter."""
    done = subprocess.run(
        ["tshark", "-r", str(capture), "-Y", display_filter, "-T", "fields", "-e", "frame.number"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{display_filter}: {done.stderr}"
    return {int(number) for number in done.stdout.split()}


def evidence_of(result: dict[str, Any]) -> Iterator[tuple[str, str, int]]:
    for variant in result["variants"].values():
        for row in variant["exposure"]:
            for piece in row["evidence"]:
                if piece["file"].endswith(".pcapng"):
                    yield piece["file"], piece["filter"], piece["frame"]


def test_every_expectation_holds(ran: Ran) -> None:
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.result["ok"] is True
    assert len(ran.result["expectations"]) > 40
    assert ran.failed_expectations() == []


def test_tshark_finds_the_named_frames_with_the_named_filters(ran: Ran) -> None:
    named: dict[tuple[str, str], set[int]] = {}
    for file, display_filter, frame in evidence_of(ran.result):
        named.setdefault((file, display_filter), set()).add(frame)
    assert len(named) > 30
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda key: frames_matching(ran.out / key[0], key[1]), named)
        for (file, display_filter), frames, matched in zip(named, named.values(), found, strict=True):
            assert frames <= matched, f"{file}: {display_filter} gives {sorted(matched)}, not {sorted(frames)}"


def test_tshark_reads_what_the_observer_reads_in_every_capture(ran: Ran) -> None:
    assert_tshark_agrees(ran.out)


def test_a_filter_for_what_the_tunnel_hides_matches_nothing_in_its_capture(ran: Ran) -> None:
    kinds = {"dns-name", "http-host", "http-url", "http-header", "http-body", "tls-name", "payload"}
    filters = {
        piece["filter"]
        for row in ran.result["variants"]["without"]["exposure"]
        if row["observer"] == "isp" and row["fact"]["kind"] in kinds
        for piece in row["evidence"]
    }
    assert len(filters) > 8
    combined = " || ".join(f"({text})" for text in sorted(filters))
    assert frames_matching(ran.out / "without/isp.pcapng", combined)
    assert frames_matching(ran.out / "with/isp.pcapng", combined) == set()


def test_the_captures_open_without_a_complaint_and_hold_no_frame_larger_than_a_wire_would(ran: Ran) -> None:
    for variant in ("without", "with", "split"):
        capture = ran.out / variant / "isp.pcapng"
        done = subprocess.run(["capinfos", "-c", str(capture)], capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr == ""
        assert frames_matching(capture, "frame.len > 1514 || _ws.malformed") == set()
        bad = subprocess.run(
            [
                *("tshark", "-r", str(capture), "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE"),
                *("-o", "udp.check_checksum:TRUE", "-Y", '_ws.expert.message contains "Bad checksum"'),
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert bad.stdout == ""


def test_the_web_server_saw_the_vpns_address_and_not_the_clients(ran: Ran) -> None:
    for name, sources in (
        ("without", {"192.168.0.13", "2001:db8:1::13"}),
        ("with", {"198.51.100.10", "2001:db8:3::10"}),
    ):
        log = (ran.out / name / "logs" / "www.example.org.jsonl").read_text()
        seen = {source for source in sources if f'"{source}"' in log}
        assert seen == sources, log
    assert "192.168.0.13" not in (ran.out / "with/logs/www.example.org.jsonl").read_text()


def test_split_tunnel_is_visible_in_the_way_the_kernel_picks(ran: Ran) -> None:
    ways = {row["address"]: row["interface"] for row in ran.result["variants"]["split"]["egress"]}
    assert ways["203.0.113.80"] == "tun0"
    assert ways["10.20.0.10"] == "tun0"
    assert ways["93.184.216.34"] == "client-eth0"
    assert ways["2001:db8:4::80"] == "client-eth0"


def test_the_run_directory_holds_what_the_contract_names(ran: Ran) -> None:
    assert {path.name for path in ran.out.iterdir()} == {
        *("result.json", "report.html", "scenario.yaml", "captures", "without", "with", "split")
    }
    keys = ran.out / "without" / "keys.log"
    assert keys.stat().st_mode & 0o777 == 0o600
    assert "CLIENT_TRAFFIC_SECRET_0" in keys.read_text()


def test_wireshark_decrypts_the_labs_https_with_the_key_log(ran: Ran) -> None:
    body = subprocess.run(
        [
            *("tshark", "-r", str(ran.out / "without/isp.pcapng")),
            *("-o", f"tls.keylog_file:{ran.out / 'without/keys.log'}"),
            *("-Y", "tls && http.request", "-T", "fields", "-e", "http.request.full_uri"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "https://www.example.com/account" in body.stdout


def test_the_stored_run_is_shown_again_and_the_resolved_scenario_runs_again(ran: Ran, tmp_path: Path) -> None:
    shown = run_testbed("show", ran.out, cwd=tmp_path)
    assert shown.code == 0
    assert "53 of 53 expectations hold" in shown.stdout
    checked = run_testbed("check", ran.out / "scenario.yaml", cwd=tmp_path)
    assert checked.code == 0, checked.stderr
