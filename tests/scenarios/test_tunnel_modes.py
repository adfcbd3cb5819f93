"""Every way a scenario may set up its tunnel, through the whole path: lab, tunnel, tap, observer, verdict."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.running import run_text

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

SCENARIO = """
title: Does this tunnel hide what it should?
sites:
  www.example.com: {{address: [93.184.216.34, "2001:db8:4::34"], node: web, http: true, https: true}}
tunnel: {tunnel}
workload:
  - dns: www.example.com
  - http: {{url: "http://www.example.com/account", family: ipv4}}
  - https: {{url: "https://www.example.com/account", family: ipv6}}
taps: [isp]
variants: {{without: {{tunnel: null}}, with: {{}}}}
expect:
  - {{variant: without, observer: isp, sees: [dns-name, http-url, tls-name]}}
  - {{variant: with, observer: isp, hides: [dns-name, http-url, tls-name, server-address]}}
  - {{variant: with, observer: "server:www.example.com", sees: [http-url], hides: [client-address]}}
"""

MODES: dict[str, dict[str, object]] = {
    "no control wrapping": {"control": "none"},
    "tls-auth over TCP": {"control": "tls-auth", "transport": "tcp"},
    "tls-crypt over TCP": {"control": "tls-crypt", "transport": "tcp"},
    "tls-crypt-v2": {"control": "tls-crypt-v2", "cipher": "AES-128-GCM"},
    "ChaCha20": {"cipher": "CHACHA20-POLY1305", "control": "tls-auth"},
    "CBC with HMAC": {"cipher": "AES-256-CBC"},
    "static key": {"mode": "static-key"},
    "static key over TCP": {"mode": "static-key", "transport": "tcp"},
    "our client, openvpn's server": {"program": {"client": "vpn", "server": "openvpn"}},
    "openvpn's client, our server": {"program": {"client": "openvpn", "server": "vpn"}},
    "openvpn at both ends": {"program": "openvpn"},
    "openvpn at both ends, static key": {"program": "openvpn", "mode": "static-key"},
    "openvpn at both ends, TCP": {"program": "openvpn", "transport": "tcp"},
}


@pytest.mark.parametrize("mode", MODES)
def test_the_tunnel_hides_and_the_site_sees_the_vpn(mode: str, tmp_path: Path) -> None:
    ran = run_text(SCENARIO.format(tunnel=json.dumps(MODES[mode])), tmp_path)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.failed_expectations() == []
    assert ran.result["warnings"] == []


def test_wireshark_names_each_message_of_an_unwrapped_session(tmp_path: Path) -> None:
    ran = run_text(SCENARIO.format(tunnel='{"control": "none"}'), tmp_path)
    assert ran.code == 0, ran.stdout + ran.stderr
    told = subprocess.run(
        ["tshark", "-r", str(ran.out / "with/isp.pcapng"), "-Y", "openvpn", "-T", "fields", "-e", "openvpn.opcode"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    opcodes = [int(opcode, 0) for opcode in told.stdout.split()]
    assert opcodes[:2] == [7, 8]  # P_CONTROL_HARD_RESET_CLIENT_V2, P_CONTROL_HARD_RESET_SERVER_V2
    assert set(opcodes) == {4, 5, 7, 8, 9}  # and P_CONTROL_V1, P_ACK_V1, P_DATA_V2
