"""DNS over HTTPS without a network: what is a query, what is answered, and that nothing a client sends breaks it."""

from __future__ import annotations

import asyncio
import os
from base64 import urlsafe_b64encode
from typing import Any

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.services import doh
from testbed.services.dns_server import NameServer
from testbed.services.journal import Journal
from testbed.services.pages import Answer
from testbed.services.request import Record, Zone
from testbed.services.zones import ZoneData, answer

ZONES = (ZoneData.of(Zone("example.com", (Record("www.example.com", "A", "192.0.2.1", 7),))),)
QUESTION = bytes(dnslib.DNSRecord.question("www.example.com").pack())


def name_server() -> NameServer:
    async def respond(query: Any) -> Any:
        return answer(ZONES, query)

    return NameServer(respond, Journal(os.open(os.devnull, os.O_WRONLY)))


SERVER = name_server()


def said(method: str, target: str, kind: str = "", body: bytes = b"") -> tuple[Answer, dict[str, Any] | None]:
    return asyncio.run(doh.answer_query(SERVER, method, target, kind, body))


def parameter(octets: bytes) -> str:
    return f"{doh.PATH}?dns={urlsafe_b64encode(octets).decode().rstrip('=')}"


@pytest.mark.parametrize(
    "request_", [("GET", parameter(QUESTION)), ("POST", doh.PATH, "application/DNS-message; x=y", QUESTION)]
)
def test_a_question_is_answered_and_known_to_the_log(request_: tuple[Any, ...]) -> None:
    page, query = said(*request_)
    assert (page.status, dict(page.headers)["Cache-Control"]) == (200, "max-age=7")
    assert str(dnslib.DNSRecord.parse(page.body).rr[0].rdata) == "192.0.2.1"
    assert query is not None
    assert (query["name"], query["type"], query["answers"]) == ("www.example.com", "A", ["A 192.0.2.1"])


@pytest.mark.parametrize(
    ("target", "meant"),
    [("/dns-query", True), ("/dns-query?dns=AA", True), ("/dns-queryx", False), ("/x/dns-query", False), ("/", False)],
)
def test_only_the_path_of_rfc_8484_is_a_query(target: str, meant: bool) -> None:
    assert doh.is_query(target) is meant


def test_an_answer_where_a_question_belongs_gets_no_dns_back() -> None:
    page, query = said("POST", doh.PATH, doh.MEDIA_TYPE, b"\x00\x00\x80\x00" + bytes(8))
    assert page.status == 400
    assert query is not None
    assert query["error"]


@given(
    st.sampled_from(["GET", "HEAD", "POST", "PUT", ""]),
    st.one_of(st.text(max_size=60).map(lambda text: f"{doh.PATH}?{text}"), st.binary(max_size=60).map(parameter)),
    st.sampled_from(["", doh.MEDIA_TYPE, "text/html"]),
    st.binary(max_size=80),
)
def test_whatever_a_client_sends_gets_an_answer(method: str, target: str, kind: str, body: bytes) -> None:
    page, _ = said(method, target, kind, body)
    assert page.status in (200, 400, 405, 415)
    assert page.length == len(page.body)
