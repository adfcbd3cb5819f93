"""The workload's request, canaries and small pure parts."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.scenario.values import Action as ScenarioAction
from testbed.workload import attempt as attempts
from testbed.workload.__main__ import chains
from testbed.workload.attempt import ActionFailed, Attempt
from testbed.workload.canary import Canaries
from testbed.workload.dns_channels import parse_answer
from testbed.workload.http_plan import plan_message, plan_target
from testbed.workload.ping import Echo, checksum, payload_text
from testbed.workload.request import Action, RequestError, WorkloadRequest
from testbed.workload.session import LinkCounters, session_facts
from testbed.workload.trust import trust_environment, write_bundle

SECRET = "ab" * 16


def parse(*actions: dict[str, Any], **keys: Any) -> WorkloadRequest:
    return WorkloadRequest.from_json(json.dumps({"variant": "v", "secret": SECRET, "actions": actions} | keys))


def attempt(**keys: Any) -> Attempt:
    action = Action(**{"id": "2-http", "verb": "http", "target": "http://www.example.com/account"} | keys)
    request = WorkloadRequest("v", SECRET, (action,), {"www.example.com": ("192.0.2.1",)})
    return Attempt(request, action, 0.0, lambda _: pytest.fail("no TLS here"))


def test_an_action_of_a_scenario_is_taken_as_it_is() -> None:
    planned = ScenarioAction(
        "1-https", "https", "https://a.example/", "a.example", "ipv6", (), "POST", (("X", "y"),), "b", (), 2, 0.1, 3.0
    )
    (action,) = parse(asdict(planned)).actions
    assert {key: value for key, value in asdict(action).items() if key != "group"} == asdict(planned)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ({"id": "1", "verb": "fly", "target": "x"}, "request.actions[0].verb: 'fly' is none of dns, http"),
        ({"id": "1", "verb": "dns"}, "request.actions[0].target: missing"),
        ({"id": "1", "verb": "run"}, "request.actions[0].argv: needs at least the program"),
        ({"verb": "dns", "target": "x"}, "request.actions[0].id: must be text"),
        ({"id": "1", "verb": "dns", "target": "x", "colour": 1}, "request.actions[0].colour: unknown key"),
        ({"id": "1", "verb": "dns", "target": "x", "timeout": "5"}, "request.actions[0].timeout: must be a number"),
        ({"id": "1", "verb": "ping", "target": "x", "count": 0}, "request.actions[0].count: must be a whole number"),
        ({"id": "1", "verb": "http", "target": "x", "headers": [["A", "b\r\nC: d"]]}, "headers: each must be a name"),
        ({"id": "1", "verb": "http", "target": "x", "family": "ipx"}, "family: 'ipx' is none of any, ipv4, ipv6"),
        ({"id": "1", "verb": "https", "target": "x", "version": "4"}, "version: '4' is none of 1.1, 2, 3"),
        ({"id": "1", "verb": "dns", "target": "x", "over": "doq"}, "over: 'doq' is none of udp, tcp, dot, doh"),
        ({"id": "1", "verb": "dns", "target": "x", "server": 9}, "request.actions[0].server: must be text"),
    ],
)
def test_a_mistake_in_an_action_is_named_with_its_place(action: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse(action)
    assert message in str(caught.value)


@pytest.mark.parametrize("secret", ["", "00" * 15, "XY" * 16, None])
def test_a_secret_below_128_bits_is_refused(secret: str | None) -> None:
    with pytest.raises(RequestError, match=r"request\.secret"):
        parse(secret=secret)


def test_the_secret_is_in_no_repr() -> None:
    assert SECRET not in repr(parse())
    assert "ab" * 8 not in repr(attempt().canaries)
    assert str(bytes.fromhex(SECRET)) not in repr(attempt().canaries)


def test_a_token_is_128_bits_of_its_own_for_every_field_action_variant_and_secret() -> None:
    def canaries(secret: str = SECRET, variant: str = "v", action: str = "1") -> Canaries:
        return Canaries(bytes.fromhex(secret), variant, action)

    several = [
        canaries().token("cookie"),
        canaries().token("body"),
        canaries(action="2").token("cookie"),
        canaries(variant="w").token("cookie"),
        canaries(secret="cd" * 16).token("cookie"),
    ]
    assert len(set(several)) == 5
    assert all(len(token) == 32 and token == f"{int(token, 16):032x}" for token in several)
    assert canaries().token("cookie") == several[0], "a run repeats exactly"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("www.example.com", "http://www.example.com/?visit={url}"),
        ("http://www.example.com:80/a?b=c", "http://www.example.com/a?b=c&visit={url}"),
        ("http://www.example.com:8080/{canary}/x", "http://www.example.com:8080/{url}/x"),
        ("https://[2001:db8::1]/", "https://[2001:db8::1]/?visit={url}"),
        ("http://{canary}.www.example.com/", "http://{name}.www.example.com/?visit={url}"),
    ],
)
def test_a_url_gets_its_canary(written: str, expected: str) -> None:
    planned = attempt(target=written)
    tokens = {"{url}": planned.canaries.token("url"), "{name}": planned.canaries.token("name")}
    for place, token in tokens.items():
        expected = expected.replace(place, token)
    target = plan_target(planned)
    assert target.url == expected
    assert target.path_tokens == (tokens["{url}"],)


@pytest.mark.parametrize("written", ["ftp://www.example.com/", "http:///x", "http://a:99999/", "http://[::1/"])
def test_what_is_no_url_fails_in_words(written: str) -> None:
    with pytest.raises(ActionFailed):
        plan_target(attempt(target=written))


def test_a_request_carries_a_cookie_and_a_post_a_body_each_with_its_own_token() -> None:
    message = plan_message(attempt(method="POST"))
    cookie = next(value for name, value in message.headers if name == "Cookie")
    assert message.header_needles == {f"Cookie: {cookie}": cookie.removeprefix("session=")}
    assert message.body == f"note={message.body_tokens[0]}".encode()
    assert plan_message(attempt()).body is None


def test_a_fixed_header_is_a_fact_if_it_is_long_enough_to_search_for() -> None:
    headers = (("Authorization", "Bearer 12345678"), ("DNT", "1"), ("X-A", "{canary}"))
    message = plan_message(attempt(headers=headers))
    lines = list(message.header_needles)
    assert message.header_needles["Authorization: Bearer 12345678"] == "Authorization: Bearer 12345678"
    assert not [line for line in lines if line.startswith("DNT")]
    assert [line for line in lines if line.startswith("X-A: ")]


@given(st.binary(max_size=99).map(lambda octets: octets + bytes(len(octets) % 2)))
def test_a_message_with_its_checksum_sums_to_zero(octets: bytes) -> None:
    assert checksum(octets + checksum(octets).to_bytes(2, "big")) == 0


def test_the_checksum_is_the_one_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


def test_an_answer_to_another_question_is_no_answer() -> None:
    question = dnslib.DNSRecord.question("www.example.com", "A")
    reply = question.reply()
    assert parse_answer(bytes(reply.pack()), question) is not None
    for wrong in (
        dnslib.DNSRecord(dnslib.DNSHeader(id=question.header.id, qr=1), q=dnslib.DNSQuestion("www.example.org")),
        dnslib.DNSRecord(dnslib.DNSHeader(id=question.header.id, qr=1), q=dnslib.DNSQuestion("www.example.com", 28)),
        dnslib.DNSRecord(dnslib.DNSHeader(id=question.header.id ^ 1, qr=1), q=question.q),
        dnslib.DNSRecord(dnslib.DNSHeader(id=question.header.id, qr=1)),
        question,
    ):
        assert parse_answer(bytes(wrong.pack()), question) is None
    assert parse_answer(b"\xff" * 7, question) is None


def test_an_echo_survives_the_wire_and_carries_56_octets() -> None:
    echo = Echo(8, 7, 3, payload_text("ab" * 16).encode())
    assert Echo.parse(echo.build()) == echo
    assert checksum(echo.build()) == 0
    assert len(echo.payload) == 56
    assert Echo.parse(b"short") is None


def test_volume_is_what_crossed_the_links_and_no_tunnel_or_loopback() -> None:
    header = "Inter-|\n face |\n"
    row = "{}: {} {} 0 0 0 0 0 0 {} {} 0 0 0 0 0 0\n"
    text = header + row.format("lo", 9, 9, 9, 9) + row.format(" eth0", 100, 2, 200, 3) + row.format("tun0", 7, 7, 7, 7)
    counters = LinkCounters.parse(text)
    assert counters == LinkCounters(100, 2, 200, 3)
    volume, timing = session_facts(LinkCounters(), counters, 1.5, 4)
    assert volume.value == "sent 3 packets, 200 octets; received 2 packets, 100 octets"
    assert timing.value == "4 actions in 1.500 s"


def test_a_tunnel_device_of_any_name_is_not_counted_with_the_links() -> None:
    row = "{}: 5 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0\n"
    text = "Inter-|\n face |\n" + row.format("eth0") + row.format("own0")
    assert LinkCounters.parse(text, "own0") == LinkCounters(5, 1, 5, 1)
    assert LinkCounters.parse(text) == LinkCounters(10, 2, 10, 2)


def test_an_action_with_a_time_begins_a_list_of_its_own() -> None:
    times = (None, 1.0, None, 0.5)
    actions = [Action(id=name, verb="run", argv=("x",), at=at) for name, at in zip("abcd", times, strict=True)]
    assert [[action.id for action in chain] for chain in chains(actions)] == [["a"], ["b", "c"], ["d"]]
    assert chains(actions[1:2]) == [[], actions[1:2]]


@pytest.mark.parametrize("at", [-1, True, "2s", 4000])
def test_a_time_that_is_none_is_refused(at: object) -> None:
    with pytest.raises(RequestError, match="at: must be a number of seconds"):
        parse({"id": "1", "verb": "dns", "target": "a.example", "at": at})


def test_a_bundle_is_a_new_file_and_ends_with_the_lab_s_authority(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(b"-----LAB-----\n")
    bundle = write_bundle(tmp_path / "ca.pem", tmp_path / "bundle.pem")
    assert bundle.read_bytes().endswith(b"\n-----LAB-----\n") or bundle.read_bytes() == b"-----LAB-----\n"
    with pytest.raises(FileExistsError):
        write_bundle(tmp_path / "ca.pem", bundle)
    assert trust_environment(str(bundle), "/k")["SSLKEYLOGFILE"] == "/k"
    assert set(trust_environment(str(bundle)).values()) == {str(bundle)}
    assert trust_environment(None) == {}


def test_a_fact_s_site_is_found_by_name_by_parent_name_and_by_address() -> None:
    under_way = attempt(site="other.example")
    assert under_way.site_of_name("token.www.example.com") == "www.example.com"
    assert under_way.site_of_name("elsewhere.org") == "other.example"
    assert under_way.site_of_address("192.0.2.1") == "www.example.com"
    assert attempts.in_words(ConnectionRefusedError(111, "x")) == "nobody listens there (connection refused)"
