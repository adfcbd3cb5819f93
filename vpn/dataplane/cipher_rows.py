"""Sealing and opening many packets of one size with an AEAD: one call each, everything round the calls in arrays.

    lead (0 or 2)   header (4 or 1)   packet id (4)   tag (16)   ciphertext (n)      one slot; the next follows

`cryptography` puts the tag behind the ciphertext, which is where the next slot begins. Sealing therefore writes all
ciphertexts, moves all tags to their places with one copy, then writes all headers; opening takes headers and tags out,
then puts each tag behind its ciphertext. What was there comes back if a packet does not open, or lies behind the train.

Source: openvpn-protocol.md section 7.1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from cryptography.exceptions import InvalidTag

from vpn.dataplane.rows import Bytes, Numbers, Rows, RowShape
from vpn.dataplane.train import Train

TAG_OCTETS = 16
NONCE_OCTETS = 12
Into: TypeAlias = Callable[[Any, Any, Any, Any], int]


class Stamps:
    """Nonces and associated data of as many packets as a shape holds, for headers of one length."""

    def __init__(self, capacity: int, header_octets: int) -> None:
        clear_octets = header_octets + 4
        self._nonces: Bytes = np.zeros((capacity, NONCE_OCTETS), np.uint8)
        self._clears: Bytes = np.zeros((capacity, clear_octets), np.uint8)
        self._nonce_ids: Numbers = np.ndarray((capacity,), ">u4", self._nonces, 0, (NONCE_OCTETS,))
        self._clear_ids: Numbers = np.ndarray((capacity,), ">u4", self._clears, header_octets, (clear_octets,))
        self.nonces = _slices(self._nonces)
        # DATA_V1 authenticates the packet id alone, which is the nonce's beginning
        self.clears = _slices(self._clears) if header_octets > 1 else [nonce[:4] for nonce in self.nonces]

    def fill(self, count: int, header: Any, ids: Numbers, implicit_iv: Any) -> Bytes:
        """Returns what stands in clear before each tag."""
        self._nonces[:count, 4:] = implicit_iv
        self._nonce_ids[:count] = ids
        self._clears[:count, :-4] = header
        self._clear_ids[:count] = ids
        return self._clears[:count]

    @classmethod
    def of(cls, shape: RowShape, header_octets: int) -> Stamps:
        """Those that are kept with the shape."""
        stamps: Stamps = shape.keep(("stamps", header_octets), lambda: cls(shape.capacity, header_octets))
        return stamps


def _slices(array: Bytes) -> list[memoryview]:
    flat, octets = array.reshape(-1).data, array.shape[1]
    return [flat[row * octets : (row + 1) * octets] for row in range(len(array))]


class SealingSlots:
    """Where the sealed packets of one shape go."""

    def __init__(self, shape: RowShape, header_octets: int, lead: int) -> None:
        capacity, body_at = shape.capacity, lead + header_octets + 4 + TAG_OCTETS
        self.lead, self.slot = lead, body_at + shape.octets
        self._stamps = Stamps.of(shape, header_octets)
        memory: Bytes = np.zeros((capacity + 2) * self.slot, np.uint8)  # one more for a last, shorter packet
        self.buffer: memoryview = memory.data
        self._bodies = [
            self.buffer[row * self.slot + body_at : (row + 1) * self.slot + TAG_OCTETS] for row in range(capacity)
        ]
        slots = memory[: capacity * self.slot].reshape(capacity, self.slot)
        behind = memory[self.slot : (capacity + 1) * self.slot].reshape(capacity, self.slot)
        self._tags, self._tags_behind = slots[:, body_at - TAG_OCTETS : body_at], behind[:, :TAG_OCTETS]
        self._clears, self._leads = slots[:, lead : body_at - TAG_OCTETS], slots[:, :lead]
        self._length = np.frombuffer((self.slot - lead).to_bytes(2, "big")[:lead], np.uint8)

    @classmethod
    def of(cls, shape: RowShape, header_octets: int, lead: int) -> SealingSlots:
        """Those that are kept with the shape."""
        slots: SealingSlots = shape.keep(("slots", header_octets, lead), lambda: cls(shape, header_octets, lead))
        return slots

    def seal(self, encrypt_into: Into, header: bytes, first_id: int, implicit_iv: bytes, rows: Rows) -> None:
        count, shape = rows.count, rows.shape
        ids = shape.counting[:count] + np.uint32(first_id)
        clears = self._stamps.fill(count, np.frombuffer(header, np.uint8), ids, np.frombuffer(implicit_iv, np.uint8))
        stamps = self._stamps
        deque(map(encrypt_into, stamps.nonces, shape.packets, stamps.clears, self._bodies[:count]), 0)
        self._tags[:count] = self._tags_behind[:count].copy()
        self._clears[:count] = clears
        if self.lead:
            self._leads[:count] = self._length

    def train(self, count: int, last: bytes) -> Train:
        """The sealed packets, and `last`, sealed elsewhere, behind them."""
        octets = count * self.slot
        if last:
            framed = len(last).to_bytes(2, "big")[: self.lead] + last
            self.buffer[octets : octets + len(framed)] = framed
            octets += len(framed)
        return Train(self.buffer, 0, octets, self.slot, self.lead)


class OpeningSlots:
    """A received train with its headers taken out."""

    def __init__(self, train: Train, header_octets: int) -> None:
        self._train, self.count, self._header_octets = train, train.full, header_octets
        self.body_at = train.lead + header_octets + 4 + TAG_OCTETS
        self.body_octets = train.slot - self.body_at
        self._memory: Bytes = np.frombuffer(train.buffer, np.uint8)
        slots = self._memory[train.at : train.at + self.count * train.slot].reshape(self.count, train.slot)
        self._heads = slots[:, : self.body_at].copy()
        ids: Numbers = np.ndarray((self.count,), ">u4", self._heads, train.lead + header_octets, (self.body_at,))
        self.ids = ids.astype(np.uint32)

    @property
    def is_uniform(self) -> bool:
        """Whether all headers are alike, as packets of one sender and one key have them."""
        begin = self._train.lead
        headers = self._heads[:, begin : begin + self._header_octets]
        return bool((headers == headers[0]).all())

    def open(self, decrypt_into: Into, implicit_iv: bytes, shape: RowShape, bodies: list[memoryview]) -> bool:
        """Fills the shape's rows; False if one of the packets is not authentic. Replay is not looked at."""
        train, count, body_at = self._train, self.count, self.body_at
        stamps = Stamps.of(shape, self._header_octets)
        header = self._heads[0, train.lead : train.lead + self._header_octets]
        stamps.fill(count, header, self.ids, np.frombuffer(implicit_iv, np.uint8))
        begin, end = train.at + train.slot, train.at + count * train.slot
        tags: Bytes = np.ndarray((count, TAG_OCTETS), np.uint8, self._memory, begin, (train.slot, 1))
        behind = tags[-1].copy()
        tags[:] = self._heads[:, body_at - TAG_OCTETS :]
        try:
            deque(map(decrypt_into, stamps.nonces, bodies, stamps.clears, shape.packets), 0)
        except InvalidTag:
            tags[:-1] = self._heads[1:, :TAG_OCTETS]
            return False
        finally:
            self._memory[end : end + TAG_OCTETS] = behind
        return True
