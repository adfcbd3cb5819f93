"""DTLS records of one datagram: which handshake messages are readable, and from which epoch on nothing is.

    type | version (2) | epoch (2) | sequence number (6) | length (2) | fragment        versions feff (1.0), fefd (1.2)
    handshake fragment: type | length (3) | message number (2) | offset (3) | length (3) | body

Epoch 0 is in clear, later epochs are sealed. Messages in several fragments are named by their first one.

Source: RFC 6347 section 4.1
"""

from __future__ import annotations

from testbed.dissection.opening import Opening
from testbed.dissection.tls import HANDSHAKES, client_hello_fields

_TYPES = {20: "Change Cipher Spec", 21: "Alert", 22: "Handshake", 23: "Application Data"}
VERSIONS = {0xFEFF: "DTLSv1.0", 0xFEFD: "DTLSv1.2"}
_RECORD_HEADER, _MESSAGE_HEADER = 13, 12
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_COOKIE_LENGTH_AT = 2 + 32
_MOST_RECORDS = 64


def begins(datagram: bytes) -> bool:
    """Whether a datagram opens a conversation of DTLS: a whole handshake record of epoch 0."""
    if len(datagram) < _RECORD_HEADER + _MESSAGE_HEADER or datagram[0] != _HANDSHAKE:
        return False
    version, epoch = int.from_bytes(datagram[1:3], "big"), int.from_bytes(datagram[3:5], "big")
    return version in VERSIONS and epoch == 0 and datagram[13] in HANDSHAKES and _end(datagram, 0) <= len(datagram)


def _end(datagram: bytes, at: int) -> int:
    return at + _RECORD_HEADER + int.from_bytes(datagram[at + 11 : at + 13], "big")


def open_datagram(opening: Opening, start: int, end: int) -> bool:
    """Whether the datagram consists of DTLS records; if so they are layers of the frame."""
    datagram = opening.data[start:end]
    records: list[tuple[int, int]] = []
    at = 0
    while at + _RECORD_HEADER <= len(datagram) and datagram[at] in _TYPES and len(records) < _MOST_RECORDS:
        if int.from_bytes(datagram[at + 1 : at + 3], "big") not in VERSIONS or _end(datagram, at) > len(datagram):
            break
        records.append((at, _end(datagram, at)))
        at = records[-1][1]
    if not records or at != len(datagram):
        return False
    names = [_open_record(opening, start, datagram, *record) for record in records]
    version = int.from_bytes(datagram[1:3], "big")
    opening.say(VERSIONS[version], ", ".join(names))
    return True


def _open_record(opening: Opening, base: int, datagram: bytes, at: int, end: int) -> str:
    kind, epoch = datagram[at], int.from_bytes(datagram[at + 3 : at + 5], "big")
    number = int.from_bytes(datagram[at + 5 : at + 11], "big")
    sealed = epoch > 0
    name = _TYPES[kind]
    body = datagram[at + _RECORD_HEADER : end]
    fields: list[tuple[str, object]] = [("epoch", epoch), ("sequence number", number)]
    if kind == _HANDSHAKE:
        name = "Encrypted Handshake Message" if sealed else HANDSHAKES.get(body[0] if body else -1, "Handshake")
        if not sealed and body[:1] == bytes((_CLIENT_HELLO,)):
            client_hello_fields(_without_cookie(body[_MESSAGE_HEADER:]), fields)
    elif kind == 21 and sealed:
        name = "Encrypted Alert"
    header = [("record", name), *fields]
    if not sealed:
        opening.add("Datagram Transport Layer Security", base + at, base + end, *header)
        return name
    opening.add("Datagram Transport Layer Security", base + at, base + at + _RECORD_HEADER, *header)
    opening.add("DTLS, encrypted", base + at + _RECORD_HEADER, base + end, ("octets", len(body)), encrypted=True)
    return name


def _without_cookie(hello: bytes) -> bytes:
    """A ClientHello as TLS spells it: DTLS has a cookie behind the session id."""
    at = _COOKIE_LENGTH_AT
    session_end = at + 1 + (hello[at] if len(hello) > at else 0)
    cookie_end = session_end + 1 + (hello[session_end] if len(hello) > session_end else 0)
    return hello[:session_end] + hello[cookie_end:]
