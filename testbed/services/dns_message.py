"""DNS messages: bytes in, questions and answers out. The only importer of dnslib among the services.

dnslib and not dnspython: it imports in 15 ms of CPU where dnspython takes 57, and the messages of a lab need no more.
It trusts its input more than we may, so every way in from the wire goes through `parse_query` or `parse_response`,
which answer with one exception for all that a hostile message can provoke.

Names are tuples of lower-case labels, because text cannot tell a dot inside a label from one between two.

Sources: RFC 1035 section 4, RFC 6891 (EDNS), RFC 7830 and RFC 8467 section 4.1 (padding), RFC 4592 for what a `*`
label means (in `zones`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dnslib

from testbed.services.request import Record

Name = tuple[bytes, ...]

PLAIN_UDP_OCTETS = 512  # RFC 1035: what a client without EDNS takes
EDNS_UDP_OCTETS = 1232  # DNS flag day 2020: fits the minimum IPv6 MTU
MESSAGE_OCTETS = 65535
PADDING_OPTION = 12
PADDED_OCTETS = 468  # answers over TLS and HTTPS are a multiple of it, for who pads the question

QUERY, NOTIFY = 0, 4
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16
RCODE_NAMES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED", 16: "BADVERS"}
ANY = 255
TRANSFER_TYPES = (251, 252)  # IXFR, AXFR
INTERNET = 1


class MalformedMessage(ValueError):
    """The octets are no DNS message, or not one of the kind asked for."""


@dataclass(frozen=True, slots=True)
class Query:
    """One question of a client. Shape: `edns_octets` is None where the client speaks no EDNS."""

    id: int
    opcode: int
    name: Name
    type: int
    class_: int
    recursion_desired: bool
    edns_octets: int | None
    edns_version: int
    padded: bool
    untrusted_label: Any  # the name as it came, so that the answer repeats its spelling

    @property
    def udp_limit(self) -> int:
        """The longest answer that fits the client's datagram and ours."""
        if self.edns_octets is None:
            return PLAIN_UDP_OCTETS
        return min(max(self.edns_octets, PLAIN_UDP_OCTETS), EDNS_UDP_OCTETS)


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer. Shape: the sections are dnslib's records, made by `build_record` or taken from a response."""

    rcode: int
    answers: tuple[Any, ...] = ()
    authority: tuple[Any, ...] = ()
    authoritative: bool = False
    recursion_available: bool = False


@dataclass(frozen=True, slots=True)
class Response:
    """An upstream server's answer to one of our questions."""

    id: int
    name: Name
    type: int
    truncated: bool
    reply: Reply


def parse_name(text: str) -> Name:
    """The labels of a name in text, lower case. Errors: ValueError for an empty or too long label."""
    stripped = text.rstrip(".").lower()
    if not stripped:
        return ()
    labels = tuple(label.encode("ascii" if label.isascii() else "idna") for label in stripped.split("."))
    if any(not 0 < len(label) < 64 for label in labels) or sum(map(len, labels)) + len(labels) > 254:
        raise ValueError(f"{text!r} is not a domain name")
    return labels


def name_text(name: Name) -> str:
    """A name as people read it: lower case, no final dot, odd octets as `\\DDD`, the root as `.`."""
    return ".".join("".join(_octet_text(octet) for octet in label) for label in name) or "."


def _octet_text(octet: int) -> str:
    return chr(octet) if 33 <= octet < 127 and octet not in b'."\\' else f"\\{octet:03d}"


def type_name(number: int) -> str:
    """`A`, `AAAA`, …, or `TYPE65` as RFC 3597 spells the unknown ones."""
    return str(dnslib.QTYPE.forward.get(number, f"TYPE{number}"))


def type_number(name: str) -> int:
    """Errors: ValueError for a type that this module does not know by name."""
    number = dnslib.QTYPE.reverse.get(name)
    if number is None:
        raise ValueError(f"{name!r} is not a known record type")
    return int(number)


def rcode_name(rcode: int) -> str:
    return RCODE_NAMES.get(rcode, f"RCODE{rcode}")


def parse_query(untrusted: bytes) -> Query:
    """The question in a client's message. Errors: MalformedMessage, also for messages that are answers."""
    message = _parse(untrusted)
    if message.header.qr:
        raise MalformedMessage("an answer where a question belongs")
    if len(message.questions) != 1:
        raise MalformedMessage("not exactly one question")
    question = message.questions[0]
    name = _fold(question.qname)
    edns = next((record for record in message.ar if record.rtype == dnslib.QTYPE.OPT), None)
    return Query(
        id=message.header.id,
        opcode=message.header.opcode,
        name=name,
        type=question.qtype,
        class_=question.qclass,
        recursion_desired=bool(message.header.rd),
        edns_octets=None if edns is None else edns.edns_len,
        edns_version=0 if edns is None else edns.edns_ver,
        padded=edns is not None and any(getattr(option, "code", None) == PADDING_OPTION for option in edns.rdata),
        untrusted_label=question.qname,
    )


def parse_response(untrusted: bytes) -> Response:
    """An upstream server's answer. Errors: MalformedMessage."""
    message = _parse(untrusted)
    if not message.header.qr or len(message.questions) != 1:
        raise MalformedMessage("not an answer to one question")
    reply = Reply(rcode=message.header.rcode, answers=tuple(message.rr), authority=tuple(message.auth))
    question = message.questions[0]
    return Response(message.header.id, _fold(question.qname), question.qtype, bool(message.header.tc), reply)


def build_question(message_id: int, query: Query) -> bytes:
    """A client's question as a resolver asks it on: recursion not wanted, EDNS offered."""
    message = dnslib.DNSRecord(
        dnslib.DNSHeader(id=message_id, rd=0, qr=0, ra=0, aa=0, bitmap=0),
        questions=[dnslib.DNSQuestion(query.untrusted_label, query.type, query.class_)],
    )
    message.add_ar(dnslib.EDNS0(udp_len=EDNS_UDP_OCTETS))
    return bytes(message.pack())


def build_reply(query: Query, reply: Reply, limit: int, *, encrypted: bool = False) -> bytes:
    """The answer to `query`, or its empty form with the truncation bit where it would be longer than `limit`.

    Shape: an `encrypted` answer to a padded question is padded, so that its length tells less.
    """
    packed = _pack(query, reply, truncated=False)
    if encrypted and query.padded:
        empty = len(_pack(query, reply, truncated=False, padding=b""))
        return _pack(query, reply, truncated=False, padding=bytes(-empty % PADDED_OCTETS))
    if len(packed) <= limit:
        return packed
    return _pack(query, Reply(reply.rcode, (), (), reply.authoritative, reply.recursion_available), truncated=True)


def build_format_error(untrusted: bytes) -> bytes | None:
    """FORMERR for a message whose header can be read and that asks something; None where silence is the answer."""
    if len(untrusted) < 12 or untrusted[2] & 0x80:
        return None
    header = dnslib.DNSHeader(id=int.from_bytes(untrusted[:2], "big"), qr=1, rcode=FORMERR, bitmap=0)
    return bytes(dnslib.DNSRecord(header).pack())


def build_record(record: Record, owner: Any = None) -> Any:
    """A zone's record for the wire. `owner` replaces its name: what a wildcard matched, in the client's spelling.

    Errors: ValueError for a value that does not fit the type.
    """
    label = dnslib.DNSLabel(list(parse_name(record.name))) if owner is None else owner
    number = type_number(record.type)
    return dnslib.RR(label, number, INTERNET, record.ttl, _build_value(record.type, record.value))


def record_text(record: Any) -> str:
    """A record's type and value for a log: `A 93.184.216.34`."""
    text = name_text(_fold(record.rdata.label)) if hasattr(record.rdata, "label") else str(record.rdata)
    return f"{type_name(record.rtype)} {text}"


def record_ttl(record: Any) -> int:
    return int(record.ttl)


def _build_value(kind: str, value: str) -> Any:
    match kind:
        case "A":
            return dnslib.A(value)
        case "AAAA":
            return dnslib.AAAA(value)
        case "CNAME":
            return dnslib.CNAME(_label(value))
        case "NS":
            return dnslib.NS(_label(value))
        case "TXT":
            octets = value.encode()
            return dnslib.TXT([octets[start : start + 255] for start in range(0, len(octets) or 1, 255)])
        case "HTTPS":
            try:
                return dnslib.HTTPS.fromZone(value.split())
            except dnslib.DNSError as error:
                raise ValueError(f"{value!r} is not an HTTPS value: {error}") from None
        case "SOA":
            primary, mailbox, *times = value.split()
            if len(times) != 5:
                raise ValueError(f"{value!r} is not a SOA value")
            return dnslib.SOA(_label(primary), _label(mailbox), tuple(int(number) for number in times))
    raise ValueError(f"records of type {kind!r} are not served")


def _label(text: str) -> Any:
    return dnslib.DNSLabel(list(parse_name(text)))


def _fold(label: Any) -> Name:
    name = tuple(bytes(part).lower() for part in label.label)
    if any(len(part) > 63 for part in name) or sum(map(len, name)) + len(name) > 254:
        raise MalformedMessage("a name that is too long")
    return name


def _parse(untrusted: bytes) -> Any:
    try:
        return dnslib.DNSRecord.parse(untrusted)
    # Lengths, pointers and values of the peer reach dnslib's own code unchecked; RecursionError is a chain of pointers.
    except (dnslib.DNSError, ValueError, TypeError, LookupError, RecursionError, OverflowError) as error:
        raise MalformedMessage(str(error)) from None


def _pack(query: Query, reply: Reply, *, truncated: bool, padding: bytes | None = None) -> bytes:
    header = dnslib.DNSHeader(
        id=query.id,
        bitmap=0,
        qr=1,
        opcode=query.opcode,
        aa=int(reply.authoritative),
        tc=int(truncated),
        rd=int(query.recursion_desired),
        ra=int(reply.recursion_available),
        rcode=reply.rcode & 0xF,
    )
    message = dnslib.DNSRecord(header, questions=[dnslib.DNSQuestion(query.untrusted_label, query.type, query.class_)])
    message.add_answer(*reply.answers)
    message.add_auth(*reply.authority)
    if query.edns_octets is not None:
        options = [] if padding is None else [dnslib.EDNSOption(PADDING_OPTION, padding)]
        message.add_ar(dnslib.EDNS0(udp_len=EDNS_UDP_OCTETS, ext_rcode=reply.rcode >> 4, opts=options))
    return bytes(message.pack())


def without_edns(records: Sequence[Any]) -> tuple[Any, ...]:
    """EDNS is between two neighbours (RFC 6891 section 6.1.1): it is never passed on."""
    return tuple(record for record in records if record.rtype != dnslib.QTYPE.OPT)


def is_truncated(packed: bytes) -> bool:
    return bool(packed[2] & 0x02)
