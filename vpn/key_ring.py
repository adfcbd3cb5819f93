"""The keys of one session: the newest, the one before it while packets of it are under way, and what they make.

    key 0 -> soft reset -> key 1 is `primary`, key 0 `lame` -> transition window over -> key 0 is forgotten

Makes each key's TLS end, knows which protection the control packets of a key id have, and derives data keys. When a
renegotiation may begin, and which data key sends, is decided by `vpn.session`.

Sources: openvpn-protocol.md sections 3.5, 6 and 9.
"""

from __future__ import annotations

from vpn.crypto.derive import (
    DATA_KEYS_LABEL,
    DYNAMIC_TLS_CRYPT_LABEL,
    P2P_PEER_ID_LABEL,
    dynamic_tls_crypt_key,
    prf_key_block,
)
from vpn.crypto.static_key import KEY_OCTETS, split_key
from vpn.crypto.wrapping import TlsCryptWrapper, Wrapper
from vpn.dataplane.channel import DataKey, Negotiated, make_data_key
from vpn.key_session import KeySession, KeySessionSetup
from vpn.session_setup import SessionSetup
from vpn.settings import KeyDirection, Transport
from vpn.wire.packet import KeyId, Opcode, PeerId, SessionId

# header 1 + session id 8, count 1, four acknowledgements with their session id 24, message id 4
_CONTROL_OVERHEAD_OCTETS = 38
_FIRST_AFTER_WRAP = KeyId(1)  # key ids go 0, 1, …, 7, 1, 2, …: 0 is the first key's alone
_LAST_KEY_ID = 7
_P2P_PEER_ID = b"vpn"
_NEVER = float("inf")


class KeyRing:
    """Units: `now` in monotonic seconds, `unix_time` in Unix seconds."""

    def __init__(self, setup: SessionSetup, now: float, unix_time: int) -> None:
        self._setup = setup
        self._dynamic: Wrapper | None = None
        self.lame: KeySession | None = None
        self.lame_expires_at = _NEVER
        self.primary = self._new_key(KeyId(0), _first_resets(setup.is_server), now, unix_time, setup.first_id)

    # -- which key ---------------------------------------------------------------------------------------------------

    @property
    def oldest_first(self) -> tuple[KeySession, ...]:
        return (self.primary,) if self.lame is None else (self.lame, self.primary)

    @property
    def newest_established(self) -> KeySession | None:
        return next((key for key in reversed(self.oldest_first) if key.is_established), None)

    @property
    def all_acknowledged(self) -> bool:
        return all(key.all_acknowledged for key in self.oldest_first)

    def of(self, key_id: int) -> KeySession | None:
        return next((key for key in self.oldest_first if key.key_id == key_id), None)

    @property
    def next_key_id(self) -> KeyId:
        current = self.primary.key_id
        return _FIRST_AFTER_WRAP if current == _LAST_KEY_ID else KeyId(current + 1)

    # -- changing ----------------------------------------------------------------------------------------------------

    def roll_over(self, lame_expires_at: float, now: float, unix_time: int) -> None:
        """The newest key becomes the lame duck and a new one takes its place; the one before is forgotten."""
        if self.lame is not None:
            self.lame.tls.close()
        expected = frozenset({Opcode.CONTROL_SOFT_RESET_V1})
        renewed = self._new_key(self.next_key_id, expected, now, unix_time)
        self.lame, self.primary = self.primary, renewed
        self.lame_expires_at = lame_expires_at

    def drop_lame(self) -> KeySession | None:
        """Forget the key whose transition window is over; returns it, if there was one."""
        lame, self.lame = self.lame, None
        self.lame_expires_at = _NEVER
        if lame is not None:
            lame.tls.close()
        return lame

    def close(self) -> None:
        for key in self.oldest_first:
            key.tls.close()

    def _new_key(
        self, key_id: KeyId, expect: frozenset[Opcode], now: float, unix_time: int, first_id: int = 0
    ) -> KeySession:
        setup = self._setup
        key_setup = KeySessionSetup(
            key_id,
            not setup.is_server,
            setup.own_message(),
            expect,
            self._payload_octets(key_id),
            setup.timers.tls_timeout,
            first_id,
            len(setup.client_key),
            setup.decides_about_renegotiations and key_id > 0,
        )
        return KeySession(key_setup, setup.tls.open(unix_time), now)

    def _payload_octets(self, key_id: KeyId) -> int:
        setup = self._setup
        outer = (40 if setup.transport_ipv6 else 20) + (8 if setup.transport is Transport.UDP else 22)
        used = outer + self.wrapper_of(key_id).overhead + _CONTROL_OVERHEAD_OCTETS
        return max(64, setup.max_packet_octets - used)

    # -- protection of control packets -------------------------------------------------------------------------------

    def wrapper_of(self, key_id: KeyId) -> Wrapper:
        return self._dynamic if self._dynamic is not None and key_id > 0 else self._setup.wrapper

    def enable_dynamic_tls_crypt(self, unix_time: int) -> None:
        """Protect renegotiations with a key of the first TLS session."""
        exported = self.primary.tls.export(DYNAMIC_TLS_CRYPT_LABEL, KEY_OCTETS)
        key = dynamic_tls_crypt_key(exported, self._setup.base_key)
        direction = KeyDirection.NORMAL if self._setup.is_server else KeyDirection.INVERSE
        self._dynamic = TlsCryptWrapper(split_key(key, direction), unix_time)

    # -- what keys make ----------------------------------------------------------------------------------------------

    def data_key(self, key: KeySession, negotiated: Negotiated, remote_id: SessionId | None) -> DataKey:
        """The data keys of an established key session."""
        setup = self._setup
        # data: client NORMAL, server INVERSE; of tls-crypt it is the other way round
        direction = KeyDirection.INVERSE if setup.is_server else KeyDirection.NORMAL
        keys = split_key(self._key_block(key, negotiated.key_export, remote_id), direction)
        return make_data_key(key.key_id, keys, negotiated, setup.data, setup.random_bytes)

    def equals_peer_id(self, *, key_export: bool) -> PeerId:
        """The peer id of both ends of a point-to-point tunnel, which nobody gives out: from TLS, or always the same."""
        exported = self.primary.tls.export(P2P_PEER_ID_LABEL, 3) if key_export else _P2P_PEER_ID
        return PeerId(int.from_bytes(exported, "big"))

    def _key_block(self, key: KeySession, key_export: bool, remote_id: SessionId | None) -> bytes:
        if key_export:
            return key.tls.export(DATA_KEYS_LABEL, KEY_OCTETS)
        own, peer, own_id = key.setup.own_message, key.peer_message, self._setup.own_id
        if peer is None or remote_id is None:
            raise RuntimeError("keys before the key messages")
        if self._setup.is_server:
            return prf_key_block(peer, own, remote_id, own_id)
        return prf_key_block(own, peer, own_id, remote_id)


def _first_resets(is_server: bool) -> frozenset[Opcode]:
    if is_server:
        return frozenset({Opcode.CONTROL_HARD_RESET_CLIENT_V2, Opcode.CONTROL_HARD_RESET_CLIENT_V3})
    return frozenset({Opcode.CONTROL_HARD_RESET_SERVER_V2})
