"""Key derivations: data keys of a TLS session, and the key that protects its renegotiations.

Two ways to the data keys: the TLS exporter, or (old peers) OpenVPN's own use of the TLS 1.0 PRF. MD5 and SHA-1 are
what that PRF is made of. Source: openvpn-protocol.md sections 3.5 and 6.
"""

from __future__ import annotations

import hmac

from vpn.crypto.static_key import KEY_OCTETS
from vpn.wire.key_method import KeyMessage
from vpn.wire.packet import SessionId

DATA_KEYS_LABEL = b"EXPORTER-OpenVPN-datakeys"
P2P_PEER_ID_LABEL = b"EXPORTER-OpenVPN-p2p-peerid"
DYNAMIC_TLS_CRYPT_LABEL = b"EXPORTER-OpenVPN-dynamic-tls-crypt"
_MASTER_OCTETS = 48


def prf_key_block(
    client: KeyMessage, server: KeyMessage, client_session: SessionId, server_session: SessionId
) -> bytes:
    """The 256-octet key block of peers without the exporter."""
    seed = b"OpenVPN master secret" + client.random1 + server.random1
    master = prf(client.pre_master, seed, _MASTER_OCTETS)
    seed = b"OpenVPN key expansion" + client.random2 + server.random2 + client_session + server_session
    return prf(master, seed, KEY_OCTETS)


def prf(secret: bytes, seed: bytes, octets: int) -> bytes:
    """The PRF of TLS 1.0 (RFC 2246 section 5), label included in `seed`."""
    half = (len(secret) + 1) // 2
    first = _expand(secret[:half], seed, octets, "md5")
    second = _expand(secret[-half:], seed, octets, "sha1")
    return xor(first, second)


def xor(left: bytes, right: bytes) -> bytes:
    """Two strings of one length, bit by bit."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def dynamic_tls_crypt_key(exported: bytes, base_key: bytes) -> bytes:
    """The key of renegotiation packets; `base_key` is the wrapping's key, empty if there is none."""
    return xor(exported, base_key) if base_key else exported


def _expand(secret: bytes, seed: bytes, octets: int, digest: str) -> bytes:
    output, chain = b"", seed
    while len(output) < octets:
        chain = hmac.new(secret, chain, digest).digest()
        output += hmac.new(secret, chain + seed, digest).digest()
    return output[:octets]
