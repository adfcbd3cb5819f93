"""The observer `server:<resolver>`: what the log of a resolver that is a site tells of the names it was asked for."""

from __future__ import annotations

import json
from typing import Any

from testbed.facts import Fact, Kind
from testbed.result import Exposure, Verdict
from testbed.verdict import SiteLog, VariantEvidence, judge, parse_site_log
from tests.unit.verdict_samples import CLIENT, VPN, frames_of, packet, tap, variant

RESOLVER, ADDRESS = "dns.example.net", "203.0.113.53"
NAME = "clinic.example.org"
ASKED = (
    Fact(Kind.CLIENT_ADDRESS, CLIENT, "1-dns", RESOLVER),
    Fact(Kind.SERVER_ADDRESS, ADDRESS, "1-dns", RESOLVER),
    Fact(Kind.DNS_NAME, NAME, "1-dns", NAME, (NAME,)),
)


def log(*names: str, source: str = CLIENT) -> SiteLog:
    lines = [
        json.dumps(
            {"time": 7.5, "source": [source, 4000], "local": [ADDRESS, 853], "protocol": "DNS/TLS", "dns": query}
        )
        for query in ({"name": name, "type": "A"} for name in names)
    ]
    return parse_site_log(RESOLVER, f"logs/{RESOLVER}.jsonl", "\n".join(lines).encode())


def cells(evidence: VariantEvidence, observer: str = f"server:{RESOLVER}") -> dict[str, Exposure]:
    rows = judge([evidence]).exposures[evidence.variant]
    return {row.fact.kind: row for row in rows if row.observer == observer}


def asked(facts: tuple[Fact, ...] = ASKED, **options: Any) -> VariantEvidence:
    isp = tap("isp", frames=frames_of(packet(ADDRESS, b"\x17\x03\x03 sealed")), variant="doh")
    return variant("doh", list(facts), isp, tunnel=None, **options)


def test_a_resolver_sees_the_names_that_it_was_asked_for_whatever_site_they_are_of() -> None:
    seen = cells(asked(logs=[log("other.example", NAME)]))
    assert seen["dns-name"].verdict is Verdict.SEEN
    assert [evidence.frame for evidence in seen["dns-name"].evidence] == [2]
    assert seen["client-address"].verdict is Verdict.SEEN


def test_a_resolver_behind_a_vpn_sees_the_vpn_s_address() -> None:
    assert cells(asked(logs=[log(NAME, source=VPN)]))["client-address"].verdict is Verdict.HIDDEN


def test_what_another_resolver_was_asked_is_no_cell_of_this_one() -> None:
    elsewhere = Fact(Kind.DNS_NAME, NAME, "2-dns", NAME, (NAME,))
    rows = judge([asked((*ASKED, elsewhere), logs=[log(NAME)])]).exposures["doh"]
    assert {row.fact.action for row in rows if row.observer == f"server:{RESOLVER}"} == {"1-dns"}


def test_the_resolver_s_log_is_the_control_for_what_tls_hides_of_a_name() -> None:
    row = cells(asked(logs=[log(NAME)]), "isp")["dns-name"]
    assert row.verdict is Verdict.HIDDEN, row.reason
    assert f"logs/{RESOLVER}.jsonl line 1" in row.reason


def test_a_log_without_the_question_is_no_control() -> None:
    row = cells(asked(logs=[log("other.example")]), "isp")["dns-name"]
    assert row.verdict is Verdict.UNPROVEN
