"""The four conditions of "hidden", each shown to matter by its absence, and what a run is told about them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from testbed.facts import Fact, Kind
from testbed.result import ActionRecord, Evidence, Exposure, Verdict
from testbed.scenario import Expectation, Selector
from testbed.verdict import Judgement, VariantEvidence, judge, parse_site_log
from testbed.verdict.judge import ambient_facts
from tests.unit.verdict_samples import (
    CLIENT,
    RESOLVER,
    SECOND,
    SITE,
    TUNNEL,
    VPN,
    Frame,
    frames_of,
    packet,
    sighting,
    tap,
    url_fact,
    variant,
)

CIPHERTEXT = packet(VPN, b"\x48" + bytes(60))
OPENED = packet(SITE, b"GET /?visit=aaaaaaaaaaaaaaaa HTTP/1.1")
WITHOUT = variant(
    "without",
    [url_fact("aaaaaaaaaaaaaaaa")],
    tap("isp", frames=frames_of(OPENED), variant="without"),
    tunnel=None,
)


def with_tunnel(*facts: Fact, octets: tuple[bytes, ...] = (CIPHERTEXT,), **changes: object) -> VariantEvidence:
    listening = replace(tap("isp", frames=frames_of(*octets)), **changes)  # type: ignore[arg-type]
    return variant("with", facts or (url_fact("bbbbbbbbbbbbbbbb"),), listening)


def cell(judgement: Judgement, kind: Kind = Kind.HTTP_URL, observer: str = "isp", name: str = "with") -> Exposure:
    (found,) = [
        row
        for row in judgement.exposures[name]
        if row.fact.kind == kind and row.observer == observer and row.fact.action != "tunnel"
    ]
    return found


def told(evidence: list[VariantEvidence], relation: str, kind: str, **narrow: str) -> tuple[bool, str]:
    observer = narrow.pop("observer", "isp")
    claim = Expectation("with", observer, relation, Selector(kind, **narrow))  # type: ignore[arg-type]
    (result,) = judge(evidence, [claim]).expectations
    return result.holds, result.reason


def test_hidden_needs_all_four_conditions_and_says_what_was_searched_and_which_control_fired() -> None:
    row = cell(judge([WITHOUT, with_tunnel()]))
    assert row.verdict is Verdict.HIDDEN
    for part in (
        "bbbbbbbbbbbbbbbb",
        f"all {len(CIPHERTEXT)} octets of 1 packets",
        "base64",
        "without/isp.pcapng frame 1",
    ):
        assert part in row.reason


def test_what_a_dissector_read_is_seen_with_its_frames_and_filter() -> None:
    fact = url_fact("bbbbbbbbbbbbbbbb")
    seen = with_tunnel(fact, sightings=(sighting(Kind.HTTP_URL, fact.value, 1, text="http.request.full_uri"),))
    row = cell(judge([WITHOUT, seen]))
    assert row.verdict is Verdict.SEEN
    assert row.evidence == (Evidence("with/isp.pcapng", 1, 101.0, "http.request.full_uri"),)


def test_what_only_the_search_finds_is_seen_too() -> None:
    row = cell(judge([WITHOUT, with_tunnel(octets=(CIPHERTEXT, packet(VPN, b"..bbbbbbbbbbbbbbbb..")))]))
    assert row.verdict is Verdict.SEEN
    assert row.evidence[0].frame == 2
    assert row.evidence[0].filter == 'frame contains "bbbbbbbbbbbbbbbb"'


def test_one_lost_packet_makes_everything_unproven() -> None:
    row = cell(judge([WITHOUT, with_tunnel(dropped=1)]))
    assert (row.verdict, row.reason) == (Verdict.UNPROVEN, "the tap lost 1 packet, so nothing can be called hidden")


def test_a_lossy_tap_still_shows_what_it_did_record() -> None:
    lossy = with_tunnel(octets=(packet(SITE, b"bbbbbbbbbbbbbbbb"),), dropped=512)
    assert cell(judge([WITHOUT, lossy])).verdict is Verdict.SEEN


def test_no_control_makes_unproven() -> None:
    row = cell(judge([with_tunnel()]))
    assert row.verdict is Verdict.UNPROVEN
    assert row.reason.startswith("no control")


def test_a_control_that_does_not_fire_makes_unproven() -> None:
    silent = variant(
        "without",
        [url_fact("aaaaaaaaaaaaaaaa")],
        tap("isp", frames=frames_of(packet(SITE, b"something else")), variant="without"),
        tunnel=None,
    )
    assert cell(judge([silent, with_tunnel()])).verdict is Verdict.UNPROVEN


def test_a_sighting_alone_is_no_control_for_the_text_search() -> None:
    fact = url_fact("aaaaaaaaaaaaaaaa")
    claimed = tap("isp", sighting(Kind.HTTP_URL, fact.value), frames=frames_of(packet(SITE)), variant="without")
    assert cell(judge([variant("without", [fact], claimed, tunnel=None), with_tunnel()])).verdict is Verdict.UNPROVEN


def test_another_variant_with_a_tunnel_is_no_control() -> None:
    assert cell(judge([replace(WITHOUT, tunnel=TUNNEL), with_tunnel()])).verdict is Verdict.UNPROVEN


def test_the_clients_tun_device_is_a_control_for_what_the_tunnel_hides() -> None:
    inside = tap("client-tun", frames=frames_of(packet(SITE, b"bbbbbbbbbbbbbbbb")[14:]))
    row = cell(judge([replace(with_tunnel(), client_tun=inside)]))
    assert row.verdict is Verdict.HIDDEN
    assert "with/client-tun.pcapng frame 1" in row.reason


def test_the_sites_own_log_is_a_control_for_what_tls_hides() -> None:
    fact = url_fact("aaaaaaaaaaaaaaaa", "3-https", "https")
    log = parse_site_log("www.example.com", "without/logs/x.jsonl", f'{{"url": "{fact.value}"}}\n'.encode())
    listening = tap("isp", frames=frames_of(packet(SITE, bytes(50))), variant="without")
    row = cell(judge([variant("without", [fact], listening, tunnel=None, logs=[log])]), name="without")
    assert row.verdict is Verdict.HIDDEN
    assert "without/logs/x.jsonl line 1" in row.reason


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"frames": (), "packets": 0}, "recorded no packet"),
        ({"packets": 9}, "counted 9 packets, but the file has 1"),
        ({"damage": "the file ends in the middle of a block"}, "the file ends in the middle"),
        ({"frames": (Frame(1, 1.0, CIPHERTEXT[:40], 1500),)}, "kept only a part of 1 packets"),
    ],
)
def test_a_capture_that_is_not_whole_proves_nothing(changes: dict[str, Any], words: str) -> None:
    row = cell(judge([WITHOUT, with_tunnel(**changes)]))
    assert row.verdict is Verdict.UNPROVEN
    assert words in row.reason


def test_a_fact_that_cannot_be_searched_is_unproven_never_hidden() -> None:
    bare = replace(url_fact("bbbbbbbbbbbbbbbb"), needles=())
    row = cell(judge([WITHOUT, with_tunnel(bare)]))
    assert row.verdict is Verdict.UNPROVEN
    assert "nothing to search for" in row.reason


def test_volume_and_timing_are_never_hidden() -> None:
    judgement = judge([WITHOUT, with_tunnel()])
    assert cell(judgement, Kind.VOLUME).verdict is Verdict.UNPROVEN
    assert cell(judgement, Kind.TIMING).verdict is Verdict.UNPROVEN


def test_addresses_are_searched_in_parsed_fields_with_an_address_as_control() -> None:
    fact = Fact(Kind.SERVER_ADDRESS, SITE, "2-http", "www.example.com")
    control = tap("isp", sighting(Kind.SERVER_ADDRESS, SITE), frames=frames_of(OPENED), variant="without")
    without = variant("without", [fact], control, tunnel=None)
    row = cell(judge([without, with_tunnel(fact)]), Kind.SERVER_ADDRESS)
    assert row.verdict is Verdict.HIDDEN
    assert "parsed headers and DNS answers" in row.reason
    answered = with_tunnel(fact, sightings=(sighting(Kind.DNS_ANSWER, SITE),))
    assert cell(judge([without, answered]), Kind.SERVER_ADDRESS).reason == f"{SITE} stands in frame 1 as dns-answer"


def test_the_tunnel_is_seen_at_its_endpoint_and_the_endpoint_is_no_server_address_of_the_user() -> None:
    ends = f"openvpn {CLIENT}:4000 -> {VPN}:1194"
    shown = with_tunnel(sightings=(sighting(Kind.TUNNEL, ends), sighting(Kind.SERVER_ADDRESS, VPN)))
    assert told([WITHOUT, shown], "sees", "tunnel")[0]
    assert told([WITHOUT, shown], "sees", "server-address", action="tunnel")[0]
    holds, reason = told([WITHOUT, shown], "hides", "server-address")
    assert not holds
    assert "the client did nothing" in reason, "there is no server-address of the user here"
    other = with_tunnel(sightings=(sighting(Kind.TUNNEL, f"openvpn {CLIENT}:4000 -> {VPN}1:1194"),))
    assert not told([WITHOUT, other], "sees", "tunnel")[0]


# -- expectations ------------------------------------------------------------------------------------------------------


def test_an_unproven_fact_fails_hides_with_the_reason() -> None:
    holds, reason = told([WITHOUT, with_tunnel(dropped=512)], "hides", "http-url")
    assert not holds
    assert "the tap lost 512 packets, so nothing can be called hidden" in reason


def test_a_lookup_outside_the_tunnel_is_explained_with_frame_filter_and_server() -> None:
    fact = Fact(Kind.DNS_NAME, "www.example.com", "1-dns", "www.example.com", ("www.example.com",))
    looked_up = sighting(Kind.DNS_NAME, "www.example.com", 2, text='dns.qry.name == "www.example.com"')
    leaking = with_tunnel(fact, octets=(CIPHERTEXT, packet(RESOLVER)), sightings=(looked_up,))
    holds, reason = told([WITHOUT, leaking], "hides", "dns-name")
    assert not holds
    assert reason.startswith("www.example.com was looked up in clear: with/isp.pcapng frame 2 (dns.qry.name ==")
    assert "the DNS server 192.168.0.1 is reached outside the tunnel" in reason


@pytest.mark.parametrize(
    ("routes", "words"),
    [
        ((), "no route leads into it"),
        (("2001:db8::/32",), "none of its routes covers the address"),
        ("all", "although its routes should cover the address"),
    ],
)
def test_a_page_opened_outside_the_tunnel_is_explained_by_its_routes(routes: tuple[str, ...], words: str) -> None:
    outside = replace(with_tunnel(octets=(packet(SITE, b"bbbbbbbbbbbbbbbb"),)), tunnel=replace(TUNNEL, routes=routes))
    holds, reason = told([WITHOUT, outside], "hides", "http-url")
    assert not holds
    assert f"{SITE} is reached outside the tunnel" in reason
    assert words in reason


def test_what_was_never_done_cannot_be_hidden() -> None:
    holds, reason = told([WITHOUT, with_tunnel()], "hides", "http-body")
    assert not holds
    assert "the client did nothing that makes a fact http-body" in reason


def test_a_failed_action_fails_what_it_should_have_shown() -> None:
    failed = ActionRecord("3-https", "https", "https://www.example.com/", False, 1.0, 2.0, error="no answer within 5 s")
    done = ActionRecord("2-http", "http", "http://www.example.com/", True, 1.0, 2.0)
    evidence = replace(with_tunnel(), actions=(done, failed))
    holds, reason = told([WITHOUT, evidence], "hides", "http-url")
    assert not holds
    assert "3-https (https://www.example.com/) failed" in reason
    assert told([WITHOUT, evidence], "hides", "http-url", action="2-http")[0]
    assert any("3-https failed: no answer within 5 s" in warning for warning in judge([evidence]).warnings)


def test_expectations_of_variants_that_did_not_run_are_left_out() -> None:
    claim = Expectation("split", "isp", "sees", Selector("tunnel"))
    assert judge([with_tunnel()], [claim]).expectations == ()


def program(ok: bool, argument: str = "http://www.example.com/{canary}") -> ActionRecord:
    return ActionRecord("4-run", "run", f"curl {argument}", ok, 1.0, 2.0, error="" if ok else "exit code 6: no output")


def program_fact(token: str) -> Fact:
    return Fact(Kind.PAYLOAD, token, "4-run", None, (token,))


def ran_without() -> VariantEvidence:
    sent = tap("isp", frames=frames_of(packet(SITE, b"aaaaaaaaaaaaaaaa")), variant="without")
    return variant("without", [program_fact("aaaaaaaaaaaaaaaa")], sent, tunnel=None)


@pytest.mark.parametrize(("ok", "why"), [(True, "nothing shows that 4-run sent"), (False, "4-run failed (exit code 6")])
def test_what_a_program_may_never_have_sent_is_hidden_only_if_something_shows_that_it_did(ok: bool, why: str) -> None:
    ran = replace(with_tunnel(program_fact("bbbbbbbbbbbbbbbb")), actions=(program(ok),))
    row = cell(judge([ran_without(), ran]), Kind.PAYLOAD)
    assert row.verdict is Verdict.UNPROVEN
    assert row.reason.startswith(why)
    inside = tap("client-tun", frames=frames_of(packet(SITE, b"bbbbbbbbbbbbbbbb")[14:]))
    assert cell(judge([ran_without(), replace(ran, client_tun=inside)]), Kind.PAYLOAD).verdict is Verdict.HIDDEN


@pytest.mark.parametrize("argument", ["{canary}", "quiet"])
def test_a_program_that_never_started_hides_nothing_of_what_it_was_to_send(argument: str) -> None:
    pinged = replace(program_fact("bbbbbbbbbbbbbbbb"), action="3-ping")
    ran = replace(with_tunnel(pinged), actions=(program(False, argument),))
    holds, reason = told([ran_without(), ran], "hides", "payload")
    assert holds == (argument == "quiet"), reason


@pytest.mark.parametrize("sent", [True, False])
def test_a_form_that_was_never_sent_does_not_hide_its_content(sent: bool) -> None:
    body = Fact(Kind.HTTP_BODY, "note=bbbbbbbbbbbbbbbb", "2-http", "www.example.com", ("bbbbbbbbbbbbbbbb",))
    other = ActionRecord("3-http", "http", "http://www.example.com/", False, 1.0, 2.0, error="404, 9 octets")
    ran = replace(with_tunnel(body, *([url_fact("dddddddddddddddd", "3-http")] if sent else [])), actions=(other,))
    clear = tap("isp", frames=frames_of(packet(SITE, b"aaaaaaaaaaaaaaaa")), variant="without")
    twin = replace(body, value="note=aaaaaaaaaaaaaaaa", needles=("aaaaaaaaaaaaaaaa",))
    without = variant("without", [twin], clear, tunnel=None)
    holds, reason = told([without, ran], "hides", "http-body")
    assert holds == sent, reason


def test_what_was_read_in_clear_beside_a_tunnel_and_no_action_told_of_is_warned_about() -> None:
    told_of = url_fact("bbbbbbbbbbbbbbbb")
    quiet = sighting(Kind.HTTP_URL, "http://www.example.com/quiet", 1)
    (warning,) = judge([with_tunnel(told_of, sightings=(quiet, sighting(Kind.HTTP_URL, told_of.value)))]).warnings
    assert "isp read http-url http://www.example.com/quiet in frame 1" in warning
    assert judge([with_tunnel(told_of, sightings=(quiet,), before_tunnel_server=False)]).warnings == ()


# -- leaks -------------------------------------------------------------------------------------------------------------


def leaks(evidence: VariantEvidence) -> list[tuple[str, str]]:
    return [(leak["kind"], leak["value"]) for leak in judge([WITHOUT, evidence]).leaks[evidence.variant]]


def test_a_full_tunnel_leaks_whatever_of_the_user_is_seen_before_the_vpn() -> None:
    fact = url_fact("bbbbbbbbbbbbbbbb")
    client = Fact(Kind.CLIENT_ADDRESS, CLIENT, "2-http", "www.example.com")
    seen = (sighting(Kind.CLIENT_ADDRESS, CLIENT), sighting(Kind.HTTP_URL, fact.value))
    assert leaks(with_tunnel(fact, client, sightings=seen)) == [("http-url", fact.value)]


def test_what_is_seen_behind_the_vpn_server_is_no_leak() -> None:
    behind = tap("transit", frames=frames_of(packet(SITE, b"bbbbbbbbbbbbbbbb")), before_tunnel_server=False)
    assert leaks(variant("with", [url_fact("bbbbbbbbbbbbbbbb")], behind)) == []


def test_without_a_tunnel_nothing_leaks() -> None:
    assert judge([WITHOUT]).leaks == {"without": ()}


def test_a_split_tunnel_leaks_only_what_its_routes_cover() -> None:
    inside, outside = url_fact("bbbbbbbbbbbbbbbb", "4-http"), url_fact("dddddddddddddddd", "5-http")
    facts = (
        inside,
        outside,
        Fact(Kind.SERVER_ADDRESS, SECOND, "4-http", "www.example.com"),
        Fact(Kind.SERVER_ADDRESS, SITE, "5-http", "www.example.com"),
    )
    both = (sighting(Kind.HTTP_URL, inside.value), sighting(Kind.HTTP_URL, outside.value))
    split = replace(with_tunnel(*facts, sightings=both), tunnel=replace(TUNNEL, routes=("203.0.113.0/24",)))
    assert leaks(split) == [("http-url", inside.value)]


def test_a_full_tunnel_promises_names_and_a_split_one_only_if_it_resolves_them() -> None:
    fact = Fact(Kind.DNS_NAME, "www.example.com", "1-dns", "www.example.com", ("www.example.com",))
    seen = with_tunnel(fact, sightings=(sighting(Kind.DNS_NAME, "www.example.com"),))
    assert leaks(seen) == [("dns-name", "www.example.com")]
    assert leaks(replace(seen, tunnel=replace(TUNNEL, dns="isp"))) == [("dns-name", "www.example.com")]
    assert leaks(replace(seen, tunnel=replace(TUNNEL, dns="isp", routes=("203.0.113.0/24",)))) == []


@pytest.mark.parametrize(
    ("addresses", "facts", "expected"),
    [
        (("192.168.0.13", "2001:db8:1::13", "fe80::1"), (), ["192.168.0.13"]),
        (("192.168.0.13",), (Fact(Kind.CLIENT_ADDRESS, "192.168.0.13", "1-http"),), []),
    ],
)
def test_the_clients_own_address_outside_the_tunnel_is_a_fact_even_if_no_action_made_it_one(
    addresses: tuple[str, ...], facts: tuple[Fact, ...], expected: list[str]
) -> None:
    evidence = replace(variant("with", facts=facts), client_addresses=addresses)
    found = [fact for fact in ambient_facts(evidence) if fact.kind is Kind.CLIENT_ADDRESS]
    assert [fact.value for fact in found] == expected
    assert all(fact.action == "tunnel" for fact in found)
