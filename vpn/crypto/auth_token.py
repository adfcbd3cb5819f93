"""auth-gen-token: a token the server makes for a user who has proven a password, good instead of it.

    SESS_ID_AT_ base64( session id (12)   first login (8)   this token (8)   HMAC-SHA256 (32) )

The HMAC covers the user name as well, so a token is worth nothing to another user. Clients do not look inside.
Source: openvpn-protocol.md section 8.3.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass

PREFIX = "SESS_ID_AT_"
SESSION_OCTETS = 12
_OCTETS = SESSION_OCTETS + 16 + 32


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """What a good token says. Units: Unix seconds."""

    session: bytes
    first_at: int
    issued_at: int


class TokenMint:
    """Units: `lifetime` in seconds since the first login, 0 without end; `renewal` how long one token is good."""

    def __init__(self, secret: bytes, lifetime: float, renewal: float) -> None:
        self._secret = secret
        self._lifetime = lifetime
        self._renewal = renewal

    def issue(self, username: str, session: bytes, first_at: int, unix_time: int) -> str:
        head = session + first_at.to_bytes(8, "big") + unix_time.to_bytes(8, "big")
        return PREFIX + base64.b64encode(head + self._hmac(username, head)).decode()

    def check(self, username: str, token: str, unix_time: int) -> TokenTimes | None:
        """What the token says if it is ours, for this user and not expired."""
        try:
            octets = base64.b64decode(token.removeprefix(PREFIX).encode(), validate=True)
        except (binascii.Error, ValueError):
            return None
        head, tag = octets[:-32], octets[-32:]
        if len(octets) != _OCTETS or not hmac.compare_digest(tag, self._hmac(username, head)):
            return None
        first_at, issued_at = int.from_bytes(head[12:20], "big"), int.from_bytes(head[20:28], "big")
        expired = 0 < self._lifetime < unix_time - first_at or 0 < self._renewal < unix_time - issued_at
        return None if expired else TokenTimes(head[:SESSION_OCTETS], first_at, issued_at)

    def _hmac(self, username: str, head: bytes) -> bytes:
        name = username.encode("utf-8", "surrogateescape")
        return hmac.digest(self._secret, len(name).to_bytes(4, "big") + name + head, "sha256")
