"""Runs that must fail: each with exit code 1 and a reason that a person understands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.running import Ran, run_text

pytestmark = [pytest.mark.root, pytest.mark.slow]

SCENARIO = """
title: Does it leak?
sites:
  www.example.com: {{address: [93.184.216.34, "2001:db8:4::34"], node: web, http: true}}
tunnel: {{program: vpn, {tunnel}}}
workload:
  - dns: www.example.com
  - http: {{url: "http://www.example.com{path}", family: ipv4}}
  - http: {{url: "http://www.example.com/six", family: ipv6}}
taps: [{tap}]
variants: {{without: {{tunnel: null}}, with: {{}}}}
expect:
  - {{variant: with, observer: isp, hides: [dns-name, http-url, server-address]}}
"""


def run(cwd: Path, *, tunnel: str = "routes: all, dns: tunnel", path: str = "/", tap: str = "isp") -> Ran:
    return run_text(SCENARIO.format(tunnel=tunnel, path=path, tap=tap), cwd)


def reasons(ran: Ran) -> dict[str, str]:
    return {row["selector"]: row["reason"] for row in ran.failed_expectations()}


def test_the_same_scenario_holds_where_nothing_is_wrong(tmp_path: Path) -> None:
    ran = run(tmp_path)
    assert ran.code == 0, ran.stdout + ran.stderr


def test_a_tunnel_that_is_up_but_has_no_routes_fails(tmp_path: Path) -> None:
    ran = run(tmp_path, tunnel="routes: [], dns: isp")
    assert ran.code == 1, ran.stderr
    assert set(reasons(ran)) == {"dns-name", "http-url", "server-address"}
    assert "opened in clear" in reasons(ran)["http-url"]
    assert ran.result["variants"]["with"]["tunnel"]["client_ready_seconds"] > 0
    assert "✗" in ran.stdout


def test_names_looked_up_outside_the_tunnel_fail(tmp_path: Path) -> None:
    ran = run(tmp_path, tunnel="routes: all, dns: isp")
    assert ran.code == 1, ran.stderr
    # The answer names the server too, though no packet to it crosses the ISP.
    assert set(reasons(ran)) == {"dns-name", "server-address"}
    assert "192.168.0.1" in reasons(ran)["dns-name"]
    assert "outside the tunnel" in reasons(ran)["dns-name"]
    assert {leak["kind"] for leak in ran.result["variants"]["with"]["leaks"]} >= {"dns-name"}


def test_ipv6_left_outside_the_tunnel_fails(tmp_path: Path) -> None:
    ran = run(tmp_path, tunnel="routes: [0.0.0.0/0], dns: tunnel")
    assert ran.code == 1, ran.stderr
    # The name was looked up inside the tunnel, but stands in the Host line of the page fetched outside.
    assert set(reasons(ran)) == {"dns-name", "http-url", "server-address"}
    assert "2001:db8:4::34" in reasons(ran)["server-address"]


def test_a_tap_that_overflows_proves_nothing(tmp_path: Path) -> None:
    ran = run(tmp_path, path="/bytes/3000000", tap="{name: isp, node: isp, ring_octets: 8192}")
    assert ran.code == 1, ran.stderr
    dropped = ran.result["variants"]["with"]["taps"][0]["dropped"]
    assert dropped > 0
    assert all(f"lost {dropped}" in reason or "dropped" in reason for reason in reasons(ran).values()), reasons(ran)
    verdicts = {row["verdict"] for row in ran.result["variants"]["with"]["exposure"] if row["observer"] == "isp"}
    assert "hidden" not in verdicts
