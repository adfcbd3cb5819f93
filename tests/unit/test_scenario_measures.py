"""Expectations of what is measured, as a scenario file writes them."""

from __future__ import annotations

import pytest

from testbed.scenario import ScenarioErrors
from testbed.scenario.dump import dump_scenario
from testbed.scenario.load import parse_scenario
from testbed.scenario.schema import scenario_schema
from testbed.scenario.values import Scenario

FILE = """title: t
sites: {{www.example.com: {{address: 93.184.216.34, node: web, http: true}}}}
tunnel: {{}}
workload: [{{dns: www.example.com}}]
variants: {{without: {{tunnel: null}}, with: {{}}}}
expect:
  - {{variant: {variant}, observer: {observer}, {says}}}
"""


def load(says: str, observer: str = "isp", variant: str = "with") -> Scenario:
    return parse_scenario(FILE.format(says=says, observer=observer, variant=variant).encode(), "x.yaml")


@pytest.mark.parametrize(
    ("says", "relation", "text"),
    [
        ("leaks: none", "leaks", "none"),
        ("leaks: '>= 1'", "leaks", ">= 1"),
        ("leaks: 0", "leaks", "== 0"),
        ("first_leak_after: '>= 2s'", "first_leak_after", ">= 2s"),
        ("first_leak_after: never", "first_leak_after", "never"),
        ("tunnel_detected_at_packet: '>= 100'", "tunnel_detected_at_packet", ">= 100"),
        ("volume: '<= 20 kB'", "volume", "<= 20 kB"),
        ("packets: '> 10'", "packets", "> 10"),
        ("overhead: '<= 60'", "overhead", "<= 60"),
        ("sees: [{kind: dns-name, count: '>= 2'}]", "sees", "dns-name (count >= 2)"),
        ("hides: {kind: dns-name, count: 2}", "hides", "dns-name (count == 2)"),
    ],
)
def test_each_form_is_read_and_written_back(says: str, relation: str, text: str) -> None:
    if says.startswith("hides: {"):
        says = says.replace("{", "[{").replace("}", "}]")
    scenario = load(says)
    (expectation,) = scenario.expectations
    assert (expectation.relation, str(expectation.selector), expectation.line) == (relation, text, 7)
    (again,) = parse_scenario(dump_scenario(scenario).encode(), "x.yaml").expectations
    assert (again.relation, again.selector) == (expectation.relation, expectation.selector)


@pytest.mark.parametrize("addresses", ["198.51.100.10", "[198.51.100.10, '2001:db8:3::10']"])
def test_the_callers_of_a_server_are_one_address_or_several(addresses: str) -> None:
    (expectation,) = load(f"client-address: {addresses}", '"server:www.example.com"').expectations
    assert expectation.relation == "client-address"
    assert str(expectation.selector) == addresses.strip("[]").replace("'", "")


@pytest.mark.parametrize(
    ("says", "observer", "variant", "message"),
    [
        (
            "leaks: some",
            "isp",
            "with",
            '7:43: expect[0].leaks: value some: must be none, or a comparison such as ">= 1"',
        ),
        ("volume: '<= 3 parsecs'", "isp", "with", "expect[0].volume: value <= 3 parsecs: must be a comparison"),
        ("leaks: none", "isp", "without", "variant without has no tunnel"),
        ("overhead: 60", "isp", "without", "variant without has no tunnel"),
        ("leaks: none", '"server:www.example.com"', "with", "is measured at a tap; allowed are isp"),
        ("client-address: 192.0.2.1", "isp", "with", "only a server's log knows who called"),
        ("client-adress: 192.0.2.1", "isp", "with", "did you mean client-address?"),
        ("sees: [{kind: dns-name, count: few}]", "isp", "with", "count: value few: must be a comparison"),
    ],
)
def test_what_cannot_be_asked_is_refused_at_its_place(says: str, observer: str, variant: str, message: str) -> None:
    with pytest.raises(ScenarioErrors) as refused:
        load(says, observer, variant)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "says",
    [
        "leaks: some",
        "leaks: nonee",
        "first_leak_after: soon",
        "tunnel_detected_at_packet: x",
        "volume: x",
        "sees: [{kind: x}]",
    ],
)
def test_a_wrong_value_is_one_mistake(says: str) -> None:
    """What is cut out as wrong must not be missed afterwards."""
    with pytest.raises(ScenarioErrors) as refused:
        load(says)
    assert len(refused.value.mistakes) == 1, str(refused.value)


def test_what_else_is_wrong_with_an_expectation_of_an_unknown_variant_is_told_too() -> None:
    with pytest.raises(ScenarioErrors) as refused:
        load("leaks: nonee, sees: [{kind: dns-name, action: 7-dns, site: www.example.org}]", "isq", "wit")
    told = [mistake.path for mistake in refused.value.mistakes]
    wrong = ("variant", "observer", "leaks", "sees[0].site", "sees[0].action")
    assert sorted(told) == sorted(f"expect[0].{key}" for key in wrong), str(refused.value)


def test_what_any_variant_has_is_right_where_the_variant_is_unknown() -> None:
    with pytest.raises(ScenarioErrors) as refused:
        load("leaks: none, sees: [{kind: dns-name, action: 1-dns, site: www.example.com}]", variant="wit")
    assert [mistake.path for mistake in refused.value.mistakes] == ["expect[0].variant"]


def test_the_schema_knows_every_key() -> None:
    expect = scenario_schema()["$defs"]["ExpectModel"]["properties"]
    assert {"leaks", "first_leak_after", "tunnel_detected_at_packet", "volume", "packets", "overhead"} <= set(expect)
    assert "client-address" in expect
    assert "client_address" not in expect
    assert all(expect[key].get("description") for key in expect)
