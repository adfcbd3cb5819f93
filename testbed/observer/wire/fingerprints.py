"""Fingerprints of TLS software, from its hello: JA3, JA3S and JA4. GREASE values (RFC 8701) are left out.

    JA3   MD5 of  version,suites,extensions,groups,point formats     in decimal, in the order of the hello
    JA3S  MD5 of  version,suite,extensions                           of the server's hello
    JA4   transport, version, name or address, counts, ALPN _ hash of sorted suites _ hash of sorted extensions
          without names and ALPN, followed by the signature algorithms in order

A fingerprint tells which library and settings made the hello, and so often the program; others may copy it.

Source: github.com/salesforce/ja3; FoxIO, JA4 technical details (github.com/FoxIO-LLC/ja4)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import md5, sha256

from testbed.observer.tls import (
    EXTENSION_ALPN,
    EXTENSION_SERVER_NAME,
    EXTENSION_SIGNATURES,
    EXTENSION_VERSIONS,
    ClientHello,
    ServerHello,
)

VERSION_NAMES = {
    0x0304: "13",
    0x0303: "12",
    0x0302: "11",
    0x0301: "10",
    0x0300: "s3",
    0x0002: "s2",
    0xFEFF: "d1",
    0xFEFD: "d2",
    0xFEFC: "d3",
}
NO_VALUES = "0" * 12
MOST_COUNTED = 99


def is_grease(number: int) -> bool:
    return number & 0x0F0F == 0x0A0A and number >> 8 == number & 0xFF


def _without_grease(numbers: Iterable[int]) -> list[int]:
    return [number for number in numbers if not is_grease(number)]


def _decimal(numbers: Iterable[int]) -> str:
    return "-".join(str(number) for number in numbers)


def ja3_text(hello: ClientHello) -> str:
    lists = (hello.cipher_suites, hello.extensions, hello.groups)
    parts = [str(hello.legacy_version), *(_decimal(_without_grease(numbers)) for numbers in lists)]
    return ",".join((*parts, _decimal(hello.point_formats)))


def ja3(hello: ClientHello) -> str:
    return md5(ja3_text(hello).encode(), usedforsecurity=False).hexdigest()


def ja3s(hello: ServerHello) -> str:
    text = f"{hello.legacy_version},{hello.cipher_suite},{_decimal(hello.extensions)}"
    return md5(text.encode(), usedforsecurity=False).hexdigest()


def ja4(hello: ClientHello, transport: str) -> str:
    """Shape: `transport` is t (TCP), q (QUIC) or d (DTLS)."""
    suites, extensions = _without_grease(hello.cipher_suites), _without_grease(hello.extensions)
    first = (
        transport
        + VERSION_NAMES.get(_version(hello), "00")
        + ("d" if EXTENSION_SERVER_NAME in extensions else "i")
        + f"{min(len(suites), MOST_COUNTED):02}{min(len(extensions), MOST_COUNTED):02}"
        + _alpn_letters(hello.alpn[0] if hello.alpn else b"")
    )
    listed = sorted(kind for kind in extensions if kind not in (EXTENSION_SERVER_NAME, EXTENSION_ALPN))
    text = _hex_list(listed)
    if hello.signature_algorithms and EXTENSION_SIGNATURES in extensions:
        text += "_" + _hex_list(_without_grease(hello.signature_algorithms))
    return f"{first}_{_hash(_hex_list(sorted(suites)))}_{_hash(text) if listed else NO_VALUES}"


def _version(hello: ClientHello) -> int:
    """The highest offered; DTLS counts down."""
    if EXTENSION_VERSIONS not in hello.extensions:
        return hello.legacy_version
    offered = [version for version in hello.versions if version in VERSION_NAMES]
    datagram = [version for version in offered if version >= 0xFE00]
    return min(datagram) if datagram else max(offered, default=0)


def _alpn_letters(protocol: bytes) -> str:
    if not protocol:
        return "00"
    ends = protocol[:1] + protocol[-1:]
    if ends.isalnum():
        return ends.decode("ascii")
    text = protocol.hex()
    return text[0] + text[-1]


def _hex_list(numbers: Sequence[int]) -> str:
    return ",".join(f"{number:04x}" for number in numbers)


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:12] if text else NO_VALUES
