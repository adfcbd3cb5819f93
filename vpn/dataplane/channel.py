"""The data channel of one session: its keys by key id, which of them sends, and what is not traffic.

Batches of IP packets go in and come out. A replaced key goes on opening packets; the new key begins to send when the
other end has used it or after a while, so that a renegotiation under traffic loses nothing. At most three keys open:
the newest, its predecessor and, for packets under way at the moment of another soft reset, the one before.

Sources: openvpn-protocol.md sections 7, 9, 10.3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vpn.crypto.replay import ReplayWindow
from vpn.crypto.static_key import DirectionKeys
from vpn.dataplane.cbc import CbcKey, CbcOpener, CbcSealer
from vpn.dataplane.cipher import AEAD_CIPHERS, AeadOpener, AeadSealer, Opener, Sealer
from vpn.dataplane.express import Lane
from vpn.dataplane.few import MOST_IN_FEW, few_segments
from vpn.dataplane.framing import add_framing, remove_framing
from vpn.dataplane.mss import MssLimits
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.segment import segmented
from vpn.dataplane.train import LARGE_OCTETS, LEAST_TRAIN, Outgoing, Train
from vpn.drops import Drop, Drops
from vpn.settings import Cipher, Compression, DataSettings
from vpn.wire.occ import OCC_MAGIC, PING
from vpn.wire.packet import KeyId, Opcode, PeerId, data_header

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows, Workbench

_OPENING_KEYS = 3
_LARGEST_OCTETS = 65000  # what is larger may, sealed, be more than a length of two octets can tell; no link carries it
# What the usual IP packet begins with, and nothing else that an end says
_IP = frozenset({b"\x45", b"\x60"})


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both ends agreed on for all keys of a session. `peer_id` None: DATA_V1."""

    cipher: Cipher
    key_export: bool
    peer_id: PeerId | None
    compression: Compression


@dataclass(slots=True)
class DataKey:
    """One key id's two directions and what it has carried, but for lone packets: who counts them sends none so."""

    key_id: KeyId
    sealer: Sealer
    opener: Opener
    octets: int = 0
    packets: int = 0


def make_data_key(
    key_id: KeyId, keys: DirectionKeys, negotiated: Negotiated, data: DataSettings, random_bytes: Callable[[int], bytes]
) -> DataKey:
    opcode = Opcode.DATA_V1 if negotiated.peer_id is None else Opcode.DATA_V2
    header = data_header(opcode, key_id, negotiated.peer_id or PeerId(0))
    window = ReplayWindow(data.replay_window, data.replay_time)
    cipher = negotiated.cipher
    if cipher in AEAD_CIPHERS:
        return DataKey(key_id, AeadSealer(cipher, keys.send, header), AeadOpener(cipher, keys.receive, window))
    sealer = CbcSealer(CbcKey(cipher, data.digest, keys.send), header, random_bytes)
    return DataKey(key_id, sealer, CbcOpener(CbcKey(cipher, data.digest, keys.receive), window))


@dataclass(slots=True)  # not frozen: that takes three times as long to make, and one is made per datagram
class Opened:
    """What a batch of datagrams came to. `authentic` counts all packets that opened, pings included.

    `rows` come before `packets`; they are valid until the workbench makes others.
    """

    packets: list[bytes]
    authentic: int
    occ: tuple[bytes, ...] = ()
    rows: Rows | None = None


class DataChannel:
    """Units: `now` in seconds."""

    # What a lone packet touches stands first: with many clients its cost is the memory that has to be fetched.
    __slots__ = (  # noqa: RUF023 -- in the order of use
        "_lane",
        "_switch_at",
        "octets_in",
        "octets_out",
        "_compression",
        "_drops",
        "_keys",
        "_mss",
        "_newest",
        "_sending",
        "authentic",
        "lead_octets",
    )

    def __init__(self, drops: Drops) -> None:
        self._drops = drops
        self._keys: dict[int, DataKey] = {}  # oldest first
        self._sending: DataKey | None = None
        self._newest: DataKey | None = None
        self._switch_at = float("inf")
        self._compression = Compression.NONE
        self._mss: MssLimits | None = None
        self._lane: Lane | None = None
        self.lead_octets = 0  # before each datagram of a train: 2 in a TCP stream
        self.octets_in = 0  # of inner packets
        self.octets_out = 0
        self.authentic = 0  # packets that opened and were new, pings included; lone ones are not counted

    @property
    def compression(self) -> Compression:
        return self._compression

    @compression.setter
    def compression(self, framing: Compression) -> None:
        self._compression = framing
        self._send_with(self._sending)

    @property
    def mss(self) -> MssLimits | None:
        """What SYNs are clamped to; None: they are not."""
        return self._mss

    @mss.setter
    def mss(self, limits: MssLimits | None) -> None:
        self._mss = limits
        self._send_with(self._sending)

    @property
    def is_open(self) -> bool:
        return self._sending is not None

    @property
    def newest(self) -> DataKey | None:
        return self._newest

    @property
    def sending_key_id(self) -> KeyId | None:
        return self._sending.key_id if self._sending else None

    def install(self, key: DataKey, switch_at: float) -> None:
        """Open with `key` from now on, and send with it from `switch_at` or when the other end has."""
        self._keys.pop(key.key_id, None)
        self._keys[key.key_id] = key
        while len(self._keys) > _OPENING_KEYS:
            del self._keys[next(iter(self._keys))]
        self._newest = key
        if self._sending is None:
            self._send_with(key)
        else:
            self._switch_at = switch_at

    def use_newest(self) -> None:
        """Send with the newest key: the other end is about to forget its predecessor."""
        self._send_with(self._newest)
        self._switch_at = float("inf")

    def _send_with(self, key: DataKey | None) -> None:
        self._sending = key
        self._lane = None
        if key is None or self._compression is not Compression.NONE:
            return
        if isinstance(key.sealer, AeadSealer) and isinstance(key.opener, AeadOpener):
            self._lane = Lane(key.sealer, key.opener, clamps=self._mss is not None)

    def retire(self, key_id: KeyId) -> None:
        """Forget a key whose transition window is over, and all before it."""
        if key_id not in self._keys:
            return
        while (oldest := next(iter(self._keys))) != key_id:
            del self._keys[oldest]
        retired = self._keys.pop(key_id)
        if retired is self._newest:
            self._newest = None
        if retired is self._sending:
            self.use_newest()

    def close(self) -> None:
        self._keys.clear()
        self._newest = None
        self._send_with(None)

    def seal(self, packets: Sequence[bytes], now: float) -> Sequence[Outgoing]:
        """Datagrams for IP packets of the tunnel interface."""
        if self._mss is not None:
            packets = self._mss.clamp_batch(packets)
        self.octets_out += sum(map(len, packets))
        if len(packets) and len(packets[0]) >= LARGE_OCTETS:
            return [datagram for packet in packets for datagram in self._seal_large(packet, now)]
        return self.seal_raw(packets, now)

    def seal_one(self, packet: bytes, now: float) -> bytes | None:
        """The datagram of one usual packet; None, and nothing has happened, if it has to be `seal`."""
        lane = self._lane
        if lane is None or now >= self._switch_at:
            return None
        datagram = lane.seal(packet)
        if datagram is not None:
            self.octets_out += len(packet)
        return datagram

    def seal_few(self, superpacket: Superpacket, now: float) -> list[bytes] | None:
        """The datagrams of a few TCP segments; None, and nothing has happened, if it has to be `seal_superpacket`."""
        lane = self._lane
        if lane is None or now >= self._switch_at or superpacket.segments > MOST_IN_FEW:
            return None
        packets = few_segments(superpacket, None if self._mss is None else self._mss.ipv4 + 40)
        datagrams = None if packets is None else lane.seal_few(packets)
        if packets is not None and datagrams is not None:
            self.octets_out += sum(map(len, packets))
        return datagrams

    def _seal_large(self, packet: bytes, now: float) -> Sequence[Outgoing]:
        """A packet that may be large."""
        key = self._sending
        is_usual = self._compression is not Compression.NONE or now >= self._switch_at
        is_usual = is_usual or not LARGE_OCTETS <= len(packet) <= _LARGEST_OCTETS
        if key is None or is_usual or not isinstance(key.sealer, AeadSealer):
            return self.seal_raw((packet,), now)
        train = key.sealer.seal_large(packet, self.lead_octets)
        if train is None:
            self._drops.count(Drop.KEY_USED_UP)
            return ()
        key.packets += 1
        key.octets += train.octets
        return (train,)

    def seal_superpacket(self, superpacket: Superpacket, now: float, bench: Workbench | None) -> list[Outgoing]:
        """Datagrams for all packets of a superpacket. `bench` None: nothing is done with many at once yet."""
        largest = None if self._mss is None else self._mss.ipv4 + 40
        self._switch_when_due(now)
        key = self._sending
        whole = key is not None and self._compression is Compression.NONE and superpacket.segments >= LEAST_TRAIN
        if bench is not None and whole and key is not None and isinstance(key.sealer, AeadSealer):
            rows = bench.segment(superpacket, largest)
            train = None if rows is None else key.sealer.seal_rows(rows, self.lead_octets, bench)
            if rows is not None and train is not None:
                self.octets_out += rows.octets
                key.packets += len(rows)
                key.octets += train.octets
                return [train]
        return list(self.seal(segmented(superpacket, largest), now))

    def seal_raw(self, packets: Sequence[bytes], now: float) -> list[bytes]:
        """The same for what is not traffic (ping, OCC): neither clamped nor counted as traffic."""
        self._switch_when_due(now)
        key = self._sending
        if key is None:
            self._drops.count(Drop.NOT_CONNECTED, len(packets))
            return []
        datagrams = key.sealer.seal_batch(add_framing(packets, self._compression))
        if len(datagrams) < len(packets):
            self._drops.count(Drop.KEY_USED_UP, len(packets) - len(datagrams))
        key.packets += len(datagrams)
        key.octets += sum(map(len, datagrams))
        return datagrams

    def _switch_when_due(self, now: float) -> None:
        if now >= self._switch_at:
            self.use_newest()

    def open(self, untrusted: Sequence[bytes], now: float) -> Opened:
        """IP packets of data datagrams, in order. Only authentic ones change anything but counters."""
        first = untrusted[0][0] & 7
        if len(untrusted) == 1 or all(packet[0] & 7 == first for packet in untrusted):
            return self._open_with(first, untrusted, now)
        parts = [self._open_with(packet[0] & 7, (packet,), now) for packet in untrusted]
        packets = [packet for part in parts for packet in part.packets]
        occ = tuple(message for part in parts for message in part.occ)
        return Opened(packets, sum(part.authentic for part in parts), occ)

    def _open_with(self, key_id: int, untrusted: Sequence[bytes], now: float) -> Opened:
        key = self._keys.get(key_id)
        if key is None:
            self._drops.count(Drop.NO_DATA_KEY, len(untrusted))
            return Opened([], 0)
        opened = key.opener.open_batch(untrusted, now, self._drops)
        return self._opened(key, opened) if opened else Opened([], 0)

    def open_one(self, untrusted: bytes, sources: frozenset[bytes] | None, now: float) -> bytes | None:
        """The usual packet in one datagram; None, and nothing has happened, if it has to be `open`.

        Shape: `untrusted` is a whole data packet; `sources` are the addresses that it may come from, None for all.
        """
        lane = self._lane
        packet = None if lane is None else lane.open(untrusted, sources, now)
        if packet is not None:
            self.octets_in += len(packet)
        return packet

    def open_train(self, train: Train, now: float, bench: Workbench | None) -> Opened | None:
        """The same for datagrams of one size in a row; None, and nothing has happened, if it has to be `open`."""
        key = self._keys.get(train.first_octet & 7)
        if key is None or self._compression is not Compression.NONE or not isinstance(key.opener, AeadOpener):
            return None
        opened = key.opener.open_train(train, now, self._drops, bench)
        if opened is None:
            return None
        if isinstance(opened, list) or not _is_traffic(opened):
            packets = opened if isinstance(opened, list) else opened.packets()
            return self._opened(key, packets) if packets else Opened([], 0)
        self._note_opened(key, len(opened), opened.octets)
        self.octets_in += opened.octets
        return Opened([], len(opened), rows=opened)

    def _note_opened(self, key: DataKey, packets: int, octets: int) -> None:
        if key is self._newest and key is not self._sending:
            self.use_newest()
        self.authentic += packets
        key.packets += packets
        key.octets += octets

    def _opened(self, key: DataKey, opened: list[bytes]) -> Opened:
        if len(opened) == 1 and self._compression is Compression.NONE and opened[0][:1] in _IP:
            octets = len(opened[0])
            self._note_opened(key, 1, octets)
            self.octets_in += octets
            return Opened(opened, 1)
        self._note_opened(key, len(opened), sum(map(len, opened)))
        packets = remove_framing(opened, self._compression, self._drops)
        traffic = [packet for packet in packets if packet != PING and not packet.startswith(OCC_MAGIC)]
        self.octets_in += sum(map(len, traffic))
        occ = tuple(packet for packet in packets if packet.startswith(OCC_MAGIC))
        return Opened(traffic, len(opened), occ)


def _is_traffic(rows: Rows) -> bool:
    """Whether all are IP packets of one version: what else an end says is as long as no IP packet, or begins unlike."""
    first = rows.common(0, 1)
    version = first[0] >> 4 if first else 0
    shortest = {4: 20, 6: 40}.get(version, 1 << 16)
    return min(rows.shape.octets, len(rows.last) or shortest) >= shortest
