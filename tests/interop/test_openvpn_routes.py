"""Routes of a client on a real kernel: what openvpn sets is the yardstick; what a killed client left is undone."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.interop.role_pairs import is_answered, ping
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup, make_keys
from tests.interop.tunnel_lab import (
    INNER_SERVER,
    INNER_SERVER6,
    OPENVPN,
    OURS,
    READY,
    SERVER,
    SERVER6,
    WEB,
    Program,
    TunnelLab,
    in_lab,
)

pytestmark = [pytest.mark.root, pytest.mark.interop]

WEB6 = "2001:db8:4::34"
MARK = 51820
POLICY = (f"mark {MARK}", "policy-routing")
OUR_MANNER = ("proto", "static")  # openvpn's routes say `boot`, or nothing; both mean: not from a routing daemon
# What a killed client must not leave different; each command shows one part of the kernel's state.
STATE = (
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("ip", "rule"),
    ("ip", "-6", "rule"),
    ("ip", "-details", "address"),
    ("cat", "/etc/resolv.conf"),
)
# The kernel gives an interface its queueing discipline when it first comes up, and leaves it there.
_QUEUE = re.compile(r" qdisc \w+ state \w+")


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("pki") / "keys")


def state(lab: TunnelLab) -> list[str]:
    return [_QUEUE.sub("", lab.output("client", *command)) for command in STATE]


def vpn(lab: TunnelLab, *words: str) -> Program:
    """A command of ours at the client, ended with success."""
    program = lab.start("client", [sys.executable, "-m", "vpn", *words], words[0])
    assert program.wait() == 0, program.text()
    return program


def pings(lab: TunnelLab, *addresses: str) -> None:
    for address in addresses:
        ping(lab, address)


def way(lab: TunnelLab, address: str, mark: int = 0) -> str:
    """The interface that the kernel sends a packet with this mark through."""
    words = lab.output("client", "ip", "route", "get", address, "mark", str(mark)).split()
    return words[words.index("dev") + 1]


@pytest.mark.parametrize("address", [SERVER, SERVER6])
def test_policy_routing_takes_all_but_marked_packets_and_leaves_the_main_table_alone(
    address: str, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, address=address, proto="udp6" if ":" in address else "udp", client_only=POLICY)

    def body(lab: TunnelLab) -> None:
        before, link = state(lab), lab.egress(WEB)
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        pings(lab, INNER_SERVER, INNER_SERVER6)
        for target in (WEB, WEB6, "8.8.8.8", "fd00::1", address):
            assert way(lab, target) == "tun0", target
            assert way(lab, target, MARK) == link, target
        assert [way(lab, local) for local in ("192.168.0.1", "2001:db8:1::1")] == [link, link]  # these stay local
        assert "default via" in lab.output("client", "ip", "route")
        assert SERVER not in lab.output("client", "ip", "route")
        assert client.stop() == 0
        assert state(lab) == before

    in_lab(body, tmp_path)


@pytest.mark.parametrize(("value", "warned"), [(1, True), (2, False)])
def test_policy_routing_warns_where_the_kernel_would_drop_the_servers_packets(
    value: int, warned: bool, keys: Path, tmp_path: Path
) -> None:
    setup = Setup(keys, client_only=POLICY)

    def body(lab: TunnelLab) -> None:
        link = lab.egress(WEB)
        lab.output("client", "sh", "-c", f"echo {value} > /proc/sys/net/ipv4/conf/{link}/rp_filter")
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        assert ("rp_filter is strict" in client.text()) is warned
        assert is_answered(lab, INNER_SERVER, patience=1 if warned else 30) is not warned

    in_lab(body, tmp_path)


def test_policy_routing_with_lists_prefers_the_tunnels_prefixes_to_the_hosts(keys: Path, tmp_path: Path) -> None:
    """The host knows a wide route that holds the tunnel's prefix; an excluded one goes around the tunnel."""
    push = (*PUSH_SPLIT, "route 10.30.0.0 255.255.0.0", "route 10.30.7.0 255.255.255.0 net_gateway")
    setup = Setup(keys, push=push, client_only=("mark 7", "policy-routing 1000"))

    def body(lab: TunnelLab) -> None:
        lab.output("client", "ip", "route", "add", "10.0.0.0/8", "via", "192.168.0.1")
        link = lab.egress(WEB)
        lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        assert [way(lab, a) for a in ("10.20.0.10", "2001:db8:20::10", "10.30.1.1")] == ["tun0"] * 3
        assert [way(lab, a) for a in ("10.30.7.1", "10.40.0.1", WEB, WEB6, SERVER)] == [link] * 5
        assert "lookup 1000" in lab.output("client", "ip", "rule")

    in_lab(body, tmp_path)


def test_an_exclude_list_leaves_the_tunnel_as_openvpn_does_it(keys: Path, tmp_path: Path) -> None:
    push = ("redirect-gateway def1 ipv6", "route 93.184.216.0 255.255.255.0 net_gateway")
    setup = Setup(keys, push=push, client_only=("route-ipv6 2001:db8:4::/64 net_gateway",))

    def body(lab: TunnelLab) -> None:
        before, link = state(lab), lab.egress(WEB)
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        assert [lab.egress(address) for address in (WEB, WEB6)] == [link, link]
        assert [lab.egress(address) for address in ("93.184.217.1", "2001:db8:5::1")] == ["tun0", "tun0"]
        pings(lab, INNER_SERVER, WEB)
        assert client.stop() == 0
        assert state(lab) == before

    in_lab(body, tmp_path)


KILLED = {
    "def1": Setup(Path(), client_only=()),
    "without-def1": Setup(Path(), push=("redirect-gateway", f"dhcp-option DNS {INNER_SERVER}")),
    "exclude-list": Setup(Path(), client_only=("route 93.184.216.0 255.255.255.0 net_gateway",)),
    "policy-routing": Setup(Path(), client_only=POLICY),
    "present-device": Setup(Path(), client_only=("dev tun5", "txqueuelen 500")),
}


def killed_setup(name: str, keys: Path) -> Setup:
    template = KILLED[name]
    return Setup(keys, template.push, client_only=template.client_only)


def prepared(lab: TunnelLab, name: str) -> list[str]:
    """The state before any tunnel, with what an administrator may have set up."""
    if name == "present-device":
        lab.output("client", "ip", "tuntap", "add", "dev", "tun5", "mode", "tun")
        lab.output("client", "ip", "link", "set", "tun5", "mtu", "1234", "txqueuelen", "77")
    if name == "without-def1":
        gateway = lab.output("client", "ip", "route", "show", "default").split()
        lab.output("client", "ip", "route", "replace", *gateway, "mtu", "1440", "advmss", "1300")
    return state(lab)


@pytest.mark.parametrize("name", list(KILLED))
def test_restore_undoes_all_that_a_client_left_that_was_killed(name: str, keys: Path, tmp_path: Path) -> None:
    setup = killed_setup(name, keys)

    def body(lab: TunnelLab) -> None:
        before = prepared(lab, name)
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        assert vpn(lab, "restore").text() == "nothing to restore\n"  # a living client's changes are its own
        assert lab.output("client", "stat", "-c", "%a %F", "/run/vpn-journal") == "700 directory\n"
        (journal,) = lab.output("client", "ls", "/run/vpn-journal").split()
        assert lab.output("client", "stat", "-c", "%a", f"/run/vpn-journal/{journal}") == "600\n"
        client.process.kill()
        client.wait()
        assert state(lab) != before
        restored = vpn(lab, "restore").text()
        assert "ended without undoing" in restored
        assert state(lab) == before, restored
        assert vpn(lab, "restore").text() == "nothing to restore\n"

    in_lab(body, tmp_path)


def test_the_next_start_undoes_what_its_killed_predecessor_left(keys: Path, tmp_path: Path) -> None:
    setup = killed_setup("without-def1", keys)

    def body(lab: TunnelLab) -> None:
        before = state(lab)
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        client.process.kill()
        client.wait()
        again = lab.tunnel(OURS, "client", setup.client())
        again.wait_for(READY)
        assert "RESTORE: " in again.text()
        pings(lab, INNER_SERVER)
        assert again.stop() == 0
        assert state(lab) == before
        assert lab.output("client", "ls", "/run/vpn-journal") == ""

    in_lab(body, tmp_path)


def test_a_client_that_dies_of_a_signal_of_its_own_leaves_no_more_than_a_killed_one(keys: Path, tmp_path: Path) -> None:
    setup = killed_setup("def1", keys)

    def body(lab: TunnelLab) -> None:
        before = state(lab)
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        client.stop(signal.SIGSEGV)
        vpn(lab, "restore")
        assert state(lab) == before

    in_lab(body, tmp_path)


def test_a_resolver_file_that_somebody_changed_after_the_kill_is_left_alone(keys: Path, tmp_path: Path) -> None:
    setup = killed_setup("def1", keys)

    def body(lab: TunnelLab) -> None:
        _, client = lab.connect(OPENVPN, setup.server(), OURS, setup.client())
        client.process.kill()
        client.wait()
        lab.output("client", "sh", "-c", "echo nameserver 192.0.2.7 > /etc/resolv.conf")
        assert "left as it is" in vpn(lab, "restore").text()
        assert lab.resolv_conf() == "nameserver 192.0.2.7\n"

    in_lab(body, tmp_path)


FLAGS: dict[str, dict[str, Any]] = {
    "def1": {"push": ("redirect-gateway def1",)},
    "none": {"push": ("redirect-gateway autolocal",)},
    "def1-ipv6": {"push": ("redirect-gateway def1 ipv6",)},
    "ipv6-not-ipv4": {"push": ("redirect-gateway ipv6 !ipv4",)},
    "local": {"push": ("redirect-gateway local def1",)},
    "bypass-dhcp": {"push": ("redirect-gateway def1 bypass-dhcp",)},
    "private": {"push": ("redirect-private def1",)},
    "metric": {"push": (*PUSH_SPLIT, "route-metric 33", "route 10.21.0.0 255.255.0.0 vpn_gateway 4")},
    "nopull": {"push": ("redirect-gateway def1 ipv6", *PUSH_SPLIT), "client_only": ("route-nopull",)},
    "filter": {
        "push": ("redirect-gateway def1 ipv6", *PUSH_SPLIT),
        "client_only": ('pull-filter ignore "redirect-gateway"', 'pull-filter ignore "route-ipv6 "'),
    },
    "route-noexec": {"push": PUSH_SPLIT, "client_only": ("route-noexec",)},
    "own-file": {"push": (), "client_only": ("redirect-gateway def1 ipv6", "route 10.9.0.0 255.255.0.0")},
}


def test_block_local_takes_the_local_network_as_openvpn_does_and_that_of_ipv6_too(keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, push=("redirect-gateway def1 block-local",))

    def routes_with(program: str) -> list[str]:
        def body(lab: TunnelLab) -> list[str]:
            lab.connect(OPENVPN, setup.server(), program, setup.client())
            return lab.routes()

        folder = tmp_path / program
        folder.mkdir()
        return shown(in_lab(body, folder))

    ours, theirs = routes_with(OURS), routes_with(OPENVPN)
    assert set(theirs) <= set(ours)
    assert sorted(line.split(" dev ")[0] for line in set(ours) - set(theirs)) == [
        "2001:db8:1:0:8000::/65",
        "2001:db8:1::/65",
        "2001:db8:1::1 via 2001:db8:1::1",
    ]


def shown(routes: list[str]) -> list[str]:
    cut = [" ".join(word for word in line.split() if word not in OUR_MANNER) for line in routes]
    return [line for line in cut if not line.startswith("fe80")]


@pytest.mark.parametrize("name", list(FLAGS))
def test_the_kernels_routes_are_those_that_openvpn_sets_for(name: str, keys: Path, tmp_path: Path) -> None:
    setup = Setup(keys, **FLAGS[name])

    def routes_with(program: str) -> list[str]:
        def body(lab: TunnelLab) -> list[str]:
            before = state(lab)
            _, client = lab.connect(OPENVPN, setup.server(), program, setup.client())
            found = lab.routes()
            client.stop()
            if program == OURS:
                assert state(lab) == before
            return found

        folder = tmp_path / program
        folder.mkdir()
        return shown(in_lab(body, folder))

    assert routes_with(OURS) == routes_with(OPENVPN)
