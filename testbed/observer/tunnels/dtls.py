"""Recognising DTLS by its records, on any port. DTLS alone is no tunnel: calls and sensors use it too.

    type (20 to 26) | version (fe ff: 1.0, fe fd: 1.2 and 1.3's handshake, 01 00: Cisco's) | epoch (2) | number (6) |
    length (2) | fragment; several records may follow one another to the end of the datagram

A conversation is DTLS once both sides have sent such records, one of them a handshake; WebRTC's calls are told apart by
their STUN messages. What makes a tunnel of it stands in `related`.

Source: RFC 6347 section 4.1, RFC 9147 section 4
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

HEADER_OCTETS = 13
VERSIONS = frozenset((b"\xfe\xff", b"\xfe\xfd", b"\x01\x00"))
HANDSHAKE, APPLICATION_DATA = 22, 23
TYPES = frozenset(range(20, 27))
STUN_COOKIE = b"\x21\x12\xa4\x42"
RECORDS_LOOKED_AT = 16
UNIFIED_HEADER = 0b001  # the first three bits of an encrypted record in DTLS 1.3


@dataclass(frozen=True, slots=True)
class Dtls:
    """Shape: `certain_at` counts datagrams from 0; `data` how many each side sent that carry application data."""

    certain_at: int
    data_sent: int
    data_received: int
    is_call: bool


def record_types(packet: bytes) -> tuple[int, ...]:
    """The types of the records that fill a datagram; none if they do not."""
    found: list[int] = []
    at = 0
    while at + HEADER_OCTETS <= len(packet) and len(found) < RECORDS_LOOKED_AT:
        if packet[at] not in TYPES or packet[at + 1 : at + 3] not in VERSIONS:
            return ()
        found.append(packet[at])
        at += HEADER_OCTETS + int.from_bytes(packet[at + 11 : at + 13], "big")
    return tuple(found) if at == len(packet) else ()


def read_dtls(datagrams: Iterable[tuple[bool, bytes]]) -> Dtls | None:
    """What a conversation's first datagrams, each with whether the client sent it, say of DTLS."""
    senders: set[bool] = set()
    handshake = is_call = False
    certain_at = -1
    data = {True: 0, False: 0}
    for index, (from_client, packet) in enumerate(datagrams):
        if packet[4:8] == STUN_COOKIE:
            is_call = True
            continue
        types = record_types(packet)
        if certain_at >= 0:
            data[from_client] += APPLICATION_DATA in types or (not types and _is_unified(packet))
            continue
        if types:
            handshake = handshake or HANDSHAKE in types
            senders.add(from_client)
            certain_at = index if handshake and len(senders) == 2 else -1
    return Dtls(certain_at, data[True], data[False], is_call) if certain_at >= 0 else None


def _is_unified(packet: bytes) -> bool:
    """Whether it can be an encrypted record of DTLS 1.3."""
    return bool(packet) and packet[0] >> 5 == UNIFIED_HEADER
