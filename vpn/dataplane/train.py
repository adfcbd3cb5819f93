"""Datagrams of one size that lie one behind the other in memory: what one system call sends or has received.

    UDP     datagram   datagram   …   a shorter one
    TCP     length (2) packet   length (2) packet   …   length (2) a shorter one        `lead` is 2

Holds no copy: the memory belongs to whoever made the train, who says how long it stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

LONGEST_TRAIN = 384
LARGE_OCTETS = 4096  # a datagram from this size on is a train of its own: a copy would cost more than the rest
LEAST_TRAIN = 6  # fewer are faster one by one: the arrays' fixed cost is that of about six packets


@dataclass(frozen=True, slots=True)
class Train:
    """Shape: `octets` from `at` on in `buffer` are slots of `slot` octets, the last perhaps shorter."""

    buffer: memoryview
    at: int
    octets: int
    slot: int
    lead: int = 0

    @property
    def full(self) -> int:
        """Datagrams that fill their slot."""
        return self.octets // self.slot

    @property
    def last(self) -> bytes:
        """The shorter datagram at the end; empty if there is none."""
        end = self.at + self.octets
        return bytes(self.buffer[end - self.octets % self.slot + self.lead : end]) if self.octets % self.slot else b""

    def __len__(self) -> int:
        return -(-self.octets // self.slot)

    @property
    def view(self) -> memoryview:
        return self.buffer[self.at : self.at + self.octets]

    @property
    def first_octet(self) -> int:
        """The first octet of the first datagram: opcode and key id."""
        return self.buffer[self.at + self.lead]

    def datagrams(self) -> list[bytes]:
        """A copy of each, without what leads it."""
        end, lead, slot = self.at + self.octets, self.lead, self.slot
        return [bytes(self.buffer[at + lead : min(at + slot, end)]) for at in range(self.at, end, slot)]


Outgoing: TypeAlias = bytes | Train
