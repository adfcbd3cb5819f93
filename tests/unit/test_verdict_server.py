"""The observer `server:<site>`: what a site's own log tells, and what it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from testbed.facts import Fact, Kind
from testbed.result import Exposure, Verdict
from testbed.verdict import VariantEvidence, judge, parse_site_log
from tests.unit.verdict_samples import CLIENT, VPN, url_fact, variant

SITE_NAME = "www.example.com"
ADDRESS = Fact(Kind.CLIENT_ADDRESS, CLIENT, "2-http", SITE_NAME)


def line(token: str, source: str, **more: Any) -> str:
    record = {"time": 7.5, "source": [source, 4000], "local": ["93.184.216.34", 80], "headers": [["Host", SITE_NAME]]}
    return json.dumps({**record, "url": f"http://www.example.com/?visit={token}", **more})


def evidence(name: str, token: str, *lines: str) -> VariantEvidence:
    log = parse_site_log(SITE_NAME, f"{name}/logs/{SITE_NAME}.jsonl", "\n".join(lines).encode())
    return variant(name, [url_fact(token), ADDRESS], logs=[log])


def cell(judged: list[VariantEvidence], kind: Kind = Kind.CLIENT_ADDRESS, name: str = "with") -> Exposure:
    rows = judge(judged).exposures[name]
    (row,) = [row for row in rows if row.fact.kind == kind and row.observer == "server:www.example.com"]
    return row


def test_the_clients_address_is_seen_where_the_log_has_it_as_source() -> None:
    row = cell([evidence("with", "aaaaaaaaaaaaaaaa", "{}", line("aaaaaaaaaaaaaaaa", CLIENT))])
    assert row.verdict is Verdict.SEEN
    assert [(e.file, e.frame, e.time) for e in row.evidence] == [("with/logs/www.example.com.jsonl", 2, 7.5)]


def test_the_clients_address_is_hidden_where_its_request_came_from_the_vpn() -> None:
    row = cell([evidence("with", "aaaaaaaaaaaaaaaa", line("aaaaaaaaaaaaaaaa", VPN))])
    assert row.verdict is Verdict.HIDDEN
    assert f"the request came from {VPN}" in row.reason


def test_an_address_in_a_forwarding_header_is_seen() -> None:
    told = line("aaaaaaaaaaaaaaaa", VPN, headers=[["X-Forwarded-For", f"10.0.0.1, {CLIENT}"]])
    assert cell([evidence("with", "aaaaaaaaaaaaaaaa", told)]).verdict is Verdict.SEEN


def test_an_address_that_merely_begins_alike_is_not_the_clients() -> None:
    told = line("aaaaaaaaaaaaaaaa", VPN, headers=[["X-Forwarded-For", f"{CLIENT}7"]])
    assert cell([evidence("with", "aaaaaaaaaaaaaaaa", told)]).verdict is Verdict.HIDDEN


def test_another_actions_line_for_the_same_name_is_not_taken_for_this_ones() -> None:
    judged = evidence("with", "aaaaaaaaaaaaaaaa", line("dddddddddddddddd", VPN, host="93.184.216.34"))
    host = Fact(Kind.HTTP_HOST, "93.184.216.34", "2-http", SITE_NAME, ("93.184.216.34",))
    row = cell([replace(judged, facts=(*judged.facts, host))])
    assert row.verdict is Verdict.UNPROVEN, row.reason


def test_a_log_without_the_request_proves_nothing() -> None:
    row = cell([evidence("with", "aaaaaaaaaaaaaaaa", line("dddddddddddddddd", VPN))])
    assert row.verdict is Verdict.UNPROVEN
    assert "no line of 2-http" in row.reason


def test_a_broken_line_makes_the_log_prove_nothing() -> None:
    row = cell([evidence("with", "aaaaaaaaaaaaaaaa", line("aaaaaaaaaaaaaaaa", VPN), '{"source": ["192.')])
    assert row.verdict is Verdict.UNPROVEN
    assert "line 2 cannot be read" in row.reason


def test_what_the_client_asked_for_is_seen_by_the_server() -> None:
    row = cell([evidence("with", "aaaaaaaaaaaaaaaa", line("aaaaaaaaaaaaaaaa", VPN))], Kind.HTTP_URL)
    assert row.verdict is Verdict.SEEN


def test_a_value_the_server_did_not_record_needs_a_log_that_would_have() -> None:
    body = Fact(Kind.HTTP_BODY, "note=eeeeeeeeeeeeeeee", "2-http", SITE_NAME, ("eeeeeeeeeeeeeeee",))
    lost = parse_site_log(SITE_NAME, "with/logs/x.jsonl", line("aaaaaaaaaaaaaaaa", VPN, body="").encode())
    judged = variant("with", [url_fact("aaaaaaaaaaaaaaaa"), body], logs=[lost])
    assert cell([judged], Kind.HTTP_BODY).verdict is Verdict.UNPROVEN
    kept = line("aaaaaaaaaaaaaaaa", CLIENT, body=body.value)
    control = variant("without", [body], tunnel=None, logs=[parse_site_log(SITE_NAME, "c.jsonl", kept.encode())])
    assert cell([judged, control], Kind.HTTP_BODY).verdict is Verdict.HIDDEN


def test_kinds_that_a_log_cannot_know_have_no_cell() -> None:
    name = Fact(Kind.DNS_NAME, SITE_NAME, "2-http", SITE_NAME, (SITE_NAME,))
    log = parse_site_log(SITE_NAME, "x.jsonl", line("aaaaaaaaaaaaaaaa", VPN).encode())
    assert judge([variant("with", [name], logs=[log])]).exposures["with"] == ()


def test_line_numbers_survive_lines_that_are_no_json() -> None:
    log = parse_site_log(SITE_NAME, "x.jsonl", b'{"a": 1}\nnot json\n[1]\n{"b": 2}\n')
    assert log.records == ({"a": 1}, None, None, {"b": 2})
