"""The shipped scenario of encrypted DNS, HTTP/2 and HTTP/3; its evidence and its key logs are opened with tshark."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.running import Ran, run_testbed
from tests.scenarios.truth import assert_tshark_agrees

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

SCENARIO = "encrypted-dns-and-quic"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    place = tmp_path_factory.mktemp("modern")
    return run_testbed("run", SCENARIO, cwd=place, out=place / "out")


def tshark(capture: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["tshark", "-r", capture, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_expectation_holds(ran: Ran) -> None:
    assert ran.code == 0, ran.stdout + ran.stderr
    assert len(ran.result["expectations"]) > 60
    assert {row["variant"] for row in ran.result["expectations"]} == {"plain", "dot", "doh", "vpn", "vpn-doh"}


def test_tshark_reads_what_the_observer_reads_in_every_capture(ran: Ran) -> None:
    assert_tshark_agrees(ran.out)


def test_every_action_did_what_it_was_asked_for(ran: Ran) -> None:
    for variant in ran.result["variants"].values():
        assert [action["error"] for action in variant["actions"]] == ["", "", "", ""]
        details = [action["detail"] for action in variant["actions"]]
        assert [detail.rpartition(" over ")[2] for detail in details[1:]] == ["HTTP/2", "HTTP/2", "HTTP/3"]


def test_tshark_finds_the_named_frames_of_plain_dns_clear_http2_tls_and_quic(ran: Ran) -> None:
    kinds = {"dns-name", "http-host", "http-url", "http-header", "http-body", "tls-name", "quic-name"}
    named: dict[str, set[int]] = {}
    for row in ran.result["variants"]["plain"]["exposure"]:
        for piece in row["evidence"] if row["observer"] == "isp" and row["fact"]["kind"] in kinds else ():
            named.setdefault(piece["filter"], set()).add(piece["frame"])
    assert len(named) >= 7
    for display_filter, frames in named.items():
        found = tshark(ran.out / "plain" / "isp.pcapng", "-Y", display_filter, "-T", "fields", "-e", "frame.number")
        assert frames <= {int(number) for number in found.split()}, display_filter


@pytest.mark.parametrize(
    ("variant", "display_filter"),
    [
        ("plain", "http2.headers.path contains account"),
        ("plain", "http3"),
        ("dot", 'dns.qry.name == "clinic.example.org" and tls'),
        ("doh", 'dns.qry.name == "clinic.example.org" and http2'),
    ],
)
def test_wireshark_decrypts_tls_quic_and_lookups_with_the_key_log_alone(
    ran: Ran, variant: str, display_filter: str
) -> None:
    capture = ran.out / variant / "isp.pcapng"
    keys = ("-o", f"tls.keylog_file:{ran.out / variant / 'keys.log'}")
    assert tshark(capture, *keys, "-Y", display_filter), "with the client's secrets it is read"
    assert not tshark(capture, "-Y", display_filter), "and without them it is not"


def test_the_resolver_writes_down_who_asked_for_what(ran: Ran) -> None:
    for variant, protocol, source in (("dot", "DNS/TLS", "2001:db8:1::13"), ("vpn-doh", "HTTP/2", "2001:db8:3::10")):
        text = (ran.out / variant / "logs" / "dns.example.net.jsonl").read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        asked = [line for line in lines if line["dns"]["name"] == "clinic.example.org"]
        assert {line["protocol"] for line in asked} == {protocol}
        assert {line["sni"] for line in asked} == {"dns.example.net"}
        expected = {source} if variant == "vpn-doh" else {"192.168.0.13"}
        assert {line["source"][0] for line in asked} == expected


@pytest.mark.parametrize(
    ("setting", "variant", "kind"),
    [
        ("variants.dot.dns=null", "dot", "dns-name"),  # encrypted DNS that is not on
        ("variants.vpn-doh.tunnel.dns=isp", "vpn-doh", "dns-name"),  # the resolver's own name is looked up outside
    ],
)
def test_a_lookup_that_is_not_encrypted_makes_the_run_fail(
    setting: str, variant: str, kind: str, tmp_path: Path
) -> None:
    chosen = ("--variant", "plain", "--variant", variant)
    ran = run_testbed("run", SCENARIO, *chosen, "--set", setting, cwd=tmp_path, out=tmp_path / "out")
    assert ran.code == 1, ran.stdout + ran.stderr
    failed = {(row["variant"], row["relation"], row["selector"].partition(" ")[0]) for row in ran.failed_expectations()}
    assert (variant, "hides", kind) in failed
