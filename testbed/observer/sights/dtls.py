"""The handshake of DTLS before it is encrypted: names, certificates, what was chosen; whole or in fragments.

    record:     22 | version | epoch (2) | sequence (6) | length (2)
    handshake:  type | length (3) | message (2) | fragment offset (3) | fragment length (3) | fragment

Epoch 0 is in clear. Fragments are put together per direction and message number, so many at a time.

Source: RFC 6347 section 4, RFC 9147 section 5
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.observer.findings import Findings, Place
from testbed.observer.flows import FlowState
from testbed.observer.sights.tls import OVER_DTLS, sight_handshake
from testbed.observer.wire.assembler import Assembler

HANDSHAKE = 22
RECORD_OCTETS, HANDSHAKE_OCTETS = 13, 12
LONGEST_MESSAGE_OCTETS = 1 << 16
MOST_MESSAGES = 32
MOST_RECORDS = 32
VERSIONS = frozenset((b"\xfe\xff", b"\xfe\xfd", b"\xfe\xfc"))


@dataclass(slots=True)
class DtlsHandshake:
    """Messages of a flow that are not whole yet, by direction, number and type."""

    waiting: dict[tuple[bool, int, int], Assembler] = field(default_factory=dict)


def looks_like_dtls_handshake(data: bytes) -> bool:
    """Whether a datagram begins with an unencrypted handshake record."""
    return data[0] == HANDSHAKE and data[1:3] in VERSIONS and data[3:5] == b"\0\0"


def dissect_dtls(flow: FlowState, from_client: bool, data: bytes, place: Place, findings: Findings) -> None:
    flow.application, findings.saw_dtls = flow.application or "dtls", True
    handshake = flow.dissector if isinstance(flow.dissector, DtlsHandshake) else DtlsHandshake()
    flow.dissector = handshake
    at = 0
    for _ in range(MOST_RECORDS):
        if at + RECORD_OCTETS > len(data) or not looks_like_dtls_handshake(data[at : at + RECORD_OCTETS]):
            return
        end = at + RECORD_OCTETS + int.from_bytes(data[at + 11 : at + 13], "big")
        for kind, body in _messages(handshake, from_client, data[at + RECORD_OCTETS : end]):
            sight_handshake(flow, kind, body, OVER_DTLS, place, findings)
        at = end


def _messages(handshake: DtlsHandshake, from_client: bool, record: bytes) -> list[tuple[int, bytes]]:
    """The messages that the fragments in a record complete."""
    whole: list[tuple[int, bytes]] = []
    at = 0
    while at + HANDSHAKE_OCTETS <= len(record):
        kind, size, number, offset, length = (
            int.from_bytes(record[at + start : at + stop], "big")
            for start, stop in ((0, 1), (1, 4), (4, 6), (6, 9), (9, 12))
        )
        fragment = record[at + HANDSHAKE_OCTETS : at + HANDSHAKE_OCTETS + length]
        at += HANDSHAKE_OCTETS + length
        if len(fragment) < length or offset + length > size:
            break
        if length == size:
            whole.append((kind, fragment))
            continue
        key = (from_client, number, kind)
        if key not in handshake.waiting and len(handshake.waiting) >= MOST_MESSAGES:
            break
        assembler = handshake.waiting.setdefault(key, Assembler(LONGEST_MESSAGE_OCTETS))
        if assembler.add(offset, fragment) and len(assembler.data) >= size:
            whole.append((kind, bytes(assembler.data[:size])))
            del handshake.waiting[key]
    return whole
