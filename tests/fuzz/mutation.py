"""The seeded generator: datagrams that are nearly right, and some that are not right at all.

Every choice is one draw whatever the lengths are, so that a signature of another length (which TLS draws, not we)
does not change what is done to the datagrams after it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")
_LONGEST = 2048
_INTERESTING = (0, 1, 2, 7, 8, 9, 11, 12, 127, 128, 254, 255)


class Mutator:
    """Makes datagrams from those it is shown. The same seed and the same shown octets give the same datagrams."""

    def __init__(self, seed: str) -> None:
        self._draw = random.Random(seed).random
        self._changes = (
            self._flip,
            self._flip,
            self._set_octet,
            self._truncate,
            self._extend,
            self._cut_out,
            self._insert,
            self._first_octet,
            self._count,
            self._last_length,
            self._number,
        )

    def below(self, limit: int) -> int:
        return int(self._draw() * limit)

    def pick(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def chance(self, probability: float) -> bool:
        return self._draw() < probability

    def octets(self, count: int) -> bytes:
        return bytes(self.below(256) for _ in range(count))

    def datagram(self, corpus: Sequence[bytes]) -> bytes:
        """One datagram: a replay, a splice, noise or, mostly, one to three changes."""
        fate = self._draw()
        if fate < 0.06 or not corpus:
            return self.octets(self.below(self.pick((4, 40, 200))))
        base = self.pick(corpus)
        if fate < 0.12:
            return base
        if fate < 0.20:
            base = self._splice(base, self.pick(corpus))
        for _ in range(1 + self.below(3)):
            base = self.pick(self._changes)(base)
        return base[:_LONGEST]

    def _flip(self, octets: bytes) -> bytes:
        if not octets:
            return octets
        changed = bytearray(octets)
        changed[self.below(len(changed))] ^= 1 << self.below(8)
        return bytes(changed)

    def _set_octet(self, octets: bytes) -> bytes:
        if not octets:
            return octets
        changed = bytearray(octets)
        changed[self.below(len(changed))] = self.pick(_INTERESTING)
        return bytes(changed)

    def _truncate(self, octets: bytes) -> bytes:
        return octets[: self.below(len(octets) + 1)]

    def _extend(self, octets: bytes) -> bytes:
        return octets + self.octets(1 + self.below(self.pick((2, 16, 80))))

    def _cut_out(self, octets: bytes) -> bytes:
        start = self.below(len(octets) + 1)
        return octets[:start] + octets[start + self.below(12) :]

    def _insert(self, octets: bytes) -> bytes:
        start = self.below(len(octets) + 1)
        return octets[:start] + self.octets(1 + self.below(8)) + octets[start:]

    def _splice(self, head: bytes, tail: bytes) -> bytes:
        return head[: self.below(len(head) + 1)] + tail[self.below(len(tail) + 1) :]

    def _first_octet(self, octets: bytes) -> bytes:
        """Another opcode or another key id."""
        if not octets:
            return octets
        both, other = octets[0], self.below(256)
        first = (both & 0xF8 | other & 7) if self.chance(0.5) else ((other & 0x0F) << 3 | both & 7)
        return bytes((first,)) + octets[1:]

    def _count(self, octets: bytes) -> bytes:
        """Another number of acknowledgements, where an unwrapped packet has it."""
        return octets[:9] + bytes((self.below(12),)) + octets[10:]

    def _last_length(self, octets: bytes) -> bytes:
        """The length at the end, as of a wrapped client key."""
        length = self.pick((0, 1, 33, 34, len(octets), len(octets) + 1, 1024, 65535))
        return octets[:-2] + length.to_bytes(2, "big")

    def _number(self, octets: bytes) -> bytes:
        """Four octets as another number, large or near."""
        start = self.below(max(1, len(octets) - 3))
        number = self.pick((0, 1, 2, 0x0F000001, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF))
        return octets[:start] + number.to_bytes(4, "big") + octets[start + 4 :]
