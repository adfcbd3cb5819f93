"""What is judged although no action told of it: programs without a canary, packets beside the tunnel, other kinds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.facts import Fact, Kind, Sighting
from testbed.result import ActionRecord, Exposure, Verdict
from testbed.scenario.values import Expectation, Selector
from testbed.verdict import TapEvidence, VariantEvidence, judge
from tests.unit.verdict_samples import CLIENT, RESOLVER, SITE, TUNNEL, VPN, frames_of, packet, sighting, tap, variant

RAN = ActionRecord("1-run", "run", "curl http://www.example.com/secret-page", True, 100.0, 103.0)
URL = "http://www.example.com/secret-page"
REQUEST = b"GET /secret-page HTTP/1.1"
NAME = Fact(Kind.DNS_NAME, "www.example.com", "1-dns", "www.example.com", ("www.example.com",))


def rows(evidence: VariantEvidence, kind: Kind) -> list[Exposure]:
    return [row for row in judge([evidence]).exposures[evidence.variant] if row.fact.kind == kind]


def inside(*sightings: Sighting, text: bytes = REQUEST) -> TapEvidence:
    return tap("client-tun", *sightings, frames=frames_of(packet(SITE, text)))


def test_what_a_program_did_inside_the_tunnel_is_hidden_with_the_tun_device_as_control() -> None:
    evidence = variant(
        "with",
        [],
        tap("isp", frames=frames_of(packet(VPN))),
        client_tun=inside(sighting(Kind.HTTP_URL, URL)),
        actions=[RAN],
    )
    (row,) = rows(evidence, Kind.HTTP_URL)
    assert (row.verdict, row.fact.action, row.fact.value) == (Verdict.HIDDEN, "1-run", URL)
    assert "/secret-page" in row.reason


def test_what_a_program_did_beside_the_tunnel_is_seen_and_leaks() -> None:
    isp = tap("isp", sighting(Kind.DNS_NAME, "www.example.com"), frames=frames_of(packet(RESOLVER)))
    judgement = judge([variant("with", [], isp, actions=[RAN])])
    (row,) = [row for row in judgement.exposures["with"] if row.fact.kind == Kind.DNS_NAME]
    assert row.verdict is Verdict.SEEN
    assert [leak["value"] for leak in judgement.leaks["with"]] == ["www.example.com"]


def test_what_happened_while_no_program_ran_and_what_actions_told_makes_no_new_fact() -> None:
    late = replace(sighting(Kind.DNS_NAME, "late.example.com"), time=200.0)
    known = sighting(Kind.DNS_NAME, NAME.value)
    evidence = variant("with", [NAME], tap("isp", late, known, frames=frames_of(packet(VPN))), actions=[RAN])
    assert [row.fact.action for row in rows(evidence, Kind.DNS_NAME)] == ["1-dns"]


def test_a_page_whose_path_is_too_short_to_search_for_is_never_called_hidden() -> None:
    short = "http://www.example.com/"
    evidence = variant(
        "with",
        [],
        tap("isp", frames=frames_of(packet(VPN))),
        client_tun=inside(sighting(Kind.HTTP_URL, short), text=b"GET / HTTP/1.1"),
        actions=[RAN],
    )
    assert [row.verdict for row in rows(evidence, Kind.HTTP_URL)] == [Verdict.UNPROVEN]


def test_a_name_in_a_host_header_satisfies_no_expectation_of_a_lookup() -> None:
    expectation = Expectation("without", "isp", "sees", Selector("dns-name"))
    host = tap("isp", sighting(Kind.HTTP_HOST, NAME.value), frames=frames_of(b"Host: www.example.com"))
    (result,) = judge([variant("without", [NAME], host, tunnel=None)], [expectation]).expectations
    assert not result.holds
    assert "not read as a dns-name" in result.reason
    asked = tap("isp", sighting(Kind.DNS_NAME, NAME.value), frames=frames_of(b"www.example.com"))
    (result,) = judge([variant("without", [NAME], asked, tunnel=None)], [expectation]).expectations
    assert result.holds


@pytest.mark.parametrize("routes", ["all", (), ("0.0.0.0/0",), ("0.0.0.0/1", "128.0.0.0/1"), ("::/0",)])
def test_a_tunnel_that_was_to_take_everything_leaks_whatever_left_beside_it(routes: tuple[str, ...]) -> None:
    fact = Fact(Kind.SERVER_ADDRESS, "2001:db8:4::34", "2-http", "www.example.com")
    isp = tap("isp", sighting(Kind.SERVER_ADDRESS, fact.value), frames=frames_of(packet(VPN)))
    tunnel = replace(TUNNEL, routes=routes)
    assert [leak["value"] for leak in judge([variant("with", [fact], isp, tunnel=tunnel)]).leaks["with"]] == [
        fact.value
    ]


def test_a_split_tunnel_promises_nothing_of_what_its_routes_do_not_cover() -> None:
    fact = Fact(Kind.SERVER_ADDRESS, "2001:db8:4::34", "2-http", "www.example.com")
    isp = tap("isp", sighting(Kind.SERVER_ADDRESS, fact.value), frames=frames_of(packet("8.8.8.8")))
    tunnel = replace(TUNNEL, routes=("203.0.113.0/24",))
    evidence = replace(variant("split", [fact], isp, tunnel=tunnel), client_addresses=(CLIENT,))
    assert judge([evidence]).leaks["split"] == ()


def strays(*frames: bytes) -> list[tuple[str, int]]:
    evidence = replace(variant("with", [], tap("isp", frames=frames_of(*frames))), client_addresses=(CLIENT,))
    return [(leak["value"], leak["evidence"][0]["frame"]) for leak in judge([evidence]).leaks["with"]]


def test_packets_that_no_action_accounts_for_leak_once_for_each_address() -> None:
    frames = (packet(VPN), packet("8.8.8.8"), packet("8.8.8.8"), packet("192.0.2.9"))
    assert strays(*frames) == [("8.8.8.8", 2), ("192.0.2.9", 4)]


def test_the_links_own_housekeeping_and_what_comes_in_is_no_leak() -> None:
    assert strays(packet("224.0.0.251"), packet("255.255.255.255"), packet(CLIENT, source="8.8.8.8"), bytes(60)) == []
