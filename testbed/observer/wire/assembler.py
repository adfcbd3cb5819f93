"""Pieces with offsets, put in order: QUIC's CRYPTO frames, DTLS's fragments. Bounded; what came first stays."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_PIECES = 256


@dataclass(slots=True)
class Assembler:
    """Shape: `data` is what is there without a hole; pieces behind a hole wait, up to the limit."""

    limit_octets: int
    data: bytearray = field(default_factory=bytearray)
    waiting: dict[int, bytes] = field(default_factory=dict)
    waiting_octets: int = 0

    def add(self, offset: int, piece: bytes) -> bool:
        """Returns whether `data` has grown."""
        if offset > len(self.data):
            self._wait(offset, piece)
            return False
        grown = self._take(offset, piece)
        while grown and self.waiting:
            reached = [at for at in self.waiting if at <= len(self.data)]
            if not reached:
                break
            for at in reached:
                later = self.waiting.pop(at)
                self.waiting_octets -= len(later)
                self._take(at, later)
        return grown

    def _wait(self, offset: int, piece: bytes) -> None:
        known = self.waiting.get(offset, b"")
        fits = offset + len(piece) <= self.limit_octets and len(self.waiting) < MOST_PIECES
        if len(piece) > len(known) and fits and self.waiting_octets + len(piece) <= self.limit_octets:
            self.waiting[offset] = piece
            self.waiting_octets += len(piece) - len(known)

    def _take(self, offset: int, piece: bytes) -> bool:
        new = piece[len(self.data) - offset :]
        new = new[: max(self.limit_octets - len(self.data), 0)]
        self.data += new
        return bool(new)
