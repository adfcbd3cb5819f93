"""DNS messages of the services: what may come in, what goes out."""

from __future__ import annotations

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.services import dns_message as dns
from testbed.services.dns_message import MalformedMessage, Reply
from testbed.services.request import Record

QUESTION = b"\x12\x34" + bytes(dnslib.DNSRecord.question("WWW.Example.com", "A").pack())[2:]


def with_edns(octets: int, version: int = 0) -> bytes:
    message = dnslib.DNSRecord.question("www.example.com", "A")
    message.add_ar(dnslib.EDNS0(udp_len=octets, version=version))
    return bytes(message.pack())


def test_a_question_is_read_in_lower_case_and_answered_in_its_own_spelling() -> None:
    query = dns.parse_query(QUESTION)
    assert query.name == (b"www", b"example", b"com")
    assert (query.type, query.edns_octets, query.udp_limit) == (1, None, 512)
    answer = dns.build_record(Record("www.example.com", "A", "192.0.2.1"), query.untrusted_label)
    packed = dns.build_reply(query, Reply(dns.NOERROR, (answer,), authoritative=True), 512)
    assert packed[:2] == QUESTION[:2]
    assert b"\x03WWW\x07Example\x03com" in packed
    assert dnslib.DNSRecord.parse(packed).rr[0].rdata.data == (192, 0, 2, 1)


@pytest.mark.parametrize(("offered", "limit"), [(0, 512), (100, 512), (700, 700), (1232, 1232), (65535, 1232)])
def test_the_datagram_limit_lies_between_the_plain_one_and_ours(offered: int, limit: int) -> None:
    assert dns.parse_query(with_edns(offered)).udp_limit == limit


def test_an_extended_error_needs_the_edns_record_to_say_it() -> None:
    packed = dns.build_reply(dns.parse_query(with_edns(1232, version=1)), Reply(dns.BADVERS), 512)
    message = dnslib.DNSRecord.parse(packed)
    assert message.header.rcode | message.ar[0].edns_rcode << 4 == dns.BADVERS


def test_an_answer_over_the_limit_becomes_an_empty_truncated_one() -> None:
    query = dns.parse_query(QUESTION)
    text = dns.build_record(Record("www.example.com", "TXT", "x" * 600))
    packed = dns.build_reply(query, Reply(dns.NOERROR, (text,)), 512)
    assert dns.is_truncated(packed)
    assert len(packed) == len(QUESTION)
    assert not dns.is_truncated(dns.build_reply(query, Reply(dns.NOERROR, (text,)), 1024))


@pytest.mark.parametrize(
    "untrusted",
    [
        b"",
        QUESTION[:11],
        QUESTION[:-1],
        bytes([*QUESTION[:2], 0x80, *QUESTION[3:]]),  # an answer
        QUESTION[:4] + b"\0\0" + QUESTION[6:],  # no question
        QUESTION[:12] + b"\xc0\x0c\0\1\0\1",  # a name that points at itself
        QUESTION[:12] + b"".join(b"\xc0" + bytes([12]) for _ in range(4)) + b"\0\1\0\1",
        QUESTION[:12] + b"\x7f" + b"a" * 127 + b"\0\0\1\0\1",  # a label of 127 octets
        QUESTION[:12] + (b"\x3f" + b"a" * 63) * 5 + b"\0\0\1\0\1",  # a name of 320 octets
    ],
)
def test_what_is_no_question_is_malformed(untrusted: bytes) -> None:
    with pytest.raises(MalformedMessage):
        dns.parse_query(untrusted)


def test_a_long_chain_of_pointers_is_malformed_and_not_a_crash() -> None:
    chain = b"\0" + b"".join(
        (0xC000 | 12 if number == 0 else 0xC000 | 13 + 2 * (number - 1)).to_bytes(2, "big") for number in range(3000)
    )
    header = QUESTION[:4] + b"\x0b\xb9" + QUESTION[6:12]  # as many questions as there are names
    with pytest.raises(MalformedMessage):
        dns.parse_query(header + chain)


@given(st.binary(max_size=600))
def test_no_octets_make_the_parser_raise_anything_else(untrusted: bytes) -> None:
    for octets in (untrusted, QUESTION[:12] + untrusted, with_edns(512)[:-11] + untrusted):
        for parse in (dns.parse_query, dns.parse_response):
            try:
                parse(octets)
            except MalformedMessage:
                continue
        error = dns.build_format_error(octets)
        assert error is None or (error[2] & 0x80 and error[3] & 0x0F == dns.FORMERR)


@given(st.lists(st.binary(min_size=1, max_size=63), max_size=3))
def test_a_name_as_text_tells_every_name_from_every_other(labels: list[bytes]) -> None:
    text = dns.name_text(tuple(labels))
    assert text.isascii()
    assert text.isprintable()
    assert text == "." or len(text.split(".")) == len(labels)


@pytest.mark.parametrize("text", ["a..b", "a" * 64, ".".join(["abc"] * 70)])
def test_a_name_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"domain name|label"):
        dns.parse_name(text)


@pytest.mark.parametrize(
    ("kind", "value"), [("A", "1.2.3"), ("AAAA", "1.2.3.4"), ("SOA", "a b 1 2 3"), ("MX", "10 a"), ("X", "y")]
)
def test_a_record_whose_value_does_not_fit_is_refused(kind: str, value: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        dns.build_record(Record("a.test", kind, value))
