"""Packets of the data channel that are not traffic (ping, option consistency messages) and the options string.

Source: openvpn-protocol.md sections 5.1 and 9.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from vpn.settings import Cipher, Compression, Digest, Transport

PING = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
OCC_MAGIC = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c")


class OccType(IntEnum):
    REQUEST = 0
    REPLY = 1
    EXIT = 6


def build_occ(kind: OccType, options: str = "") -> bytes:
    tail = options.encode() + b"\0" if kind is OccType.REPLY else b""
    return OCC_MAGIC + bytes((kind,)) + tail


def parse_occ(packet: bytes) -> OccType | None:
    """The type of an option consistency message; None for those that need no answer. Takes only such messages."""
    number = packet[len(OCC_MAGIC)] if len(packet) > len(OCC_MAGIC) else -1
    return OccType(number) if number in (0, 1, 6) else None


@dataclass(frozen=True, slots=True)
class LinkDescription:
    """What the options string says of one end. `tls_server` None: static-key mode."""

    tls_server: bool | None
    transport: Transport = Transport.UDP
    transport_ipv6: bool = False
    tun_mtu: int = 1500
    digest: Digest = Digest.SHA1
    cipher: Cipher | None = None
    compression: Compression = Compression.NONE
    tls_auth: bool = False
    key_direction: int | None = None


def build_options(link: LinkDescription) -> str:
    """The options string; peers compare it and at most log a difference."""
    parts = ["V4", "dev-type tun", f"link-mtu {_link_mtu(link)}", f"tun-mtu {link.tun_mtu}", f"proto {_protocol(link)}"]
    if link.compression is not Compression.NONE:
        parts.append("comp-lzo")
    if link.key_direction is not None:
        parts.append(f"keydir {link.key_direction}")
    if link.cipher is not None:
        parts.append(f"cipher {link.cipher}")
    # "keysize 128" is what 2.6 writes for the [null] cipher of negotiating peers
    parts += [f"auth {link.digest}", f"keysize {_key_bits(link.cipher)}"]
    if link.tls_server is None:
        return ",".join([*parts, "secret"])
    if link.tls_auth:
        parts.append("tls-auth")
    return ",".join([*parts, "key-method 2", "tls-server" if link.tls_server else "tls-client"])


def options_cipher(options: str) -> str | None:
    """The cipher an old peer's options string names."""
    fields = (part.split(" ") for part in options.split(","))
    return next((words[1] for words in fields if len(words) == 2 and words[0] == "cipher"), None)


def _link_mtu(link: LinkDescription) -> int:
    # 2.6 counts: 1 compression octet never here, opcode and HMAC(SHA1) with packet id, and 2 for a TCP length
    stream = 2 if link.transport is Transport.TCP else 0
    return link.tun_mtu + 41 + stream + (1 if link.compression is not Compression.NONE else 0)


def _protocol(link: LinkDescription) -> str:
    family = "v6" if link.transport_ipv6 else "v4"
    if link.transport is Transport.UDP:
        return f"UDP{family}"
    return f"TCP{family}_{'SERVER' if link.tls_server else 'CLIENT'}"


def _key_bits(cipher: Cipher | None) -> int:
    if cipher is None:
        return 128
    return next((bits for bits in (128, 192) if str(bits) in cipher.value), 256)
