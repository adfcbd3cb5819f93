"""How a topology's and a scenario's link options come together in the plan."""

from __future__ import annotations

from typing import Any

import pytest
from mininet.topo import Topo

from testbed.internet import lab_request, roles_of
from testbed.lab.impair.model import Impairment
from testbed.lab.plan import LabPlan, LabPlanError, LabRequest, LinkRequest, plan_lab
from testbed.lab.topology import load_topology
from testbed.scenario.load import parse_scenario

SCENARIO = b"""
title: A slow line
sites: {www.example.com: {address: 93.184.216.34, node: web, http: true}}
workload: [{dns: www.example.com}]
links: {client-isp: {bw: 16, delay: 20ms, jitter: 2ms, loss: 1, duplicate: 0.5, reorder: 3, max_queue_size: 64}}
variants:
  slow: {}
  mended: {links: {client-isp: {bw: 50, loss: 0}}}
  small: {links: {vpn-transit: {mtu: 1400}}}
"""


def plan(links: list[LinkRequest] | None = None, **options: Any) -> LabPlan:
    topo = Topo()
    topo.addHost("left-a", ip="10.0.0.1/24")
    topo.addHost("b", ip="10.0.0.2/24")
    topo.addLink("left-a", "b", **options)
    return plan_lab(topo, LabRequest(links=links or []))


def impairments(plan_: LabPlan, number: int = 0) -> tuple[Impairment, Impairment] | None:
    return plan_.links[number].impairments


def scenario_plan(variant: str, seed: int = 1) -> LabPlan:
    chosen = parse_scenario(SCENARIO, "slow.yaml").variants[variant]
    topo = load_topology("client-isp-server")
    return plan_lab(topo, lab_request(chosen, roles_of(topo), seed))


@pytest.mark.parametrize("options", [{}, {"loss": 0, "delay": 0}, {"bw": None, "delay": "0ms"}])
def test_a_link_that_is_as_good_as_a_cable_is_one(options: dict[str, Any]) -> None:
    assert impairments(plan(**options)) is None


def test_options_of_the_link_hold_both_ways_and_those_of_an_end_for_what_it_sends() -> None:
    found = impairments(plan(delay="10ms", params1={"bw": 2}, params2={"bw": 20, "delay": "1ms"}))
    assert found is not None
    there, back = found
    assert there == Impairment(rate_bit_s=2e6, delay_s=0.010)
    assert back == Impairment(rate_bit_s=20e6, delay_s=0.001)


def test_a_request_names_a_link_by_its_nodes_in_either_order_even_with_hyphens() -> None:
    for a, b in (("left-a", "b"), ("left", "a-b"), ("b", "left-a")):
        assert impairments(plan([LinkRequest(a, b, loss=5)])) == (Impairment(loss=0.05), Impairment(loss=0.05))


def test_a_request_changes_what_it_names_and_leaves_the_rest_of_the_topologys_options() -> None:
    changed = plan([LinkRequest("left-a", "b", delay=0.0, bw=5)], delay="10ms", loss=1)
    assert impairments(changed) == (Impairment(rate_bit_s=5e6, loss=0.01),) * 2


def test_a_link_that_is_named_can_be_changed_later_and_one_whose_mtu_is_set_stays_a_cable() -> None:
    assert impairments(plan([LinkRequest("left-a", "b")])) == (Impairment(), Impairment())
    small = plan([LinkRequest("left-a", "b", mtu_octets=1400)])
    assert impairments(small) is None
    assert {small.links[0].mtu_octets, *(node.interfaces[0].mtu_octets for node in small.nodes)} == {1400}


def test_a_request_for_a_link_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(LabPlanError, match="link b-c: there is no such link; there are left-a-b"):
        plan([LinkRequest("b", "c", loss=1)])


def test_options_that_contradict_each_other_after_the_request_are_refused() -> None:
    with pytest.raises(LabPlanError, match="reorder needs a delay"):
        plan([LinkRequest("left-a", "b", delay=0)], delay="10ms", reorder=5)


def test_a_scenarios_links_reach_the_plan_merged_per_variant() -> None:
    slow = Impairment(16e6, 0.020, 0.002, 0.01, 0.005, 0.03, 64)
    assert impairments(scenario_plan("slow")) == (slow, slow)
    mended = impairments(scenario_plan("mended"))
    assert mended == (Impairment(50e6, 0.020, 0.002, 0.0, 0.005, 0.03, 64),) * 2
    assert [link.impairments is None for link in scenario_plan("slow").links] == [False, True, True, True, True]
    assert [link.mtu_octets for link in scenario_plan("small").links].count(1400) == 1


def test_the_plan_says_what_is_wrong_with_which_direction() -> None:
    text = scenario_plan("slow").describe()
    wrong = (
        "rate 16 Mbit/s, delay 20 ms, jitter 2 ms (uniform), loss 1 %, duplicate 0.5 %, reorder 3 %, queue 64 packets"
    )
    assert f"link client to isp: {wrong}\nlink isp to client: {wrong}\n" in text


def test_the_seed_is_the_scenarios_and_nothing_but_it_changes() -> None:
    one, other = scenario_plan("slow", 1), scenario_plan("slow", 2)
    assert (one.seed, other.seed) == (1, 2)
    assert {**one.to_dict(), "seed": 2} == other.to_dict()
