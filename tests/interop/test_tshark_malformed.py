"""tshark finds no more packets malformed in a session of ours than in one of two real peers in the same mode."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

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


def malformed(program: str, mode: str, place: Path) -> tuple[int, int]:
    """How many packets of a whole session tshark marks malformed, and how many OpenVPN packets there were."""
    settings, preferences = MODES[mode]
    place.mkdir()
    ran = run_text(SCENARIO.format(tunnel=json.dumps({**settings, "program": program})), place)
    assert ran.code == 0, ran.stdout + ran.stderr
    counts = []
    for condition in ("_ws.malformed", "openvpn"):
        told = subprocess.run(
            ["tshark", "-r", str(ran.out / "only/isp.pcapng"), *preferences, "-Y", condition],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        counts.append(len(told.stdout.splitlines()))
    return counts[0], counts[1]


@pytest.mark.parametrize("mode", MODES)
def test_no_more_packets_of_ours_are_malformed_than_of_two_real_peers(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = malformed("vpn", mode, tmp_path / "vpn"), malformed("openvpn", mode, tmp_path / "openvpn")
    with capsys.disabled():
        print(f"\n{mode}: {ours[0]} of {ours[1]} packets malformed with ours, {theirs[0]} of {theirs[1]} with openvpn")
    assert min(ours[1], theirs[1]) > 20
    assert ours[0] <= theirs[0]
