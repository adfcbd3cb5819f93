"""Control packets with their protection, as octets: what stands where, not what it means.

    plain      header (9)   body
    tls-auth   header (9)   HMAC (n)   replay id (4)   time (4)   body
    tls-crypt  header (9)   replay id (4)   time (4)   tag (32)   encrypted body

A packet of tls-crypt-v2 may have the wrapped client key WKc behind it, in clear, its length in the last two octets.
Source: openvpn-protocol.md section 3.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vpn.wire.packet import CONTROL_HEADER_OCTETS, ControlHeader, Malformed

TLS_CRYPT_TAG_OCTETS = 32
MAX_WRAPPED_KEY_OCTETS = 1024
_STAMP = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class ReplayStamp:
    """The long packet id: a counter and the time at which the sender's counter began. Units: Unix seconds."""

    counter: int
    time: int

    def build(self) -> bytes:
        return _STAMP.pack(self.counter, self.time)

    @classmethod
    def parse(cls, octets: bytes, offset: int = 0) -> ReplayStamp:
        if len(octets) < offset + _STAMP.size:
            raise Malformed("replay stamp cut short")
        return cls(*_STAMP.unpack_from(octets, offset))


@dataclass(frozen=True, slots=True)
class TlsAuthPacket:
    header: ControlHeader
    hmac: bytes
    stamp: ReplayStamp
    body: bytes

    @classmethod
    def parse(cls, untrusted: bytes, hmac_octets: int) -> TlsAuthPacket:
        header = ControlHeader.parse(untrusted)
        end = CONTROL_HEADER_OCTETS + hmac_octets
        stamp = ReplayStamp.parse(untrusted, end)
        return cls(header, untrusted[CONTROL_HEADER_OCTETS:end], stamp, untrusted[end + 8 :])

    def build(self) -> bytes:
        return self.header.build() + self.hmac + self.stamp.build() + self.body


@dataclass(frozen=True, slots=True)
class TlsCryptPacket:
    header: ControlHeader
    stamp: ReplayStamp
    tag: bytes
    ciphertext: bytes

    @classmethod
    def parse(cls, untrusted: bytes) -> TlsCryptPacket:
        header = ControlHeader.parse(untrusted)
        start = CONTROL_HEADER_OCTETS + 8
        end = start + TLS_CRYPT_TAG_OCTETS
        if len(untrusted) < end:
            raise Malformed("tls-crypt packet shorter than its tag")
        stamp = ReplayStamp.parse(untrusted, CONTROL_HEADER_OCTETS)
        return cls(header, stamp, untrusted[start:end], untrusted[end:])

    def build(self) -> bytes:
        return self.header.build() + self.stamp.build() + self.tag + self.ciphertext


@dataclass(frozen=True, slots=True)
class WrappedClientKey:
    """WKc: a client's key, sealed by the server for itself."""

    tag: bytes
    ciphertext: bytes

    @classmethod
    def parse(cls, untrusted: bytes) -> WrappedClientKey:
        if len(untrusted) < TLS_CRYPT_TAG_OCTETS + 2 or len(untrusted) > MAX_WRAPPED_KEY_OCTETS:
            raise Malformed("wrapped client key of impossible length")
        if int.from_bytes(untrusted[-2:], "big") != len(untrusted):
            raise Malformed("wrapped client key names another length")
        return cls(untrusted[:TLS_CRYPT_TAG_OCTETS], untrusted[TLS_CRYPT_TAG_OCTETS:-2])

    def build(self) -> bytes:
        return self.tag + self.ciphertext + self.length.to_bytes(2, "big")

    @property
    def length(self) -> int:
        return len(self.tag) + len(self.ciphertext) + 2


def split_client_key(untrusted: bytes) -> tuple[bytes, bytes]:
    """Cut a packet with a wrapped client key behind it into (packet, WKc)."""
    if len(untrusted) < 2:
        raise Malformed("no room for a wrapped client key")
    length = int.from_bytes(untrusted[-2:], "big")
    if not TLS_CRYPT_TAG_OCTETS + 2 <= length <= MAX_WRAPPED_KEY_OCTETS or length > len(untrusted):
        raise Malformed("wrapped client key of impossible length")
    return untrusted[:-length], untrusted[-length:]
