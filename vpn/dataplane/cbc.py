"""Sealing and opening data packets with AES-CBC and HMAC: old peers, and static-key mode.

    header (4, 1 or 0)   HMAC (n)   IV (16)   AES-CBC( packet id (4)   [time (4)]   payload   PKCS#7 )

The HMAC covers IV and ciphertext, not the header. Static-key mode has no header and carries the time; a later time
begins a new count. Source: openvpn-protocol.md sections 7.2 and 7.5.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes

from vpn.crypto.replay import ReplayWindow, StampWindow
from vpn.crypto.static_key import KeyHalf
from vpn.crypto.wrapping import DIGEST_OCTETS
from vpn.dataplane.cipher import KEY_OCTETS, LAST_PACKET_ID
from vpn.drops import Drop, Drops
from vpn.settings import Cipher, Digest
from vpn.wire.packet import Opcode
from vpn.wire.wrapped import ReplayStamp

BLOCK_OCTETS = 16


@dataclass(frozen=True, slots=True)
class CbcKey:
    """One direction's key and algorithms."""

    cipher: Cipher
    digest: Digest
    half: KeyHalf

    @property
    def aes(self) -> algorithms.AES:
        return algorithms.AES(self.half.cipher[: KEY_OCTETS[self.cipher]])

    @property
    def hmac_key(self) -> bytes:
        return self.half.hmac[: self.hmac_octets]

    @property
    def hmac_octets(self) -> int:
        return DIGEST_OCTETS[self.digest]


class CbcSealer:
    """`start_time`: static-key mode's time, or None in TLS mode. `random_bytes` gives the IVs."""

    __slots__ = ("_header", "_key", "_random_bytes", "_time", "last_packet_id")

    def __init__(
        self, key: CbcKey, header: bytes, random_bytes: Callable[[int], bytes], start_time: int | None = None
    ) -> None:
        self._key = key
        self._header = header
        self._random_bytes = random_bytes
        self._time = start_time
        self.last_packet_id = 0

    def seal_batch(self, plaintexts: Sequence[bytes]) -> list[bytes]:
        key, digest = self._key, self._key.digest.value.lower()
        aes, hmac_key = key.aes, key.hmac_key
        ivs = self._random_bytes(BLOCK_OCTETS * len(plaintexts))
        datagrams: list[bytes] = []
        for index, plaintext in enumerate(plaintexts):
            stamp = self._next_stamp()
            if stamp is None:
                break
            iv = ivs[BLOCK_OCTETS * index : BLOCK_OCTETS * (index + 1)]
            context = BlockCipher(aes, modes.CBC(iv)).encryptor()
            ciphertext = context.update(_pad(stamp + plaintext)) + context.finalize()
            protected = iv + ciphertext
            datagrams.append(self._header + hmac.digest(hmac_key, protected, digest) + protected)
        return datagrams

    def _next_stamp(self) -> bytes | None:
        if self.last_packet_id == LAST_PACKET_ID:
            if self._time is None:
                return None
            self.last_packet_id, self._time = 0, self._time + 1
        self.last_packet_id += 1
        number = self.last_packet_id.to_bytes(4, "big")
        return number if self._time is None else number + self._time.to_bytes(4, "big")


class CbcOpener:
    """Opens packets of TLS mode (`window`: ReplayWindow) or of static-key mode (StampWindow, no header)."""

    __slots__ = ("_key", "_window")

    def __init__(self, key: CbcKey, window: ReplayWindow | StampWindow) -> None:
        self._key = key
        self._window = window

    def open_batch(self, untrusted: Sequence[bytes], now: float, drops: Drops) -> list[bytes]:
        key, digest = self._key, self._key.digest.value.lower()
        aes, hmac_key, hmac_octets = key.aes, key.hmac_key, key.hmac_octets
        static = isinstance(self._window, StampWindow)
        plaintexts = []
        for packet in untrusted:
            start = 0 if static else (4 if packet[0] >> 3 == Opcode.DATA_V2 else 1)
            protected = packet[start + hmac_octets :]
            blocks, rest = divmod(len(protected), BLOCK_OCTETS)
            expected = hmac.digest(hmac_key, protected, digest)
            if not hmac.compare_digest(expected, packet[start : start + hmac_octets]) or blocks < 2 or rest:
                drops.count(Drop.UNAUTHENTIC_DATA)
                continue
            context = BlockCipher(aes, modes.CBC(protected[:BLOCK_OCTETS])).decryptor()
            stamped = _unpad(context.update(protected[BLOCK_OCTETS:]) + context.finalize())
            plaintext = self._unstamp(stamped, now, drops)
            if plaintext is not None:
                plaintexts.append(plaintext)
        return plaintexts

    def _unstamp(self, stamped: bytes | None, now: float, drops: Drops) -> bytes | None:
        window = self._window
        size = 8 if isinstance(window, StampWindow) else 4
        if stamped is None or len(stamped) < size:
            drops.count(Drop.BAD_FRAMING)
            return None
        if isinstance(window, StampWindow):
            good = window.accept(ReplayStamp.parse(stamped), now)
        else:
            good = window.accept(int.from_bytes(stamped[:4], "big"), now)
        if not good:
            drops.count(Drop.REPLAYED_DATA)
            return None
        return stamped[size:]


def _pad(octets: bytes) -> bytes:
    missing = BLOCK_OCTETS - len(octets) % BLOCK_OCTETS
    return octets + bytes((missing,)) * missing


def _unpad(octets: bytes) -> bytes | None:
    # the HMAC has been checked: a bad padding is the sender's mistake, not an oracle
    missing = octets[-1]
    if not 1 <= missing <= BLOCK_OCTETS or octets[-missing:] != bytes((missing,)) * missing:
        return None
    return octets[:-missing]
