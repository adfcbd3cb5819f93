"""DNS, HTTP, TLS and certificates from octets, where the interop tests' programs do not go."""

from __future__ import annotations

import datetime
import gzip
import ssl
import zlib

import dnslib
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from testbed.observer import dns, filters, http, tls
from testbed.observer import x509 as observed_x509
from testbed.observer.findings import as_text
from testbed.observer.model import Endpoint

LIMIT = 1 << 20


def client_hello(name: str, alpn: list[str] | None = None) -> bytes:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # distributions differ in what they still offer
    if alpn:
        context.set_alpn_protocols(alpn)
    outgoing = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return outgoing.read()


def test_dns_messages_of_another_library_are_read() -> None:
    reply = dnslib.DNSRecord.question("www.example.com", "AAAA").reply()
    zone = "www.example.com 60 IN CNAME web.example.net\nweb.example.net 60 IN AAAA 2001:db8::1"
    reply.add_answer(*dnslib.RR.fromZone(zone))
    message = dns.parse_message(bytes(reply.pack()))
    assert message.is_response
    assert [name.text for name in message.questions] == ["www.example.com"]
    assert [(r.owner.text, r.address, r.target and r.target.text) for r in message.records] == [
        ("www.example.com", None, "web.example.net"),
        ("web.example.net", "2001:db8::1", None),
    ]


HEADER = b"\0\1\1\0\0\1\0\0\0\0\0\0"


@pytest.mark.parametrize(
    ("untrusted", "reason"),
    [
        (b"", "shorter than a header"),
        (HEADER, "a name cut off"),
        (HEADER + b"\xc0\x0c\0\1\0\1", "a pointer that does not point back"),
        (HEADER + b"\x01a\xc0\x0c\0\1\0\1", "a name too long"),  # a loop
        (HEADER + b"\x09short", "a label cut off"),
        (HEADER + b"\x80abc\0\0\1\0\1", "an unknown kind of label"),
        (HEADER + b"\x01a\0\0", "a question cut off"),
        (b"\0\1\1\0" + b"\xff" * 8, "no plausible header"),
    ],
)
def test_dns_that_makes_no_sense_is_refused_with_a_reason(untrusted: bytes, reason: str) -> None:
    with pytest.raises(dns.Malformed, match=reason):
        dns.parse_message(untrusted)


def test_pipelined_requests_and_their_responses_are_told_apart() -> None:
    requests = http.parse_requests(
        b"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n"
        b"POST /b HTTP/1.1\r\nhost:h\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.0\n\n",
        LIMIT,
    )
    assert [(m.method, m.target, m.body) for m in requests] == [
        (b"HEAD", b"/a", b""),
        (b"POST", b"/b", b"abc"),
        (b"GET", b"/c", b""),
    ]
    assert requests[1].header(b"HOST") == b"h"
    responses = http.parse_responses(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200\r\n\r\nuntil the end",
        requests,
        LIMIT,
    )
    assert [(m.status, m.body, m.until_close) for m in responses] == [
        (200, b"", False),
        (100, b"", False),
        (204, b"", False),
        (200, b"until the end", True),
    ]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate", "identity"])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_read_as_the_browser_shows_it(coding: str, chunked: bool) -> None:
    page = b"<p>token-4711</p>" * 50
    raw = zlib.compressobj(wbits=-15)
    coded = {
        "gzip": gzip.compress(page),
        "deflate": zlib.compress(page),
        "raw deflate": raw.compress(page) + raw.flush(),
        "identity": page,
    }[coding]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + coding.split()[-1].encode() + b"\r\n"
    if chunked:
        chunks = b"".join(b"%X;x=y\r\n%s\r\n" % (len(c), c) for c in (coded[:7], coded[7:]))
        data = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nTrailer: t\r\n\r\n"
    else:
        data = head + b"Content-Length: %d\r\n\r\n" % len(coded) + coded
    (message,) = http.parse_responses(data, [], LIMIT)
    assert message.body == page
    assert message.complete
    assert message.end == len(data)
    assert message.altered is (chunked or coding != "identity")


def test_a_compressed_bomb_is_cut_at_the_limit() -> None:
    coded = gzip.compress(b"\0" * 50_000_000)
    data = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded) + coded
    (message,) = http.parse_responses(data, [], 1000)
    assert len(message.body) == 1000


def test_every_member_of_a_compressed_body_is_read() -> None:
    coded = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two ") + b"no member"
    data = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(coded) + coded
    assert [http.parse_responses(data, [], limit)[0].body for limit in (LIMIT, 6)] == [b"one two ", b"one tw"]


@pytest.mark.parametrize("cut", [b"Content-Length: 10\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"])
def test_a_message_that_is_not_there_to_its_end_says_so(cut: bytes) -> None:
    (message,) = http.parse_responses(b"HTTP/1.1 200 OK\r\n" + cut, [], LIMIT)
    assert not message.complete
    assert message.body == b"abc"


def test_a_client_hello_is_read_also_when_it_comes_in_many_records() -> None:
    hello = client_hello("www.example.com", ["h2", "http/1.1"])
    assert tls.looks_like_tls(hello)
    message = hello[5:]
    records = b"".join(
        b"\x16\x03\x01" + len(message[at : at + 50]).to_bytes(2, "big") + message[at : at + 50]
        for at in range(0, len(message), 50)
    )
    for data in (hello, records):
        (handshake,) = tls.parse_handshakes(data)
        parsed = tls.parse_client_hello(handshake.body)
        assert handshake.end == len(data)
        assert parsed is not None
        assert parsed.server_name == b"www.example.com"
        assert parsed.alpn == (b"h2", b"http/1.1")
        assert parsed.versions == (0x0304, 0x0303)
        assert not parsed.encrypted_client_hello


def test_every_prefix_of_a_client_hello_is_borne() -> None:
    hello = client_hello("www.example.com")
    for cut in range(len(hello)):
        assert tls.parse_handshakes(hello[:cut]) == []
        tls.parse_client_hello(hello[9:cut])


def test_the_names_in_a_certificate_are_found() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site.example.com")])
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Some Authority")])
    day = datetime.datetime(2026, 1, 1)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 5, day, day + datetime.timedelta(days=9))
    names = [x509.DNSName("www.example.com"), x509.RFC822Name("a@b.c"), x509.DNSName("*.example.org")]
    builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
    certificate = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    der = certificate.public_bytes(serialization.Encoding.DER)
    found = observed_x509.certificate_names(der)
    assert [name.name for name in found] == [b"site.example.com", b"www.example.com", b"*.example.org"]
    for cut in range(len(der)):
        assert observed_x509.certificate_names(der[:cut]) == []


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", '"plain"'),
        ('a "b" \\', r'"a \x22b\x22 \x5c"'),
        ("ä\n", r'"\xc3\xa4\x0a"'),
        (b"\xff\x00", r'"\xff\x00"'),
    ],
)
def test_no_captured_octet_becomes_filter_syntax(value: str | bytes, quoted: str) -> None:
    assert filters.quote(value) == quoted


def test_filters_name_both_ends_of_a_flow() -> None:
    one, other = Endpoint("10.0.0.1", 4000), Endpoint("2001:db8::1", 53)
    expected = "ip.addr == 10.0.0.1 && ipv6.addr == 2001:db8::1 && udp.port == 4000 && udp.port == 53"
    assert filters.between("udp", one, other) == expected
    assert str(other) == "[2001:db8::1]:53"


def test_text_shows_what_is_no_utf8_as_escapes() -> None:
    assert as_text(b"ok \xff\xc3\xa4") == "ok \\xffä"
