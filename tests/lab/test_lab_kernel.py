"""What the kernel says of a lab that was built is what its plan says, read back by programs that are not ours."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from testbed.lab.build import Lab
from testbed.lab.host import fair_congestion_control
from testbed.lab.namespaces import entered_network
from testbed.lab.node import Node
from testbed.lab.plan import LabPlan, NodePlan, RoutePlan
from testbed.lab.sysctls import with_congestion_control

pytestmark = pytest.mark.root

InLab = Callable[..., Any]


def output(node: Node, *argv: str) -> str:
    process = node.spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, f"{argv}: {err.decode()}"
    return out.decode()


def in_every_node(*argv: str) -> Callable[[Lab], dict[str, str]]:
    return lambda lab: {name: output(node, *argv) for name, node in lab.nodes.items()}


def canonical(route: RoutePlan) -> tuple[str, str | None, str]:
    return route.destination, route.gateway, route.interface


def read_routes(text: str, version: int) -> set[tuple[str, str | None, str]]:
    """Return the static routes of `ip -j route` as (destination, gateway, interface)."""
    length = {4: 32, 6: 128}[version]
    default = {4: "0.0.0.0/0", 6: "::/0"}[version]
    found = set()
    for route in json.loads(text):
        if route.get("protocol") == "static":
            destination = default if route["dst"] == "default" else route["dst"]
            destination += "" if "/" in destination else f"/{length}"
            found.add((destination, route.get("gateway"), route["dev"]))
    return found


def test_links_and_addresses_are_the_plans(in_lab: InLab, shipped_plan: LabPlan) -> None:
    for name, text in in_lab(in_every_node("ip", "-j", "addr")).items():
        plan = shipped_plan.node(name)
        found = {link["ifname"]: link for link in json.loads(text)}
        assert set(found) == {"lo", *(interface.name for interface in plan.interfaces)}
        for interface in plan.interfaces:
            link = found[interface.name]
            addresses = {f"{info['local']}/{info['prefixlen']}" for info in link["addr_info"]}
            assert addresses == {*interface.addresses, interface.link_local}
            assert (link["address"], link["mtu"], link["operstate"]) == (interface.mac, interface.mtu_octets, "UP")
            assert not [info for info in link["addr_info"] if info.get("tentative") or info.get("dadfailed")]


@pytest.mark.parametrize("version", [4, 6])
def test_routes_are_the_plans(in_lab: InLab, shipped_plan: LabPlan, version: int) -> None:
    for name, text in in_lab(in_every_node("ip", f"-{version}", "-j", "route")).items():
        planned = {canonical(route) for route in shipped_plan.node(name).routes if route.family == version}
        assert read_routes(text, version) == planned
        interfaces = shipped_plan.node(name).interfaces
        networks = [ip_interface(address).network for interface in interfaces for address in interface.addresses]
        connected = {
            str(net) for net in networks if net.version == version and net.prefixlen < {4: 32, 6: 128}[version]
        }
        kernel = {route["dst"] for route in json.loads(text) if route.get("protocol") == "kernel"}
        assert connected <= kernel


def test_every_sysctl_is_the_plans(in_lab: InLab, shipped_plan: LabPlan) -> None:
    def read(lab: Lab) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for node in lab.nodes.values():
            with entered_network(node.netns_fd):
                files = {key: Path("/proc/sys", key.replace(".", "/")) for key, _value in node.plan.sysctls}
                found[node.name] = {key: file.read_text().strip() for key, file in files.items()}
        return found

    as_built = with_congestion_control(shipped_plan, fair_congestion_control())
    for name, values in in_lab(read).items():
        assert values == dict(as_built.node(name).sysctls)


def test_every_interface_has_the_settings_of_its_node(in_lab: InLab, shipped_plan: LabPlan) -> None:
    def read(lab: Lab) -> dict[str, str]:
        found = {}
        for node in lab.nodes.values():
            with entered_network(node.netns_fd):
                for interface in node.plan.interfaces:
                    for key, _value in node.plan.sysctls:
                        if ".conf.default." in key:
                            own = key.replace(".default.", f".{interface.name}.")
                            found[own] = Path("/proc/sys", own.replace(".", "/")).read_text().strip()
        return found

    planned = {
        key.replace(".default.", f".{interface.name}."): value
        for node in shipped_plan.nodes
        for interface in node.interfaces
        for key, value in node.sysctls
        if ".conf.default." in key
    }
    assert in_lab(read) == planned


def expected_rules(plan: NodePlan) -> list[tuple[str, str, str, str, str]]:
    """Return (chain, direction, interface, prefix, verdict) of every rule that the plan of a node asks for."""
    rules = []
    if plan.nat:
        rules += [
            ("postrouting", "oifname", interface, prefix, "masquerade")
            for interface in plan.nat.interfaces
            for prefix in plan.nat.prefixes
        ]
    if plan.protects:
        rules += [
            ("forward", "iifname", interface, prefix, "reject")
            for interface in plan.protects.refused_from
            for prefix in plan.protects.prefixes
        ]
    return rules


def test_the_firewall_is_the_plans(in_lab: InLab, shipped_plan: LabPlan) -> None:
    for name, text in in_lab(in_every_node("nft", "-j", "list", "ruleset")).items():
        found = []
        for item in json.loads(text)["nftables"]:
            if "rule" in item:
                interface, address, verdict = item["rule"]["expr"]
                prefix = address["match"]["right"]["prefix"]
                found.append(
                    (
                        item["rule"]["chain"],
                        interface["match"]["left"]["meta"]["key"],
                        interface["match"]["right"],
                        f"{prefix['addr']}/{prefix['len']}",
                        next(iter(verdict)),
                    )
                )
        assert sorted(found) == sorted(expected_rules(shipped_plan.node(name)))
        assert bool(found) == (name == "vpn")


def test_every_sender_segments_and_sums_and_gro_is_where_the_plan_says(in_lab: InLab, shipped_plan: LabPlan) -> None:
    def read(lab: Lab) -> dict[str, str]:
        return {
            interface.name: output(node, "ethtool", "-k", interface.name)
            for node in lab.nodes.values()
            for interface in node.plan.interfaces
        }

    gro = {interface.name: interface.gro for node in shipped_plan.nodes for interface in node.interfaces}
    for name, text in in_lab(read).items():
        lines = (line.split() for line in text.splitlines()[1:])
        on = {words[0].rstrip(":") for words in lines if words[1] == "on"}
        assert not {feature for feature in on if "segmentation" in feature or "tx-checksum" in feature}
        assert "tx-checksumming" not in on
        assert ("generic-receive-offload" in on) == gro[name]


def test_a_nodes_own_answers_are_those_of_ip(in_lab: InLab) -> None:
    def read(lab: Lab) -> dict[str, Any]:
        client = lab.node("client")
        return {
            "interfaces": client.interfaces(),
            "routes": client.routes(),
            "egress": [client.egress(to) for to in ("93.184.216.34", "2001:db8:4::34", "192.168.0.1")],
            "ip_get": json.loads(output(client, "ip", "-j", "route", "get", "93.184.216.34")),
            "ip_route": [json.loads(output(client, "ip", f"-{version}", "-j", "route")) for version in (4, 6)],
            "no_way": lab.node("transit").egress("8.8.8.8"),
        }

    seen = in_lab(read)
    assert [link["name"] for link in seen["interfaces"]] == ["lo", "client-eth0"]
    assert seen["interfaces"][1]["state"] == "up"
    assert seen["interfaces"][1]["mtu"] == 1500
    assert "192.168.0.13/24" in seen["interfaces"][1]["addresses"]
    assert len(seen["routes"]) == sum(len(routes) for routes in seen["ip_route"])
    assert {
        "family": 6,
        "destination": "::/0",
        "gateway": "2001:db8:1::1",
        "interface": "client-eth0",
        "metric": 1024,
    } in seen["routes"]
    way = seen["ip_get"][0]
    assert seen["egress"][0] == {
        "address": "93.184.216.34",
        "interface": way["dev"],
        "gateway": way["gateway"],
        "source": way["prefsrc"],
        "error": None,
    }
    assert seen["egress"][1]["source"] == "2001:db8:1::13"
    assert seen["egress"][2]["gateway"] is None
    assert "unreachable" in seen["no_way"]["error"]


def test_the_nodes_are_named_for_ip_netns(in_lab: InLab) -> None:
    def read(lab: Lab) -> Any:
        listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        inside = subprocess.run(
            ["ip", "netns", "exec", "web", "ip", "-o", "addr"], capture_output=True, text=True, check=True
        ).stdout
        return listed, inside

    listed, inside = in_lab(read)
    assert sorted(line.split()[0] for line in listed.splitlines()) == [
        "client",
        "isp",
        "private",
        "transit",
        "vpn",
        "web",
    ]
    assert "93.184.216.34/24" in inside


def test_settings_that_the_host_shares_can_be_read_and_not_written(in_lab: InLab) -> None:
    script = (
        "cat /proc/sys/kernel/printk_ratelimit >/dev/null || exit 1; "
        "(echo 5 > /proc/sys/kernel/printk_ratelimit) 2>/dev/null && exit 2; "
        "(echo 0 > /sys/kernel/mm/ksm/run) 2>/dev/null && exit 3; "
        "echo 1 > /proc/sys/net/ipv4/ip_forward && echo only the network"
    )
    for told in in_lab(in_every_node("sh", "-c", script)).values():
        assert told == "only the network\n"
