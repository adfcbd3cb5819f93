"""TLS secrets as programs log them, and the exporter of TLS 1.3 that OpenVPN derives its keys with.

    EXPORTER_SECRET <client random> <exporter master secret>

Source: draft-ietf-tls-keylogfile; RFC 8446 sections 7.1 and 7.5; RFC 5869
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

HASHES = {32: "sha256", 48: "sha384"}  # by the length of a secret
EXPORTER = "EXPORTER_SECRET"


def exporter_secrets(text: str) -> tuple[bytes, ...]:
    """The exporter master secrets of a key log, each once; lines that are none are left out."""
    return tuple(dict.fromkeys(_secrets(text)))


def _secrets(text: str) -> Iterator[bytes]:
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == EXPORTER:
            try:
                secret = bytes.fromhex(words[2])
            except ValueError:
                continue
            if len(secret) in HASHES:
                yield secret


def export_key(secret: bytes, label: bytes, octets: int) -> bytes:
    """Keying material of TLS 1.3 for a label, with an empty context."""
    algorithm = HASHES[len(secret)]
    empty = hashlib.new(algorithm).digest()
    derived = _expand_label(secret, label, empty, len(secret), algorithm)
    return _expand_label(derived, b"exporter", empty, octets, algorithm)


def _expand_label(secret: bytes, label: bytes, context: bytes, octets: int, algorithm: str) -> bytes:
    full = b"tls13 " + label
    info = octets.to_bytes(2, "big") + bytes((len(full),)) + full + bytes((len(context),)) + context
    output, block, counter = b"", b"", 1
    while len(output) < octets:
        block = hmac.digest(secret, block + info + bytes((counter,)), algorithm)
        output, counter = output + block, counter + 1
    return output[:octets]
