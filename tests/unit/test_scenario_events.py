"""Events, actions with a time, and tunnels by WireGuard or a command: what is read, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.internet import lab_request, roles_of
from testbed.lab.topology import load_topology
from testbed.scenario import Scenario, ScenarioErrors, parse_scenario
from testbed.scenario.dump import dump_scenario
from testbed.scenario.faults import event_in_words
from testbed.scenario.load import load_scenario

ROOT = Path(__file__).resolve().parents[2]
NODES = ("client", "isp", "transit", "vpn", "web", "private")
HEAD = """\
title: A question
sites: {www.example.com: {address: 93.184.216.34, node: web, http: true}}
workload:
  - http: http://www.example.com/a
  - http: {url: "http://www.example.com/b", at: 2s}
"""


def parse(text: str) -> Scenario:
    return parse_scenario(HEAD.encode() + text.encode(), "f.yaml", nodes=NODES)


def mistakes(text: str) -> list[str]:
    with pytest.raises(ScenarioErrors) as caught:
        parse(text)
    return str(caught.value).splitlines()


EVENTS = """\
tunnel: {}
events:
  - {at: 500ms, kill: vpn-server}
  - {at: 1s, kill: vpn-client, signal: TERM}
  - {at: 2s, start: vpn-server}
  - {at: 3s, link: client-isp, down: true}
  - {at: 4s, link: client-isp, delay: 20ms, loss: 5}
  - {at: 5s, link: isp-client}
  - {at: 5250ms, link: client-isp, from: isp, loss: 5}
  - {at: 5750ms, link: client-isp, from: client, down: true}
  - {at: 6s, lease: isp, routes: {93.184.216.0/24: 192.168.0.1, 10.0.0.0/8: 0.0.0.0}, dns: 192.168.0.1}
  - {at: 7s, lease: isp}
  - {at: 8s, run: "ip route add 'a b'", node: isp}
"""


def test_events_become_values_and_sentences() -> None:
    events = parse(EVENTS).variants["only"].events
    assert [(event.at, event_in_words(event)) for event in events] == [
        (0.5, "vpn-server gets SIGKILL"),
        (1.0, "vpn-client gets SIGTERM"),
        (2.0, "vpn-server is started again"),
        (3.0, "link client-isp carries nothing"),
        (4.0, "link client-isp has delay 0.02, loss 5.0"),
        (5.0, "link isp-client is as planned"),
        (5.25, "link client-isp from isp has loss 5.0"),
        (5.75, "link client-isp from client carries nothing"),
        (
            6.0,
            (
                "isp gives the client a lease with the route 93.184.216.0/24 via 192.168.0.1, "
                "the route 10.0.0.0/8 on the link, the resolver 192.168.0.1"
            ),
        ),
        (7.0, "isp gives the client a lease"),
        (8.0, "isp runs ip route add 'a b'"),
    ]
    assert events[-1].argv == ("ip", "route", "add", "a b")


def test_an_action_has_its_time_and_others_have_none() -> None:
    assert [action.at for action in parse("").variants["only"].workload] == [None, 2.0]


def test_a_link_that_an_event_changes_is_planned_as_changeable() -> None:
    variant = parse(EVENTS).variants["only"]
    topology = load_topology("client-isp-server")
    links = lab_request(variant, roles_of(topology)).links
    assert ("client", "isp") in {(link.a, link.b) for link in links}


MANY_ROUTES = ", ".join(f"10.0.{number}.0/25: 192.168.0.1" for number in range(29))


COMMAND = """\
tunnel:
  program: command
  routes: [0.0.0.0/0]
  command:
    client: my-vpn --to {server}
    server: [my-vpn, --listen]
    files: {server: {a.conf: "key {dir} {x}"}}
    ready: {client: up}
    address: 10.8.0.1
    device: my0
"""


@pytest.mark.parametrize("text", [EVENTS, COMMAND, "tunnel: {program: wireguard}\n", "tunnel: {options: [verb 4]}\n"])
def test_what_was_resolved_loads_to_the_same_variants(text: str) -> None:
    scenario = parse(text)
    again = parse_scenario(dump_scenario(scenario).encode(), "f.yaml", nodes=NODES)
    assert again.variants["only"].tunnel == scenario.variants["only"].tunnel
    assert again.variants["only"].events == scenario.variants["only"].events
    assert again.variants["only"].workload == scenario.variants["only"].workload


def test_a_command_is_split_as_a_shell_would_and_its_tunnel_has_its_device() -> None:
    tunnel = parse(COMMAND).variants["only"].tunnel
    assert tunnel is not None
    assert tunnel.command is not None
    assert (tunnel.device, tunnel.mode, tunnel.cipher) == ("my0", "command", "")
    assert tunnel.command.argv.client == ("my-vpn", "--to", "{server}")
    assert (tunnel.command.ready.client, tunnel.command.ready.server) == (("up",), ())
    assert "key {dir}" not in repr(tunnel), "files may hold keys"


@pytest.mark.parametrize(
    ("text", "at", "path", "words"),
    [
        (
            "tunnel: {}\nevents: [{at: 1s}]\n",
            "{at",
            "events[0]",
            "one of kill, start, link, lease, run; this has none",
        ),
        ("tunnel: {}\nevents: [{at: 1s, kill: vpn-server, start: vpn-server}]\n", "{at", "events[0]", "kill and start"),
        (
            "tunnel: {}\nevents: [{at: 1s, kill: vpn-sever}]\n",
            "vpn-sever",
            "events[0].kill",
            "you mean vpn-server?",
        ),
        ("tunnel: {}\nevents: [{kill: vpn-server}]\n", "{kill", "events[0].at", "missing; When it happens"),
        ("events: [{at: 1s, kill: vpn-server}]\n", "vpn-server", "events[0].kill", "has no tunnel; give the variant"),
        ("events: [{at: 1s, link: client-isp, signal: TERM}]\n", "signal", "events[0].signal", "events that kill"),
        ("events: [{at: 1s, link: client-isp, down: true, loss: 5}]\n", "down", "events[0].down", "leave loss out"),
        ("events: [{at: 1s, link: client-isp, jitter: 5ms}]\n", "jitter", "events[0].jitter", "needs a delay"),
        ("events: [{at: 1s, link: client-isp, loss: 101}]\n", "101", "events[0].loss", "or less"),
        ("events: [{at: 1s, link: client}]\n", "client}", "events[0].link", "must be two nodes"),
        ("events: [{at: 1s, link: client-isp, from: web}]\n", "web", "events[0].from", "must be an end of the link"),
        ("tunnel: {}\nevents: [{at: 1s, kill: vpn-server, from: isp}]\n", "from", "events[0].from", "events that link"),
        ("events: [{at: 1s, lease: ips}]\n", "ips", "events[0].lease", "did you mean isp?"),
        ("events: [{at: 1s, link: client-isp, dns: 1.2.3.4}]\n", "dns", "events[0].dns", "events that lease"),
        (
            'events: [{at: 1s, lease: isp, routes: {"2001:db8::/32": 192.168.0.1}}]\n',
            '"2001',
            "events[0].routes.2001:db8::/32",
            "must be IPv4: DHCP carries nothing else",
        ),
        (
            "events: [{at: 1s, lease: isp, routes: {10.0.0.0/8: 127.0.0.1}}]\n",
            "127",
            "events[0].routes.10.0.0.0/8",
            "is a loopback address",
        ),
        (
            f"events: [{{at: 1s, lease: isp, routes: {{{MANY_ROUTES}}}}}]\n",
            "routes",
            "events[0].routes",
            "take 266 octets in a lease, which has room for 255",
        ),
        ("events: [{at: 1s, run: [ls], node: ips}]\n", "ips", "events[0].node", "did you mean isp?"),
        ('events: [{at: 1s, run: "echo \'a"}]\n', '"echo', "events[0].run", "is no command line"),
        ("events: [{at: 1s, link: client-isp, down: yes}]\n", "yes", "events[0].down", "must be true or false"),
        ("tunnel: {program: wireguard, cipher: AES-256-GCM}\n", "cipher", "tunnel.cipher", "leave the key out"),
        ("tunnel: {program: wireguard, options: [verb 4]}\n", "options", "tunnel.options", "only vpn and openvpn"),
        ("tunnel: {program: {client: vpn, server: wireguard}}\n", "{client", "tunnel.program", "needs wireguard at"),
        ("tunnel: {program: command}\n", "command}", "tunnel.command", "missing; how both ends are started"),
        ("tunnel: {command: {client: a, server: b}}\n", "command", "tunnel.command", "needs `program: command`"),
        (COMMAND + "  mode: tls\n", "mode", "tunnel.mode", "is the affair of the command"),
        (COMMAND.replace("a.conf", "a/b"), "a/b", "tunnel.command.files.server.a/b", "must be the name of a file"),
        (COMMAND.replace("client: my-vpn --to {server}", "client: []"), "[]", "tunnel.command.client", "not be empty"),
    ],
)
def test_a_mistake_names_place_key_and_remedy(text: str, at: str, path: str, words: str) -> None:
    before = text[: text.index(at)]
    line = HEAD.count("\n") + before.count("\n") + 1
    place = f"{line}:{len(before) - before.rfind(chr(10))}"
    found = mistakes(text)
    assert any(one.startswith(f"f.yaml:{place}: {path}: ") and words in one for one in found), found


@pytest.mark.parametrize("key", ["at", "timeout"])
def test_an_action_waits_and_takes_an_hour_at_the_most(key: str) -> None:
    text = HEAD.replace("at: 2s", f"{key}: 61min")
    with pytest.raises(ScenarioErrors, match=rf"f.yaml:5:\d+: workload\[1\].http.{key}: must be an hour at the most"):
        parse_scenario(text.encode(), "f.yaml", nodes=NODES)


@pytest.mark.parametrize("name", ["when-the-vpn-fails", "wireguard"])
def test_the_shipped_scenarios_load_and_expect_something_of_every_variant(name: str) -> None:
    scenario = load_scenario(ROOT / "scenarios" / f"{name}.yaml", nodes=NODES)
    assert {expectation.variant for expectation in scenario.expectations} == set(scenario.variants)
