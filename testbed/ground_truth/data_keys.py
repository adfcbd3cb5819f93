"""Opens packets of the data channel with the keys of a finished run.

    AEAD        opcode, peer id | packet id (4) | tag (16) | ciphertext      nonce: packet id, eight octets of hmac
    CBC         opcode, peer id | HMAC (20)  | IV (16) | ciphertext of: packet id (4), payload
    static key                    HMAC (32)  | IV (16) | ciphertext of: packet id (4), time (4), payload

A block of 256 octets holds the keys: cipher, hmac of the client's direction, cipher, hmac of the server's. Which of
several blocks sealed a packet is found by trying: only the right one authenticates. With renegotiations each key id
has one of its own.

Source: openvpn-protocol.md sections 3.1, 6.1, 7.1, 7.2, 7.5
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.padding import PKCS7

from testbed.ground_truth.keylog import export_key

LABEL = b"EXPORTER-OpenVPN-datakeys"
BLOCK_OCTETS = 256
PART_OCTETS = 64
DATA_V1, DATA_V2 = 6, 9
TAG_OCTETS = 16
IV_OCTETS = 16
AEAD_KEY_OCTETS = {"AES-128-GCM": 16, "AES-192-GCM": 24, "AES-256-GCM": 32, "CHACHA20-POLY1305": 32}
TLS_DIGEST = "sha1"  # what `auth` is where the configuration names none
STATIC_DIGEST, STATIC_DIGEST_OCTETS = "sha256", 32  # as the lab's static-key configuration says


class Opened(NamedTuple):
    """A data packet's payload. Shape: `key_id` is 0 in static-key mode, which has none."""

    payload: bytes
    key_id: int
    packet_id: int


class DataOpener(Protocol):
    """Opens what one tunnel sealed."""

    def open(self, packet: bytes, *, to_server: bool) -> Opened | None:
        """The payload of a data packet; None if it is none, or no key of the run sealed it."""


class _Direction(Protocol):
    def open(self, packet: bytes, header_octets: int) -> tuple[bytes, int] | None: ...


def key_blocks(secrets: Sequence[bytes]) -> tuple[bytes, ...]:
    """The key blocks that TLS sessions with these exporter secrets gave to the data channel."""
    return tuple(export_key(secret, LABEL, BLOCK_OCTETS) for secret in secrets)


class _Aead:
    __slots__ = ("_cipher", "_salt")

    def __init__(self, cipher: str, key: bytes, salt: bytes) -> None:
        octets = AEAD_KEY_OCTETS[cipher]
        self._cipher = (ChaCha20Poly1305 if cipher == "CHACHA20-POLY1305" else AESGCM)(key[:octets])
        self._salt = salt[:8]

    def open(self, packet: bytes, header_octets: int) -> tuple[bytes, int] | None:
        body = header_octets + 4
        number, tag = packet[header_octets:body], packet[body : body + TAG_OCTETS]
        known = packet[:body] if header_octets == 4 else number  # of P_DATA_V1 only the packet id is authenticated
        try:
            payload = self._cipher.decrypt(number + self._salt, packet[body + TAG_OCTETS :] + tag, known)
        except (InvalidTag, ValueError):
            return None
        return payload, int.from_bytes(number, "big")


class _Cbc:
    __slots__ = ("_digest", "_digest_octets", "_hmac_key", "_key", "_stamp_octets")

    def __init__(self, key: bytes, hmac_key: bytes, digest: str, digest_octets: int, stamp_octets: int) -> None:
        self._key, self._hmac_key = key[:32], hmac_key[:digest_octets]
        self._digest, self._digest_octets, self._stamp_octets = digest, digest_octets, stamp_octets

    def open(self, packet: bytes, header_octets: int) -> tuple[bytes, int] | None:
        body = header_octets + self._digest_octets
        sealed = packet[body:]
        if len(sealed) < 2 * IV_OCTETS or len(sealed) % 16:
            return None
        if not hmac.compare_digest(hmac.digest(self._hmac_key, sealed, self._digest), packet[header_octets:body]):
            return None
        decryptor = Cipher(algorithms.AES(self._key), modes.CBC(sealed[:IV_OCTETS])).decryptor()
        unpadder = PKCS7(128).unpadder()
        try:
            padded = decryptor.update(sealed[IV_OCTETS:]) + decryptor.finalize()
            plain = unpadder.update(padded) + unpadder.finalize()
        except ValueError:
            return None
        return plain[self._stamp_octets :], int.from_bytes(plain[:4], "big")


class TlsModeOpener:
    """Opens P_DATA of both versions. Shape: `blocks` are the run's key blocks, in any order; `digest` is for CBC."""

    def __init__(self, cipher: str, blocks: Sequence[bytes], digest: str = TLS_DIGEST) -> None:
        self._directions = {
            True: [_direction(cipher, block, 0, digest) for block in blocks],
            False: [_direction(cipher, block, 1, digest) for block in blocks],
        }
        self._known: dict[tuple[bool, int], _Direction] = {}

    def open(self, packet: bytes, *, to_server: bool) -> Opened | None:
        opcode, key_id = (packet[0] >> 3, packet[0] & 7) if packet else (0, 0)
        header_octets = {DATA_V1: 1, DATA_V2: 4}.get(opcode)
        if header_octets is None:
            return None
        known = self._known.get((to_server, key_id))
        found = known.open(packet, header_octets) if known else None
        if found is None:  # a key id not met yet, or used again by a later session
            for direction in self._directions[to_server]:
                found = direction.open(packet, header_octets)
                if found is not None:
                    self._known[to_server, key_id] = direction
                    break
        return Opened(found[0], key_id, found[1]) if found else None


def _direction(cipher: str, block: bytes, number: int, digest: str) -> _Direction:
    key, hmac_key = _parts(block, number)
    if cipher in AEAD_KEY_OCTETS:
        return _Aead(cipher, key, hmac_key)
    return _Cbc(key, hmac_key, digest, hashlib.new(digest).digest_size, 4)


def _parts(block: bytes, number: int) -> tuple[bytes, bytes]:
    at = number * 2 * PART_OCTETS
    return block[at : at + PART_OCTETS], block[at + PART_OCTETS : at + 2 * PART_OCTETS]


class StaticKeyOpener:
    """Opens the packets of static-key mode, which have no header: the server's key direction is 0, the client's 1."""

    def __init__(self, block: bytes) -> None:
        (client, client_hmac), (server, server_hmac) = _parts(block, 1), _parts(block, 0)
        self._client = _Cbc(client, client_hmac, STATIC_DIGEST, STATIC_DIGEST_OCTETS, 8)
        self._server = _Cbc(server, server_hmac, STATIC_DIGEST, STATIC_DIGEST_OCTETS, 8)

    def open(self, packet: bytes, *, to_server: bool) -> Opened | None:
        found = (self._client if to_server else self._server).open(packet, 0)
        return Opened(found[0], 0, found[1]) if found else None
