"""The key files of OpenVPN that a run makes, as octets.

    static key            BEGIN/END "OpenVPN Static key V1", 256 octets in hexadecimal digits
    tls-crypt-v2 client   BEGIN/END "OpenVPN tls-crypt-v2 client key", base64: 256 octets, then the wrapped key

No error quotes what a file holds. Source: openvpn-protocol.md sections 3.1 and 3.4
"""

from __future__ import annotations

import base64
import re

KEY_OCTETS = 256
_STATIC = re.compile(r"-----BEGIN OpenVPN Static key V1-----(.*?)-----END", re.DOTALL)
_CLIENT = re.compile(r"-----BEGIN OpenVPN tls-crypt-v2 client key-----(.*?)-----END", re.DOTALL)


def read_key(text: str) -> bytes | None:
    """The 256 octets of a static key or of a tls-crypt-v2 client's key; None if the text is neither."""
    static, client = _STATIC.search(text), _CLIENT.search(text)
    try:
        if static:
            key = bytes.fromhex("".join(static[1].split()))
        else:
            key = base64.b64decode("".join(client[1].split()), validate=True)[:KEY_OCTETS] if client else b""
    except ValueError:
        return None
    return key if len(key) == KEY_OCTETS else None
