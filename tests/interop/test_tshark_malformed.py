"""tshark finds no more packets malformed in a session of ours than in one of two real peers in the same mode."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, SERVER, TunnelLab, in_lab
from tests.scenarios.running import run_text

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

SCENARIO = """
title: Malformed?
sites: {{www.example.com: {{address: 93.184.216.34, node: web, http: true}}}}
tunnel: {tunnel}
workload: [{{http: http://www.example.com/bytes/20000}}]
taps: [isp]
expect: [{{variant: only, observer: isp, sees: [volume]}}]
"""
WRAPPED = ("-o", "openvpn.tls_crypt:TRUE")
# mode -> the tunnel's settings, and the preferences Wireshark needs to know of it
MODES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "none": ({"control": "none"}, ()),
    "none over TCP": ({"control": "none", "transport": "tcp"}, ()),
    "tls-auth": ({"control": "tls-auth"}, ()),
    "tls-auth over TCP": ({"control": "tls-auth", "transport": "tcp"}, ()),
    "tls-crypt": ({"control": "tls-crypt"}, WRAPPED),
    "tls-crypt-v2": ({"control": "tls-crypt-v2"}, WRAPPED),
    "CBC": ({"control": "none", "cipher": "AES-256-CBC"}, ()),
}


def count(capture: Path, preferences: tuple[str, ...]) -> tuple[int, int]:
    """How many packets tshark marks malformed, and how many OpenVPN packets there are."""
    found = []
    for condition in ("_ws.malformed", "openvpn"):
        told = subprocess.run(
            ["tshark", "-r", str(capture), *preferences, "-Y", condition],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        found.append(len(told.stdout.splitlines()))
    return found[0], found[1]


def malformed(program: str, mode: str, place: Path) -> tuple[int, int]:
    """How many packets of a whole session tshark marks malformed, and how many OpenVPN packets there were."""
    settings, preferences = MODES[mode]
    place.mkdir()
    ran = run_text(SCENARIO.format(tunnel=json.dumps({**settings, "program": program})), place)
    assert ran.code == 0, ran.stdout + ran.stderr
    return count(ran.out / "only/isp.pcapng", preferences)


@pytest.mark.parametrize("mode", MODES)
def test_no_more_packets_of_ours_are_malformed_than_of_two_real_peers(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = malformed("vpn", mode, tmp_path / "vpn"), malformed("openvpn", mode, tmp_path / "openvpn")
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print(f"\n{mode}: {ours[0]} of {ours[1]} packets malformed with ours, {theirs[0]} of {theirs[1]} with openvpn")
    assert min(ours[1], theirs[1]) > 20
    assert ours[0] <= theirs[0]


def malformed_with_sha256(program: str, keys: Path, place: Path) -> tuple[int, int]:
    """The same for tls-auth with SHA256, which a scenario cannot ask for: Wireshark must be told the HMAC's length."""
    place.mkdir()
    setup = Setup(keys, PUSH_SPLIT, SERVER, "udp", control="tls-auth", cipher="AES-256-GCM", both=("auth SHA256",))
    capture = place / "isp.pcap"

    def body(lab: TunnelLab) -> None:
        tap = lab.start(
            "isp", ["tcpdump", "-i", "isp-eth0", "-U", "--immediate-mode", "-w", str(capture), "-Z", "root"]
        )
        tap.wait_for("listening on")
        lab.connect(program, setup.server(), program, setup.client())
        lab.output("client", "ping", "-n", "-c", "10", "-i", "0.05", "-W", "3", INNER_SERVER)
        tap.stop(signal.SIGINT)

    in_lab(body, place)
    preferences = (
        *("-o", "openvpn.tls_auth_detection_override:TRUE", "-o", "openvpn.tls_auth:TRUE"),
        *("-o", "openvpn.tls_auth_hmac_size:32"),
    )
    return count(capture, preferences)


def test_no_more_packets_are_malformed_with_tls_auth_and_sha256(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = make_keys(tmp_path / "keys")
    ours = malformed_with_sha256(OURS, keys, tmp_path / "ours")
    theirs = malformed_with_sha256(OPENVPN, keys, tmp_path / "theirs")
    with capsys.disabled(), contextlib.redirect_stdout(sys.stderr):  # which pytest's workers let through
        print(f"\ntls-auth SHA256: {ours[0]} of {ours[1]} malformed with ours, {theirs[0]} of {theirs[1]} with openvpn")
    assert min(ours[1], theirs[1]) > 20
    assert ours[0] <= theirs[0]
