"""Packets that wait for a server's tunnel, a lane for each destination, and one for its TCP: nobody's flood makes
another one wait or lose.

    A A A A A A A …      each lane in turn, some octets at a time (deficit round robin); one that was empty comes first,
    B               -->  so that a lone packet never waits behind a backlog; what is too much goes from the end of the
    C C                  longest lane

No more than a few lanes that were empty come in a row: whoever sends to ever new destinations, nobody's among
them, keeps neither the other lanes from their turns nor empty lanes in memory. Order is kept within each lane. Pure.
Sources: M. Shreedhar and G. Varghese, "Efficient Fair Queuing using Deficit Round-Robin", 1995; RFC 8290, section 4.1,
on new and old queues.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from vpn.dataplane.inner import destination
from vpn.dataplane.offload import TCP, Superpacket

Waiting: TypeAlias = bytes | Superpacket
_MOST_SPARE = 64
_MOST_SHARES = 16  # however many lanes there are, no more waits than would in so many
_NEW_IN_A_ROW = 8
_MOST_COMPARED = 64  # lanes, for the longest of them: of very many a few are looked at, and the one that grew last
TURN_OCTETS = 65536  # of a lane at a time: the largest superpacket, so that each turn moves one at least


@dataclass(slots=True)
class _Lane:
    credit: int = TURN_OCTETS
    octets: int = 0
    packets: deque[Waiting] = field(default_factory=deque)


class Lanes:
    """`octets` and the length are those of all that waits."""

    def __init__(self) -> None:
        self.octets = 0
        self._packets = 0
        self._lanes: dict[bytes, _Lane] = {}
        self._spare: list[_Lane] = []
        self._last = _Lane()  # that which grew last
        self._new_passed = 0  # lanes that were new, since the last packet of an old one
        self._new: deque[bytes] = deque()  # lanes that were empty, and have not used up their first turn
        self._old: deque[bytes] = deque()

    def __len__(self) -> int:
        return self._packets

    @property
    def destinations(self) -> int:
        """How many lanes there are, those that wait for nothing but their end included."""
        return len(self._lanes)

    def push(self, packet: Waiting) -> None:
        untrusted = packet if isinstance(packet, bytes) else packet.octets
        key = destination(untrusted) or b""
        if key and untrusted[9 if len(key) == 4 else 6] == TCP:
            key += b"T"  # a stream's own: a ping to the same client does not wait behind it
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = self._spare.pop() if self._spare else _Lane()
            self._new.append(key)
        self._last = lane
        lane.packets.append(packet)
        octets = len(untrusted)
        lane.octets += octets
        self.octets += octets
        self._packets += 1

    def pop(self) -> Waiting:
        """The next one. Errors: IndexError if nothing waits."""
        while True:
            turns = self._new if self._new and (self._new_passed < _NEW_IN_A_ROW or not self._old) else self._old
            key = turns[0]
            lane = self._lanes[key]
            if not lane.packets:
                turns.popleft()
                del self._lanes[key]
                self._put_by(lane)
            elif lane.credit <= 0:
                lane.credit += TURN_OCTETS
                self._old.append(turns.popleft())
                self._new_passed += turns is self._new
            else:
                if turns is self._old:
                    self._new_passed = 0
                return self._taken(key, lane)

    def _taken(self, key: bytes, lane: _Lane) -> Waiting:
        packet = lane.packets.popleft()
        octets = octets_of(packet)
        lane.credit -= octets
        lane.octets -= octets
        self.octets -= octets
        self._packets -= 1
        if not lane.packets and self._new and self._new[0] is key:
            # as an old one it waits for its turn once more: else a trickle would always come first
            self._old.append(self._new.popleft())
            self._new_passed += 1
        return packet

    def shrink(self, packets: int, octets: int) -> int:
        """Takes packets away from the end of the longest lane until no more wait than may.

        Shape: the bounds are those of one lane, several lanes have as many times more; returns how many packets, those
        in superpackets counted, went.
        """
        taken = 0
        lanes = min(len(self._lanes), _MOST_SHARES)
        while self.octets > octets * lanes or self._packets > packets * lanes:
            lane = self._longest()
            packet = lane.packets.pop()
            freed = octets_of(packet)
            lane.octets -= freed
            self.octets -= freed
            self._packets -= 1
            taken += 1 if isinstance(packet, bytes) else packet.segments
        return taken

    def _longest(self) -> _Lane:
        """A lane that is not empty, if there is one."""
        longest = self._longest_of_some()
        if not longest.packets:
            self._sweep()
            longest = self._longest_of_some()
        return longest

    def _longest_of_some(self) -> _Lane:
        return max(*islice(self._lanes.values(), _MOST_COMPARED), self._last, key=_length)

    def _sweep(self) -> None:
        """Takes away the empty lanes that wait for nothing but their end."""
        for key in [key for key, lane in self._lanes.items() if not lane.packets]:
            self._put_by(self._lanes.pop(key))
        self._new = deque(key for key in self._new if key in self._lanes)
        self._old = deque(key for key in self._old if key in self._lanes)

    def _put_by(self, lane: _Lane) -> None:
        """An empty lane serves for another destination: making one takes as long as all else with a lone packet."""
        if len(self._spare) < _MOST_SPARE:
            lane.credit = TURN_OCTETS
            self._spare.append(lane)


def _length(lane: _Lane) -> tuple[int, int]:
    return lane.octets, len(lane.packets)


def octets_of(packet: Waiting) -> int:
    return len(packet) if isinstance(packet, bytes) else len(packet.octets)
