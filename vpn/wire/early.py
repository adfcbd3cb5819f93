"""Early negotiation of tls-crypt-v2: what the two resets tell each other before any state exists.

A client that can start without server state counts its replay ids from 0x0f000001; the server answers with
type-length-value records in the payload of its reset. Source: openvpn-protocol.md section 2.4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vpn.wire.packet import Malformed

EARLY_COUNTER_BASE = 0x0F000000
_RECORD = struct.Struct(">HH")
_TYPE_FLAGS = 1
_FLAG_RESEND_CLIENT_KEY = 1


def announces_early_negotiation(counter: int) -> bool:
    return counter >> 24 == EARLY_COUNTER_BASE >> 24


@dataclass(frozen=True, slots=True)
class EarlyFlags:
    """What a server's reset asks for. Records of unknown type are skipped and so not built again."""

    resend_client_key: bool = False

    @classmethod
    def parse(cls, payload: bytes) -> EarlyFlags:
        resend = False
        offset = 0
        while offset < len(payload):
            if len(payload) < offset + _RECORD.size:
                raise Malformed("early negotiation record cut short")
            kind, length = _RECORD.unpack_from(payload, offset)
            offset += _RECORD.size
            value = payload[offset : offset + length]
            if len(value) != length:
                raise Malformed("early negotiation value cut short")
            offset += length
            if kind == _TYPE_FLAGS:
                if length != 2:
                    raise Malformed("early negotiation flags of wrong length")
                resend = bool(int.from_bytes(value, "big") & _FLAG_RESEND_CLIENT_KEY)
        return cls(resend)

    def build(self) -> bytes:
        if not self.resend_client_key:
            return b""
        return _RECORD.pack(_TYPE_FLAGS, 2) + _FLAG_RESEND_CLIENT_KEY.to_bytes(2, "big")
