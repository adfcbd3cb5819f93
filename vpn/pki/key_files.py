"""OpenVPN's own key files, bytes <-> text: static key, tls-crypt-v2 server key, tls-crypt-v2 client key.

    static key (also tls-auth, tls-crypt, secret): hex between BEGIN/END lines, 256 octets
        cipher0 (64) | hmac0 (64) | cipher1 (64) | hmac1 (64)
    tls-crypt-v2 server key: PEM, 128 octets; Ke = octets 0..31, Ka = octets 64..95
    tls-crypt-v2 client key: PEM, Kc (256 octets, laid out as a static key) then the wrapped key WKc
        WKc = T (32) | AES-256-CTR(Ke, iv T[0:16], Kc | metadata) | length of WKc (u16)
        T   = HMAC-SHA256(Ka, length | Kc | metadata)

Parsing is pure; making a key takes its random octets from the caller.

Source: openvpn-protocol.md sections 3.1 and 3.4
"""

from __future__ import annotations

import base64
import binascii
import hmac
from hashlib import sha256

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

STATIC_KEY_OCTETS = 256
V2_SERVER_KEY_OCTETS = 128
WRAPPED_KEY_MAXIMUM_OCTETS = 1024
METADATA_TIMESTAMP = 0x01
_STATIC_HEADER = "-----BEGIN OpenVPN Static key V1-----"
_STATIC_FOOTER = "-----END OpenVPN Static key V1-----"
V2_SERVER_NAME = "OpenVPN tls-crypt-v2 server key"
V2_CLIENT_NAME = "OpenVPN tls-crypt-v2 client key"


class KeyFileError(ValueError):
    """The text is not the key file it should be. Never contains key material."""


def build_static_key(key: bytes) -> str:
    """The text of a static key file. Shape: 256 octets."""
    if len(key) != STATIC_KEY_OCTETS:
        raise KeyFileError(f"a static key has {STATIC_KEY_OCTETS} octets, not {len(key)}")
    digits = key.hex()
    lines = [digits[at : at + 32] for at in range(0, len(digits), 32)]
    return "\n".join(["#", "# 2048 bit OpenVPN static key", "#", _STATIC_HEADER, *lines, _STATIC_FOOTER, ""])


def parse_static_key(text: str) -> bytes:
    """The 256 octets of a static key file; lines outside of the BEGIN/END pair are ignored.

    Errors: KeyFileError; a half-size key (128 octets, old and undirected) is refused by its length
    """
    _, begin, rest = text.partition(_STATIC_HEADER)
    body, end, _ = rest.partition(_STATIC_FOOTER)
    if not begin or not end:
        raise KeyFileError("no BEGIN/END lines of an OpenVPN static key")
    try:
        key = bytes.fromhex("".join(body.split()))
    except ValueError:
        raise KeyFileError("the static key contains something other than hexadecimal digits") from None
    if len(key) != STATIC_KEY_OCTETS:
        raise KeyFileError(f"the static key has {len(key)} octets; {STATIC_KEY_OCTETS} are needed")
    return key


def build_pem(name: str, content: bytes) -> str:
    encoded = base64.b64encode(content).decode("ascii")
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    return "\n".join([f"-----BEGIN {name}-----", *lines, f"-----END {name}-----", ""])


def parse_pem(name: str, text: str) -> bytes:
    """The octets between the BEGIN and END lines that carry `name`. Errors: KeyFileError."""
    _, begin, rest = text.partition(f"-----BEGIN {name}-----")
    body, end, _ = rest.partition(f"-----END {name}-----")
    if not begin or not end:
        raise KeyFileError(f"no BEGIN/END lines of an {name}")
    try:
        return base64.b64decode("".join(body.split()), validate=True)
    except binascii.Error:
        raise KeyFileError(f"the {name} is not base64") from None


def parse_tls_crypt_v2_server_key(text: str) -> bytes:
    """The 128 octets of a tls-crypt-v2 server key. Errors: KeyFileError."""
    key = parse_pem(V2_SERVER_NAME, text)
    if len(key) != V2_SERVER_KEY_OCTETS:
        raise KeyFileError(f"the {V2_SERVER_NAME} has {len(key)} octets; {V2_SERVER_KEY_OCTETS} are needed")
    return key


def parse_tls_crypt_v2_client_key(text: str) -> tuple[bytes, bytes]:
    """Client key Kc (256 octets) and wrapped key WKc. Errors: KeyFileError."""
    content = parse_pem(V2_CLIENT_NAME, text)
    client_key, wrapped = content[:STATIC_KEY_OCTETS], content[STATIC_KEY_OCTETS:]
    if len(wrapped) < 2 or int.from_bytes(wrapped[-2:], "big") != len(wrapped):
        raise KeyFileError(f"the {V2_CLIENT_NAME} is cut short or damaged")
    return client_key, wrapped


def wrap_client_key(server_key: bytes, client_key: bytes, metadata: bytes) -> bytes:
    """WKc: the client's key and metadata, sealed for the server that holds `server_key`.

    Errors: KeyFileError if the metadata is too long for the format
    """
    plain = client_key + metadata
    total = len(plain) + 32 + 2
    if total > WRAPPED_KEY_MAXIMUM_OCTETS:
        limit = WRAPPED_KEY_MAXIMUM_OCTETS - 34 - STATIC_KEY_OCTETS
        raise KeyFileError(f"metadata of {len(metadata)} octets is too long; {limit} with its type octet are the limit")
    length = total.to_bytes(2, "big")
    tag = hmac.digest(server_key[64:96], length + plain, sha256().name)
    encryptor = Cipher(algorithms.AES(server_key[0:32]), modes.CTR(tag[:16])).encryptor()
    return tag + encryptor.update(plain) + encryptor.finalize() + length


def build_tls_crypt_v2_client_key(server_key: bytes, client_key: bytes, unix_time: int) -> str:
    """The text of a tls-crypt-v2 client key, with its time of making as metadata, as openvpn's own tool does."""
    metadata = bytes([METADATA_TIMESTAMP]) + unix_time.to_bytes(8, "big")
    return build_pem(V2_CLIENT_NAME, client_key + wrap_client_key(server_key, client_key, metadata))
