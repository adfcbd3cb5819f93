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


class Nonces:
    """One nonce per row of a shape: the packet id and what the key adds."""

    def __init__(self, capacity: int) -> None:
        self._array: Bytes = np.zeros((capacity, NONCE_OCTETS), np.uint8)
        self._implicit_iv = b""
        self.ids: Numbers = np.ndarray((capacity,), ">u4", self._array, 0, (NONCE_OCTETS,))
        self.views = _slices(self._array, 0, NONCE_OCTETS)
        self.id_views = _slices(self._array, 0, 4)

    @classmethod
    def of(cls, shape: RowShape) -> Nonces:
        """Those that are kept with the shape."""
        nonces: Nonces = shape.keep("nonces", lambda: cls(shape.capacity))
        return nonces

    def use(self, implicit_iv: bytes) -> None:
        """From now on those of this key."""
        if implicit_iv is not self._implicit_iv:
            self._implicit_iv = implicit_iv
            self._array[:, 4:] = np.frombuffer(implicit_iv, np.uint8)


def _slices(array: Bytes, begin: int, end: int) -> list[memoryview]:
    flat, octets = array.reshape(-1).data, array.shape[1]
    return [flat[row * octets + begin : row * octets + end] for row in range(len(array))]


class SealingSlots:
    """Where the sealed packets of one shape go."""

    def __init__(self, shape: RowShape, header_octets: int, lead: int) -> None:
        capacity, body_at = shape.capacity, lead + header_octets + 4 + TAG_OCTETS
        self.lead, self.slot = lead, body_at + shape.octets
        self._nonces = Nonces.of(shape)
        memory: Bytes = np.zeros((capacity + 2) * self.slot, np.uint8)  # one more for a last, shorter packet
        self.buffer: memoryview = memory.data
        self._bodies = [
            self.buffer[row * self.slot + body_at : (row + 1) * self.slot + TAG_OCTETS] for row in range(capacity)
        ]
        slots = memory[: capacity * self.slot].reshape(capacity, self.slot)
        behind = memory[self.slot : (capacity + 1) * self.slot].reshape(capacity, self.slot)
        self._tags, self._tags_behind = slots[:, body_at - TAG_OCTETS : body_at], behind[:, :TAG_OCTETS]
        self._fronts_in_slots = slots[:, : body_at - TAG_OCTETS]
        self._header = b""
        self._fronts: Bytes = np.zeros((capacity, body_at - TAG_OCTETS), np.uint8)  # lead, header, packet id
        self._fronts[:, :lead] = np.frombuffer((self.slot - lead).to_bytes(2, "big")[:lead], np.uint8)
        self._header_columns = self._fronts[:, lead:-4]
        front_octets = self._fronts.shape[1]
        self._ids: Numbers = np.ndarray((capacity,), ">u4", self._fronts, front_octets - 4, (front_octets,))
        # DATA_V1 authenticates the packet id alone
        self._clears = _slices(self._fronts, lead if header_octets > 1 else front_octets - 4, front_octets)

    @classmethod
    def of(cls, shape: RowShape, header_octets: int, lead: int) -> SealingSlots:
        """Those that are kept with the shape."""
        slots: SealingSlots = shape.keep(("slots", header_octets, lead), lambda: cls(shape, header_octets, lead))
        return slots

    def seal(self, encrypt_into: Into, header: bytes, first_id: int, implicit_iv: bytes, rows: Rows) -> None:
        count, shape, nonces = rows.count, rows.shape, self._nonces
        nonces.use(implicit_iv)
        if header != self._header:
            self._header = header
            self._header_columns[:] = np.frombuffer(header, np.uint8)
        ids = shape.counting[:count] + np.uint32(first_id)
        nonces.ids[:count] = ids
        self._ids[:count] = ids
        deque(map(encrypt_into, nonces.views, shape.packets, self._clears, self._bodies[:count]), 0)
        self._tags[:count] = self._tags_behind[:count].copy()
        self._fronts_in_slots[:count] = self._fronts[:count]

    def train(self, count: int, last: bytes) -> Train:
        """The sealed packets, and `last`, sealed elsewhere, behind them."""
        octets = count * self.slot
        if last:
            framed = len(last).to_bytes(2, "big")[: self.lead] + last
            self.buffer[octets : octets + len(framed)] = framed
            octets += len(framed)
        return Train(self.buffer, 0, octets, self.slot, self.lead)


class OpeningSlots:
    """What stands before the ciphertexts of a received train, taken out of it: memory for one layout of slots."""

    def __init__(self, shape: RowShape, header_octets: int, lead: int) -> None:
        self.shape = shape
        self._lead, self.front_octets = lead, lead + header_octets + 4
        self.body_at = self.front_octets + TAG_OCTETS
        self._header_end = lead + header_octets
        self._heads: Bytes = np.zeros((shape.capacity, self.body_at), np.uint8)
        self._nonces = Nonces.of(shape)
        self._ids: Numbers = np.ndarray((shape.capacity,), ">u4", self._heads, self._header_end, (self.body_at,))
        begin = lead if header_octets > 1 else self._header_end
        self._clears = _slices(self._heads, begin, self.front_octets)

    @classmethod
    def of(cls, shape: RowShape, header_octets: int, lead: int) -> OpeningSlots:
        """Those that are kept with the shape."""
        slots: OpeningSlots = shape.keep(("opening", header_octets, lead), lambda: cls(shape, header_octets, lead))
        return slots

    def open(
        self, train: Train, memory: Bytes, decrypt_into: Into, implicit_iv: bytes, bodies: list[memoryview]
    ) -> list[int] | None:
        """Fills the shape's rows and returns the packet ids, not yet looked at; None if not all are authentic and of
        one sender and key.
        """
        count, slot = train.full, train.slot
        heads = self._heads[:count]
        heads[:] = memory[train.at : train.at + count * slot].reshape(count, slot)[:, : self.body_at]
        header = heads[:, self._lead : self._header_end].tobytes()
        if header != header[: self._header_end - self._lead] * count:
            return None
        self._nonces.use(implicit_iv)
        self._nonces.ids[:count] = self._ids[:count]
        begin, end = train.at + slot, train.at + count * slot
        tags: Bytes = np.ndarray((count, TAG_OCTETS), np.uint8, memory, begin, (slot, 1))
        behind = bytes(train.buffer[end : end + TAG_OCTETS])
        tags[:] = heads[:, self.front_octets :]
        try:
            deque(map(decrypt_into, self._nonces.views, bodies, self._clears, self.shape.packets), 0)
        except InvalidTag:
            tags[:-1] = heads[1:, :TAG_OCTETS]
            return None
        finally:
            train.buffer[end : end + TAG_OCTETS] = behind
        ids: list[int] = self._ids[:count].tolist()
        return ids
