"""Opening QUIC's Initial packets: their keys come from the destination id of the client's first packet, in clear.

    initial secret = HKDF-Extract(salt of the version, destination id)
    client, server secret -> key (16), nonce (12), header protection key (16); AES-128-GCM

This protects against nothing but accident: whoever has seen the packet can open it. Later packets stay closed.

The ciphers are imported when the first keys are derived: most captures have no QUIC, and need not wait for them.

Source: RFC 9001 section 5, RFC 9369 section 3.3
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from testbed.observer.wire.quic import DRAFT_29, VERSION_1, VERSION_2, LongPacket

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.modes import ECB

SALTS = {
    VERSION_1: bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"),
    VERSION_2: bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"),
    DRAFT_29: bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899"),
}
KEY_OCTETS, NONCE_OCTETS, SAMPLE_OCTETS = 16, 12, 16


@dataclass(frozen=True, slots=True)
class InitialKeys:
    """One direction's keys. They are derived from what stands in clear, and so are no secret."""

    seal: AESGCM
    nonce: bytes
    mask: Cipher[ECB]


def derive(version: int, destination: bytes) -> tuple[InitialKeys, InitialKeys]:
    """The client's and the server's keys for Initial packets of this version."""
    secret = hmac.digest(SALTS[version], destination, sha256)
    client, server = (_keys(version, _expand(secret, label, 32)) for label in (b"client in", b"server in"))
    return client, server


def _keys(version: int, secret: bytes) -> InitialKeys:
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    prefix = b"quicv2 " if version == VERSION_2 else b"quic "
    key, nonce, mask = (
        _expand(secret, prefix + label, size)
        for label, size in ((b"key", KEY_OCTETS), (b"iv", NONCE_OCTETS), (b"hp", KEY_OCTETS))
    )
    return InitialKeys(AESGCM(key), nonce, Cipher(AES(mask), ECB()))  # noqa: S305  # as RFC 9001 section 5.4.3 has it


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label with an empty context; never more than one block."""
    full = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(full),)) + full + b"\0\1"
    return hmac.digest(secret, info, sha256)[:size]


def open_packet(datagram: bytes, packet: LongPacket, keys: InitialKeys) -> bytes | None:
    """The frames of an Initial packet, or None if these are not its keys.

    Packet numbers are taken as they stand: an Initial's are small enough to need no reconstruction.
    """
    from cryptography.exceptions import InvalidTag

    sample = datagram[packet.number_at + 4 : packet.number_at + 4 + SAMPLE_OCTETS]
    if len(sample) < SAMPLE_OCTETS:
        return None
    mask = keys.mask.encryptor().update(sample)
    first = datagram[packet.start] ^ (mask[0] & 0x0F)
    size = (first & 3) + 1
    payload_at = packet.number_at + size
    number = bytes(a ^ b for a, b in zip(datagram[packet.number_at : payload_at], mask[1:], strict=False))
    header = bytes((first,)) + datagram[packet.start + 1 : packet.number_at] + number
    nonce = int.from_bytes(keys.nonce, "big") ^ int.from_bytes(number, "big")
    try:
        return keys.seal.decrypt(nonce.to_bytes(NONCE_OCTETS, "big"), datagram[payload_at : packet.end], header)
    except InvalidTag:
        return None
