"""Static-key mode: two peers, one key, no TLS, no handshake, no opcode. For teaching.

Every datagram is a sealed packet; a stolen key opens all traffic ever recorded. Same outer shape as
`vpn.client.ClientCore`; both ends run this core. `Connected` comes with the first authentic packet.

Source: openvpn-protocol.md section 7.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vpn.clamping import segment_limits
from vpn.crypto.replay import StampWindow
from vpn.crypto.static_key import split_key
from vpn.dataplane.cbc import CbcKey, CbcOpener, CbcSealer
from vpn.dataplane.cipher import AEAD_CIPHERS
from vpn.dataplane.framing import add_framing, remove_framing
from vpn.dataplane.inner import destination
from vpn.dataplane.mss import MssLimits, Path
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.segment import segmented
from vpn.dataplane.train import Outgoing, Train
from vpn.drops import Drop, Drops
from vpn.events import Closed, CloseReason, Connected, Event, Floated, TransportUnusable
from vpn.outlets import Outlets
from vpn.push import PushedOptions
from vpn.settings import Address, KeyDirection, StaticKeySettings, Transport
from vpn.wire.occ import OCC_MAGIC, PING, LinkDescription, OccType, build_occ, build_options, parse_occ

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

_NEVER = float("inf")


class StaticKeyCore:
    """Units: as in `ClientCore`. Errors: ValueError at construction for an AEAD cipher or a key of wrong length.

    `peer` is None for an end that listens: the address of the first authentic packet becomes the peer's.
    """

    def __init__(
        self, settings: StaticKeySettings, peer: Address | None, *, random_bytes: Callable[[int], bytes]
    ) -> None:
        if settings.cipher in AEAD_CIPHERS:
            raise ValueError(
                f"{settings.cipher} cannot be used with a static key: it needs a fresh key for each session"
            )
        self.settings = settings
        self.drops = Drops()
        self._peer = peer
        self._random_bytes = random_bytes
        self._keys = split_key(settings.key, settings.direction)
        window = StampWindow(settings.replay_window, settings.replay_time)
        self._opener = CbcOpener(CbcKey(settings.cipher, settings.digest, self._keys.receive), window)
        self._sealer: CbcSealer | None = None
        self._mss = _mss_limits(settings)
        self._out = Outlets()
        self._heard = False
        self._closed = False
        self._last_received_at = self._last_sent_at = self._now = 0.0

    def start(self, now: float, unix_time: int) -> None:
        """Begin the packet count; its time is `unix_time`, so that a restart begins a new count."""
        key = CbcKey(self.settings.cipher, self.settings.digest, self._keys.send)
        self._sealer = CbcSealer(key, b"", self._random_bytes, unix_time)
        self._now = self._last_received_at = self._last_sent_at = now
        if self._peer is not None:
            # Where a ping would be taken in silence, this is answered: both ends know at once that the other is there.
            self._send([build_occ(OccType.REQUEST)], now)

    def receive_datagram(self, untrusted: bytes, address: Address, now: float, unix_time: int) -> None:
        self.receive_datagrams((untrusted,), address, now, unix_time)

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None:
        self._now = now
        if self._closed:
            self.drops.count(Drop.CLOSED, len(untrusted))
            return
        if self._peer is not None and address != self._peer and not self.settings.listen:
            self.drops.count(Drop.UNKNOWN_SENDER, len(untrusted))
            return
        opened = self._opener.open_batch(untrusted, now, self.drops)
        if opened:
            self._heard_from(address, now)
        elif self.settings.transport is Transport.TCP:
            self._distrust_stream(address)
            return
        packets = remove_framing(opened, self.settings.compression, self.drops)
        inner = [packet for packet in packets if packet != PING and destination(packet) is not None]
        self._out.deliver(inner if self._mss is None else self._mss.clamp_batch(inner))
        for packet in packets:
            if packet.startswith(OCC_MAGIC):
                self._receive_occ(packet, now)

    def receive_train(
        self, untrusted: Train, address: Address, now: float, unix_time: int, bench: Workbench | None
    ) -> None:
        """The same for datagrams of one size in a row in memory, one by one: CBC gains nothing by more."""
        self.receive_datagrams(untrusted.datagrams(), address, now, unix_time)

    def seal_one(self, packet: bytes, now: float) -> tuple[bytes, Address] | None:
        """None: every packet goes by `receive_packets`."""
        return None

    def seal_few(self, superpacket: Superpacket, now: float) -> tuple[list[bytes], Address] | None:
        """None: every packet goes by `receive_superpacket`."""
        return None

    def open_one(self, untrusted: bytes, address: Address, now: float) -> bytes | None:
        """None: every datagram goes by `receive_datagrams`."""
        return None

    def receive_packet(self, packet: bytes, now: float) -> None:
        self.receive_packets((packet,), now)

    def receive_packets(self, packets: Sequence[bytes], now: float) -> None:
        self._now = now
        if self._mss is not None:
            packets = self._mss.clamp_batch(packets)
        self._send(packets, now)

    def receive_superpacket(self, superpacket: Superpacket, now: float, bench: Workbench | None) -> None:
        """The same for many packets in one."""
        self.receive_packets(segmented(superpacket, None if self._mss is None else self._mss.ipv4 + 40), now)

    def advance(self, now: float, unix_time: int) -> None:
        self._now = now
        if self._closed:
            return
        if self._silence_deadline() <= now:
            self._end(CloseReason.PING_TIMEOUT, f"silent for {now - self._last_received_at:.0f} s")
        elif self._ping_at() <= now:
            self._send([PING], now)

    def next_timeout(self) -> float | None:
        due = min(self._silence_deadline(), self._ping_at())
        return None if self._closed or due == _NEVER else max(due, self._now)

    def datagrams_to_send(self) -> list[tuple[Outgoing, Address]]:
        return self._out.take_datagrams()

    def packets_to_deliver(self) -> list[bytes | Rows]:
        return self._out.take_packets()

    @property
    def has_events(self) -> bool:
        """Whether `next_event` has one."""
        return self._out.has_events

    def next_event(self) -> Event | None:
        return self._out.take_event()

    def transport_lost(self, address: Address, now: float, detail: str) -> None:
        """TCP: the connection from `address` broke; a stranger's is none of ours."""
        if address == self._peer:
            self._end(CloseReason.TRANSPORT, detail)

    def close(self, now: float) -> None:
        """Leave, telling the other end if it was asked for."""
        if not self._closed and self.settings.explicit_exit_notify and self.settings.transport is Transport.UDP:
            self._send([build_occ(OccType.EXIT)], now)
        self._end(CloseReason.LOCAL, "")

    def _send(self, packets: Sequence[bytes], now: float) -> None:
        if self._sealer is None or self._peer is None or self._closed:
            self.drops.count(Drop.NOT_CONNECTED, len(packets))
            return
        self._out.send(self._sealer.seal_batch(add_framing(packets, self.settings.compression)), self._peer)
        self._last_sent_at = now

    def _distrust_stream(self, address: Address) -> None:
        """A TCP stream in which one packet is not authentic cannot be trusted any further; a stranger's only goes."""
        detail = "a packet in the TCP stream is not authentic"
        self._out.tell(TransportUnusable(address, detail))
        if address == self._peer:
            self._end(CloseReason.TRANSPORT, detail)

    def _heard_from(self, address: Address, now: float) -> None:
        self._last_received_at = now
        if address != self._peer:
            if self._peer is not None:
                self._out.tell(Floated(None, self._peer, address))
            self._peer = address
        if not self._heard:
            self._heard = True
            mtu = self.settings.tun_mtu
            self._out.tell(Connected(PushedOptions(), self.settings.cipher, None, address, "", mtu, "", ""))

    def _receive_occ(self, message: bytes, now: float) -> None:
        kind = parse_occ(message)
        if kind is OccType.REQUEST:
            self._send([build_occ(OccType.REPLY, self._options_string())], now)
        elif kind is OccType.EXIT:
            self._end(CloseReason.PEER_EXIT, "exit notification")

    def _options_string(self) -> str:
        settings = self.settings
        directed = settings.direction is not KeyDirection.BIDIRECTIONAL
        return build_options(
            LinkDescription(
                tls_server=None,
                transport=settings.transport,
                transport_ipv6=settings.transport_ipv6,
                tun_mtu=settings.tun_mtu,
                digest=settings.digest,
                cipher=settings.cipher,
                compression=settings.compression,
                key_direction=int(settings.direction) if directed else None,
            )
        )

    def _silence_deadline(self) -> float:
        limits = [limit for limit in (self.settings.ping_restart, self.settings.ping_exit) if limit > 0]
        return self._last_received_at + min(limits) if limits else _NEVER

    def _ping_at(self) -> float:
        return self._last_sent_at + self.settings.ping if self.settings.ping > 0 and self._peer else _NEVER

    def _end(self, reason: CloseReason, detail: str) -> None:
        if not self._closed:
            self._closed = True
            final = reason is CloseReason.LOCAL or (reason is CloseReason.PING_TIMEOUT and self.settings.ping_exit > 0)
            self._out.tell(Closed(reason, detail, not final))


def _mss_limits(settings: StaticKeySettings) -> MssLimits | None:
    path = Path(
        settings.transport,
        settings.transport_ipv6,
        settings.cipher,
        settings.digest,
        settings.compression,
        header_octets=0,
        stamp_octets=8,
    )
    return segment_limits(settings.mssfix, path, inner=settings.mssfix_inner)
