"""The server's session id as a cookie: proof that a client receives at its address, without keeping state.

    first 8 octets of HMAC-SHA256(secret, slot (8) | length (2) address | client session id (8))

A slot is half a handshake window; the current one and the two before it are good. The formula is nobody's business
but the server's, so it need not match the real one's octet for octet.

Source: openvpn-protocol.md section 2.3.
"""

from __future__ import annotations

import hmac

from vpn.settings import Address
from vpn.wire.packet import SESSION_ID_OCTETS, SessionId

_ACCEPTED_SLOTS = 3


class CookieJar:
    """Units: `unix_time` and `hand_window` in seconds."""

    __slots__ = ("_secret", "_slot_seconds")

    def __init__(self, secret: bytes, hand_window: float) -> None:
        self._secret = secret
        self._slot_seconds = max(1, (int(hand_window) + 1) // 2)

    def bake(self, address: Address, client: SessionId, unix_time: int) -> SessionId:
        return self._of_slot(address, client, unix_time // self._slot_seconds)

    def verify(self, cookie: bytes, address: Address, client: SessionId, unix_time: int) -> bool:
        slot = unix_time // self._slot_seconds
        good = False
        for age in range(_ACCEPTED_SLOTS):
            good |= hmac.compare_digest(self._of_slot(address, client, slot - age), cookie)
        return good

    def _of_slot(self, address: Address, client: SessionId, slot: int) -> SessionId:
        where = repr(address).encode()
        message = slot.to_bytes(8, "big", signed=True) + len(where).to_bytes(2, "big") + where + client
        return SessionId(hmac.digest(self._secret, message, "sha256")[:SESSION_ID_OCTETS])
