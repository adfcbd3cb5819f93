"""One association between two peers: protection of control packets, keys old and new, data, pings.

A `Session` is the half that client and server have in common. It takes packets that are for it and the time, and
gives datagrams, IP packets and happenings; it knows no addresses. Who may come in, what is pushed and which packets
go where is decided by `vpn.client` and `vpn.server`.

Control packets take `receive_control`, one at a time; data packets `receive_data`, in batches. Deadlines are named
absolute times in `_deadlines()`; what is due is found by comparing them with `now`, nowhere else.

Sources: openvpn-protocol.md sections 2, 3.5, 6, 9, 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vpn.clamping import session_limits
from vpn.crypto.wrapping import NotAuthentic, Replayed
from vpn.dataplane.channel import DataChannel, Negotiated, Opened
from vpn.dataplane.cipher import RENEGOTIATE_AT_PACKET_ID
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.train import Outgoing, Train
from vpn.drops import Drop
from vpn.events import CloseReason, RefusalReason
from vpn.happenings import Ended, HandshakeFailed, Happening, KeysExchanged, TextReceived, TlsDone
from vpn.key_ring import KeyRing
from vpn.key_session import KeySession, State
from vpn.session_setup import SessionSetup
from vpn.settings import Transport
from vpn.tls import TlsFailed
from vpn.wire.control import ControlBody
from vpn.wire.occ import PING, OccType, build_occ, parse_occ
from vpn.wire.packet import WITH_CLIENT_KEY, ControlHeader, KeyId, Malformed, Opcode, PeerId

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Workbench

_TLS_DONE = frozenset({State.KEY_MESSAGE, State.DECISION, State.ESTABLISHED})


class Session:
    """Units: `now` in monotonic seconds, `unix_time` in Unix seconds."""

    __slots__ = (  # noqa: RUF023 -- first what a lone packet touches, in what one or two fetches bring
        "_control_is_due", "_outbox", "_has_quotas", "data", "last_received_at", "last_sent_at", "_due",
        "_due_is_stale", "_keys", "_old_key_is_used_up", "_unix_time", "happenings", "is_over", "negotiated", "own_id",
        "remote_id", "setup", "timers",
    )  # fmt: skip

    def __init__(self, setup: SessionSetup, now: float, unix_time: int) -> None:
        self.setup = setup
        self.own_id = setup.own_id
        self.remote_id = setup.remote_id
        self.data = DataChannel(setup.drops)
        self.data.lead_octets = 2 if setup.transport is Transport.TCP else 0
        self.negotiated: Negotiated | None = None
        self.happenings: list[Happening] = []
        self.timers = setup.timers
        self._has_quotas = setup.timers.reneg_bytes > 0 or setup.timers.reneg_pkts > 0  # nobody pushes these
        self.last_received_at = now
        self.last_sent_at = now
        self.is_over = False
        self._unix_time = unix_time
        self._outbox: list[Outgoing] = []
        self._control_is_due = self._due_is_stale = True
        self._due = float("inf")
        self._old_key_is_used_up = False
        self._keys = KeyRing(setup, now, unix_time)

    # -- in ----------------------------------------------------------------------------------------------------------

    def send_first_reset(self, opcode: Opcode, now: float) -> None:
        self._disturb()
        self.primary.send_reset(opcode, b"", now)

    def receive_control(self, untrusted: bytes, now: float, unix_time: int) -> bool:
        """Take one control packet (WKc already cut off); returns whether it was authentic and for this session."""
        self._unix_time = max(self._unix_time, unix_time)
        try:
            header = ControlHeader.parse(untrusted)
            if self.remote_id is not None and header.session_id != self.remote_id:
                # before the replay window sees it: another session's packets are authentic under a shared static key,
                # and a later time in their stamps would shut the window for our own peer
                return self._dropped(Drop.WRONG_SESSION)
            unwrapped = self._keys.wrapper_of(header.key_id).unwrap(untrusted, now)
            body = ControlBody.parse(unwrapped.body, header.opcode)
        except Malformed:
            return self._dropped(Drop.MALFORMED)
        except NotAuthentic:
            return self._dropped(Drop.UNAUTHENTIC_CONTROL)
        except Replayed:
            return self._dropped(Drop.REPLAYED_CONTROL)
        return self.receive_body(header, body, now)

    def receive_body(self, header: ControlHeader, body: ControlBody, now: float) -> bool:
        """The same for a packet whose protection is off already."""
        self._disturb()
        if self.is_over:
            return self._dropped(Drop.CLOSED)
        if body.acked_session_id is not None and body.acked_session_id != self.own_id:
            return self._dropped(Drop.WRONG_SESSION)
        if not self._knows(header, body):
            return self._dropped(Drop.WRONG_SESSION)
        key = self._key_of(header, now)
        if key is None:
            return self._dropped(Drop.WRONG_KEY_ID)
        reason = key.receive(body, header.opcode, now)
        if reason is not None:
            self.setup.drops.count(reason)
        self.last_received_at = now
        self._notice(key)
        self._hurry()
        return True

    def receive_data(self, untrusted: Sequence[bytes], now: float) -> list[bytes]:
        """IP packets of data packets."""
        sending = self.data.sending_key_id
        opened = self.data.open(untrusted, now)
        self._hear(opened, sending, now)
        return self._clamped(opened.packets)

    def receive_train(self, untrusted: Train, now: float, bench: Workbench | None) -> Opened | None:
        """The same for data packets of one size in a row; None, with nothing done, if they must go one by one."""
        sending = self.data.sending_key_id
        opened = self.data.open_train(untrusted, now, bench)
        if opened is None:
            return None
        self._hear(opened, sending, now)
        if opened.rows is None:
            return replace(opened, packets=self._clamped(opened.packets))
        if self.data.mss is None or not opened.rows.may_hold_syn:
            return opened
        return replace(opened, rows=None, packets=self._clamped(opened.rows.packets()))

    def open_one(self, untrusted: bytes, sources: frozenset[bytes] | None, now: float) -> bytes | None:
        """The same for one usual data packet; None, and nothing has happened, if it has to be `receive_data`."""
        if self._control_is_due or self._outbox or self._has_quotas:
            return None
        packet = self.data.open_one(untrusted, sources, now)
        if packet is not None:
            self.last_received_at = now
        return packet

    def _hear(self, opened: Opened, sending: KeyId | None, now: float) -> None:
        """What authentic packets tell besides their content. `sending`: with which key, before they came."""
        if opened.authentic:
            self.last_received_at = now
            if self.data.sending_key_id != sending:
                self._disturb()
                self._notice(self.primary)
        for message in opened.occ:
            self._disturb()
            self._receive_occ(message, now)

    def _clamped(self, packets: list[bytes]) -> list[bytes]:
        # both directions: the other end may know nothing of our path, and its hosts are told by their peer's SYN alone
        return packets if self.data.mss is None else list(self.data.mss.clamp_batch(packets))

    def send_packets(self, packets: Sequence[bytes], now: float) -> None:
        self._outbox += self.data.seal(packets, now)

    def seal_one(self, packet: bytes, now: float) -> bytes | None:
        """The datagram of one usual packet, to be sent at once; None, and nothing has happened: `send_packets`."""
        if self._control_is_due or self._outbox or self._has_quotas:
            return None
        datagram = self.data.seal_one(packet, now)
        if datagram is not None:
            self.last_sent_at = now
        return datagram

    def seal_few(self, superpacket: Superpacket, now: float) -> list[bytes] | None:
        """The same for a few segments in one packet; None, and nothing has happened: `send_superpacket`."""
        waits = self._control_is_due or self._outbox or self._has_quotas
        datagrams = None if waits else self.data.seal_few(superpacket, now)
        if datagrams is not None:
            self.last_sent_at = now
        return datagrams

    def send_superpacket(self, superpacket: Superpacket, now: float, bench: Workbench | None) -> None:
        self._outbox += self.data.seal_superpacket(superpacket, now, bench)

    # -- time and out ------------------------------------------------------------------------------------------------

    def advance(self, now: float, unix_time: int) -> None:
        """Do what is due."""
        self._disturb()
        self._unix_time = max(self._unix_time, unix_time)
        if self.is_over:
            return
        if self._handshake_deadline() <= now:
            self.end(CloseReason.HANDSHAKE_TIMEOUT, f"{self.primary.state.value} for {self.timers.hand_window:.0f} s")
        elif self._silence_deadline() <= now:
            self.end(CloseReason.PING_TIMEOUT, f"silent for {now - self.last_received_at:.0f} s")
        elif self._renegotiation_is_due(now):
            self.renegotiate(now)
        if self._keys.lame_expires_at <= now:
            self._drop_lame()
        if self._ping_at() <= now:
            self._outbox += self.data.seal_raw([PING], now)
            self.last_sent_at = now

    def next_timeout(self) -> float | None:
        """When `advance` has something to do at the earliest; after data alone the answer may stay the earlier one."""
        if self._due_is_stale or self._counts_towards_renegotiation():
            self._due = min(self._deadlines())
            self._due_is_stale = False
        return None if self._due == float("inf") else self._due

    def datagrams(self, now: float) -> list[Outgoing]:
        """Everything to send, in order; empties the queue."""
        if self._control_is_due:
            self._control_is_due, self._due_is_stale = False, True
            for key in self._keys.oldest_first:
                for opcode, body in key.bodies_to_send(self.remote_id, now):
                    self._outbox.append(self._build(opcode, key.key_id, body))
        datagrams, self._outbox = self._outbox, []
        if datagrams:
            self.last_sent_at = now
        return datagrams

    # -- what client and server decide -------------------------------------------------------------------------------

    def agree(self, negotiated: Negotiated) -> None:
        """Fix what holds for all keys of the session."""
        self._disturb()
        self.negotiated = negotiated
        self.data.compression = negotiated.compression
        self.data.mss = session_limits(self.setup, negotiated)

    def install_keys(self, key: KeySession) -> None:
        """Make the data keys of an established key session; `agree` comes first."""
        self._disturb()
        if self.negotiated is None:
            raise RuntimeError("keys before the negotiation")
        data_key = self._keys.data_key(key, self.negotiated, self.remote_id)
        wait = min(self.timers.hand_window, self.timers.reneg_sec / 2 or self.timers.hand_window)
        self.data.install(data_key, key.started_at + wait)
        self._hurry()

    def equals_peer_id(self, *, key_export: bool) -> PeerId:
        """The peer id of both ends of a point-to-point tunnel, which nobody gives out: from TLS, or always the same."""
        return self._keys.equals_peer_id(key_export=key_export)

    def enable_dynamic_tls_crypt(self) -> None:
        """Protect renegotiations with a key of the first TLS session."""
        self._keys.enable_dynamic_tls_crypt(self._unix_time)

    def answer(self, now: float) -> bool:
        """Answer the other end's newest key message, if that waits for a decision; whether the key may be used."""
        self._disturb()
        self.primary.answer(now)
        self._notice(self.primary)
        return self.primary.is_established

    def send_text(self, text: str, now: float) -> None:
        """A control message on the newest TLS stream that is established, or can be: an end listens to its newest."""
        self.answer(now)
        key = self.newest_established
        if key is not None:
            key.send_text(text, now)

    def send_occ_exit(self, now: float) -> None:
        self._outbox += self.data.seal_raw([build_occ(OccType.EXIT)], now)

    def renegotiate(self, now: float) -> bool:
        """Begin a soft reset, if the newest key is fully in use."""
        self._disturb()
        if not self._may_renegotiate():
            return False
        self._roll_over(now)
        self.primary.send_reset(Opcode.CONTROL_SOFT_RESET_V1, b"", now)
        return True

    def end(self, reason: CloseReason, detail: str) -> None:
        self._disturb()
        if not self.is_over:
            self.is_over = True
            self.data.close()
            self.happenings.append(Ended(reason, detail))

    def close(self) -> None:
        """Let go of everything; nothing may be called afterwards."""
        self._disturb()
        self.is_over = True
        self.data.close()
        self._keys.close()

    @property
    def primary(self) -> KeySession:
        """The newest key, established or not."""
        return self._keys.primary

    @property
    def newest_established(self) -> KeySession | None:
        return self._keys.newest_established

    @property
    def all_acknowledged(self) -> bool:
        return self._keys.all_acknowledged

    # -- keys --------------------------------------------------------------------------------------------------------

    def _key_of(self, header: ControlHeader, now: float) -> KeySession | None:
        """The key session a packet is for; a soft reset of the other end makes a new one."""
        known = self._keys.of(header.key_id)
        if known is not None:
            return known
        is_reset = header.opcode is Opcode.CONTROL_SOFT_RESET_V1
        if is_reset and header.key_id == self._keys.next_key_id and self._may_renegotiate():
            self._roll_over(now)
            self.primary.send_reset(Opcode.CONTROL_SOFT_RESET_V1, b"", now)
            return self.primary
        return None

    def _may_renegotiate(self) -> bool:
        newest = self.data.newest
        return self.primary.is_established and newest is not None and newest.key_id == self.primary.key_id

    def _roll_over(self, now: float) -> None:
        """The newest key becomes the lame duck; the one before is forgotten (its data key goes on opening a while)."""
        self._old_key_is_used_up = self._is_used_up()
        self.data.use_newest()
        self._keys.roll_over(now + self.timers.tran_window, now, self._unix_time)

    def _hurry(self) -> None:
        """Leave a used up key as soon as the other end must have the new one: it has acknowledged all we said."""
        newest = self.data.newest
        ready = newest is not None and newest.key_id == self.primary.key_id and self.primary.all_acknowledged
        if self._old_key_is_used_up and ready:
            self._old_key_is_used_up = False
            self.data.use_newest()

    def _drop_lame(self) -> None:
        lame = self._keys.drop_lame()
        if lame is None:
            return
        self.data.retire(lame.key_id)
        if not self.data.is_open:
            self.end(CloseReason.KEY_EXPIRED, "the old key's time is over and there is no new one")

    def _renegotiation_is_due(self, now: float) -> bool:
        if not self._may_renegotiate():
            return False
        return self._renegotiate_at() <= now

    def _is_used_up(self) -> bool:
        """Whether the newest key has carried as much as it should."""
        timers, newest = self.timers, self.data.newest
        return newest is not None and (
            0 < timers.reneg_bytes <= newest.octets
            or 0 < timers.reneg_pkts <= newest.packets
            or newest.sealer.last_packet_id >= RENEGOTIATE_AT_PACKET_ID
        )

    # -- packets -----------------------------------------------------------------------------------------------------

    def _knows(self, header: ControlHeader, body: ControlBody) -> bool:
        """Whether the packet is of the other end; a client learns its session id from the answer to its reset."""
        if self.remote_id is None:
            answers = header.opcode in self.primary.setup.expect and header.key_id == 0
            if not answers or (not self.setup.is_server and body.acked_session_id is None):
                return False
            self.remote_id = header.session_id
        return header.session_id == self.remote_id

    def _build(self, opcode: Opcode, key_id: KeyId, body: ControlBody) -> bytes:
        header = ControlHeader(opcode, key_id, self.own_id)
        packet = self._keys.wrapper_of(key_id).wrap(header, body.build())
        return packet + self.setup.client_key if opcode in WITH_CLIENT_KEY else packet

    def _receive_occ(self, message: bytes, now: float) -> None:
        kind = parse_occ(message)
        if kind is OccType.EXIT:
            self.end(CloseReason.PEER_EXIT, "exit notification")
        elif kind is OccType.REQUEST:
            self._outbox += self.data.seal_raw([build_occ(OccType.REPLY, self.setup.identity.options)], now)

    def _dropped(self, reason: Drop) -> bool:
        self.setup.drops.count(reason)
        return False

    # -- what to tell ------------------------------------------------------------------------------------------------

    def _notice(self, key: KeySession) -> None:
        """Turn a key session's progress into happenings, each once."""
        if key.state in _TLS_DONE and _first_time(key, "tls"):
            who = key.tls.peer_certificate
            done = TlsDone(key.key_id, key.tls.version, key.tls.cipher, who.common_name, who.subject)
            self.happenings.append(done)
        if key.peer_message is not None and _first_time(key, "keys"):
            self.happenings.append(KeysExchanged(key.key_id))
        for text in key.texts:
            self.happenings.append(TextReceived(text))
        key.texts.clear()
        if key.state is State.FAILED and _first_time(key, "failed"):
            failure = key.failure or TlsFailed(RefusalReason.TLS_FAILURE, "unknown")
            self.happenings.append(HandshakeFailed(failure.reason, failure.detail))

    # -- deadlines ---------------------------------------------------------------------------------------------------

    def _disturb(self) -> None:
        """Something other than data has happened: look anew at what is to be said, and when."""
        # data alone only moves deadlines away: looking once too early costs nothing, with each packet more than sealing
        self._control_is_due = self._due_is_stale = True

    def _counts_towards_renegotiation(self) -> bool:
        """Whether the next packet may make a renegotiation due."""
        newest = self.data.newest
        if self.timers.reneg_bytes > 0 or self.timers.reneg_pkts > 0:
            return True
        return newest is not None and newest.sealer.last_packet_id >= RENEGOTIATE_AT_PACKET_ID

    def _deadlines(self) -> tuple[float, ...]:
        if self.is_over:
            return (float("inf"),)
        resend = [key.next_at() for key in self._keys.oldest_first]
        return (
            self._handshake_deadline(),
            self._silence_deadline(),
            self._ping_at(),
            self._renegotiate_at() if self._may_renegotiate() else float("inf"),
            self._keys.lame_expires_at,
            *(at for at in resend if at is not None),
        )

    def _handshake_deadline(self) -> float:
        if self.primary.is_established:
            return float("inf")
        return self.primary.started_at + self.timers.hand_window

    def _silence_deadline(self) -> float:
        limits = [limit for limit in (self.timers.ping_restart, self.timers.ping_exit) if limit > 0]
        return self.last_received_at + min(limits) if limits and self.data.is_open else float("inf")

    def _ping_at(self) -> float:
        return self.last_sent_at + self.timers.ping if self.timers.ping > 0 and self.data.is_open else float("inf")

    def _renegotiate_at(self) -> float:
        established = self.primary.established_at
        if self._is_used_up():
            return float("-inf")
        if self.timers.reneg_sec <= 0 or established is None:
            return float("inf")
        return established + self.timers.reneg_sec


def _first_time(key: KeySession, what: str) -> bool:
    first = what not in key.told
    key.told.add(what)
    return first
