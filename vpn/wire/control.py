"""The body of a control packet: acknowledgements, message id, payload.

    acknowledgements n (1)   n message ids (4 each)   session id of their sender (8, only if n > 0)
    message id (4, not in ACK_V1)   payload

This is what the wrapping protects. Source: openvpn-protocol.md section 2.1.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vpn.wire.packet import SESSION_ID_OCTETS, Malformed, MessageId, Opcode, SessionId

MAX_ACKS = 8
_MESSAGE_ID = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class ControlBody:
    """Shape: `acked_session_id` is present exactly when `acks` is not empty; `message_id` is None in ACK_V1."""

    acks: tuple[MessageId, ...] = ()
    acked_session_id: SessionId | None = None
    message_id: MessageId | None = None
    payload: bytes = b""

    @classmethod
    def parse(cls, body: bytes, opcode: Opcode) -> ControlBody:
        if not body:
            raise Malformed("control packet without a body")
        count = body[0]
        if count > MAX_ACKS:
            raise Malformed("more than 8 acknowledgements")
        end = 1 + 4 * count
        session_end = end + SESSION_ID_OCTETS if count else end
        if len(body) < session_end:
            raise Malformed("acknowledgements cut short")
        acks = tuple(MessageId(value) for value in struct.unpack_from(f">{count}I", body, 1))
        session_id = SessionId(body[end:session_end]) if count else None
        if opcode is Opcode.ACK_V1:
            return cls._parse_ack(body, acks, session_id, session_end)
        if len(body) < session_end + 4:
            raise Malformed("message id cut short")
        (message_id,) = _MESSAGE_ID.unpack_from(body, session_end)
        return cls(acks, session_id, MessageId(message_id), body[session_end + 4 :])

    @classmethod
    def _parse_ack(
        cls, body: bytes, acks: tuple[MessageId, ...], session_id: SessionId | None, end: int
    ) -> ControlBody:
        if not acks:
            raise Malformed("ACK without acknowledgements")
        if len(body) != end:
            raise Malformed("octets after the acknowledgements of an ACK")
        return cls(acks, session_id)

    def build(self) -> bytes:
        parts = [bytes((len(self.acks),)), struct.pack(f">{len(self.acks)}I", *self.acks)]
        if self.acked_session_id is not None:
            parts.append(self.acked_session_id)
        if self.message_id is not None:
            parts.append(_MESSAGE_ID.pack(self.message_id))
            parts.append(self.payload)
        return b"".join(parts)
