"""DNS messages: what was asked and what was answered, spelled as Wireshark's summary spells it.

Names are read by the observer's parser, which follows only pointers that point back.

Source: RFC 1035, RFC 3596, RFC 6891, RFC 9460
"""

from __future__ import annotations

import ipaddress

from testbed.dissection.opening import Opening, Reader, Short
from testbed.observer import dns

TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    39: "DNAME",
    41: "OPT",
    43: "DS",
    46: "RRSIG",
    47: "NSEC",
    48: "DNSKEY",
    64: "SVCB",
    65: "HTTPS",
    255: "ANY",
}
_OPERATIONS = {
    0: "Standard query",
    1: "Inverse query",
    2: "Server status request",
    4: "Zone change notification",
    5: "Dynamic update",
}
_ERRORS = {1: "Format error", 2: "Server failure", 3: "No such name", 4: "Not implemented", 5: "Refused"}
_MOST_SHOWN = 120


def open_dns(opening: Opening, message: bytes, start: int, end: int, protocol: str = "DNS") -> bool:
    """Whether it is a DNS message; if so it is a layer of the frame, which holds its end at `start` to `end`.

    Shape: `protocol` is DNS, MDNS or LLMNR, which share the format
    """
    try:
        fields, summary = _read(message)
    except (Short, dns.Malformed):
        return False
    opening.say(protocol, summary)
    opening.add("Domain Name System", start, end, *fields)
    return True


def _read(message: bytes) -> tuple[list[tuple[str, object]], str]:
    reader = Reader(message, 0, len(message))
    identifier, flags = reader.number(2), reader.number(2)
    counts = [reader.number(2) for _ in range(4)]
    is_response = bool(flags & 0x8000)
    operation = _OPERATIONS.get(flags >> 11 & 15)
    if operation is None or sum(counts) > dns.MOST_RECORDS:
        raise Short
    words = [f"{operation} response" if is_response else operation, f"0x{identifier:04x}"]
    fields: list[tuple[str, object]] = [("kind", words[0].lower()), ("identifier", words[1])]
    if is_response and flags & 15:
        words.append(_ERRORS.get(flags & 15, f"error {flags & 15}"))
        fields.append(("error", words[-1]))
    for _ in range(counts[0]):
        name, reader.at = dns.parse_name(message, reader.at)
        kind = TYPES.get(reader.number(2), "unknown")
        reader.take(2)
        words.append(f"{kind} {name.spelled or '<Root>'}")
        fields.append(("question", f"{name.spelled} {kind}"))
    for section, count in zip(("answer", "authority", "additional"), counts[1:], strict=True):
        for _ in range(count):
            record, line = _record(message, reader)
            words.append(record)
            if len(fields) < _MOST_SHOWN:
                fields.append((section, line))
    return fields, " ".join(words[:_MOST_SHOWN])


def _record(message: bytes, reader: Reader) -> tuple[str, str]:
    """One record as the summary names it, and as a field names it. Errors: Short, Malformed"""
    owner, reader.at = dns.parse_name(message, reader.at)
    number = reader.number(2)
    reader.take(2)
    lifetime, length = reader.number(4), reader.number(2)
    start = reader.at
    data = reader.take(length)
    kind = TYPES.get(number, f"type {number}")
    if number == 41:
        return kind, "EDNS options"
    value = _value(message, start, number, data)
    return f"{kind} {value}".rstrip(), f"{owner.spelled} {kind} {value or f'{length} octets'}, kept {lifetime} s"


def _value(message: bytes, start: int, number: int, data: bytes) -> str:
    if number == dns.A and len(data) == 4:
        return str(ipaddress.IPv4Address(data))
    if number == dns.AAAA and len(data) == 16:
        return str(ipaddress.IPv6Address(data))
    if number in dns.NAME_OFFSET_IN_DATA:
        offset = dns.NAME_OFFSET_IN_DATA[number]
        numbers = [str(int.from_bytes(data[at : at + 2], "big")) for at in range(0, offset, 2)]
        return " ".join((*numbers, dns.parse_name(message, start + offset)[0].spelled))
    if number == 6:
        return dns.parse_name(message, start)[0].spelled
    return ""
