"""Protection of control packets below TLS: none, tls-auth, tls-crypt.

A wrapper protects one session's packets: it counts the replay ids of what it sends and remembers those of what it
has accepted. tls-crypt-v2 packets are tls-crypt with the client's own key, and renegotiations with dynamic tls-crypt
likewise. `open_first` looks at a packet without remembering it: for first packets, which leave no state.

Source: openvpn-protocol.md section 3.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from vpn.crypto.replay import StampWindow
from vpn.crypto.static_key import DirectionKeys, KeyHalf
from vpn.settings import Digest
from vpn.wire.packet import CONTROL_HEADER_OCTETS, ControlHeader
from vpn.wire.wrapped import TLS_CRYPT_TAG_OCTETS, ReplayStamp, TlsAuthPacket, TlsCryptPacket

DIGEST_OCTETS = {Digest.SHA1: 20, Digest.SHA256: 32, Digest.SHA384: 48, Digest.SHA512: 64}
_KEY_OCTETS = 32


class NotAuthentic(ValueError):
    """The packet was not made with our key."""


class Replayed(ValueError):
    """The packet is authentic but was accepted before, or is too old to tell."""


@dataclass(frozen=True, slots=True)
class Unwrapped:
    """A control packet without its protection; `stamp` is None without wrapping."""

    header: ControlHeader
    body: bytes
    stamp: ReplayStamp | None = None


class Wrapper(Protocol):
    """What a session needs of its control channel's protection. Errors: Malformed, NotAuthentic, Replayed."""

    @property
    def overhead(self) -> int:
        """Octets that protection adds to header and body."""

    def wrap(self, header: ControlHeader, body: bytes) -> bytes: ...

    def unwrap(self, untrusted: bytes, now: float) -> Unwrapped: ...

    def open_first(self, untrusted: bytes) -> Unwrapped: ...


class PlainWrapper:
    overhead = 0

    def wrap(self, header: ControlHeader, body: bytes) -> bytes:
        return header.build() + body

    def unwrap(self, untrusted: bytes, now: float) -> Unwrapped:
        return self.open_first(untrusted)

    def open_first(self, untrusted: bytes) -> Unwrapped:
        return Unwrapped(ControlHeader.parse(untrusted), untrusted[CONTROL_HEADER_OCTETS:])


class _Counter:
    """Replay ids of one sender. The time stays that of the start until the counter is used up."""

    __slots__ = ("_counter", "_time")

    def __init__(self, unix_time: int, before_first: int) -> None:
        self._counter = before_first
        self._time = unix_time

    def take(self) -> ReplayStamp:
        if self._counter == 0xFFFFFFFF:
            self._counter, self._time = 0, self._time + 1
        self._counter += 1
        return ReplayStamp(self._counter, self._time)


class TlsAuthWrapper:
    def __init__(self, keys: DirectionKeys, digest: Digest, unix_time: int, before_first: int = 0) -> None:
        self._octets = DIGEST_OCTETS[digest]
        self._digest = digest.value.lower()
        self._send = keys.send.hmac[: self._octets]
        self._receive = keys.receive.hmac[: self._octets]
        self._counter = _Counter(unix_time, before_first)
        self._window = StampWindow()

    @property
    def overhead(self) -> int:
        return self._octets + 8

    def wrap(self, header: ControlHeader, body: bytes) -> bytes:
        stamp = self._counter.take()
        return TlsAuthPacket(header, self._hmac(self._send, stamp, header, body), stamp, body).build()

    def unwrap(self, untrusted: bytes, now: float) -> Unwrapped:
        packet = self.open_first(untrusted)
        _check_replay(self._window, packet, now)
        return packet

    def open_first(self, untrusted: bytes) -> Unwrapped:
        packet = TlsAuthPacket.parse(untrusted, self._octets)
        expected = self._hmac(self._receive, packet.stamp, packet.header, packet.body)
        if not hmac.compare_digest(expected, packet.hmac):
            raise NotAuthentic("tls-auth HMAC does not verify")
        return Unwrapped(packet.header, packet.body, packet.stamp)

    def _hmac(self, key: bytes, stamp: ReplayStamp, header: ControlHeader, body: bytes) -> bytes:
        return hmac.digest(key, stamp.build() + header.build() + body, self._digest)


class TlsCryptWrapper:
    overhead = 8 + TLS_CRYPT_TAG_OCTETS

    def __init__(self, keys: DirectionKeys, unix_time: int, before_first: int = 0) -> None:
        self._send = keys.send
        self._receive = keys.receive
        self._counter = _Counter(unix_time, before_first)
        self._window = StampWindow()

    def wrap(self, header: ControlHeader, body: bytes) -> bytes:
        stamp = self._counter.take()
        tag = _tls_crypt_tag(self._send, header, stamp, body)
        return TlsCryptPacket(header, stamp, tag, crypt_ctr(self._send, tag, body)).build()

    def unwrap(self, untrusted: bytes, now: float) -> Unwrapped:
        packet = self.open_first(untrusted)
        _check_replay(self._window, packet, now)
        return packet

    def open_first(self, untrusted: bytes) -> Unwrapped:
        packet = TlsCryptPacket.parse(untrusted)
        body = crypt_ctr(self._receive, packet.tag, packet.ciphertext)
        expected = _tls_crypt_tag(self._receive, packet.header, packet.stamp, body)
        if not hmac.compare_digest(expected, packet.tag):
            raise NotAuthentic("tls-crypt tag does not verify")
        return Unwrapped(packet.header, body, packet.stamp)


def crypt_ctr(key: KeyHalf, tag: bytes, octets: bytes) -> bytes:
    """AES-256-CTR with the tag's first half as counter block; its own inverse."""
    context = BlockCipher(algorithms.AES(key.cipher[:_KEY_OCTETS]), modes.CTR(tag[:16])).encryptor()
    return context.update(octets) + context.finalize()


def _tls_crypt_tag(key: KeyHalf, header: ControlHeader, stamp: ReplayStamp, body: bytes) -> bytes:
    return hmac.digest(key.hmac[:_KEY_OCTETS], header.build() + stamp.build() + body, "sha256")


def _check_replay(window: StampWindow, packet: Unwrapped, now: float) -> None:
    if packet.stamp is None or not window.accept(packet.stamp, now):
        raise Replayed("control packet id used before, or too old")
