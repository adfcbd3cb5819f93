"""How a client gets in: what its session tells, from TLS to a place in the network, and what it asks later. Sans I/O.

    TLS done -> key message -> identified, judged (`vpn.admission`, or the driver) -> replaces its older self
    -> addresses, peer id, keys -> PUSH_REPLY -> connected;   the same again for the keys of each renegotiation

Sources: openvpn-protocol.md sections 5.2, 8 and 13.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

from vpn.admission import Admission, Answer
from vpn.clientele import Clientele
from vpn.dataplane.channel import Negotiated
from vpn.departures import Departures
from vpn.drops import Drop, Drops
from vpn.events import (
    AdmissionRequested,
    ClientConnected,
    CloseReason,
    Password,
    RefusalReason,
    Refused,
    Renegotiated,
    TlsEstablished,
)
from vpn.happenings import HandshakeFailed, Happening, KeysExchanged, TextReceived, TlsDone
from vpn.negotiation import NoSharedCipher
from vpn.outlets import Outlets
from vpn.pool import AddressPool, PoolExhausted
from vpn.push_parser import build_push_replies
from vpn.server_peer import Peer, Stage
from vpn.settings import ClientOverrides, ServerSettings
from vpn.wire.message import EXIT, PUSH_REQUEST, is_message
from vpn.wire.packet import KeyId
from vpn.wire.peer_info import Protocol

_REPEAT_PUSH_AFTER = 30.0
_EVERYTHING = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))  # what is behind the other end of a point-to-point tunnel


class Arrivals:
    """Units: `now` in monotonic seconds, `unix_time` in Unix seconds."""

    def __init__(
        self,
        settings: ServerSettings,
        clientele: Clientele,
        pool: AddressPool,
        admission: Admission,
        departures: Departures,
        out: Outlets,
        drops: Drops,
    ) -> None:
        self._settings = settings
        self._clientele = clientele
        self._pool = pool
        self._admission = admission
        self._departures = departures
        self._out = out
        self._drops = drops

    def interpret(self, peer: Peer, now: float, unix_time: int) -> None:
        """Act on everything that the client's session has to tell."""
        while peer.session.happenings:
            happening = peer.session.happenings.pop(0)
            if peer.stage not in (Stage.LEAVING, Stage.GONE):
                self._interpret_one(peer, happening, now, unix_time)

    def admit(self, peer: Peer, overrides: ClientOverrides, now: float, unix_time: int) -> None:
        """Let in a client that waits for it: with its first key, or with the key of a renegotiation."""
        if peer.stage is Stage.CONNECTED and peer.awaiting_key is not None:
            self._use_renegotiated_key(peer, now, unix_time)
        elif peer.stage is Stage.ADMISSION:
            self._give_place(peer, overrides, now, unix_time)

    # -- what a session says -----------------------------------------------------------------------------------------

    def _interpret_one(self, peer: Peer, happening: Happening, now: float, unix_time: int) -> None:
        if isinstance(happening, TlsDone):
            self._tls_done(peer, happening, now)
        elif isinstance(happening, KeysExchanged):
            self._keys_exchanged(peer, happening.key_id, now, unix_time)
        elif isinstance(happening, TextReceived):
            self._read_text(peer, happening.text, now)
        elif isinstance(happening, HandshakeFailed):
            self._out.tell(Refused(peer.number, peer.address, happening.reason, happening.detail))
            self._departures.leave(peer, CloseReason.REFUSED, happening.detail, now)
        else:
            self._departures.leave(peer, happening.reason, happening.detail, now)

    def _tls_done(self, peer: Peer, done: TlsDone, now: float) -> None:
        if done.key_id == 0:
            peer.common_name, peer.subject = done.common_name, done.subject
        elif done.subject != peer.subject:
            detail = "another certificate at renegotiation"
            self._out.tell(Refused(peer.number, peer.address, RefusalReason.PROTOCOL_VIOLATION, detail))
            self._departures.leave(peer, CloseReason.REFUSED, detail, now)
            return
        self._out.tell(
            TlsEstablished(peer.number, done.key_id, done.version, done.cipher, done.common_name, done.subject)
        )

    def _keys_exchanged(self, peer: Peer, key_id: KeyId, now: float, unix_time: int) -> None:
        message = peer.key_message
        if message is None:
            return
        again = peer.stage is Stage.CONNECTED
        if not again:
            try:
                self._admission.identify(peer, message)
            except NoSharedCipher as error:
                self._departures.refuse(peer, RefusalReason.NO_SHARED_CIPHER, str(error), now)
                return
            peer.stage = Stage.ADMISSION
        peer.awaiting_key = key_id if again else None
        judgement = self._admission.judge(peer, message, unix_time)
        if judgement.answer is Answer.REFUSE:
            self._departures.refuse(peer, RefusalReason.BAD_CREDENTIALS, judgement.reason, now)
        elif judgement.answer is Answer.ASK:
            password = Password(message.password)
            self._out.tell(
                AdmissionRequested(
                    peer.number, peer.address, peer.common_name, peer.subject, message.username, password, again
                )
            )
        else:
            self.admit(peer, ClientOverrides(), now, unix_time)

    def _read_text(self, peer: Peer, text: str, now: float) -> None:
        if is_message(text, PUSH_REQUEST):
            peer.asked_for_push = True
            too_soon = peer.replied_at is not None and now - peer.replied_at < _REPEAT_PUSH_AFTER
            if peer.stage is Stage.CONNECTED and not too_soon:
                _send_push(peer, now)
        elif is_message(text, EXIT):
            self._departures.leave(peer, CloseReason.PEER_EXIT, "EXIT message", now)
        else:
            self._drops.count(Drop.UNEXPECTED)

    # -- letting in --------------------------------------------------------------------------------------------------

    def _use_renegotiated_key(self, peer: Peer, now: float, unix_time: int) -> None:
        key, peer.awaiting_key = peer.session.primary, None
        if not peer.session.answer(now):
            return
        peer.session.install_keys(key)
        token = self._admission.token_option(peer, unix_time)
        if token:
            peer.session.send_text(f"PUSH_REPLY,{token}", now)
        self._out.tell(Renegotiated(peer.number, key.key_id))

    def _give_place(self, peer: Peer, overrides: ClientOverrides, now: float, unix_time: int) -> None:
        """Give the client its place: addresses, peer id, keys, options."""
        if overrides.disable:
            self._departures.refuse(peer, RefusalReason.NOT_ADMITTED, "client is disabled", now)
            return
        if self._settings.point_to_point or (not self._settings.duplicate_cn and peer.common_name):
            self._replace_older(peer, now)
        try:
            if self._clientele.connected_count >= self._settings.max_clients:
                raise PoolExhausted("max-clients reached")
            peer.lease = self._pool.lease(peer.who, overrides)
        except PoolExhausted as error:
            self._departures.refuse(peer, RefusalReason.SERVER_FULL, str(error), now)
            return
        if self._settings.point_to_point:
            export = peer.agreement is not None and peer.agreement.key_export
            peer.peer_id = peer.session.equals_peer_id(key_export=export)
            overrides = replace(overrides, iroutes=_EVERYTHING)
        else:
            peer.peer_id = self._clientele.free_peer_id()
            peer.replies = build_push_replies(self._admission.push_options(peer, overrides, unix_time))
        self._start_data(peer)
        self._connect(peer, overrides, now)
        self._tell_connected(peer, overrides)
        if peer.asked_for_push or Protocol.REQUEST_PUSH in peer.info.protocol:
            _send_push(peer, now)

    def _replace_older(self, peer: Peer, now: float) -> None:
        """One certificate, one session: the older one goes without a word, as with the real server."""
        for other in [*self._clientele.in_stage(Stage.CONNECTED), *self._clientele.in_stage(Stage.ADMISSION)]:
            if other is not peer and (self._settings.point_to_point or other.common_name == peer.common_name):
                self._departures.leave(other, CloseReason.REPLACED, "the same certificate connected again", now)
                self._departures.forget(other)

    def _start_data(self, peer: Peer) -> None:
        agreement, session = peer.agreement, peer.session
        if agreement is None:
            return
        peer_id = peer.peer_id if agreement.data_v2 else None
        compression = self._settings.data.compression
        session.agree(Negotiated(agreement.cipher, agreement.key_export, peer_id, compression))
        session.install_keys(session.primary)
        if agreement.dynamic_tls_crypt:
            session.enable_dynamic_tls_crypt()

    def _connect(self, peer: Peer, overrides: ClientOverrides, now: float) -> None:
        """From here on packets find the client."""
        previous = self._clientele.connected_at(peer.address)
        if previous is not None and previous is not peer:
            # the same address and port: the client started anew without saying goodbye
            self._departures.leave(previous, CloseReason.REPLACED, "a new session from the same address", now)
            self._departures.forget(previous)
        peer.stage = Stage.CONNECTED
        peer.limits.start(self._settings.timers, now)
        lease = peer.lease
        addresses = [] if lease is None else [address for address in (lease.ipv4, lease.ipv6) if address is not None]
        self._clientele.connect(peer, addresses, overrides.iroutes)

    def _tell_connected(self, peer: Peer, overrides: ClientOverrides) -> None:
        lease, agreement, key = peer.lease, peer.agreement, peer.session.primary
        if lease is None or agreement is None or peer.peer_id is None:
            return
        self._out.tell(
            ClientConnected(
                peer=peer.number,
                peer_id=peer.peer_id,
                address=peer.address,
                common_name=peer.common_name,
                username=peer.username,
                ifconfig=lease.ipv4,
                ifconfig_ipv6=lease.ipv6,
                routes=tuple(str(network) for network in overrides.iroutes),
                cipher=agreement.cipher,
                tls_version=key.tls.version,
                tls_cipher=key.tls.cipher,
                client_version=peer.info.get("IV_VER") or "",
            )
        )


def _send_push(peer: Peer, now: float) -> None:
    peer.replied_at = now
    for reply in peer.replies:
        peer.session.send_text(reply, now)
