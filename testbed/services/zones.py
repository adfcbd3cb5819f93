"""What a name server knows: zones as data, and the answer to a question about them. Pure.

Lookup follows RFC 1034 section 4.3.2 for servers that delegate nothing: the closest zone, then the name in it, else a
wildcard at the closest encloser (RFC 4592), CNAMEs followed as far as this server's zones reach. What does not exist is
answered with the zone's SOA. A site with HTTP/3 has an HTTPS record that says so (RFC 9460). A canary made up as a
sub-domain of a site is answered by that site's wildcard.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.services import dns_message as dns
from testbed.services.dns_message import Name, Query, Reply, parse_name
from testbed.services.request import Record, Site, Zone

CNAME_STEPS = 8
SOA_TIMES = "2024010100 3600 600 604800 60"
SOA_TTL = 60
HTTP3_AND_MORE, HTTP3_ALONE = "alpn=h3,h2", "alpn=h3 no-default-alpn"


@dataclass(frozen=True, slots=True)
class ZoneData:
    """One zone, ready for lookups. `names` holds every name that exists, empty non-terminals included."""

    origin: Name
    records: dict[Name, dict[str, tuple[Record, ...]]]
    names: frozenset[Name]
    authority: Record

    @classmethod
    def of(cls, zone: Zone) -> ZoneData:
        """Errors: ValueError for a record outside the zone, or whose value does not fit its type."""
        origin = parse_name(zone.origin)
        records: dict[Name, dict[str, tuple[Record, ...]]] = {}
        names = {origin}
        for record in (*zone.records, *_missing_authority(zone)):
            name = parse_name(record.name)
            if not _is_within(name, origin):
                raise ValueError(f"{record.name} is outside its zone {zone.origin}")
            dns.build_record(record)
            by_type = records.setdefault(name, {})
            by_type[record.type] = (*by_type.get(record.type, ()), record)
            names.update(name[start:] for start in range(len(name) - len(origin) + 1))
        return cls(origin, records, frozenset(names), records[origin]["SOA"][0])

    def records_at(self, name: Name) -> dict[str, tuple[Record, ...]] | None:
        """The records of `name` by type, from a wildcard if need be; None if the name does not exist."""
        if name in self.names:
            return self.records.get(name, {})
        encloser = name[1:]
        while encloser not in self.names:
            encloser = encloser[1:]
        return self.records.get((b"*", *encloser))


def answer(zones: Sequence[ZoneData], query: Query) -> Reply:
    """The authoritative answer to `query`."""
    refusal = refuse(query)
    if refusal is not None:
        return refusal
    found: list[Any] = []
    name, label = query.name, query.untrusted_label
    for _ in range(CNAME_STEPS):
        zone = _closest(zones, name)
        if zone is None:
            return Reply(dns.NOERROR if found else dns.REFUSED, tuple(found), (), bool(found))
        by_type = zone.records_at(name)
        negative = (dns.build_record(zone.authority),)
        if by_type is None:
            return Reply(dns.NXDOMAIN, tuple(found), negative, authoritative=True)
        alias = by_type.get("CNAME", ())
        if not alias or query.type in (dns.type_number("CNAME"), dns.ANY):
            matching = [dns.build_record(record, label) for record in _of_type(by_type, query.type)]
            return Reply(dns.NOERROR, (*found, *matching), () if matching else negative, authoritative=True)
        found.append(dns.build_record(alias[0], label))
        name, label = parse_name(alias[0].value), found[-1].rdata.label
    return Reply(dns.SERVFAIL)


def refuse(query: Query) -> Reply | None:
    """The answer to a question that no server here takes: another operation, EDNS version or class, a zone transfer."""
    if query.opcode != dns.QUERY:
        return Reply(dns.NOTIMP)
    if query.edns_version:
        return Reply(dns.BADVERS)
    if query.class_ != dns.INTERNET or query.type in dns.TRANSFER_TYPES:
        return Reply(dns.REFUSED)
    return None


def zones_of_sites(sites: Iterable[Site], server_addresses: Sequence[str], *, root: bool) -> tuple[Zone, ...]:
    """The zones that make `sites` known: one per parent domain, every site with a wildcard below it.

    Shape: `server_addresses` are those of the authoritative server itself (its NS name gets them). `root` adds an
    otherwise empty root zone, so that names nobody has are answered NXDOMAIN instead of refused: for public names.
    """
    grouped: dict[str, list[Record]] = {}
    for site in sites:
        labels = site.name.split(".")
        origin = ".".join(labels[1:]) if len(labels) > 2 else site.name
        records = grouped.setdefault(origin, [])
        for name in (site.name, f"*.{site.name}"):
            records += [Record(name, "AAAA" if ":" in address else "A", address) for address in site.addresses]
            if site.http3:
                records.append(Record(name, "HTTPS", f"1 . {HTTP3_AND_MORE if site.https else HTTP3_ALONE}"))
    if root:
        grouped.setdefault(".", [])
    return tuple(
        Zone(origin, (*records, *_name_server_records(origin, server_addresses)))
        for origin, records in sorted(grouped.items())
    )


def _name_server_records(origin: str, addresses: Sequence[str]) -> list[Record]:
    server = _below("ns", origin)
    return [
        Record(origin, "NS", server),
        *(Record(server, "AAAA" if ":" in address else "A", address) for address in addresses),
    ]


def _missing_authority(zone: Zone) -> list[Record]:
    origin = parse_name(zone.origin)
    if any(record.type == "SOA" and parse_name(record.name) == origin for record in zone.records):
        return []
    value = f"{_below('ns', zone.origin)} {_below('hostmaster', zone.origin)} {SOA_TIMES}"
    return [Record(zone.origin, "SOA", value, SOA_TTL)]


def _below(label: str, origin: str) -> str:
    return label if origin == "." else f"{label}.{origin}"


def _is_within(name: Name, origin: Name) -> bool:
    return not origin or name[-len(origin) :] == origin


def _closest(zones: Sequence[ZoneData], name: Name) -> ZoneData | None:
    holding = [zone for zone in zones if _is_within(name, zone.origin)]
    return max(holding, key=lambda zone: len(zone.origin), default=None)


def _of_type(by_type: dict[str, tuple[Record, ...]], wanted: int) -> tuple[Record, ...]:
    if wanted == dns.ANY:
        return tuple(record for records in by_type.values() for record in records)
    return by_type.get(dns.type_name(wanted), ())
