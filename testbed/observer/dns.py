"""DNS messages as anybody on the path reads them: the names asked for, the answers, the names in the answers.

A parser for hostile octets: compression pointers may only point back and are counted, every length is held against the
message, and what makes no sense ends the message with `Malformed`. Nothing is resolved or validated.

EDNS options and service bindings (SVCB, HTTPS) are read where they tell of the client or of another way to the host.

Source: RFC 1035, RFC 3596, RFC 2782, RFC 6891, RFC 7871, RFC 7873, RFC 9460
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import NamedTuple

A, NS, CNAME, SOA, PTR, MX, AAAA, SRV, DNAME, OPT, SVCB, HTTPS = 1, 2, 5, 6, 12, 15, 28, 33, 39, 41, 64, 65
OPTION_CLIENT_SUBNET, OPTION_COOKIE = 8, 10
PARAMETER_ALPN, PARAMETER_IPV4, PARAMETER_ECH, PARAMETER_IPV6 = 1, 4, 5, 6
NAME_OFFSET_IN_DATA = {NS: 0, CNAME: 0, SOA: 0, PTR: 0, DNAME: 0, MX: 2, SRV: 6}
PLAIN_OCTETS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
HEADER_OCTETS = 12
CLASSES, UNICAST_OR_FLUSH = frozenset((1, 3, 254, 255)), 0x8000  # IN, CH, NONE, ANY; a bit that mDNS has in them
FIRST_QUESTION = b"\xc0\x0c"  # a pointer to the octet behind the header
_HEADER, _RECORD = Struct("!6H"), Struct("!H6xH")
MOST_POINTERS = 64
LONGEST_NAME_OCTETS = 255
MOST_RECORDS = 2_048


class Malformed(Exception):
    """These octets are no DNS message, or end too early."""


class DnsName(NamedTuple):
    """Shape: `labels` as on the wire, without length octets."""

    labels: tuple[bytes, ...]

    @property
    def plain(self) -> bool:
        """Whether every reader spells it alike: letters, digits, `-`, `_`, no dot inside a label."""
        return not b"".join(self.labels).translate(None, PLAIN_OCTETS)

    @property
    def spelled(self) -> str:
        return ".".join([label.decode("utf-8", "backslashreplace") for label in self.labels])

    @property
    def text(self) -> str:
        return self.spelled.lower()

    @property
    def wire(self) -> bytes:
        return b"".join(bytes((len(label),)) + label for label in self.labels)


@dataclass(frozen=True, slots=True)
class Service:
    """What a service binding says of a host besides its name."""

    alpn: tuple[bytes, ...] = ()
    addresses: tuple[str, ...] = ()
    encrypted_client_hello: bytes = b""  # the ECHConfigList, as it stands


class Record(NamedTuple):
    """Shape: `address` for A and AAAA, `target` for records that name another host, else both None."""

    owner: DnsName
    type: int
    address: str | None = None
    target: DnsName | None = None
    service: Service | None = None


class Edns(NamedTuple):
    """What the extensions say. Shape: `subnet` is `address/bits` or empty; `client_cookie` 8 octets or none."""

    subnet: str = ""
    client_cookie: bytes = b""


NO_EDNS = Edns()


class DnsMessage(NamedTuple):
    is_response: bool
    questions: tuple[DnsName, ...]
    records: tuple[Record, ...]
    edns: Edns = NO_EDNS
    recursion_available: bool = False
    broken: str = ""  # why it ends before it should; what came before that is here


def parse_message(untrusted: bytes) -> DnsMessage:
    """A message that breaks off, or makes no sense from somewhere on, is read up to there, if it is one beyond doubt.

    Errors: Malformed
    """
    if len(untrusted) < HEADER_OCTETS:
        raise Malformed("shorter than a header")
    _, flags, *counts = _HEADER.unpack_from(untrusted)
    if sum(counts) > MOST_RECORDS or (flags >> 11 & 15) > 6:
        raise Malformed("no plausible header")
    at, broken = HEADER_OCTETS, ""
    questions: list[DnsName] = []
    records: list[Record] = []
    edns = NO_EDNS
    try:
        for _ in range(counts[0]):
            name, at = _parse_question(untrusted, at)
            at += 4
            if at > len(untrusted):
                raise Malformed("a question cut off")
            questions.append(name)
        for _ in range(sum(counts[1:])):
            if at == len(untrusted) and flags & 0x0200:
                break  # truncated on purpose: the rest comes over TCP
            begin = at
            record, at = _parse_record(untrusted, at, questions)
            records.append(record)
            if record.type == OPT and not record.owner.labels:
                edns = _parse_edns(untrusted[begin + 11 : at])
    except Malformed as error:
        if not _is_beyond_doubt(untrusted, questions, records):
            raise
        broken = str(error)
    return DnsMessage(bool(flags & 0x8000), tuple(questions), tuple(records), edns, bool(flags & 0x0080), broken)


def _is_beyond_doubt(message: bytes, questions: Sequence[DnsName], records: Sequence[Record]) -> bool:
    """Whether octets that break off are DNS: they begin with a name, behind which stands a class that there is."""
    first = questions[0] if questions else records[0].owner if records else DnsName(())
    if not first.labels:
        return False
    _, at = parse_name(message, HEADER_OCTETS)
    return int.from_bytes(message[at + 2 : at + 4], "big") & ~UNICAST_OR_FLUSH in CLASSES


def parse_questions(untrusted: bytes) -> DnsMessage:
    """As many questions as these octets hold, which may be cut off anywhere: a message quoted by an ICMP error."""
    questions: list[DnsName] = []
    at, count = 12, int.from_bytes(untrusted[4:6], "big")
    with suppress(Malformed):
        while len(questions) < min(count, MOST_RECORDS):
            name, at = parse_name(untrusted, at)
            at += 4
            if at > len(untrusted):
                break
            questions.append(name)
    return DnsMessage(bool(untrusted[2:3] >= b"\x80"), tuple(questions), ())


def _parse_question(message: bytes, at: int) -> tuple[DnsName, int]:
    """As `parse_name`: the answer repeats what was asked, and the next client asks for it again. Errors: Malformed"""
    end = message.find(b"\0", at, at + LONGEST_NAME_OCTETS) + 1
    name = _parse_plain(message[at:end]) if end else None
    return (name, end) if name is not None else parse_name(message, at)


@lru_cache(maxsize=4096)
def _parse_plain(wire: bytes) -> DnsName | None:
    """A name that ends with these octets and at no earlier one, without pointers; None if it is not so."""
    labels, at, last = [], 0, len(wire) - 1
    while at < last:
        length = wire[at]
        if length >= 0x40:
            return None
        labels.append(wire[at + 1 : at + 1 + length])
        at += 1 + length
    return DnsName(tuple(labels)) if at == last else None


def parse_name(message: bytes, at: int) -> tuple[DnsName, int]:
    """The name at `at` and where what follows it begins. Errors: Malformed"""
    labels: list[bytes] = []
    octets = 0
    after = -1
    for _ in range(MOST_POINTERS + LONGEST_NAME_OCTETS):
        if at >= len(message):
            raise Malformed("a name cut off")
        length = message[at]
        if length >= 0xC0:
            if at + 2 > len(message):
                raise Malformed("a pointer cut off")
            target = (length & 0x3F) << 8 | message[at + 1]
            after = at + 2 if after < 0 else after
            if target >= at:
                raise Malformed("a pointer that does not point back")
            at = target
            continue
        if length >= 0x40:
            raise Malformed("an unknown kind of label")
        at += 1
        if not length:
            return DnsName(tuple(labels)), at if after < 0 else after
        if at + length > len(message):
            raise Malformed("a label cut off")
        labels.append(message[at : at + length])
        octets += length + 1
        if octets >= LONGEST_NAME_OCTETS:
            raise Malformed("a name too long")
        at += length
    raise Malformed("a name without end")


def _parse_record(message: bytes, at: int, questions: Sequence[DnsName]) -> tuple[Record, int]:
    if message[at : at + 2] == FIRST_QUESTION and questions:  # as nearly every answer begins
        owner, at = questions[0], at + 2
    else:
        owner, at = parse_name(message, at)
    if at + 10 > len(message):
        raise Malformed("a record cut off")
    record_type, length = _RECORD.unpack_from(message, at)
    start = at + 10
    end = start + length
    if end > len(message):
        raise Malformed("a record cut off")
    if record_type == A and length == 4:
        a, b, c, d = message[start:end]
        return Record(owner, A, f"{a}.{b}.{c}.{d}"), end
    if record_type == AAAA and length == 16:
        return Record(owner, AAAA, str(IPv6Address(message[start:end]))), end
    if record_type in NAME_OFFSET_IN_DATA:
        target, after = parse_name(message, start + NAME_OFFSET_IN_DATA[record_type])
        if after > end:
            raise Malformed("a name that leaves its record")
        return Record(owner, record_type, target=target), end
    if record_type in (SVCB, HTTPS):
        target, after = parse_name(message, start + 2)
        if after > end:
            raise Malformed("a name that leaves its record")
        return Record(owner, record_type, target=target, service=_parse_service(message[after:end])), end
    return Record(owner, record_type), end


def _pairs(block: bytes) -> list[tuple[int, bytes]]:
    """Kind (2), length (2) and value after value, as EDNS options and service parameters; up to what is cut off."""
    pairs, at = [], 0
    while at + 4 <= len(block):
        end = at + 4 + int.from_bytes(block[at + 2 : at + 4], "big")
        if end > len(block):
            break
        pairs.append((int.from_bytes(block[at : at + 2], "big"), block[at + 4 : end]))
        at = end
    return pairs


def _parse_edns(block: bytes) -> Edns:
    options = dict(reversed(_pairs(block)))  # the first of a kind counts
    return Edns(_parse_subnet(options.get(OPTION_CLIENT_SUBNET, b"")), options.get(OPTION_COOKIE, b"")[:8])


def _parse_subnet(option: bytes) -> str:
    family, bits, address = int.from_bytes(option[:2], "big"), option[2:3], option[4:]
    if family == 1 and len(address) <= 4 and bits:
        return f"{IPv4Address(address.ljust(4, bytes(1)))}/{bits[0]}"
    if family == 2 and len(address) <= 16 and bits:
        return f"{IPv6Address(address.ljust(16, bytes(1)))}/{bits[0]}"
    return ""


def _parse_service(block: bytes) -> Service:
    parameters = dict(_pairs(block))
    protocols, listed, at = [], parameters.get(PARAMETER_ALPN, b""), 0
    while at < len(listed):
        protocols.append(listed[at + 1 : at + 1 + listed[at]])
        at += 1 + listed[at]
    four, six = parameters.get(PARAMETER_IPV4, b""), parameters.get(PARAMETER_IPV6, b"")
    addresses = [str(IPv4Address(four[at : at + 4])) for at in range(0, len(four) - 3, 4)]
    addresses += [str(IPv6Address(six[at : at + 16])) for at in range(0, len(six) - 15, 16)]
    return Service(tuple(protocols), tuple(addresses), parameters.get(PARAMETER_ECH, b""))


def reversed_address(name: DnsName) -> str:
    """The address that a name under in-addr.arpa or ip6.arpa stands for, or nothing."""
    labels = [label.lower() for label in name.labels]
    try:
        if labels[-2:] == [b"in-addr", b"arpa"] and len(labels) == 6:
            return str(IPv4Address(b".".join(reversed(labels[:4])).decode("ascii")))
        if labels[-2:] == [b"ip6", b"arpa"] and len(labels) == 34 and all(len(label) == 1 for label in labels[:32]):
            return str(IPv6Address(int(b"".join(reversed(labels[:32])), 16)))
    except ValueError:
        pass
    return ""
