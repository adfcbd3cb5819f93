"""The first octets of every packet: opcode, key id, session id, peer id.

    control   opcode << 3 | key_id (1)   session id (8)   …
    DATA_V1   opcode << 3 | key_id (1)   …
    DATA_V2   opcode << 3 | key_id (1)   peer id (3)   …

Knows nothing of what follows. Source: openvpn-protocol.md section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

KeyId = NewType("KeyId", int)
PeerId = NewType("PeerId", int)
MessageId = NewType("MessageId", int)
SessionId = NewType("SessionId", bytes)

SESSION_ID_OCTETS = 8
NO_PEER_ID = PeerId(0xFFFFFF)
CONTROL_HEADER_OCTETS = 1 + SESSION_ID_OCTETS
_ZERO_SESSION_ID = bytes(SESSION_ID_OCTETS)


class Malformed(ValueError):
    """Octets that are not what they should be. The text is for the log and never quotes the octets."""


class Opcode(IntEnum):
    CONTROL_SOFT_RESET_V1 = 3
    CONTROL_V1 = 4
    ACK_V1 = 5
    DATA_V1 = 6
    CONTROL_HARD_RESET_CLIENT_V2 = 7
    CONTROL_HARD_RESET_SERVER_V2 = 8
    DATA_V2 = 9
    CONTROL_HARD_RESET_CLIENT_V3 = 10
    CONTROL_WKC_V1 = 11


DATA_OPCODES = frozenset({Opcode.DATA_V1, Opcode.DATA_V2})
CLIENT_RESETS = frozenset({Opcode.CONTROL_HARD_RESET_CLIENT_V2, Opcode.CONTROL_HARD_RESET_CLIENT_V3})
WITH_CLIENT_KEY = frozenset({Opcode.CONTROL_HARD_RESET_CLIENT_V3, Opcode.CONTROL_WKC_V1})
_BY_NUMBER = {opcode.value: opcode for opcode in Opcode}


def header_octet(opcode: Opcode, key_id: KeyId) -> int:
    return opcode << 3 | key_id


@dataclass(frozen=True, slots=True)
class ControlHeader:
    """What stands in clear before every control packet, whatever the wrapping."""

    opcode: Opcode
    key_id: KeyId
    session_id: SessionId

    @classmethod
    def parse(cls, untrusted: bytes) -> ControlHeader:
        if len(untrusted) < CONTROL_HEADER_OCTETS:
            raise Malformed("control packet shorter than its header")
        opcode = parse_opcode(untrusted)
        if opcode in DATA_OPCODES:
            raise Malformed("data packet where a control packet was expected")
        session_id = untrusted[1:CONTROL_HEADER_OCTETS]
        if session_id == _ZERO_SESSION_ID:
            raise Malformed("session id of zeros")
        return cls(opcode, KeyId(untrusted[0] & 7), SessionId(session_id))

    def build(self) -> bytes:
        return bytes((header_octet(self.opcode, self.key_id),)) + self.session_id


def parse_opcode(untrusted: bytes) -> Opcode:
    """The opcode of a packet. Errors: Malformed if there is none or it is not in use."""
    if not untrusted:
        raise Malformed("empty packet")
    opcode = _BY_NUMBER.get(untrusted[0] >> 3)
    if opcode is None:
        raise Malformed("unknown or obsolete opcode")
    return opcode


def data_header(opcode: Opcode, key_id: KeyId, peer_id: PeerId) -> bytes:
    """The header of a data packet; the peer id only with DATA_V2."""
    first = header_octet(opcode, key_id)
    if opcode is Opcode.DATA_V1:
        return bytes((first,))
    return bytes((first,)) + peer_id.to_bytes(3, "big")
