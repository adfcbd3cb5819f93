"""Zones: which answer a name gets, by RFC 1034 and RFC 4592."""

from __future__ import annotations

import dnslib
import pytest

from testbed.services import dns_message as dns
from testbed.services.request import Record, Site, Zone
from testbed.services.zones import ZoneData, answer, zones_of_sites

SITES = (
    Site("www.example.com", "web", ("192.0.2.1", "2001:db8::1")),
    Site("intranet", "private", ("192.0.2.9",)),
    Site("quic.example.net", "web", ("192.0.2.2",), http3=True),
    Site("alone.example.net", "web", ("192.0.2.3",), http=False, https=False, http3=True),
)
ZONES = [
    ZoneData.of(zone)
    for zone in (
        *zones_of_sites(SITES, ("192.0.2.53",), root=True),
        Zone(
            "test",
            (
                Record("alias.test", "CNAME", "other.test"),
                Record("other.test", "CNAME", "www.example.com"),
                Record("away.test", "CNAME", "elsewhere.org"),
                Record("loop.test", "CNAME", "loop.test"),
                Record("deep.under.test", "A", "192.0.2.7"),
                Record("*.wild.test", "TXT", "any"),
                Record("tame.wild.test", "A", "192.0.2.8"),
            ),
        ),
    )
]


def ask(name: str, kind: str = "A", zones: list[ZoneData] | None = None) -> tuple[str, list[str], bool]:
    query = dns.parse_query(bytes(dnslib.DNSRecord.question(name, kind).pack()))
    reply = answer(ZONES if zones is None else zones, query)
    texts = [dns.record_text(record) for record in reply.answers]
    return dns.rcode_name(reply.rcode), texts, any(dns.type_name(record.rtype) == "SOA" for record in reply.authority)


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("www.example.com", "A", ("NOERROR", ["A 192.0.2.1"], False)),
        ("WWW.EXAMPLE.COM", "AAAA", ("NOERROR", ["AAAA 2001:db8::1"], False)),
        ("token.www.example.com", "A", ("NOERROR", ["A 192.0.2.1"], False)),
        ("two.labels.www.example.com", "A", ("NOERROR", ["A 192.0.2.1"], False)),
        ("www.example.com", "TXT", ("NOERROR", [], True)),
        ("www.example.com", "HTTPS", ("NOERROR", [], True)),
        ("quic.example.net", "HTTPS", ("NOERROR", ["HTTPS 1 . alpn=h3,h2"], False)),
        ("token.quic.example.net", "HTTPS", ("NOERROR", ["HTTPS 1 . alpn=h3,h2"], False)),
        ("alone.example.net", "HTTPS", ("NOERROR", ["HTTPS 1 . alpn=h3 no-default-alpn"], False)),
        ("example.com", "NS", ("NOERROR", ["NS ns.example.com"], False)),
        ("ns.example.com", "A", ("NOERROR", ["A 192.0.2.53"], False)),
        ("intranet", "A", ("NOERROR", ["A 192.0.2.9"], False)),
        ("nobody.example.com", "A", ("NXDOMAIN", [], True)),
        ("elsewhere.org", "A", ("NXDOMAIN", [], True)),
        ("under.test", "A", ("NOERROR", [], True)),
        ("deep.under.test", "A", ("NOERROR", ["A 192.0.2.7"], False)),
        ("x.wild.test", "TXT", ("NOERROR", ['TXT "any"'], False)),
        ("x.tame.wild.test", "TXT", ("NXDOMAIN", [], True)),
        ("tame.wild.test", "TXT", ("NOERROR", [], True)),
        ("alias.test", "CNAME", ("NOERROR", ["CNAME other.test"], False)),
        ("alias.test", "A", ("NOERROR", ["CNAME other.test", "CNAME www.example.com", "A 192.0.2.1"], False)),
        ("away.test", "A", ("NXDOMAIN", ["CNAME elsewhere.org"], True)),
        ("loop.test", "A", ("SERVFAIL", [], False)),
    ],
)
def test_a_name_gets_the_answer_that_the_rfcs_give_it(
    name: str, kind: str, expected: tuple[str, list[str], bool]
) -> None:
    assert ask(name, kind) == expected


def test_without_a_root_zone_foreign_names_are_refused_and_aliases_to_them_end_there() -> None:
    zones = [zone for zone in ZONES if zone.origin]
    assert ask("elsewhere.org", "A", zones) == ("REFUSED", [], False)
    assert ask("away.test", "A", zones) == ("NOERROR", ["CNAME elsewhere.org"], False)


def test_a_record_outside_its_zone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"www\.example\.org is outside its zone example\.com"):
        ZoneData.of(Zone("example.com", (Record("www.example.org", "A", "192.0.2.1"),)))


def test_a_zone_keeps_the_soa_it_comes_with() -> None:
    soa = "a.test b.test 7 1 2 3 4"
    assert ZoneData.of(Zone("test", (Record("test", "SOA", soa),))).authority.value == soa
