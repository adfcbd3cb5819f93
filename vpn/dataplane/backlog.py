"""What was read from the device and has to wait for its turn: bounded in packets and octets, and a full TCP stream does
not make a ping or a question to a resolver wait behind it.

Packets leave in the order they came, but for one: a packet of ICMP or UDP goes ahead of TCP superpackets. Nothing is
seen out of its order by that: whatever else waits that may be of its flow (UDP superpackets, fragments, what cannot be
told) keeps it in the row. Pure.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

from vpn.dataplane.offload import TCP, Superpacket

# As many packets as openvpn's device holds. A stream fills all the room there is: with half these octets a round trip
# beside it takes half to two thirds of the time, and the stream is a tenth slower; with a quarter, four streams lose so
# much that they are half as fast.
HELD_PACKETS, HELD_OCTETS = 500, 1 << 20
# What is taken before anything else is looked at: bounds how long a flood from one side delays the other.
BATCH_PACKETS, BATCH_SUPERPACKETS = 32, 4
# With one superpacket a turn a round trip beside a full stream takes half the time, but each turn then finds fewer
# answers, and the stream is a tenth slower. So turns are short only after ICMP or UDP: somebody may wait for an answer.
SHORT_TURNS = 128
_SPARSE = frozenset({1, 17, 58})  # ICMP, UDP, ICMPv6
_SMALL_OCTETS = 4096
Held: TypeAlias = bytes | Superpacket


class Backlog:
    """Packets in the order in which they go."""

    __slots__ = ("_ahead", "_last_other", "_last_stream", "_octets", "_row", "_taken")

    def __init__(self) -> None:
        self._row: deque[Held] = deque()
        self._ahead: deque[bytes] = deque()
        self._octets = 0
        self._taken = 0  # from the row, ever; a place in the row is counted on from it
        self._last_stream = 0  # the place of the last TCP superpacket
        self._last_other = 0  # the place of the last one that may be of a flow that is not TCP's

    def __len__(self) -> int:
        return len(self._row) + len(self._ahead)

    @property
    def has_enough(self) -> bool:
        """Whether small packets fill a batch: of those the kernel's queue is short enough, and drops cost nothing."""
        return len(self) >= BATCH_PACKETS and self._octets < _SMALL_OCTETS * len(self)

    def add(self, packet: Held) -> int:
        """Takes a packet if there is room; else returns how many have no place."""
        octets = len(packet) if isinstance(packet, bytes) else len(packet.octets)
        if self._octets + octets > HELD_OCTETS or len(self) >= HELD_PACKETS:
            return 1 if isinstance(packet, bytes) else packet.segments
        self.push(packet)
        return 0

    def push(self, packet: Held) -> None:
        """The same whether there is room or not."""
        place = self._taken + len(self._row) + 1
        if not isinstance(packet, bytes):
            self._octets += len(packet.octets)
            if packet.protocol == TCP:
                self._last_stream = place
            else:
                self._last_other = place
            self._row.append(packet)
            return
        self._octets += len(packet)
        protocol = TCP
        if self._last_stream <= self._taken:  # no stream waits: nothing to look into
            self._last_other = place
        elif (protocol := _protocol(packet)) in _SPARSE and self._last_other <= self._taken:
            self._ahead.append(packet)
            return
        if protocol != TCP:
            self._last_other = place
        self._row.append(packet)

    def pop(self) -> Held:
        """The next one. Errors: IndexError if nothing waits."""
        if self._ahead:
            first = self._ahead.popleft()
            self._octets -= len(first)
            return first
        packet = self._row.popleft()
        self._taken += 1
        self._octets -= len(packet) if isinstance(packet, bytes) else len(packet.octets)
        return packet


class Turns:
    """How many superpackets each turn may take: one, while somebody may wait for an answer beside a stream."""

    __slots__ = ("_short", "_streams")

    def __init__(self) -> None:
        self._streams = 0  # turns until superpackets are forgotten
        self._short = 0  # as many are to be short from now on

    def begin(self) -> int:
        self._streams -= self._streams > 0
        self._short -= self._short > 0
        return 1 if self._short else BATCH_SUPERPACKETS

    def note(self, packet: Held) -> None:
        """A packet of this turn."""
        if not isinstance(packet, bytes):
            self._streams = SHORT_TURNS
        elif self._streams and _protocol(packet) in _SPARSE:
            self._short = SHORT_TURNS


def _protocol(packet: bytes) -> int:
    """The inner protocol as far as the first header tells; -1 if nothing does. A fragment's is not told."""
    octets, version = len(packet), packet[0] >> 4 if packet else 0
    if version == 4 and octets >= 20:
        return -1 if packet[6] & 0x3F or packet[7] else packet[9]
    return packet[6] if version == 6 and octets >= 40 else -1
