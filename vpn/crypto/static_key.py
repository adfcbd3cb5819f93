"""Static keys: 256 octets as two keys, each a cipher half and an HMAC half, and the texts they are kept in.

    cipher0 (64)   hmac0 (64)   cipher1 (64)   hmac1 (64)

The key block of the data channel has the same layout. Parsing and building the text forms is pure; who reads and
writes files is not here; no error quotes key material. Source: openvpn-protocol.md sections 3.1 and 3.4.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from vpn.settings import KeyDirection
from vpn.wire.packet import Malformed

KEY_OCTETS = 256
_HALF = 64
_STATIC = "OpenVPN Static key V1"
_CLIENT = "OpenVPN tls-crypt-v2 client key"
_SERVER = "OpenVPN tls-crypt-v2 server key"
SERVER_KEY_OCTETS = 128


@dataclass(frozen=True, slots=True)
class KeyHalf:
    """What one direction uses: take as many of the first octets of each part as the algorithm needs."""

    cipher: bytes = field(repr=False)
    hmac: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DirectionKeys:
    send: KeyHalf
    receive: KeyHalf


def split_key(block: bytes, direction: KeyDirection) -> DirectionKeys:
    """The two directions of a 256-octet key. Errors: ValueError if it has another length."""
    if len(block) != KEY_OCTETS:
        raise ValueError(f"a static key has {KEY_OCTETS} octets, not {len(block)}")
    first = KeyHalf(block[:_HALF], block[_HALF : 2 * _HALF])
    second = KeyHalf(block[2 * _HALF : 3 * _HALF], block[3 * _HALF :])
    if direction is KeyDirection.NORMAL:
        return DirectionKeys(first, second)
    if direction is KeyDirection.INVERSE:
        return DirectionKeys(second, first)
    return DirectionKeys(first, first)


def parse_static_key(text: str) -> bytes:
    """The 256 octets of a static key file; lines outside of the BEGIN/END pair are ignored.

    Errors: Malformed; a half-size key (128 octets, old and undirected) is refused by its length
    """
    digits = re.sub(r"\s", "", _between(text, _STATIC))
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        raise Malformed("the static key contains something other than hexadecimal digits") from None
    if len(key) != KEY_OCTETS:
        raise Malformed(f"the static key has {len(key)} octets; {KEY_OCTETS} are needed")
    return key


def build_static_key(key: bytes) -> str:
    """The text of a static key file, as openvpn's own tool writes it. Errors: ValueError if it is not 256 octets."""
    if len(key) != KEY_OCTETS:
        raise ValueError(f"a static key has {KEY_OCTETS} octets, not {len(key)}")
    digits = key.hex()
    lines = [digits[start : start + 32] for start in range(0, len(digits), 32)]
    return "\n".join(
        ["#", "# 2048 bit OpenVPN static key", "#", f"-----BEGIN {_STATIC}-----", *lines, _end(_STATIC), ""]
    )


def parse_client_key(text: str) -> tuple[bytes, bytes]:
    """(Kc of 256 octets, WKc) of a tls-crypt-v2 client key file. Errors: Malformed."""
    octets = _base64(text, _CLIENT)
    key, wrapped = octets[:KEY_OCTETS], octets[KEY_OCTETS:]
    if len(wrapped) < 2 or int.from_bytes(wrapped[-2:], "big") != len(wrapped):
        raise Malformed(f"the {_CLIENT} is cut short or damaged")
    return key, wrapped


def build_client_key(key: bytes, wrapped: bytes) -> str:
    return _pem(_CLIENT, key + wrapped)


def parse_server_key(text: str) -> bytes:
    """The 128 octets of a tls-crypt-v2 server key file. Errors: Malformed."""
    octets = _base64(text, _SERVER)
    if len(octets) != SERVER_KEY_OCTETS:
        raise Malformed(f"the {_SERVER} has {len(octets)} octets; {SERVER_KEY_OCTETS} are needed")
    return octets


def build_server_key(key: bytes) -> str:
    return _pem(_SERVER, key)


def _between(text: str, name: str) -> str:
    _, found, rest = text.partition(f"-----BEGIN {name}-----")
    inside, closed, _ = rest.partition(_end(name))
    if not found or not closed:
        raise Malformed(f"no BEGIN/END lines of an {name}")
    return inside


def _base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode("".join(_between(text, name).split()), validate=True)
    except ValueError:  # binascii.Error, or characters beyond ASCII
        raise Malformed(f"the {name} is not base64") from None


def _pem(name: str, octets: bytes) -> str:
    digits = base64.b64encode(octets).decode()
    lines = [digits[start : start + 64] for start in range(0, len(digits), 64)]
    return "\n".join([f"-----BEGIN {name}-----", *lines, _end(name), ""])


def _end(name: str) -> str:
    return f"-----END {name}-----"
