"""A server: many clients behind one transport and one tunnel interface, sans I/O.

The front of the parts below: takes datagrams, packets and the driver's decisions, gives each to the part it concerns,
then sees what every touched client has to send and when it is due. Same shape as `vpn.client.ClientCore`.

    datagram -> doorkeeper (no session yet) | control: the client's session, then `arrivals` | data: `router`
    handshake -> admission -> connected -> leaving (told again until acknowledged; `departures`) -> gone

Sources: openvpn-protocol.md sections 2.3, 8, 10.5 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vpn.admission import Admission
from vpn.agenda import Agenda
from vpn.arrivals import Arrivals
from vpn.clientele import Clientele
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.train import Outgoing, Train
from vpn.departures import Departures
from vpn.doorkeeper import Doorkeeper, Opening, Reply
from vpn.drops import Drop, Drops
from vpn.events import Closed, CloseReason, Event, RefusalReason, TransportUnusable
from vpn.introduction import options_string, peer_info
from vpn.outlets import Outlets
from vpn.pool import AddressPool
from vpn.protection import base_key
from vpn.router import Router, split_runs
from vpn.server_peer import Peer, Stage
from vpn.session import Session
from vpn.session_setup import Identity, SessionSetup
from vpn.settings import Address, ClientOverrides, ServerSettings, Transport
from vpn.tls import TlsContext
from vpn.wire.message import EXIT, HALT, RestartRequest
from vpn.wire.packet import CONTROL_HEADER_OCTETS, WITH_CLIENT_KEY, Malformed, Opcode
from vpn.wire.wrapped import split_client_key

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

_CLOSE_LINGER = 1.0
_RENEGOTIATION_JITTER = 0.1  # the server's renegotiations spread over the last tenth, so that they do not coincide
_NEVER = float("inf")


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
        self._clientele = Clientele()
        pool = AddressPool(settings.pool, settings.max_clients)
        self._departures = Departures(self._clientele, pool, self._out)
        admission = Admission(settings, pool, random_bytes)
        self._arrivals = Arrivals(settings, self._clientele, pool, admission, self._departures, self._out, self.drops)
        self._router = Router(settings, self._clientele, self._out, self.drops)
        self._agenda = Agenda()
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
        if len(untrusted) == 1 and (packet := self._router.open_one(untrusted[0], address, now)) is not None:
            self._out.deliver((packet,))
            return
        usual = self._router.receive_usual(untrusted, address, now)
        if usual is not None:
            self._settle_one(usual)
            return
        touched: dict[int, Peer] = {}
        for is_data, run in split_runs(untrusted):
            if is_data:
                self._receive_data(run, address, touched)
                continue
            for packet in run:
                self._receive_control(packet, address, touched)
        self._settle(touched)

    def receive_train(
        self, untrusted: Train, address: Address, now: float, unix_time: int, bench: Workbench | None
    ) -> None:
        """The same for datagrams of one size in a row in memory, `bench` once there is one."""
        peer = None
        if not self._closed:
            peer = self._router.receive_train(untrusted, address, now, bench)
        if peer is None:
            self.receive_datagrams(untrusted.datagrams(), address, now, unix_time)
            return
        self._now, self._unix_time = now, unix_time
        self._settle_one(peer)

    def seal_one(self, packet: bytes, now: float) -> tuple[bytes, Address] | None:
        """What to send at once for one packet; None, and nothing has happened, if it has to be `receive_packets`."""
        return self._router.seal_one(packet, now)

    def seal_few(self, superpacket: Superpacket, now: float) -> tuple[list[bytes], Address] | None:
        """The same for a few segments in one packet; None, and nothing has happened: `receive_superpacket`."""
        return self._router.seal_few(superpacket, now)

    def open_one(self, untrusted: bytes, address: Address, now: float) -> bytes | None:
        """What to deliver at once of one datagram; None, and nothing has happened: `receive_datagrams`."""
        return self._router.open_one(untrusted, address, now)

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take one IP packet from the tunnel interface."""
        self.receive_packets((packet,), now)

    def receive_packets(self, packets: Sequence[bytes], now: float) -> None:
        """The same for a batch."""
        self._now = now
        rest = self._router.send_usual(packets, now)
        if rest:
            touched: dict[int, Peer] = {}
            self._router.send(rest, now, touched)
            self._settle(touched)

    def receive_superpacket(self, superpacket: Superpacket, now: float, bench: Workbench | None) -> None:
        """The same for many packets in one; take the datagrams before the next."""
        self._now = now
        peer = self._router.send_superpacket(superpacket, now, bench)
        if peer is not None:
            self._settle_one(peer)

    def advance(self, now: float, unix_time: int) -> None:
        """Do what is due; call when `next_timeout()` has come."""
        self._now, self._unix_time = now, unix_time
        touched: dict[int, Peer] = {}
        for number in self._agenda.take_due(now):
            peer = self._clientele.peers.get(number)
            if peer is None:
                continue
            peer.session.advance(now, unix_time)
            if (reason := peer.limits.reached(now)) is not None:
                # without a word to the client, as with the real server: it notices by its own timers
                self._departures.leave(peer, reason, "", now)
            if peer.gone_at <= now:
                self._departures.forget(peer)
            else:
                touched[number] = peer
        self._settle(touched)
        if self._closing_at <= now:
            self._finish()

    def transport_lost(self, address: Address, now: float, detail: str) -> None:
        """TCP: the connection from `address` broke."""
        self._now = now
        for peer in self._clientele.at(address):
            self._departures.leave(peer, CloseReason.TRANSPORT, detail, now)
            self._departures.forget(peer)

    # -- the driver's decisions --------------------------------------------------------------------------------------

    def admit(self, peer: int, overrides: ClientOverrides, now: float, unix_time: int) -> None:
        """Answer AdmissionRequested: let the client in."""
        self._now, self._unix_time = now, unix_time
        known = self._clientele.peers.get(peer)
        if known is not None:
            self._arrivals.admit(known, overrides, now, unix_time)
            self._settle({peer: known})

    def refuse(self, peer: int, reason: str, now: float) -> None:
        """Answer AdmissionRequested: send AUTH_FAILED with `reason` (shown to the client; may be empty)."""
        self._now = now
        known = self._clientele.peers.get(peer)
        if known is not None and (known.stage is Stage.ADMISSION or known.awaiting_key is not None):
            self._departures.refuse(known, RefusalReason.BAD_CREDENTIALS, reason, now)
            self._settle({peer: known})

    def disconnect(self, peer: int, now: float, *, restart: bool = False) -> None:
        """End one client: HALT, or RESTART so that it comes again."""
        self._now = now
        known = self._clientele.peers.get(peer)
        if known is not None and known.stage is Stage.CONNECTED:
            known.session.send_text(RestartRequest().build() if restart else HALT, now)
            self._departures.leave(known, CloseReason.LOCAL, "disconnected here", now)
            self._settle({peer: known})

    def request_renegotiation(self, peer: int, now: float) -> bool:
        """Start a soft reset with one client now; returns whether it was started."""
        self._now = now
        known = self._clientele.peers.get(peer)
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
        touched = dict(self._clientele.peers)
        for peer in touched.values():
            if peer.stage is Stage.CONNECTED and notify:
                goodbye = EXIT if self.settings.point_to_point else RestartRequest(next_remote=notify == 2).build()
                peer.session.send_text(goodbye, now)
            self._departures.leave(peer, CloseReason.LOCAL, "server closed", now)
        self._closing_at = now + _CLOSE_LINGER
        self._settle(touched)
        if not notify or self._clientele.all_acknowledged:
            self._finish()

    # -- out ---------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When `advance` must be called next, in the time of `now`."""
        if self._closed:
            return None
        due = self._agenda.next_at()
        due = min(_NEVER if due is None else due, self._closing_at)
        return None if due == _NEVER else max(due, self._now)

    def datagrams_to_send(self) -> list[tuple[Outgoing, Address]]:
        """Everything to put on the wire, in order; empties the queue."""
        return self._out.take_datagrams()

    def packets_to_deliver(self) -> list[bytes | Rows]:
        """IP packets for the tunnel interface, in order; empties the queue."""
        return self._out.take_packets()

    @property
    def has_events(self) -> bool:
        """Whether `next_event` has one."""
        return self._out.has_events

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""
        return self._out.take_event()

    @property
    def connected(self) -> list[Peer]:
        """The clients that are connected now, for a status file. Read only."""
        return self._clientele.in_stage(Stage.CONNECTED)

    # -- datagrams ---------------------------------------------------------------------------------------------------

    def _receive_data(self, untrusted: Sequence[bytes], address: Address, touched: dict[int, Peer]) -> None:
        for peer, good in self._router.receive_data(untrusted, address, self._now, touched):
            self._arrivals.interpret(peer, self._now, self._unix_time)
            self._check_stream(peer, good)

    def _receive_control(self, untrusted: bytes, address: Address, touched: dict[int, Peer]) -> None:
        peer = self._clientele.of_session(address, untrusted[1:CONTROL_HEADER_OCTETS])
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
        self._arrivals.interpret(peer, self._now, self._unix_time)
        self._check_stream(peer, good)

    def _check_stream(self, peer: Peer, good: bool) -> None:
        if not good and self.settings.transport is Transport.TCP:
            self._departures.distrust_stream(peer, self._now)

    def _knock(self, untrusted: bytes, address: Address) -> tuple[Peer | None, bytes]:
        """A packet of nobody we know: perhaps a client that comes."""
        answer = self._door.receive(untrusted, address, self._now, self._unix_time)
        if isinstance(answer, Reply):
            self._out.send((answer.datagram,), address)
        elif isinstance(answer, Opening):
            # those that wait for an answer about their password, or failed and linger, count, too: else each would make
            # room for another at once
            half_open = sum(1 for peer in self._clientele.peers.values() if peer.peer_id is None)
            if half_open < self.settings.max_half_open and self._closing_at == _NEVER:
                return self._open(answer, address), answer.packet
            self.drops.count(Drop.HALF_OPEN_LIMIT)
        elif self.settings.transport is Transport.TCP:
            self._out.tell(TransportUnusable(address, "the first packet in the TCP stream is not acceptable"))
        return None, b""

    def _open(self, opening: Opening, address: Address) -> Peer:
        session = Session(self._session_setup(opening), self._now, self._unix_time)
        if opening.first_id == 0:
            session.send_first_reset(Opcode.CONTROL_HARD_RESET_SERVER_V2, self._now)
        return self._clientele.add(address, session, opening.remote_id)

    def _session_setup(self, opening: Opening) -> SessionSetup:
        settings = self.settings
        jitter = int.from_bytes(self._random_bytes(2), "big") / 0x10000 * _RENEGOTIATION_JITTER
        return SessionSetup(
            is_server=True,
            own_id=opening.own_id,
            wrapper=opening.wrapper,
            tls=self._tls,
            timers=replace(settings.timers, reneg_sec=settings.timers.reneg_sec * (1 - jitter)),
            data=settings.data,
            transport=settings.transport,
            transport_ipv6=settings.transport_ipv6,
            max_packet_octets=settings.max_packet_octets,
            identity=Identity(options_string(settings), peer_info(settings), lambda: ("", "")),
            random_bytes=self._random_bytes,
            drops=self.drops,
            base_key=base_key(settings.control, opening.client_key),
            first_id=opening.first_id,
            remote_id=opening.remote_id,
            decides_about_renegotiations=settings.external_admission,
        )

    # -- after any change --------------------------------------------------------------------------------------------

    def _settle(self, touched: dict[int, Peer]) -> None:
        """Interpret, send, and note when each of the touched is due."""
        for peer in touched.values():
            self._settle_one(peer)
        closing = self._closing_at != _NEVER and not self._closed
        if closing and self._clientele.all_acknowledged:
            self._finish()

    def _settle_one(self, peer: Peer) -> None:
        session, now = peer.session, self._now
        if session.happenings:
            self._arrivals.interpret(peer, now, self._unix_time)
        if peer.stage is Stage.GONE:
            return
        if datagrams := session.datagrams(now):
            self._out.send(datagrams, peer.address)
        peer.limits.note(session.data.octets_in + session.data.octets_out, now)
        due = min(peer.gone_at, peer.limits.due_at)
        of_session = session.next_timeout()
        self._agenda.put(peer.number, due if of_session is None else min(due, of_session))

    def _finish(self) -> None:
        for peer in list(self._clientele.peers.values()):
            self._departures.forget(peer)
        if not self._closed:
            self._closed = True
            self._out.tell(Closed(CloseReason.LOCAL, "", False))
