"""DNS messages as anybody on the path reads them: the names asked for, the answers, the names in the answers.

A parser for hostile octets: compression pointers may only point back and are counted, every length is held against the
message, and what makes no sense ends the message with `Malformed`. Nothing is resolved or validated.

Source: RFC 1035, RFC 3596, RFC 2782
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

A, NS, CNAME, PTR, MX, AAAA, SRV, DNAME = 1, 2, 5, 12, 15, 28, 33, 39
NAME_OFFSET_IN_DATA = {NS: 0, CNAME: 0, PTR: 0, DNAME: 0, MX: 2, SRV: 6}
PLAIN_OCTETS = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
MOST_POINTERS = 64
LONGEST_NAME_OCTETS = 255
MOST_RECORDS = 2_048


class Malformed(Exception):
    """These octets are no DNS message, or end too early."""


@dataclass(frozen=True, slots=True)
class DnsName:
    """Shape: `labels` as on the wire, without length octets."""

    labels: tuple[bytes, ...]

    @property
    def plain(self) -> bool:
        """Whether every reader spells it alike: letters, digits, `-`, `_`, no dot inside a label."""
        return all(octet in PLAIN_OCTETS for octet in b"".join(self.labels))

    @property
    def spelled(self) -> str:
        return ".".join(label.decode("utf-8", "backslashreplace") for label in self.labels)

    @property
    def text(self) -> str:
        return self.spelled.lower()

    @property
    def wire(self) -> bytes:
        return b"".join(bytes((len(label),)) + label for label in self.labels)


@dataclass(frozen=True, slots=True)
class Record:
    """Shape: `address` for A and AAAA, `target` for records that name another host, else both None."""

    owner: DnsName
    type: int
    address: str | None = None
    target: DnsName | None = None


@dataclass(frozen=True, slots=True)
class DnsMessage:
    is_response: bool
    questions: tuple[DnsName, ...]
    records: tuple[Record, ...]


def parse_message(untrusted: bytes) -> DnsMessage:
    """Errors: Malformed"""
    if len(untrusted) < 12:
        raise Malformed("shorter than a header")
    flags = int.from_bytes(untrusted[2:4], "big")
    counts = [int.from_bytes(untrusted[at : at + 2], "big") for at in (4, 6, 8, 10)]
    if sum(counts) > MOST_RECORDS or (flags >> 11 & 15) > 6:
        raise Malformed("no plausible header")
    at = 12
    questions = []
    for _ in range(counts[0]):
        name, at = parse_name(untrusted, at)
        at += 4
        if at > len(untrusted):
            raise Malformed("a question cut off")
        questions.append(name)
    records = []
    for _ in range(sum(counts[1:])):
        if at == len(untrusted) and flags & 0x0200:
            break  # truncated on purpose: the rest comes over TCP
        record, at = _parse_record(untrusted, at)
        records.append(record)
    return DnsMessage(bool(flags & 0x8000), tuple(questions), tuple(records))


def parse_name(message: bytes, at: int) -> tuple[DnsName, int]:
    """The name at `at` and where what follows it begins. Errors: Malformed"""
    labels: list[bytes] = []
    octets = 0
    after = -1
    for _ in range(MOST_POINTERS + LONGEST_NAME_OCTETS):
        if at >= len(message):
            raise Malformed("a name cut off")
        length = message[at]
        if length & 0xC0 == 0xC0:
            if at + 2 > len(message):
                raise Malformed("a pointer cut off")
            target = (length & 0x3F) << 8 | message[at + 1]
            after = at + 2 if after < 0 else after
            if target >= at:
                raise Malformed("a pointer that does not point back")
            at = target
            continue
        if length & 0xC0:
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


def _parse_record(message: bytes, at: int) -> tuple[Record, int]:
    owner, at = parse_name(message, at)
    if at + 10 > len(message):
        raise Malformed("a record cut off")
    record_type = int.from_bytes(message[at : at + 2], "big")
    length = int.from_bytes(message[at + 8 : at + 10], "big")
    start = at + 10
    end = start + length
    if end > len(message):
        raise Malformed("a record cut off")
    if record_type == A and length == 4:
        return Record(owner, A, str(IPv4Address(message[start:end]))), end
    if record_type == AAAA and length == 16:
        return Record(owner, AAAA, str(IPv6Address(message[start:end]))), end
    if record_type in NAME_OFFSET_IN_DATA:
        target, after = parse_name(message, start + NAME_OFFSET_IN_DATA[record_type])
        if after > end:
            raise Malformed("a name that leaves its record")
        return Record(owner, record_type, target=target), end
    return Record(owner, record_type), end
