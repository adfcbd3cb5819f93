"""Published leaks with what stops them: the scenarios that ship, and the one of docs/published-leaks.md to copy."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.scenarios.running import ROOT, Ran, run_testbed, run_text
from tests.scenarios.truth import assert_tshark_agrees

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

PAGE = ROOT / "docs/published-leaks.md"


def all_hold(ran: Ran) -> None:
    assert ran.code == 0, ran.stdout + ran.stderr
    assert ran.failed_expectations() == []


def dhcp_of(capture: Path) -> list[list[str]]:
    """Each DHCP packet as tshark has it: kind, addresses, state of both checksums, routes, resolvers."""
    names = ("dhcp.option.dhcp", "ip.src", "ip.dst", "ip.checksum.status", "udp.checksum.status")
    option = ("dhcp.option.classless_static_route", "dhcp.option.domain_name_server")
    columns = [word for name in (*names, *option) for word in ("-e", name)]
    check = ("-o", "ip.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE")
    argv = ["tshark", "-r", str(capture), "-Y", "dhcp", *check, "-T", "fields", *columns]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("vision")
    return run_testbed("run", ROOT / "scenarios/tunnelvision.yaml", cwd=folder, out=folder / "out")


def test_a_route_of_a_lease_pulls_traffic_out_of_a_tunnel_that_stays_up(vision: Ran) -> None:
    all_hold(vision)
    told = vision.result["variants"]["route"]
    assert all(action["ok"] for action in told["actions"]), "the client notices nothing"
    assert [event["ok"] for event in told["events"]] == [True]
    assert "93.184.216.0/24 via 192.168.0.1" in told["events"][0]["words"]
    assert "isp gives the client a lease with the route" in vision.stdout
    assert_tshark_agrees(vision.out)


def test_the_lease_is_a_dhcp_exchange_that_tshark_reads(vision: Ran) -> None:
    packets = dhcp_of(vision.out / "route/isp.pcapng")
    good = ["1", "1"]
    assert [packet[:5] for packet in packets] == [
        ["1", "0.0.0.0", "255.255.255.255", *good],
        ["2", "192.168.0.1", "255.255.255.255", *good],
        ["3", "0.0.0.0", "255.255.255.255", *good],
        ["5", "192.168.0.1", "255.255.255.255", *good],
    ]
    read = subprocess.run(
        ["tshark", "-r", str(vision.out / "route/isp.pcapng"), "-Y", "dhcp.option.dhcp == 5", "-V"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "93.184.216.0/24-192.168.0.1" in read
    assert [packet[6] for packet in dhcp_of(vision.out / "resolver/isp.pcapng")] == ["", "192.168.0.1"] * 2


def test_a_firewall_stops_the_leak_and_the_page(vision: Ran) -> None:
    told = vision.result["variants"]["firewall"]
    assert [action["ok"] for action in told["actions"]] == [True, False, True]
    assert told["leaks"] == []


def test_a_forgotten_ipv6_leaks_and_carrying_or_blocking_it_does_not(tmp_path: Path) -> None:
    ran = run_testbed("run", ROOT / "scenarios/ipv6-leak.yaml", cwd=tmp_path, out=tmp_path / "out")
    all_hold(ran)
    assert_tshark_agrees(ran.out)


def test_the_scenario_to_copy_holds(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    ran = run_text(text, tmp_path)
    all_hold(ran)
    assert len(dhcp_of(ran.out / "with/isp.pcapng")) == 4, "an honest lease was taken, and nothing leaked"
    assert_tshark_agrees(ran.out)


def test_a_lease_of_a_node_that_is_no_neighbour_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "title: t\nsites: {}\ntunnel: {}\nworkload: [{ping: 192.0.2.2}]\nevents: [{at: 0s, lease: web}]\n"
    )
    ran = run_testbed("check", "s.yaml", cwd=tmp_path)
    assert ran.code == 2
    assert "value web: gives the client no lease, for they share no link; allowed: isp" in ran.stderr
