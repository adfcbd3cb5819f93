"""The wrapped client key of tls-crypt-v2: made once for each client, opened by the server from the first packet.

    tag (32)   AES-256-CTR( client key (256)   metadata )   length (2)

Source: openvpn-protocol.md section 3.4.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from vpn.crypto.static_key import KEY_OCTETS, SERVER_KEY_OCTETS, KeyHalf
from vpn.crypto.wrapping import NotAuthentic, crypt_ctr
from vpn.wire.packet import Malformed
from vpn.wire.wrapped import TLS_CRYPT_TAG_OCTETS, WrappedClientKey

METADATA_USER = 0
METADATA_TIMESTAMP = 1


@dataclass(frozen=True, slots=True)
class ClientKey:
    """Shape: `metadata` is a type octet (0 user text, 1 with 8 octets of Unix time) and its value."""

    key: bytes = field(repr=False)
    metadata: bytes = b""


def wrap_client_key(client: ClientKey, server_key: bytes) -> bytes:
    """WKc of a client's key. Errors: ValueError if a key has the wrong length or the metadata is too long."""
    half = _server_half(server_key)
    plain = client.key + client.metadata
    length = TLS_CRYPT_TAG_OCTETS + len(plain) + 2
    if len(client.key) != KEY_OCTETS or length > 1024:
        raise ValueError("client key or its metadata of impossible length")
    tag = _tag(half, length, plain)
    return WrappedClientKey(tag, crypt_ctr(half, tag, plain)).build()


def unwrap_client_key(untrusted: bytes, server_key: bytes) -> ClientKey:
    """The client's key in a WKc. Errors: Malformed, NotAuthentic."""
    half = _server_half(server_key)
    wrapped = WrappedClientKey.parse(untrusted)
    if len(wrapped.ciphertext) < KEY_OCTETS:
        raise Malformed("wrapped client key holds no key")
    plain = crypt_ctr(half, wrapped.tag, wrapped.ciphertext)
    if not hmac.compare_digest(_tag(half, wrapped.length, plain), wrapped.tag):
        raise NotAuthentic("wrapped client key does not verify")
    return ClientKey(plain[:KEY_OCTETS], plain[KEY_OCTETS:])


def timestamp_metadata(unix_time: int) -> bytes:
    """The metadata a key gets when nobody asks for another."""
    return bytes((METADATA_TIMESTAMP,)) + unix_time.to_bytes(8, "big")


def _server_half(server_key: bytes) -> KeyHalf:
    if len(server_key) != SERVER_KEY_OCTETS:
        raise ValueError(f"a tls-crypt-v2 server key has {SERVER_KEY_OCTETS} octets, not {len(server_key)}")
    return KeyHalf(server_key[:64], server_key[64:])


def _tag(half: KeyHalf, length: int, plain: bytes) -> bytes:
    return hmac.digest(half.hmac[:32], length.to_bytes(2, "big") + plain, "sha256")
