"""A client: one association with one server, sans I/O.

The driver gives it what arrives and the time, and takes what it wants sent, delivered, told and when to be called
again. Random octets come from the callable given at construction; the core reads no clock.

    start -> TLS -> key messages -> pushed options -> Connected … Closed

Sources: openvpn-protocol.md sections 8, 9 and 13.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vpn.client_arrival import ClientArrival
from vpn.dataplane.inner import destination
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.train import Outgoing, Train
from vpn.drops import Drop, Drops
from vpn.events import (
    Closed,
    CloseReason,
    Event,
    Floated,
    TransportUnusable,
)
from vpn.happenings import HandshakeFailed, Happening, KeysExchanged, TextReceived, TlsDone
from vpn.introduction import options_string, peer_info
from vpn.limits import Limits
from vpn.negotiation import CC_EXIT
from vpn.outlets import Outlets
from vpn.protection import base_key, client_wrapper
from vpn.session import Session
from vpn.session_setup import Identity, SessionSetup, new_session_id
from vpn.settings import Address, ClientSettings, Transport, Wrapping
from vpn.tls import TlsContext
from vpn.wire.message import EXIT
from vpn.wire.packet import Opcode

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

_FIRST_PUSH_REQUEST = 1.0  # most servers push unasked; this is for those that do not
_CLOSE_LINGER = 1.0  # how long a clean exit waits for its acknowledgement
_NEVER = float("inf")
_DATA = (Opcode.DATA_V1, Opcode.DATA_V2)
_FINAL = frozenset({CloseReason.LOCAL, CloseReason.HALT, CloseReason.INACTIVE, CloseReason.SESSION_TIMEOUT})


class ClientCore:
    """One connection attempt and the session that follows; after `Closed` make a new one.

    Units: `now` in monotonic seconds, `unix_time` in whole Unix seconds. Errors: BadTlsSettings at construction.
    `keylog` gets lines for Wireshark; they are secrets.
    """

    def __init__(
        self,
        settings: ClientSettings,
        server: Address,
        *,
        random_bytes: Callable[[int], bytes],
        keylog: Callable[[bytes], None] | None = None,
    ) -> None:
        self.settings = settings
        self.drops = Drops()
        self._server = server
        self._random_bytes = random_bytes
        self._tls = TlsContext(settings.tls, is_server=False, keylog=keylog)
        self._out = Outlets()
        self._session: Session | None = None
        self._limits = Limits()
        self._arrival = ClientArrival(settings, self._limits, self._out, self.drops, self._end)
        self._closing_at = _NEVER
        self._closed = False
        self._now = 0.0

    # -- in ----------------------------------------------------------------------------------------------------------

    def start(self, now: float, unix_time: int) -> None:
        """Send the first packet."""
        v2 = self.settings.control.wrapping is Wrapping.TLS_CRYPT_V2
        reset = Opcode.CONTROL_HARD_RESET_CLIENT_V3 if v2 else Opcode.CONTROL_HARD_RESET_CLIENT_V2
        self._session = Session(self._session_setup(unix_time), now, unix_time)
        self._session.send_first_reset(reset, now)
        self._flush(now)

    def receive_datagram(self, untrusted: bytes, address: Address, now: float, unix_time: int) -> None:
        """Take one datagram (UDP) or one de-framed packet (TCP) from the transport."""
        self.receive_datagrams((untrusted,), address, now, unix_time)

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None:
        """The same for a batch from one address."""
        session = self._session
        self._now = now
        if session is None or self._closed:
            self.drops.count(Drop.CLOSED, len(untrusted))
            return
        if address != self._server and not self.settings.float_server:
            self.drops.count(Drop.UNKNOWN_SENDER, len(untrusted))
            return
        data: list[bytes] = []
        for packet in untrusted:
            if packet and packet[0] >> 3 in _DATA:
                data.append(packet)
                continue
            self._receive_data(session, data, address, now)
            data = []
            good = session.receive_control(packet, now, unix_time)
            self._check_stream(good, address)
            if good:
                self._follow(address)
            self._interpret(session, now)
        self._receive_data(session, data, address, now)
        self._interpret(session, now)
        self._flush(now)

    def receive_train(
        self, untrusted: Train, address: Address, now: float, unix_time: int, bench: Workbench | None
    ) -> None:
        """The same for datagrams of one size in a row in memory, `bench` once there is one."""
        session = self._session
        usual = (
            session is not None and not self._closed and self._arrival.options is not None and address == self._server
        )
        opened = session.receive_train(untrusted, now, bench) if usual and session else None
        if opened is None or session is None:
            self.receive_datagrams(untrusted.datagrams(), address, now, unix_time)
            return
        self._now = now
        self._out.deliver([opened.rows] if opened.rows is not None else _ip_packets(opened.packets))
        self._interpret(session, now)
        self._flush(now)

    def seal_one(self, packet: bytes, now: float) -> tuple[bytes, Address] | None:
        """What to send at once for one packet; None, and nothing has happened, if it has to be `receive_packets`."""
        session = self._session
        if session is None or self._arrival.options is None or self._closed:
            return None
        datagram = session.seal_one(packet, now)
        if datagram is None:
            return None
        self._limits.note(session.data.octets_in + session.data.octets_out, now)
        return datagram, self._server

    def seal_few(self, superpacket: Superpacket, now: float) -> tuple[list[bytes], Address] | None:
        """The same for a few segments in one packet; None, and nothing has happened: `receive_superpacket`."""
        session = self._session
        if session is None or self._arrival.options is None or self._closed:
            return None
        datagrams = session.seal_few(superpacket, now)
        if datagrams is None:
            return None
        self._limits.note(session.data.octets_in + session.data.octets_out, now)
        return datagrams, self._server

    def open_one(self, untrusted: bytes, address: Address, now: float) -> bytes | None:
        """What to deliver at once of one datagram; None, and nothing has happened: `receive_datagrams`."""
        session = self._session
        if session is None or self._arrival.options is None or self._closed or address != self._server:
            return None
        if not untrusted or untrusted[0] >> 3 not in _DATA:
            return None
        packet = session.open_one(untrusted, None, now)
        if packet is not None:
            self._limits.note(session.data.octets_in + session.data.octets_out, now)
        return packet

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take one IP packet from the tunnel interface."""
        self.receive_packets((packet,), now)

    def receive_packets(self, packets: Sequence[bytes], now: float) -> None:
        """The same for a batch."""
        if self._session is None or self._arrival.options is None or self._closed:
            self.drops.count(Drop.NOT_CONNECTED, len(packets))
            return
        self._session.send_packets(packets, now)
        self._flush(now)

    def receive_superpacket(self, superpacket: Superpacket, now: float, bench: Workbench | None) -> None:
        """The same for many packets in one; take the datagrams before the next."""
        if self._session is None or self._arrival.options is None or self._closed:
            self.drops.count(Drop.NOT_CONNECTED, superpacket.segments)
            return
        self._session.send_superpacket(superpacket, now, bench)
        self._flush(now)

    def advance(self, now: float, unix_time: int) -> None:
        """Do what is due; call when `next_timeout()` has come."""
        session = self._session
        self._now = now
        if session is None or self._closed:
            return
        session.advance(now, unix_time)
        self._interpret(session, now)
        self._arrival.advance(session, now)
        if (reason := self._limits.reached(now)) is not None:
            self._leave(reason, now)
        if self._closing_at <= now:
            self._end(CloseReason.LOCAL, "")
        self._flush(now)

    def transport_lost(self, now: float, detail: str) -> None:
        """TCP: the connection broke."""
        self._end(CloseReason.TRANSPORT, detail)

    def request_renegotiation(self, now: float) -> bool:
        """Start a soft reset now, if the session is established; returns whether it was started."""
        started = self._session is not None and not self._closed and self._session.renegotiate(now)
        self._flush(now)
        return started

    def close(self, now: float) -> None:
        """Leave cleanly: tell the server, then be Closed (at the latest a second later, by `advance`)."""
        session = self._session
        if self._closed or self._closing_at != _NEVER:
            return
        if session is None or self._arrival.options is None:
            self._end(CloseReason.LOCAL, "")
            return
        self._say_goodbye(session, now)
        self._flush(now)
        if self.settings.transport is Transport.TCP or session.all_acknowledged:
            self._end(CloseReason.LOCAL, "")
        else:
            self._closing_at = now + _CLOSE_LINGER

    # -- out ---------------------------------------------------------------------------------------------------------

    def next_timeout(self) -> float | None:
        """When `advance` must be called next, in the time of `now`."""
        if self._session is None or self._closed:
            return None
        of_session = self._session.next_timeout()
        due = min(
            _NEVER if of_session is None else of_session,
            self._arrival.due_at,
            self._limits.due_at,
            self._closing_at,
        )
        return None if due == _NEVER else max(due, self._now)

    def datagrams_to_send(self) -> list[tuple[Outgoing, Address]]:
        """Everything to put on the wire, in order; empties the queue. TCP: frame each with `vpn.wire.stream`."""
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
    def traffic(self) -> tuple[int, int]:
        """Octets of inner packets (received, sent)."""
        return (self._session.data.octets_in, self._session.data.octets_out) if self._session else (0, 0)

    # -- making the session ------------------------------------------------------------------------------------------

    def _session_setup(self, unix_time: int) -> SessionSetup:
        settings = self.settings
        timers = replace(settings.timers, ping=0.0) if settings.pull else settings.timers
        return SessionSetup(
            is_server=False,
            own_id=new_session_id(self._random_bytes),
            wrapper=client_wrapper(settings.control, unix_time),
            tls=self._tls,
            timers=timers,
            data=settings.data,
            transport=settings.transport,
            transport_ipv6=settings.transport_ipv6,
            max_packet_octets=settings.max_packet_octets,
            identity=Identity(options_string(settings), peer_info(settings), self._arrival.credentials),
            random_bytes=self._random_bytes,
            drops=self.drops,
            base_key=base_key(settings.control),
            client_key=settings.control.wrapped_client_key,
        )

    # -- what the session says ---------------------------------------------------------------------------------------

    def _receive_data(self, session: Session, data: list[bytes], address: Address, now: float) -> None:
        if not data:
            return
        bad = self.drops[Drop.UNAUTHENTIC_DATA]
        heard = session.data.authentic
        packets = _ip_packets(session.receive_data(data, now))
        if session.data.authentic > heard:
            self._follow(address)
        if packets and self._arrival.options is not None:
            self._out.deliver(packets)
        self._check_stream(self.drops[Drop.UNAUTHENTIC_DATA] == bad, address)

    def _interpret(self, session: Session, now: float) -> None:
        while session.happenings and not self._closed:
            happening = session.happenings.pop(0)
            self._interpret_one(session, happening, now)

    def _interpret_one(self, session: Session, happening: Happening, now: float) -> None:
        if isinstance(happening, TlsDone):
            self._arrival.note_tls(happening)
        elif isinstance(happening, KeysExchanged):
            self._arrival.keys_exchanged(session, happening, self._server, now)
        elif isinstance(happening, TextReceived):
            self._arrival.read_text(session, happening.text, self._server, now)
        elif isinstance(happening, HandshakeFailed):
            self._arrival.refuse(happening.reason, happening.detail, self._server)
        else:
            self._end(happening.reason, happening.detail)

    # -- small decisions ---------------------------------------------------------------------------------------------

    def _follow(self, address: Address) -> None:
        if address != self._server:
            self._out.tell(Floated(None, self._server, address))
            self._server = address

    def _check_stream(self, good: bool, address: Address) -> None:
        """A TCP stream in which one packet is not authentic cannot be trusted any further."""
        if good or self.settings.transport is not Transport.TCP or self._closed:
            return
        detail = "a packet in the TCP stream is not authentic"
        self._out.tell(TransportUnusable(address, detail))
        self._end(CloseReason.TRANSPORT, detail)

    def _say_goodbye(self, session: Session, now: float) -> None:
        if (
            self.settings.transport is Transport.TCP
            or not self.settings.explicit_exit_notify
            or self._arrival.options is None
        ):
            return
        if CC_EXIT in self._arrival.options.protocol_flags:
            session.send_text(EXIT, now)
        else:
            session.send_occ_exit(now)

    def _leave(self, reason: CloseReason, now: float) -> None:
        if self._session is not None and not self._closed:
            self._say_goodbye(self._session, now)
        self._end(reason, "")

    def _end(self, reason: CloseReason, detail: str, *, retry: bool | None = None) -> None:
        if self._closed:
            return
        if self._session is not None:
            self._out.send(self._session.datagrams(self._now), self._server)
            self._session.end(reason, detail)
        self._closed = True
        final = reason in _FINAL or (reason is CloseReason.PING_TIMEOUT and self.settings.timers.ping_exit > 0)
        self._out.tell(Closed(reason, detail, not final if retry is None else retry))

    def _flush(self, now: float) -> None:
        self._now = now
        if self._session is None or self._closed:
            return
        self._out.send(self._session.datagrams(now), self._server)
        self._limits.note(sum(self.traffic), now)
        if self._closing_at != _NEVER and self._session.all_acknowledged:
            self._end(CloseReason.LOCAL, "")


def _ip_packets(packets: Sequence[bytes]) -> list[bytes]:
    return [packet for packet in packets if destination(packet) is not None]
