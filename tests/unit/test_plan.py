"""The plan of a lab: pure, complete, and with every mistake in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mininet.topo import Topo

from testbed.lab.plan import LabPlanError, LabRequest, RoutePlan, TapRequest, plan_lab
from testbed.lab.topology import load_topology, shipped_topologies


def shipped() -> Topo:
    return load_topology("client-isp-server")


def topology(fill: Callable[[Topo], None]) -> Topo:
    topo = Topo()
    fill(topo)
    return topo


def problems_of(topo: Topo, request: LabRequest | None = None) -> str:
    with pytest.raises(LabPlanError) as caught:
        plan_lab(topo, request)
    return "\n".join(caught.value.problems)


def pair(**link: Any) -> Topo:
    """Two nodes and one link with these options."""

    def fill(topo: Topo) -> None:
        topo.addHost("a")
        topo.addHost("b")
        topo.addLink("a", "b", **{"params1": {"ip": "10.0.0.1/24"}, "params2": {"ip": "10.0.0.2/24"}, **link})

    return topology(fill)


@pytest.mark.parametrize(
    ("node", "addresses"),
    [
        ("client", ["192.168.0.13/24", "2001:db8:1::13/64"]),
        ("isp", ["192.168.0.1/24", "2001:db8:1::1/64", "192.0.2.1/30", "2001:db8:2::1/64"]),
        ("vpn", ["198.51.100.10/24", "2001:db8:3::10/64", "10.20.0.1/24", "2001:db8:20::1/64"]),
        ("web", ["93.184.216.34/24", "2001:db8:4::34/64"]),
        ("private", ["10.20.0.10/24", "2001:db8:20::10/64"]),
    ],
)
def test_the_shipped_topology_has_the_addresses_of_the_documentation(node: str, addresses: list[str]) -> None:
    plan = plan_lab(shipped())
    assert [address for interface in plan.node(node).interfaces for address in interface.addresses] == addresses


def test_the_shipped_topology_is_found_by_the_name_a_scenario_gives_it() -> None:
    assert shipped_topologies() == ["client-isp-server", "line"]
    with pytest.raises(LabPlanError, match="client-isp-server"):
        load_topology("client-isp-sever")


def test_a_topology_is_loaded_from_a_class_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from mininet.topo import Topo\n"
        "class Mine(Topo):\n"
        "    def build(self, name='a'):\n"
        "        self.addHost(name, ip='10.0.0.1/24'); self.addHost('z', ip='10.0.0.2/24'); self.addLink(name, 'z')\n"
    )
    plan = plan_lab(load_topology(f"{file}:Mine", {"name": "b"}))
    assert [node.name for node in plan.nodes] == ["b", "z"]
    with pytest.raises(LabPlanError, match=r"no class 'Other'.*Mine"):
        load_topology(f"{file}:Other")
    with pytest.raises(LabPlanError, match="these parameters"):
        load_topology(f"{file}:Mine", {"nonsense": 1})


def test_the_same_topology_and_request_give_the_same_plan() -> None:
    request = LabRequest(addresses={"web": ["203.0.113.7"]}, taps=[TapRequest("isp", "isp")])
    assert plan_lab(shipped(), request) == plan_lab(shipped(), request)


def test_the_plan_is_json_and_its_description_names_every_value() -> None:
    plan = plan_lab(shipped(), LabRequest(resolvers={"client": ["192.168.0.1"]}, taps=[TapRequest("isp", "isp")]))
    assert json.loads(json.dumps(plan.to_dict()))["nodes"][0]["name"] == "client"
    text = plan.describe()
    for node in plan.nodes:
        assert f"node {node.name} " in text
        for interface in node.interfaces:
            assert f"interface {interface.name} " in text
            assert all(f"address {address}\n" in text for address in (*interface.addresses, interface.link_local))
        for route in node.routes:
            assert f"route {route.destination} via {route.gateway} dev {route.interface}\n" in text
        assert all(f"sysctl {key} = {value}\n" in text for key, value in node.sysctls)
    assert "resolver 192.168.0.1\n" in text
    assert "nat masquerade from 10.8.0.0/24 out of vpn-eth0\n" in text
    assert "refuse to 2001:db8:20::/64 in by vpn-eth0\n" in text


def test_only_forwarding_nodes_forward() -> None:
    plan = plan_lab(shipped())
    forwarding = {node.name for node in plan.nodes if dict(node.sysctls)["net.ipv4.ip_forward"] == "1"}
    assert forwarding == {"isp", "transit", "vpn"}
    assert forwarding == {n.name for n in plan.nodes if dict(n.sysctls)["net.ipv6.conf.all.forwarding"] == "1"}


def test_gro_is_on_where_traffic_ends_and_off_where_it_is_recorded() -> None:
    plan = plan_lab(shipped(), LabRequest(taps=[TapRequest("isp", "isp"), TapRequest("site", "web")]))
    gro = {interface.name: interface.gro for node in plan.nodes for interface in node.interfaces}
    assert {name for name, on in gro.items() if on} == {"client-eth0", "vpn-eth0", "vpn-eth1", "private-eth0"}


def test_a_tap_sits_on_the_way_to_the_client_unless_told_otherwise() -> None:
    taps = [TapRequest("isp", "isp"), TapRequest("up", "isp", "transit"), TapRequest("vpn", "vpn", "vpn-eth1")]
    plan = plan_lab(shipped(), LabRequest(taps=taps))
    assert [(tap.name, tap.interface) for tap in plan.taps] == [
        ("isp", "isp-eth0"),
        ("up", "isp-eth1"),
        ("vpn", "vpn-eth1"),
    ]


def test_a_site_address_of_the_link_joins_it_and_another_gets_host_routes_on_every_router() -> None:
    plan = plan_lab(shipped(), LabRequest(addresses={"web": ["93.184.216.53", "203.0.113.7", "2001:db8:77::7"]}))
    assert plan.node("web").interfaces[0].addresses[2:] == ("93.184.216.53/24", "203.0.113.7/32", "2001:db8:77::7/128")
    assert RoutePlan(4, "203.0.113.7/32", "93.184.216.34", "transit-eth2") in plan.node("transit").routes
    assert RoutePlan(6, "2001:db8:77::7/128", "2001:db8:2::2", "isp-eth1") in plan.node("isp").routes
    assert RoutePlan(4, "203.0.113.7/32", "198.51.100.1", "vpn-eth0") in plan.node("vpn").routes
    assert not any("203.0.113.7" in route.destination for route in plan.node("client").routes)


def test_a_site_may_live_at_its_nodes_own_address() -> None:
    assert plan_lab(shipped(), LabRequest(addresses={"web": ["93.184.216.34"]})) == plan_lab(shipped())


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (LabRequest(addresses={"wed": ["203.0.113.7"]}), "no node is called wed"),
        (LabRequest(addresses={"web": ["203.0.113.777"]}), "203.0.113.777 is not an address"),
        (LabRequest(addresses={"web": ["203.0.113.7"], "private": ["203.0.113.7"]}), "also the address of"),
        (LabRequest(addresses={"web": ["10.20.0.9"]}), "10.20.0.9 belongs to 10.20.0.0/24, the link vpn - private"),
        (LabRequest(addresses={"web": ["224.0.0.1"]}), "not an address that a host can have"),
        (LabRequest(resolvers={"nobody": ["192.168.0.1"]}), "no node is called nobody"),
        (LabRequest(resolvers={"client": ["dns.example"]}), "dns.example is not an address"),
        (LabRequest(hosts={"client": {"a.example": "x"}}), "x is not an address"),
        (LabRequest(taps=[TapRequest("t", "router")]), "no node is called router"),
        (LabRequest(taps=[TapRequest("t", "isp", "web")]), "isp has no interface toward web"),
        (LabRequest(taps=[TapRequest("t", "isp"), TapRequest("t", "vpn")]), "two taps of this name"),
    ],
)
def test_a_request_that_the_topology_cannot_meet_is_refused_in_words(request_: LabRequest, words: str) -> None:
    assert words in problems_of(shipped(), request_)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"params2": {"ip": "10.0.0.1/24"}}, "10.0.0.1 is also the address of a (a-eth0)"),
        ({"params2": {"ip": "10.0.1.2/24"}}, "not in the same networks"),
        ({"params2": {"ip": "10.0.0.2"}}, "no prefix length"),
        ({"params2": {"ip": "10.0.0.0/24"}}, "network or broadcast address"),
        ({"params2": {"ip6": "fe80::zz/64"}}, "not an address"),
        ({"params2": {"ipv6": "2001:db8::1/64"}}, "unknown option ipv6"),
        ({"bw": -1}, "bw is -1; it must be Mbit/s, more than 0"),
        ({"bw": "fast"}, "bw is 'fast'"),
        ({"delay": "-5ms"}, "delay is '-5ms'"),
        ({"loss": 101}, "loss is 101"),
        ({"delay": 10}, "delay is 10; it must be a time such as 10ms"),
        ({"reorder": 25}, "reorder needs a delay"),
        ({"params2": {"jitter": "2ms"}}, "link b - a, from b: jitter needs a delay"),
        ({"max_queue_size": 0}, "max_queue_size is 0; it must be a number of packets"),
        ({"bandwith": 10}, "unknown option bandwith"),
        ({"mtu": 900}, "mtu is 900"),
        ({"intfName1": "a-name-of-20-octets!"}, "not of 1 to 15 characters"),
        ({"addr1": "00:11:22"}, "00:11:22 is not a MAC address"),
        ({"addr1": "02:00:00:00:00:09", "addr2": "02:00:00:00:00:09"}, "also the MAC address of"),
    ],
)
def test_a_link_that_cannot_be_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    assert words in problems_of(pair(**options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"routes": {"0.0.0.0/0": "10.9.9.9"}}, "10.9.9.9 is on none of the node's links"),
        ({"routes": {"::/0": "10.0.0.2"}}, "of the other address family"),
        ({"routes": {"10.0.0.1/24": "10.0.0.2"}}, "is not a prefix"),
        ({"defaultRoute": "10.0.0.2"}, "not of the form 'via ADDRESS'"),
        ({"defaultRoute": "via 10.0.0.2", "routes": {"0.0.0.0/0": "10.0.0.2"}}, "two routes to this prefix"),
        ({"nat": ["10.8.0.0/33"]}, "is not a prefix"),
        ({"forward": True}, "unknown option forward; did you mean forwards?"),
        ({"ip": "10.7.0.1/24"}, "its first link gives it another address"),
    ],
)
def test_a_node_that_cannot_be_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    topo = pair()
    topo.nodeInfo("a").update(options)
    assert words in problems_of(topo)


def test_links_whose_networks_overlap_are_refused() -> None:
    def fill(topo: Topo) -> None:
        for name in "abc":
            topo.addHost(name)
        topo.addLink("a", "b", params1={"ip": "10.0.0.1/16"}, params2={"ip": "10.0.0.2/16"})
        topo.addLink("b", "c", params1={"ip": "10.0.7.1/24"}, params2={"ip": "10.0.7.2/24"})

    assert "10.0.7.0/24 overlaps 10.0.0.0/16 of link a - b" in problems_of(topology(fill))


def test_switches_are_refused_by_name() -> None:
    assert "node s1: switches are not supported" in problems_of(topology(lambda topo: topo.addSwitch("s1")))


def test_all_mistakes_are_named_at_once() -> None:
    topo = pair(bw=-1, params2={"ip": "nonsense/24"})
    topo.nodeInfo("b")["forward"] = True
    found = problems_of(topo, LabRequest(addresses={"x": ["203.0.113.7"]}, taps=[TapRequest("t", "y")]))
    for words in ("bw is -1", "nonsense/24", "unknown option forward", "no node is called x", "no node is called y"):
        assert words in found


def test_a_nodes_own_address_belongs_to_its_first_link_as_in_mininet() -> None:
    def fill(topo: Topo) -> None:
        topo.addHost("a", ip="10.0.0.1/24")
        topo.addHost("b", ip="10.0.0.2/24", ip6="2001:db8::2/64")
        topo.addLink("a", "b", params1={"ip6": "2001:db8::1/64"})

    plan = plan_lab(topology(fill))
    assert plan.node("a").interfaces[0].addresses == ("2001:db8::1/64", "10.0.0.1/24")
    assert plan.node("b").interfaces[0].addresses == ("10.0.0.2/24", "2001:db8::2/64")
