"""How a client gets in: what the server says to it, from TLS to pushed options, and later. Sans I/O.

    TLS done -> key messages -> PUSH_REQUEST … PUSH_REPLY (or, between equals, what the key messages say) -> Connected

The counterpart of `vpn.arrivals`. Knows neither datagrams nor packets; `end` closes the connection, with a reason,
words, and whether to try again (None: what the reason says).
Sources: openvpn-protocol.md sections 8 and 13.
"""

from __future__ import annotations

from typing import Protocol

from vpn.client_options import pushed_timers, pushed_token, read_configuration
from vpn.dataplane.channel import Negotiated
from vpn.drops import Drop, Drops
from vpn.events import (
    AuthFailed,
    AuthPending,
    CloseReason,
    Connected,
    Information,
    RefusalReason,
    Refused,
    Renegotiated,
    Restart,
    TlsEstablished,
)
from vpn.happenings import KeysExchanged, TlsDone
from vpn.key_session import KeySession
from vpn.limits import Limits
from vpn.negotiation import DYN_TLS_CRYPT, NoSharedCipher, agree_as_equals, protocol_flags
from vpn.outlets import Outlets
from vpn.push import PushedOptions
from vpn.push_parser import BadPush, PushCollector, parse_options
from vpn.session import Session
from vpn.settings import Address, ClientSettings
from vpn.wire.message import EXIT, HALT, PUSH_REPLY, PUSH_REQUEST, RESTART, AuthFailure, RestartRequest, is_message
from vpn.wire.peer_info import PeerInfo

_FIRST_PUSH_REQUEST = 1.0  # most servers push unasked; this is for those that do not
_NEVER = float("inf")


class End(Protocol):
    def __call__(self, reason: CloseReason, detail: str, *, retry: bool | None = None) -> None: ...


class ClientArrival:
    """Units: `now` in monotonic seconds. `options` is None until the client is in."""

    def __init__(self, settings: ClientSettings, limits: Limits, out: Outlets, drops: Drops, end: End) -> None:
        self.options: PushedOptions | None = None
        self._settings = settings
        self._limits = limits
        self._out = out
        self._drops = drops
        self._end = end
        self._push = PushCollector.empty()
        self._tls_done: TlsDone | None = None
        self._token: tuple[str, str] | None = None  # user name and token that take the password's place
        self._push_request_at = _NEVER
        self._push_deadline = _NEVER

    def credentials(self) -> tuple[str, str]:
        """User name and password, or the token that the server gave instead."""
        return self._token or (self._settings.username, self._settings.password)

    @property
    def due_at(self) -> float:
        """When `advance` has something to do; infinity for never."""
        return min(self._push_request_at, self._push_deadline)

    def advance(self, session: Session, now: float) -> None:
        """Ask again for options, or give up waiting for them, when it is time."""
        if self._push_request_at <= now:
            session.send_text(PUSH_REQUEST, now)
            self._push_request_at = now + self._settings.timers.push_request
        if self._push_deadline <= now:
            self._end(CloseReason.PUSH_TIMEOUT, "no PUSH_REPLY from the server")

    # -- what the session says ---------------------------------------------------------------------------------------

    def note_tls(self, done: TlsDone) -> None:
        self._tls_done = done
        self._out.tell(TlsEstablished(None, done.key_id, done.version, done.cipher, done.common_name, done.subject))

    def refuse(self, reason: RefusalReason, detail: str, server: Address) -> None:
        """The server, or what it says, is not acceptable."""
        self._out.tell(Refused(None, server, reason, detail))
        self._end(CloseReason.REFUSED, f"{reason.value}: {detail}")

    def keys_exchanged(self, session: Session, happening: KeysExchanged, server: Address, now: float) -> None:
        if self.options is not None:
            session.install_keys(session.primary)
            self._out.tell(Renegotiated(None, happening.key_id))
        elif self._settings.pull:
            self._push_request_at = now + _FIRST_PUSH_REQUEST
            self._push_deadline = now + self._settings.timers.push_timeout
        else:
            self._configure_as_equal(session, server, now)

    def _configure_as_equal(self, session: Session, server: Address, now: float) -> None:
        """Point-to-point: what a server would push follows from what the other end says of itself."""
        key = session.newest_established
        if key is None or key.peer_message is None:
            return
        settings, theirs = self._settings, key.peer_message
        try:
            agreement = agree_as_equals(
                PeerInfo.parse(theirs.peer_info),
                theirs.options,
                settings.data,
                tls_server=False,
                key_export=settings.tls_key_export,
                dynamic_tls_crypt=settings.dynamic_tls_crypt,
            )
        except NoSharedCipher as error:
            self.refuse(RefusalReason.NO_SHARED_CIPHER, str(error), server)
            return
        texts = [f"cipher {agreement.cipher}", protocol_flags(agreement)]
        if agreement.data_v2:
            texts.append(f"peer-id {session.equals_peer_id(key_export=agreement.key_export)}")
        self._configure(session, texts, server, now)

    def read_text(self, session: Session, text: str, server: Address, now: float) -> None:
        """One control message of the server."""
        if is_message(text, PUSH_REPLY):
            self._read_push(session, text, server, now)
        elif text.startswith("AUTH_FAILED"):
            self._auth_failed(AuthFailure.parse(text))
        elif is_message(text, "AUTH_PENDING"):
            self._auth_pending(text, now)
        elif is_message(text, RESTART):
            request = RestartRequest.parse(text)
            self._out.tell(Restart(request.text, request.keep_password, request.next_remote))
            self._end(CloseReason.RESTART, request.text)
        elif is_message(text, HALT):
            self._end(CloseReason.HALT, RestartRequest.parse(text).text)
        elif is_message(text, EXIT):
            self._end(CloseReason.PEER_EXIT, "EXIT message")
        elif is_message(text, "INFO") or is_message(text, "INFO_PRE"):
            self._out.tell(Information(text.partition(",")[2]))
        else:
            self._drops.count(Drop.UNEXPECTED)

    def _read_push(self, session: Session, text: str, server: Address, now: float) -> None:
        try:
            if self.options is not None:
                # after a renegotiation the server only renews the token; the rest stands already
                self._take_token(parse_options(option for option in text.split(",")[1:] if "auth-token" in option))
                return
            self._push.add(text)
            if self._push.is_complete:
                self._configure(session, self._push.options, server, now)
        except BadPush as error:
            self.refuse(RefusalReason.BAD_PUSH, str(error), server)

    def _configure(self, session: Session, texts: list[str], server: Address, now: float) -> None:
        """The server's options are complete: make the keys and tell the driver."""
        key = session.newest_established
        if key is None:
            return
        server_options = key.peer_message.options if key.peer_message else ""
        try:
            options, negotiated = read_configuration(texts, server_options, self._settings)
        except NoSharedCipher as error:
            self.refuse(RefusalReason.NO_SHARED_CIPHER, str(error), server)
            return
        session.agree(negotiated)
        session.install_keys(key)
        if DYN_TLS_CRYPT in options.protocol_flags:
            session.enable_dynamic_tls_crypt()
        self._apply_timers(session, options, now)
        self._take_token(options)
        self.options = options
        self._tell_connected(key, options, negotiated, server)

    def _tell_connected(self, key: KeySession, options: PushedOptions, negotiated: Negotiated, server: Address) -> None:
        done = self._tls_done
        self._out.tell(
            Connected(
                options=options,
                cipher=negotiated.cipher,
                peer_id=options.peer_id,
                server=server,
                common_name=done.common_name if done else "",
                tun_mtu=options.tun_mtu or self._settings.data.tun_mtu,
                tls_version=key.tls.version,
                tls_cipher=key.tls.cipher,
            )
        )

    def _apply_timers(self, session: Session, options: PushedOptions, now: float) -> None:
        session.timers = timers = pushed_timers(self._settings.timers, options)
        self._push_request_at = self._push_deadline = _NEVER
        self._limits.start(timers, now)

    def _take_token(self, options: PushedOptions) -> None:
        self._token = pushed_token(options, self._settings.username) or self._token

    def _auth_failed(self, failure: AuthFailure) -> None:
        self._out.tell(AuthFailed(failure.reason, failure.temporary, failure.backoff, failure.advance))
        retry = failure.temporary or self._token is not None
        self._end(CloseReason.AUTH_FAILED, failure.reason, retry=retry)

    def _auth_pending(self, text: str, now: float) -> None:
        words = text.partition(",")[2]
        number = words.removeprefix("timeout ").partition(",")[0]
        good = words.startswith("timeout ") and number.isascii() and number.isdigit() and len(number) < 6
        timeout = float(number) if good else None
        if self.options is None and self._push_deadline != _NEVER:
            # the server decides how long a person may take; an hour is enough for anyone
            self._push_deadline = now + min(timeout or 0.0, 3600.0) + self._settings.timers.push_timeout
        self._out.tell(AuthPending(timeout, words))
