"""A server: many clients behind one transport and one tunnel interface, sans I/O.

Routes packets from the tunnel interface to clients by destination, checks the source of what comes out of a client,
hands out addresses, and answers first packets without keeping state. Same shape as `vpn.client.ClientCore`.

    datagram -> doorkeeper (no session yet) | control: by address and session id | data: by peer id, else address
    handshake -> admission -> connected -> leaving (told again until acknowledged) -> gone

Sources: openvpn-protocol.md sections 2.3, 8, 10.5 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from vpn.admission import Admission, Answer
from vpn.agenda import Agenda
from vpn.dataplane.channel import Negotiated
from vpn.dataplane.inner import InnerRoutes, destination, source
from vpn.doorkeeper import Doorkeeper, Opening, Reply
from vpn.drops import Drop, Drops
from vpn.events import (
    AdmissionRequested,
    ClientConnected,
    ClientGone,
    Closed,
    CloseReason,
    Event,
    Floated,
    Password,
    RefusalReason,
    Refused,
    Renegotiated,
    TlsEstablished,
    TransportUnusable,
)
from vpn.happenings import HandshakeFailed, Happening, KeysExchanged, TextReceived, TlsDone
from vpn.negotiation import NoSharedCipher
from vpn.outlets import Outlets
from vpn.pool import AddressPool, PoolExhausted
from vpn.protection import base_key
from vpn.push_parser import build_push_replies
from vpn.server_peer import Peer, Stage
from vpn.session import Identity, Session, SessionSetup
from vpn.settings import Address, ClientOverrides, KeyDirection, ServerSettings, Transport, Wrapping
from vpn.tls import TlsContext
from vpn.wire.message import EXIT, HALT, PUSH_REQUEST, AuthFailure, RestartRequest, is_message
from vpn.wire.occ import LinkDescription, build_options
from vpn.wire.packet import (
    CONTROL_HEADER_OCTETS,
    NO_PEER_ID,
    WITH_CLIENT_KEY,
    KeyId,
    Malformed,
    Opcode,
    PeerId,
)
from vpn.wire.peer_info import Protocol
from vpn.wire.wrapped import split_client_key

_LINGER = 5.0  # how long a leaving client is told again what it has not acknowledged
_CLOSE_LINGER = 1.0
_REPEAT_PUSH_AFTER = 30.0
_RENEGOTIATION_JITTER = 0.1  # the server's renegotiations spread over the last tenth, so that they do not coincide
_NEVER = float("inf")
_DATA = (Opcode.DATA_V1, Opcode.DATA_V2)


class ServerCore:
    """All clients of one server. Units: as in `ClientCore`. Errors: BadTlsSettings at construction."""

    def __init__(
        self,
        settings: ServerSettings,
        *,
        random_bytes: Callable[[int], bytes],
        keylog: Callable[[bytes], None] | None = None,
    ) -> None:
        self.settings = settings
        self.drops = Drops()
        self._random_bytes = random_bytes
        self._tls = TlsContext(settings.tls, is_server=True, keylog=keylog)
        self._out = Outlets()
        self._door = Doorkeeper(settings, random_bytes, self.drops)
        self._pool = AddressPool(settings.pool, settings.max_clients)
        self._admission = Admission(settings, self._pool, random_bytes)
        self._routes: InnerRoutes[Peer] = InnerRoutes()
        self._agenda = Agenda()
        self._peers: dict[int, Peer] = {}
        self._by_session: dict[tuple[Address, bytes], Peer] = {}
        self._by_peer_id: dict[int, Peer] = {}
        self._by_address: dict[Address, Peer] = {}  # connected ones
        self._last_number = 0
        self._closing_at = _NEVER
        self._closed = False
        self._now = 0.0
        self._unix_time = 0

    # -- in ----------------------------------------------------------------------------------------------------------

    def start(self, now: float, unix_time: int) -> None:
        """Nothing to send; for the same shape as a client."""
        self._now, self._unix_time = now, unix_time

    def receive_datagram(self, untrusted: bytes, address: Address, now: float, unix_time: int) -> None:
        """Take one datagram (UDP) or one de-framed packet (TCP) from the transport."""
        self.receive_datagrams((untrusted,), address, now, unix_time)

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None:
        """The same for a batch from one address."""
        self._now, self._unix_time = now, unix_time
        if self._closed:
            self.drops.count(Drop.CLOSED, len(untrusted))
            return
        touched: dict[int, Peer] = {}
        for is_data, run in _runs(untrusted):
            if is_data:
                self._receive_data(run, address, touched)
                continue
            for packet in run:
                self._receive_control(packet, address, touched)
        self._settle(touched)

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take one IP packet from the tunnel interface."""
        self.receive_packets((packet,), now)

    def receive_packets(self, packets: Sequence[bytes], now: float) -> None:
        """The same for a batch."""
        self._now = now
        touched: dict[int, Peer] = {}
        self._route(packets, touched)
        self._settle(touched)

    def advance(self, now: float, unix_time: int) -> None:
        """Do what is due; call when `next_timeout()` has come."""
        self._now, self._unix_time = now, unix_time
        touched: dict[int, Peer] = {}
        for number in self._agenda.take_due(now):
            peer = self._peers.get(number)
            if peer is None:
                continue
            peer.session.advance(now, unix_time)
            if peer.gone_at <= now:
                self._forget(peer)
            else:
                touched[number] = peer
        self._settle(touched)
        if self._closing_at <= now:
            self._finish()

    def transport_lost(self, address: Address, now: float, detail: str) -> None:
        """TCP: the connection from `address` broke."""
        self._now = now
        for peer in [peer for peer in self._peers.values() if peer.address == address]:
            self._leave(peer, CloseReason.TRANSPORT, detail)
            self._forget(peer)

    # -- the driver's decisions --------------------------------------------------------------------------------------

    def admit(self, peer: int, overrides: ClientOverrides, now: float, unix_time: int) -> None:
        """Answer AdmissionRequested: let the client in."""
        self._now, self._unix_time = now, unix_time
        known = self._peers.get(peer)
        if known is None:
            return
        if known.stage is Stage.CONNECTED and known.awaiting_key is not None:
            self._use_renegotiated_key(known)
        elif known.stage is Stage.ADMISSION:
            self._admit(known, overrides)
        self._settle({peer: known})

    def refuse(self, peer: int, reason: str, now: float) -> None:
        """Answer AdmissionRequested: send AUTH_FAILED with `reason` (shown to the client; may be empty)."""
        self._now = now
        known = self._peers.get(peer)
        if known is not None and (known.stage is Stage.ADMISSION or known.awaiting_key is not None):
            self._refuse(known, RefusalReason.BAD_CREDENTIALS, reason)
            self._settle({peer: known})

    def disconnect(self, peer: int, now: float, *, restart: bool = False) -> None:
        """End one client: HALT, or RESTART so that it comes again."""
        self._now = now
        known = self._peers.get(peer)
        if known is not None and known.stage is Stage.CONNECTED:
            known.session.send_text(RestartRequest().build() if restart else HALT, now)
            self._leave(known, CloseReason.LOCAL, "disconnected here")
            self._settle({peer: known})

    def request_renegotiation(self, peer: int, now: float) -> bool:
        """Start a soft reset with one client now; returns whether it was started."""
        self._now = now
        known = self._peers.get(peer)
        started = known is not None and known.stage is Stage.CONNECTED and known.session.renegotiate(now)
        if known is not None:
            self._settle({peer: known})
        return started

    def close(self, now: float) -> None:
        """End all clients, telling them as `explicit_exit_notify` says; Closed comes within a second."""
        self._now = now
        if self._closed or self._closing_at != _NEVER:
            return
        notify = self.settings.explicit_exit_notify if self.settings.transport is Transport.UDP else 0
        touched = dict(self._peers)
        for peer in touched.values():
            if peer.stage is Stage.CONNECTED and notify:
                peer.session.send_text(RestartRequest(next_remote=notify == 2).build(), now)
            self._leave(peer, CloseReason.LOCAL, "server closed")
        self._closing_at = now + _CLOSE_LINGER
        self._settle(touched)
        if not notify or all(peer.session.all_acknowledged for peer in self._peers.values()):
            self._finish()

    # -- out ---------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When `advance` must be called next, in the time of `now`."""
        if self._closed:
            return None
        due = self._agenda.next_at()
        due = min(_NEVER if due is None else due, self._closing_at)
        return None if due == _NEVER else max(due, self._now)

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Everything to put on the wire, in order; empties the queue."""
        return self._out.take_datagrams()

    def packets_to_deliver(self) -> list[bytes]:
        """IP packets for the tunnel interface, in order; empties the queue."""
        return self._out.take_packets()

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""
        return self._out.take_event()

    @property
    def connected(self) -> list[Peer]:
        """The clients that are connected now, for a status file. Read only."""
        return [peer for peer in self._peers.values() if peer.stage is Stage.CONNECTED]

    # -- datagrams ---------------------------------------------------------------------------------------------------

    def _receive_control(self, untrusted: bytes, address: Address, touched: dict[int, Peer]) -> None:
        peer = self._by_session.get((address, untrusted[1:CONTROL_HEADER_OCTETS]))
        packet = untrusted
        if peer is None:
            peer, packet = self._knock(untrusted, address)
        elif untrusted[0] >> 3 in WITH_CLIENT_KEY:
            try:
                packet, _ = split_client_key(untrusted)
            except Malformed:
                self.drops.count(Drop.MALFORMED)
                return
        if peer is None:
            return
        touched[peer.number] = peer
        good = peer.session.receive_control(packet, self._now, self._unix_time)
        self._interpret(peer)
        self._check_stream(peer, good)

    def _knock(self, untrusted: bytes, address: Address) -> tuple[Peer | None, bytes]:
        """A packet of nobody we know: perhaps a client that comes."""
        answer = self._door.receive(untrusted, address, self._now, self._unix_time)
        if isinstance(answer, Reply):
            self._out.send((answer.datagram,), address)
        elif isinstance(answer, Opening):
            half_open = sum(1 for peer in self._peers.values() if peer.stage is Stage.HANDSHAKE)
            if half_open < self.settings.max_half_open and self._closing_at == _NEVER:
                return self._open(answer, address), answer.packet
            self.drops.count(Drop.HALF_OPEN_LIMIT)
        elif self.settings.transport is Transport.TCP:
            self._out.tell(TransportUnusable(address, "the first packet in the TCP stream is not acceptable"))
        return None, b""

    def _open(self, opening: Opening, address: Address) -> Peer:
        settings = self.settings
        jitter = int.from_bytes(self._random_bytes(2), "big") / 0x10000 * _RENEGOTIATION_JITTER
        timers = replace(settings.timers, reneg_sec=settings.timers.reneg_sec * (1 - jitter))
        setup = SessionSetup(
            is_server=True,
            own_id=opening.own_id,
            wrapper=opening.wrapper,
            tls=self._tls,
            timers=timers,
            data=settings.data,
            transport=settings.transport,
            transport_ipv6=settings.transport_ipv6,
            max_packet_octets=settings.max_packet_octets,
            identity=Identity(self._options_string(), "", lambda: ("", "")),
            random_bytes=self._random_bytes,
            drops=self.drops,
            base_key=base_key(settings.control, opening.client_key),
            first_id=opening.first_id,
            remote_id=opening.remote_id,
        )
        session = Session(setup, self._now, self._unix_time)
        if opening.first_id == 0:
            session.send_first_reset(Opcode.CONTROL_HARD_RESET_SERVER_V2, self._now)
        self._last_number += 1
        peer = Peer(self._last_number, address, session)
        self._peers[peer.number] = peer
        self._by_session[address, opening.remote_id] = peer
        return peer

    def _options_string(self) -> str:
        settings = self.settings
        tls_auth = settings.control.wrapping is Wrapping.TLS_AUTH
        directed = tls_auth and settings.control.direction is not KeyDirection.BIDIRECTIONAL
        return build_options(
            LinkDescription(
                tls_server=True,
                transport=settings.transport,
                transport_ipv6=settings.transport_ipv6,
                tun_mtu=settings.data.tun_mtu,
                digest=settings.data.digest,
                cipher=settings.data.fallback_cipher,
                compression=settings.data.compression,
                tls_auth=tls_auth,
                key_direction=int(settings.control.direction) if directed else None,
            )
        )

    def _receive_data(self, untrusted: Sequence[bytes], address: Address, touched: dict[int, Peer]) -> None:
        for peer_id, run in _by_peer_id(untrusted):
            peer = self._by_peer_id.get(peer_id) if peer_id is not None else None
            if peer is None and peer_id in (None, NO_PEER_ID):
                peer = self._by_address.get(address)
            if peer is None:
                self.drops.count(Drop.NO_DATA_KEY if address in self._by_address else Drop.UNKNOWN_SENDER, len(run))
                continue
            touched[peer.number] = peer
            self._receive_data_of(peer, run, address, touched)

    def _receive_data_of(
        self, peer: Peer, untrusted: Sequence[bytes], address: Address, touched: dict[int, Peer]
    ) -> None:
        elsewhere = address != peer.address
        if elsewhere and not self._may_float(peer, address):
            self.drops.count(Drop.WRONG_ADDRESS, len(untrusted))
            return
        bad, heard = self.drops[Drop.UNAUTHENTIC_DATA], peer.session.data.authentic
        packets = peer.session.receive_data(untrusted, self._now)
        if elsewhere and peer.session.data.authentic > heard:
            self._float(peer, address)
        self._from_client(peer, packets, touched)
        self._interpret(peer)
        self._check_stream(peer, self.drops[Drop.UNAUTHENTIC_DATA] == bad)

    def _may_float(self, peer: Peer, address: Address) -> bool:
        other = self._by_address.get(address)
        free = other is None or other is peer or other.common_name == peer.common_name
        return free and self.settings.transport is Transport.UDP

    def _float(self, peer: Peer, address: Address) -> None:
        old, remote_id = peer.address, peer.session.remote_id
        if self._by_address.get(old) is peer:
            del self._by_address[old]
        if remote_id is not None:
            self._by_session.pop((old, remote_id), None)
            self._by_session[address, remote_id] = peer
        peer.address = address
        self._by_address[address] = peer
        self._out.tell(Floated(peer.number, old, address))

    # -- packets -----------------------------------------------------------------------------------------------------

    def _from_client(self, peer: Peer, packets: list[bytes], touched: dict[int, Peer]) -> None:
        """What came out of a client: check where it says it is from, pass it on."""
        own = [packet for packet in packets if self._is_source_of(peer, source(packet))]
        if len(own) < len(packets):
            self.drops.count(Drop.SPOOFED_SOURCE, len(packets) - len(own))
        if not self.settings.client_to_client:
            self._out.deliver(own)
            return
        for packet in own:
            if self._routes.find(destination(packet) or b"") is None:
                self._out.deliver((packet,))
            else:
                self._route((packet,), touched)

    def _is_source_of(self, peer: Peer, address: bytes | None) -> bool:
        return address is not None and (address in peer.inner_sources or self._routes.find(address) is peer)

    def _route(self, packets: Sequence[bytes], touched: dict[int, Peer]) -> None:
        """Packets to the clients that have their destinations, in order for each."""
        batches: dict[int, list[bytes]] = {}
        for packet in packets:
            address = destination(packet)
            peer = None if address is None else self._routes.find(address)
            if peer is None:
                self.drops.count(Drop.NOT_IP if address is None else Drop.NO_ROUTE)
                continue
            touched[peer.number] = peer
            batches.setdefault(peer.number, []).append(packet)
        for number, batch in batches.items():
            touched[number].session.send_packets(batch, self._now)

    # -- what a session says -----------------------------------------------------------------------------------------

    def _interpret(self, peer: Peer) -> None:
        while peer.session.happenings:
            happening = peer.session.happenings.pop(0)
            if peer.stage not in (Stage.LEAVING, Stage.GONE):
                self._interpret_one(peer, happening)

    def _interpret_one(self, peer: Peer, happening: Happening) -> None:
        if isinstance(happening, TlsDone):
            self._tls_done(peer, happening)
        elif isinstance(happening, KeysExchanged):
            self._keys_exchanged(peer, happening.key_id)
        elif isinstance(happening, TextReceived):
            self._read_text(peer, happening.text)
        elif isinstance(happening, HandshakeFailed):
            self._out.tell(Refused(peer.number, peer.address, happening.reason, happening.detail))
            self._leave(peer, CloseReason.REFUSED, happening.detail)
        else:
            self._leave(peer, happening.reason, happening.detail)

    def _tls_done(self, peer: Peer, done: TlsDone) -> None:
        if done.key_id == 0:
            peer.common_name, peer.subject = done.common_name, done.subject
        elif done.subject != peer.subject:
            detail = "another certificate at renegotiation"
            self._out.tell(Refused(peer.number, peer.address, RefusalReason.PROTOCOL_VIOLATION, detail))
            self._leave(peer, CloseReason.REFUSED, detail)
            return
        self._out.tell(
            TlsEstablished(peer.number, done.key_id, done.version, done.cipher, done.common_name, done.subject)
        )

    def _keys_exchanged(self, peer: Peer, key_id: KeyId) -> None:
        message = peer.key_message
        if message is None:
            return
        again = peer.stage is Stage.CONNECTED
        if not again:
            try:
                self._admission.identify(peer, message)
            except NoSharedCipher as error:
                self._refuse(peer, RefusalReason.NO_SHARED_CIPHER, str(error))
                return
            peer.stage = Stage.ADMISSION
        peer.awaiting_key = key_id if again else None
        judgement = self._admission.judge(peer, message, self._unix_time)
        if judgement.answer is Answer.REFUSE:
            self._refuse(peer, RefusalReason.BAD_CREDENTIALS, judgement.reason)
        elif judgement.answer is Answer.ASK:
            password = Password(message.password)
            self._out.tell(
                AdmissionRequested(
                    peer.number, peer.address, peer.common_name, peer.subject, message.username, password, again
                )
            )
        elif again:
            self._use_renegotiated_key(peer)
        else:
            self._admit(peer, ClientOverrides())

    def _use_renegotiated_key(self, peer: Peer) -> None:
        key, peer.awaiting_key = peer.session.primary, None
        if not key.is_established:
            return
        peer.session.install_keys(key)
        token = self._admission.token_option(peer, self._unix_time)
        if token:
            peer.session.send_text(f"PUSH_REPLY,{token}", self._now)
        self._out.tell(Renegotiated(peer.number, key.key_id))

    def _admit(self, peer: Peer, overrides: ClientOverrides) -> None:
        """Give the client its place: addresses, peer id, keys, options."""
        if overrides.disable:
            self._refuse(peer, RefusalReason.NOT_ADMITTED, "client is disabled")
            return
        if not self.settings.duplicate_cn and peer.common_name:
            self._replace_older(peer)
        try:
            if len(self._by_peer_id) >= self.settings.max_clients:
                raise PoolExhausted("max-clients reached")
            peer.lease = self._pool.lease(peer.who, overrides)
        except PoolExhausted as error:
            self._refuse(peer, RefusalReason.SERVER_FULL, str(error))
            return
        peer.peer_id = next(PeerId(number) for number in range(1 << 24) if number not in self._by_peer_id)
        peer.replies = build_push_replies(self._admission.push_options(peer, overrides, self._unix_time))
        self._start_data(peer)
        self._index(peer, overrides)
        self._tell_connected(peer, overrides)
        if peer.asked_for_push or Protocol.REQUEST_PUSH in peer.info.protocol:
            self._send_push(peer)

    def _replace_older(self, peer: Peer) -> None:
        """One certificate, one session: the older one goes without a word, as with the real server."""
        for other in [other for other in self._peers.values() if other.common_name == peer.common_name]:
            if other is not peer and other.stage in (Stage.CONNECTED, Stage.ADMISSION):
                self._leave(other, CloseReason.REPLACED, "the same certificate connected again")
                self._forget(other)

    def _start_data(self, peer: Peer) -> None:
        agreement, session = peer.agreement, peer.session
        if agreement is None:
            return
        peer_id = peer.peer_id if agreement.data_v2 else None
        compression = self.settings.data.compression
        session.agree(Negotiated(agreement.cipher, agreement.key_export, peer_id, compression))
        session.install_keys(session.primary)
        if agreement.dynamic_tls_crypt:
            session.enable_dynamic_tls_crypt()

    def _index(self, peer: Peer, overrides: ClientOverrides) -> None:
        """From here on packets find the client."""
        peer.stage = Stage.CONNECTED
        lease = peer.lease
        addresses = [] if lease is None else [address for address in (lease.ipv4, lease.ipv6) if address is not None]
        for address in addresses:
            self._routes.add_host(address, peer)
        for network in overrides.iroutes:
            self._routes.add_network(network, peer)
        peer.inner_sources = frozenset(address.packed for address in addresses)
        if peer.peer_id is not None:
            self._by_peer_id[peer.peer_id] = peer
        previous = self._by_address.get(peer.address)
        if previous is not None and previous is not peer:
            # the same address and port: the client started anew without saying goodbye
            self._leave(previous, CloseReason.REPLACED, "a new session from the same address")
            self._forget(previous)
        self._by_address[peer.address] = peer

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

    def _read_text(self, peer: Peer, text: str) -> None:
        if is_message(text, PUSH_REQUEST):
            peer.asked_for_push = True
            too_soon = peer.replied_at is not None and self._now - peer.replied_at < _REPEAT_PUSH_AFTER
            if peer.stage is Stage.CONNECTED and not too_soon:
                self._send_push(peer)
        elif is_message(text, EXIT):
            self._leave(peer, CloseReason.PEER_EXIT, "EXIT message")
        else:
            self.drops.count(Drop.UNEXPECTED)

    def _send_push(self, peer: Peer) -> None:
        peer.replied_at = self._now
        for reply in peer.replies:
            peer.session.send_text(reply, self._now)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _refuse(self, peer: Peer, reason: RefusalReason, detail: str) -> None:
        """Tell the client why, then let it go."""
        peer.session.send_text(AuthFailure(detail).build(), self._now)
        self._out.tell(Refused(peer.number, peer.address, reason, detail))
        self._leave(peer, CloseReason.AUTH_FAILED, detail or reason.value)

    def _leave(self, peer: Peer, reason: CloseReason, detail: str) -> None:
        """The client counts as gone; what it was told last is repeated for a while."""
        if peer.stage in (Stage.LEAVING, Stage.GONE):
            return
        was_at = self._by_address.get(peer.address)
        if was_at is peer:
            del self._by_address[peer.address]
        if peer.peer_id is not None:
            self._by_peer_id.pop(peer.peer_id, None)
        self._routes.remove(peer)
        if peer.lease is not None:
            self._pool.release(peer.lease)
        peer.stage = Stage.LEAVING
        peer.session.data.close()
        peer.gone_at = self._now + _LINGER
        peer.gone_reason = (reason, detail)
        traffic = peer.session.data
        self._out.tell(
            ClientGone(
                peer=peer.number,
                peer_id=peer.peer_id,
                address=peer.address,
                common_name=peer.common_name,
                reason=reason,
                detail=detail,
                octets_in=traffic.octets_in,
                octets_out=traffic.octets_out,
            )
        )

    def _forget(self, peer: Peer) -> None:
        peer.stage = Stage.GONE
        self._peers.pop(peer.number, None)
        remote_id = peer.session.remote_id
        if remote_id is not None and self._by_session.get((peer.address, remote_id)) is peer:
            del self._by_session[peer.address, remote_id]
        peer.session.close()

    def _check_stream(self, peer: Peer, good: bool) -> None:
        """A TCP stream in which one packet is not authentic cannot be trusted any further."""
        if good or self.settings.transport is not Transport.TCP or peer.stage is Stage.GONE:
            return
        detail = "a packet in the TCP stream is not authentic"
        self._out.tell(TransportUnusable(peer.address, detail))
        self._leave(peer, CloseReason.TRANSPORT, detail)

    def _settle(self, touched: dict[int, Peer]) -> None:
        """After any change: interpret, send, and note when each of the touched is due."""
        for peer in touched.values():
            self._interpret(peer)
            if peer.stage is Stage.GONE:
                continue
            self._out.send(peer.session.datagrams(self._now), peer.address)
            due = peer.session.next_timeout()
            self._agenda.put(peer.number, peer.gone_at if due is None else min(due, peer.gone_at))
        closing = self._closing_at != _NEVER and not self._closed
        if closing and all(peer.session.all_acknowledged for peer in self._peers.values()):
            self._finish()

    def _finish(self) -> None:
        for peer in list(self._peers.values()):
            self._forget(peer)
        if not self._closed:
            self._closed = True
            self._out.tell(Closed(CloseReason.LOCAL, "", False))


def _runs(untrusted: Sequence[bytes]) -> list[tuple[bool, list[bytes]]]:
    """The packets in order, cut where data follows control or the reverse."""
    runs: list[tuple[bool, list[bytes]]] = []
    for packet in untrusted:
        is_data = bool(packet) and packet[0] >> 3 in _DATA
        if runs and runs[-1][0] == is_data:
            runs[-1][1].append(packet)
        else:
            runs.append((is_data, [packet]))
    return runs


def _by_peer_id(untrusted: Sequence[bytes]) -> list[tuple[int | None, list[bytes]]]:
    """The data packets in order, cut where the peer id changes; None: the packet has none."""
    runs: list[tuple[int | None, list[bytes]]] = []
    for packet in untrusted:
        has_id = packet[0] >> 3 == Opcode.DATA_V2
        peer_id = int.from_bytes(packet[1:4], "big") if has_id else None
        if runs and runs[-1][0] == peer_id:
            runs[-1][1].append(packet)
        else:
            runs.append((peer_id, [packet]))
    return runs
