"""A server's first packets: what is answered without remembering anything, and when a session begins.

    client reset  ->  reply with a cookie as session id (no state)
    third packet, which acknowledges the reply with that cookie  ->  Opening: the server makes a session

Over TCP, with `cookie` off, and for tls-crypt-v2 clients that cannot start this way, the reset itself opens. Keeps
nothing but a counter for the rate of answers.

Sources: openvpn-protocol.md sections 2.3 and 2.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vpn.crypto.client_key import unwrap_client_key
from vpn.crypto.cookie import CookieJar
from vpn.crypto.wrapping import NotAuthentic, Unwrapped, Wrapper
from vpn.drops import Drop, Drops
from vpn.protection import server_wrapper
from vpn.session_setup import new_session_id
from vpn.settings import Address, ServerSettings, Transport, Wrapping
from vpn.wire.control import ControlBody
from vpn.wire.early import EarlyFlags, announces_early_negotiation
from vpn.wire.packet import (
    CLIENT_RESETS,
    WITH_CLIENT_KEY,
    ControlHeader,
    KeyId,
    Malformed,
    MessageId,
    Opcode,
    SessionId,
    parse_opcode,
)
from vpn.wire.wrapped import split_client_key

_SECRET_OCTETS = 32
_HIGHEST_EARLY_ID = 1  # of message and acknowledgements in a third packet
_THIRD_PACKETS = frozenset({Opcode.CONTROL_V1, Opcode.ACK_V1, Opcode.CONTROL_WKC_V1})


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this and remember nothing."""

    datagram: bytes


@dataclass(frozen=True, slots=True)
class Opening:
    """Make a session, then give it `packet` (without WKc)."""

    packet: bytes
    wrapper: Wrapper
    own_id: SessionId
    remote_id: SessionId
    first_id: int
    client_key: bytes = field(repr=False)


class Doorkeeper:
    """Units: `now` in monotonic seconds, `unix_time` in Unix seconds."""

    def __init__(self, settings: ServerSettings, random_bytes: Callable[[int], bytes], drops: Drops) -> None:
        self._settings = settings
        self._random_bytes = random_bytes
        self._drops = drops
        self._cookies = CookieJar(random_bytes(_SECRET_OCTETS), settings.timers.hand_window)
        self._with_client_key = settings.control.wrapping is Wrapping.TLS_CRYPT_V2
        self._stateless = settings.cookie and settings.transport is Transport.UDP
        self._period_ends_at = float("-inf")
        self._answers = 0

    def receive(self, untrusted: bytes, address: Address, now: float, unix_time: int) -> Reply | Opening | None:
        """Judge a packet from an address without a session for it. None: dropped and counted."""
        try:
            opcode = parse_opcode(untrusted)
            if opcode in CLIENT_RESETS:
                return self._receive_reset(untrusted, address, now, unix_time)
            if opcode in _THIRD_PACKETS and self._stateless:
                return self._receive_third(untrusted, address, unix_time)
        except Malformed:
            return self._drop(Drop.MALFORMED)
        except NotAuthentic:
            return self._drop(Drop.UNAUTHENTIC_CONTROL)
        return self._drop(Drop.UNKNOWN_SENDER)

    def _receive_reset(self, untrusted: bytes, address: Address, now: float, unix_time: int) -> Reply | Opening | None:
        packet, client_key, wrapper, unwrapped = self._open(untrusted, unix_time, sent=0)
        body = ControlBody.parse(unwrapped.body, unwrapped.header.opcode)
        if unwrapped.header.key_id != 0 or body.message_id != 0 or body.acks:
            return self._drop(Drop.UNEXPECTED)
        if not self._may_answer(now):
            # after authentication: who lacks the key cannot use up the answers of those who have it
            return self._drop(Drop.RATE_LIMITED)
        remote_id = unwrapped.header.session_id
        early = unwrapped.stamp is not None and announces_early_negotiation(unwrapped.stamp.counter)
        if self._stateless and (early or not self._with_client_key):
            cookie = self._cookies.bake(address, remote_id, unix_time)
            return self._reply(wrapper, cookie, remote_id)
        if self._settings.control.force_cookie:
            return self._drop(Drop.UNEXPECTED)
        return Opening(packet, wrapper, new_session_id(self._random_bytes), remote_id, 0, client_key)

    def _receive_third(self, untrusted: bytes, address: Address, unix_time: int) -> Opening | None:
        # the reply had replay id 1
        packet, client_key, wrapper, unwrapped = self._open(untrusted, unix_time, sent=1)
        header, body = unwrapped.header, ControlBody.parse(unwrapped.body, unwrapped.header.opcode)
        too_far = any(number > _HIGHEST_EARLY_ID for number in (*body.acks, body.message_id or 0))
        if header.key_id != 0 or too_far or body.acked_session_id is None:
            return self._drop(Drop.UNKNOWN_SENDER)
        if not self._cookies.verify(body.acked_session_id, address, header.session_id, unix_time):
            return self._drop(Drop.BAD_COOKIE)
        return Opening(packet, wrapper, body.acked_session_id, header.session_id, 1, client_key)

    def _open(self, untrusted: bytes, unix_time: int, sent: int) -> tuple[bytes, bytes, Wrapper, Unwrapped]:
        """(packet without WKc, client's key, its wrapper, unwrapped packet). Errors: Malformed, NotAuthentic."""
        client_key = b""
        if (parse_opcode(untrusted) in WITH_CLIENT_KEY) != self._with_client_key:
            raise Malformed("packet of another kind of control channel protection")
        if self._with_client_key:
            untrusted, wrapped = split_client_key(untrusted)
            client_key = unwrap_client_key(wrapped, self._settings.control.server_key).key
        wrapper = server_wrapper(self._settings.control, unix_time, client_key, sent)
        return untrusted, client_key, wrapper, wrapper.open_first(untrusted)

    def _reply(self, wrapper: Wrapper, cookie: SessionId, remote_id: SessionId) -> Reply:
        header = ControlHeader(Opcode.CONTROL_HARD_RESET_SERVER_V2, KeyId(0), cookie)
        payload = EarlyFlags(resend_client_key=self._with_client_key).build()
        body = ControlBody((MessageId(0),), remote_id, MessageId(0), payload)
        return Reply(wrapper.wrap(header, body.build()))

    def _may_answer(self, now: float) -> bool:
        most, period = self._settings.connect_freq_initial
        if self._settings.transport is Transport.TCP or most <= 0:
            return True
        if now >= self._period_ends_at:
            self._period_ends_at, self._answers = now + period, 0
        self._answers += 1
        return self._answers <= most

    def _drop(self, reason: Drop) -> Opening | None:
        self._drops.count(reason)
        return None
