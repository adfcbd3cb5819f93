"""What a scenario's timeline does to a run, and tunnels by WireGuard and by a command, through the whole path."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from testbed.capture.reader import CaptureReader
from tests.scenarios.running import ROOT, Ran, run_testbed, run_text
from tests.scenarios.truth import assert_tshark_agrees

pytestmark = [pytest.mark.root, pytest.mark.interop, pytest.mark.slow]

SITES = """
sites: {www.example.com: {address: [93.184.216.34, "2001:db8:4::34"], node: web, http: true}}
taps: [isp]
"""


FAILING = (
    ("without", "client-dies-persist-tun", "client-dies-kill-switch"),
    ("server-dies", "server-dies-persist-tun", "server-returns-persist-tun", "server-dies-kill-switch"),
)


def run_failing(folder: Path, chosen: Sequence[str]) -> Ran:
    variants = [word for name in chosen for word in ("--variant", name)]
    ran = run_testbed("run", ROOT / "scenarios/when-the-vpn-fails.yaml", *variants, cwd=folder, out=folder / chosen[0])
    assert ran.code == 0, ran.stdout + ran.stderr
    return ran


def test_a_dead_client_leaks_and_a_kill_switch_holds(tmp_path: Path) -> None:
    clients, servers = FAILING
    with ThreadPoolExecutor(2) as pool:  # both mostly wait
        ran, other = pool.map(functools.partial(run_failing, tmp_path), FAILING)
    told = ran.result["variants"]
    leaks = {name: told[name]["leaks"] for name in clients}
    assert list(other.result["variants"]) == list(servers)
    assert leaks["client-dies-kill-switch"] == []
    killed = next(event for event in told["client-dies-persist-tun"]["events"] if "SIGKILL" in event["words"])
    first = min(proof["time"] for leak in leaks["client-dies-persist-tun"] for proof in leak["evidence"])
    assert killed["ok"]
    assert killed["time"] < first
    assert "vpn-client gets SIGKILL" in ran.stdout
    assert "ended by itself" not in " ".join(ran.result["warnings"]), "what was killed on purpose is no complaint"
    assert_tshark_agrees(tmp_path)


LINKS = f"""
title: What does a dead line do?
{SITES}
workload:
  - run: {{argv: [sh, -c, "cd /run/testbed; touch one; until [ -e two -a -e late ]; do sleep 0.02; done"], at: 300ms,
           timeout: 30s}}
  - run: {{argv: [sh, -c, "cd /run/testbed; touch two; until [ -e one -a -e down ]; do sleep 0.02; done"], at: 0s,
           timeout: 30s}}
  - http: {{url: http://www.example.com/, timeout: 500ms}}
events:
  - {{at: 1500ms, run: [sh, -c, "touch /run/testbed/late"]}}
  - {{at: 500ms, link: client-isp, down: true}}
  - {{at: 600ms, run: [sh, -c, "echo said; touch /run/testbed/down"], node: web}}
  - {{at: 200ms, run: [sh, -c, "exit 3"]}}
  - {{at: 10min, link: client-isp}}
"""


@pytest.fixture(scope="module")
def dead_line(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    ran = run_text(LINKS, tmp_path_factory.mktemp("dead-line"))
    assert ran.code == 0, ran.stdout + ran.stderr
    return ran


def test_events_happen_in_the_order_of_their_times_while_actions_run_side_by_side(dead_line: Ran) -> None:
    told = dead_line.result["variants"]["only"]
    events, actions = told["events"], {action["id"]: action for action in told["actions"]}
    assert [event["at"] for event in events] == [0.2, 0.5, 0.6, 1.5, 600.0]
    times = [event["time"] for event in events[:4]]
    assert times == sorted(times)
    assert actions["1-run"]["ok"], "each of the two waits for the other"
    assert actions["2-run"]["ok"]
    assert actions["3-http"]["started_at"] >= actions["2-run"]["ended_at"], "what has no time of its own waits"
    assert not actions["3-http"]["ok"], "the line carries nothing"
    assert (dead_line.out / "only/logs/event-3.log").read_text() == "said\n"


def test_an_event_that_fails_and_one_that_comes_too_late_are_warnings(dead_line: Ran) -> None:
    events = dead_line.result["variants"]["only"]["events"]
    assert [event["ok"] for event in events] == [False, True, True, True, False]
    assert events[-1]["time"] is None
    warnings = " ".join(dead_line.result["warnings"])
    assert "ended with code 3; see logs/event-1.log" in warnings
    assert "did not happen: the workload ended before its time" in warnings


RESTART = f"""
title: Does the work go on inside after a restart?
{SITES}
tunnel: {{}}
workload:
  - run: {{argv: [sh, -c, "until [ -e /run/testbed/again ]; do sleep 0.02; done"], timeout: 30s}}
  - run: {{argv: [sh, -c, "until grep -q tun0 /proc/net/route; do sleep 0.02; done"], timeout: 30s}}
  - http: {{url: http://www.example.com/, timeout: 20s}}
  - ping: {{host: www.example.com, count: 5}}
events:
  - {{at: 200ms, kill: vpn-server, signal: STOP}}
  - {{at: 250ms, kill: vpn-server, signal: CONT}}
  - {{at: 300ms, kill: vpn-client}}
  - {{at: 300ms, start: vpn-client}}
  - {{at: 350ms, start: vpn-server}}
  - {{at: 400ms, run: touch /run/testbed/again}}
variants: {{without: {{tunnel: null, workload: [http: http://www.example.com/], events: []}}, with: {{}}}}
expect:
  - {{variant: without, observer: isp, sees: [http-url]}}
  - {{variant: with, observer: isp, leaks: none, hides: [http-url]}}
"""


def test_a_client_that_is_killed_and_started_at_once_works_on_inside(tmp_path: Path) -> None:
    ran = run_text(RESTART, tmp_path)
    assert ran.code == 0, ran.stdout + ran.stderr
    told = ran.result["variants"]["with"]
    assert told["actions"][-1]["ok"]
    assert [event["ok"] for event in told["events"]] == [True, True, True, True, False, True]
    assert told["events"][4]["error"] == "the VPN server runs still; it must end before it can be started again"
    assert (tmp_path / "out/with/logs/vpn-client-2.log").stat().st_size
    capture = tmp_path / "out/with/client-tun.pcapng"
    argv = [
        "tshark",
        "-r",
        str(capture),
        "-Y",
        "icmp.type == 8 or icmpv6.type == 128",
        "-T",
        "fields",
        "-e",
        "frame.number",
    ]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert shown.stdout.split(), "the new device is in the control capture too"
    control = next(tap for tap in told["taps"] if tap["name"] == "client-tun")
    with CaptureReader(capture) as reader:
        assert control["packets"] == sum(1 for _ in reader)
    assert sorted(path.name for path in capture.parent.glob("*.pcapng")) == ["client-tun.pcapng", "isp.pcapng"]


def test_the_shipped_scenario_of_wireguard_holds_and_both_ends_end_well(tmp_path: Path) -> None:
    ran = run_testbed("run", ROOT / "scenarios/wireguard.yaml", cwd=tmp_path, out=tmp_path / "out")
    assert ran.code == 0, ran.stdout + ran.stderr
    assert [text for text in ran.result["warnings"] if "VPN" in text] == []
    devices = {one["name"]: one["mtu"] for one in ran.result["variants"]["wireguard"]["interfaces"]}
    assert devices["wg0"] == 1420
    assert not list((tmp_path / "out").rglob("*private*"))
    assert_tshark_agrees(tmp_path / "out")


OWN = f"""
title: Does my own VPN hide what it should?
{SITES}
tunnel:
  program: command
  command:
    client: openvpn --config {{dir}}/client.conf --script-security 2 --up {{dir}}/dns-up
    server: [openvpn, --config, "{{dir}}/server.conf"]
    ready: Initialization Sequence Completed
    address: 10.8.0.1
    device: own0
    files:
      client:
        client.conf: |
          client
          dev own0
          dev-type tun
          remote {{server}} 1194 udp
          nobind
          remote-cert-tls server
          ca {{keys}}/ca.crt
          cert {{keys}}/client.crt
          key {{keys}}/client.key
        dns-up: |
          #!/bin/sh
          echo nameserver 10.8.0.1 > /etc/resolv.conf
      server:
        server.conf: |
          dev tun
          local {{server}}
          topology subnet
          server 10.8.0.0 255.255.255.0
          server-ipv6 2001:db8:8::/64
          push "redirect-gateway def1 ipv6"
          dh none
          ca {{keys}}/ca.crt
          cert {{keys}}/server.crt
          key {{keys}}/server.key
workload:
  - http: http://www.example.com/
variants:
  without: {{tunnel: null}}
  own: {{}}
  forgetful: {{tunnel: {{command: {{client: "./mine --config {{dir}}/client.conf --verb 3"}}}}}}
expect:
  - {{variant: without, observer: isp, sees: [dns-name, http-url]}}
  - {{variant: own, observer: isp, leaks: none, sees: [tunnel], hides: [dns-name, http-url]}}
  - {{variant: own, observer: "server:www.example.com", client-address: [198.51.100.10, "2001:db8:3::10"]}}
  - {{variant: forgetful, observer: isp, leaks: ">= 1", hides: [http-url]}}
"""


def test_a_vpn_of_ones_own_is_started_awaited_judged_and_ended_and_what_it_forgets_is_found(tmp_path: Path) -> None:
    """openvpn takes its routes from the server, but sets no resolver unless a script does."""
    (tmp_path / "mine").write_text('#!/bin/sh\nexec openvpn "$@"\n')
    (tmp_path / "mine").chmod(0o755)
    ran = run_text(OWN, tmp_path)
    assert ran.code == 0, ran.stdout + ran.stderr
    assert [text for text in ran.result["warnings"] if "VPN" in text] == []
    assert "BEGIN" not in json.dumps(ran.result), "no key in the result"
    leaked = {leak["kind"] for leak in ran.result["variants"]["forgetful"]["leaks"]}
    assert {"dns-name", "dns-answer"} <= leaked
    assert "http-url" not in leaked


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("client: openvpn", "client: no-such-vpn", "sudo apt-get install no-such-vpn"),
        ("client: openvpn", "client: ./no-such-vpn", "there is no program at"),
        ("workload:", "events: [{at: 1s, run: [no-such-program]}]\nworkload:", "sudo apt-get install no-such-program"),
    ],
)
def test_a_missing_program_is_told_before_anything_is_built(old: str, new: str, words: str, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text("<testsuites/>")  # green, and of an earlier run
    ran = run_text(OWN.replace(old, new, 1), tmp_path, "--variant", "own", "--junit", str(junit))
    assert ran.code == 3
    assert words in ran.stderr
    assert not (tmp_path / "out").exists()
    assert words in junit.read_text()


def test_a_command_that_does_not_come_up_is_quoted(tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    ran = run_text(OWN.replace("nobind", "no-such-option"), tmp_path, "--variant", "own", "--junit", str(junit))
    assert ran.code == 4
    assert 'errors="1"' in junit.read_text()
    assert "before it was up" in junit.read_text()
    assert "testbed: the VPN client (openvpn) ended with code 1 before it was up" in ran.stderr
    assert "no-such-option" in ran.stderr
