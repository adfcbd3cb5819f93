"""Scenario keys of the lab's services: HTTP versions and resolvers, as values, and each mistake with place and fix."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed.internet import lookup_warning, roles_of, services_request
from testbed.lab.topology import load_topology
from testbed.scenario import ScenarioErrors, find_scenario, load_scenario
from testbed.scenario.load import parse_scenario
from testbed.scenario.values import Lookup

ROOT = Path(__file__).resolve().parents[2]
HEAD = """title: Names
sites:
  www.example.com: {address: 93.184.216.34, node: web, http: true, https: true, http3: true}
  old.example.com: {address: 93.184.216.35, node: web, http: true}
  quic.example.com: {address: 93.184.216.36, node: web, http3: true}
  dns.example.net: {address: [203.0.113.53, "2001:db8:4::853"], node: web, dot: true, doh: true}
  intranet.example.org: {address: 10.20.0.10, node: private, private: true, doh: true}
"""


def mistakes(tail: str) -> list[str]:
    with pytest.raises(ScenarioErrors) as caught:
        parse_scenario((HEAD + tail).encode(), "file.yaml")
    return [str(mistake) for mistake in caught.value.mistakes]


def work(*items: str, more: str = "") -> str:
    return f"{more}workload:\n" + "".join(f"  - {item}\n" for item in items)


@pytest.mark.parametrize(
    ("item", "mistake"),
    [
        (
            '{https: {url: "https://old.example.com/", version: 3}}',
            (
                "file.yaml:9:56: workload[0].https.version: value 3: old.example.com does not serve HTTP/3; "
                "give the site `http3: true`"
            ),
        ),
        (
            '{http: {url: "http://www.example.com/", version: 3}}',
            (
                "workload[0].http.version: value 3: HTTP/3 is always encrypted, there is none for http:// URLs; "
                "use an action `https`"
            ),
        ),
        (
            '{https: {url: "https://www.example.com/", version: 4}}',
            "workload[0].https.version: value 4: allowed: 1.1, 2, 3",
        ),
        (
            "{https: https://quic.example.com/}",
            "quic.example.com does not serve https; give the site `https: true`, or the action `version: 3`",
        ),
        ("{http: http://dns.example.net/}", "dns.example.net does not serve http; give the site `http: true`"),
        (
            "{dns: {name: www.example.com, over: dohh}}",
            "workload[0].dns.over: value dohh: allowed: udp, tcp, dot, doh; did you mean doh?",
        ),
        (
            "{dns: {name: www.example.com, over: doh, server: dns.exampel.net}}",
            (
                "file.yaml:9:54: workload[0].dns.server: value dns.exampel.net: no such site; "
                "allowed: dns.example.net, intranet.example.org; did you mean dns.example.net?"
            ),
        ),
        (
            "{dns: {name: www.example.com, over: tcp, server: dns.example.net}}",
            (
                "workload[0].dns.server: value dns.example.net: dns.example.net does not answer over tcp; "
                "give the site `dns: true`, or ask it over dot or doh"
            ),
        ),
        (
            "{dns: {name: www.example.com, over: dot, server: www.example.com}}",
            "value www.example.com: www.example.com does not answer over dot; give the site `dot: true`",
        ),
        (
            '{dns: {name: www.example.com, over: dot, server: "203.0.113.54#dns.example.net"}}',
            "dns.example.net has no such address; allowed: 203.0.113.53, 2001:db8:4::853",
        ),
        (
            "{dns: {name: www.example.com, over: doh, server: https://dns.example.net/dns-query}}",
            "must be the resolver's name alone, such as dns.example.net; `over: doh` makes the URL",
        ),
        (
            "{dns: {name: www.example.com, over: dot, server: 93.184.216.34}}",
            "value 93.184.216.34: www.example.com does not answer over dot",
        ),
    ],
)
def test_what_the_sites_cannot_do_is_named_with_its_place_and_the_key_that_helps(item: str, mistake: str) -> None:
    (found,) = mistakes(work(item))
    assert mistake in found
    assert found.startswith("file.yaml:9:")


def test_the_variant_s_own_way_to_names_is_checked_once() -> None:
    found = mistakes(work("{dns: www.example.com}", "{dns: old.example.com}", more="dns: {server: dns.example.net}\n"))
    assert found == [
        (
            "file.yaml:8:15: dns.server: value dns.example.net: dns.example.net does not answer over udp; "
            "give the site `dns: true`, or ask it over dot or doh"
        )
    ]


def test_an_action_asks_as_it_says_and_for_the_rest_as_the_variant_does() -> None:
    text = work(
        "{dns: www.example.com}",
        "{dns: {name: www.example.com, over: dot}}",
        "{dns: {name: www.example.com, over: udp, server: null}}",
        "{https: https://www.example.com/}",
        "{ping: www.example.com}",
        "{run: [curl, https://www.example.com/]}",
        more="dns: {over: doh, server: 203.0.113.53#dns.example.net}\n",
    )
    scenario = parse_scenario((HEAD + text).encode(), "file.yaml")
    (variant,) = scenario.variants.values()
    assert variant.dns == Lookup("doh", "203.0.113.53#dns.example.net")
    asked = [(action.over, action.server) for action in variant.workload]
    doh, server = "doh", "203.0.113.53#dns.example.net"
    assert asked == [(doh, server), ("dot", server), ("udp", None), (doh, server), (doh, server), ("udp", None)]
    again = parse_scenario(scenario.resolved_yaml().encode(), "file.yaml")
    assert again.variants == scenario.variants, "what a run writes down loads to the same"


@pytest.mark.parametrize(("written", "version"), [("2", "2"), ("2.0", "2"), ('"2"', "2"), ("1.1", "1.1"), ("3", "3")])
def test_a_version_may_be_written_as_a_number_or_as_text(written: str, version: str) -> None:
    text = work(f"{{https: {{url: https://www.example.com/, version: {written}}}}}")
    (variant,) = parse_scenario((HEAD + text).encode(), "file.yaml").variants.values()
    assert variant.workload[0].version == version


def test_the_resolvers_of_the_topology_answer_over_tls_and_https_too() -> None:
    text = work("{dns: www.example.com}", more="tunnel: {}\n")
    (variant,) = parse_scenario((HEAD + text).encode(), "file.yaml").variants.values()
    roles = roles_of(load_topology("client-isp-server"))
    request = services_request(variant, roles, nodes={}, log_directory=3, ca_certificate="/ca.pem")
    sites = {site.name: site for site in request.sites}
    isp, behind = sites["dns.isp.example"], sites["dns.vpn.example"]
    assert (isp.addresses, isp.node, isp.dot, isp.doh, isp.https) == (
        roles.resolver_addresses,
        "isp",
        True,
        True,
        False,
    )
    assert (behind.addresses, behind.freebind) == (("10.8.0.1", "2001:db8:8::1"), True)
    assert "intranet.example.org" in behind.forwards
    assert "intranet.example.org" not in isp.forwards
    public = {record.name for zone in request.authorities[0].zones for record in zone.records}
    assert {"dns.isp.example", "dns.vpn.example", "dns.example.net"} <= public


@pytest.mark.parametrize(
    ("more", "warned"),
    [
        ("dns: dot\n", True),
        ("dns: dot\ntunnel: {dns: isp}\n", True),
        ("dns: dot\ntunnel: {}\n", False),
        ("dns: {over: doh, server: dns.example.net}\n", False),
        ("dns: tcp\n", False),
    ],
)
def test_who_asks_the_isp_s_own_resolver_over_tls_is_told_that_it_reads_the_names(more: str, warned: bool) -> None:
    text = work("{dns: www.example.com}", more=more)
    (variant,) = parse_scenario((HEAD + text).encode(), "file.yaml").variants.values()
    warning = lookup_warning(variant, roles_of(load_topology("client-isp-server")))
    assert warning.startswith("1-dns asks the ISP's own resolver for names") is warned
    assert ("logs/dns.isp.example.jsonl" in warning) is warned


def test_a_resolver_that_is_a_site_asks_where_its_users_could_and_a_private_one_knows_private_names() -> None:
    (variant,) = parse_scenario((HEAD + work("{dns: www.example.com}")).encode(), "file.yaml").variants.values()
    roles = roles_of(load_topology("client-isp-server"))
    request = services_request(variant, roles, nodes={}, log_directory=3, ca_certificate="/ca.pem")
    sites = {site.name: site for site in request.sites}
    assert dict(sites["dns.example.net"].forwards) == {".": ("93.184.216.53", "2001:db8:4::53")}
    assert set(sites["intranet.example.org"].forwards) == {".", "intranet.example.org"}
    assert not sites["www.example.com"].forwards


def test_the_page_of_the_shipped_scenario_tries_overrides_that_load() -> None:
    text = (ROOT / "docs" / "encrypted-dns-and-quic.md").read_text("utf-8")
    settings = re.findall(r"testbed run encrypted-dns-and-quic --set (\S+)", text)
    assert len(settings) == 3
    for setting in settings:
        load_scenario(find_scenario("encrypted-dns-and-quic"), [setting])
