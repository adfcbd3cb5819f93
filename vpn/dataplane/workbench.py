"""Everything that is done with many packets at once, behind one object: the only door to the modules that need numpy.

    superpacket -> segment -> rows -> seal -> train            train -> open -> rows -> join -> writes to a tun device

Loaded when the first large batch comes (numpy costs as much time as a hundred handshakes' packets), one per process.
"""

from __future__ import annotations

import numpy as np

from vpn.dataplane.cipher_rows import TAG_OCTETS, Into, OpeningSlots, SealingSlots
from vpn.dataplane.join_rows import Write, joined
from vpn.dataplane.offload import Superpacket
from vpn.dataplane.rows import Bytes, Rows, RowShape
from vpn.dataplane.segment_rows import segment_rows
from vpn.dataplane.train import Train

__all__ = ["Rows", "Workbench", "Write"]

_SHAPES = 8  # sizes whose memory is kept: about 500 KiB each
_BERTHS = 16  # places in the receive buffer for which views are kept


class Workbench:
    """Rows and trains are valid until the next of the same size is made: use them up at once."""

    def __init__(self) -> None:
        self._shapes: dict[int, RowShape] = {}
        self._buffer: memoryview | None = None
        self._memory: Bytes | None = None
        self._bodies: dict[tuple[int, int, int], list[memoryview]] = {}

    def knows(self, octets: int) -> bool:
        """Whether packets of this size have their memory already."""
        return octets in self._shapes

    def segment(self, superpacket: Superpacket, largest_packet: int | None) -> Rows | None:
        """A superpacket's packets; None if they are too few or too many for this way."""
        return segment_rows(superpacket, largest_packet, self._shape)

    def seal(
        self, rows: Rows, encrypt_into: Into, header: bytes, first_id: int, implicit_iv: bytes, lead: int, last: bytes
    ) -> Train:
        """The rows sealed under ids from `first_id` on, and `last`, sealed already."""
        slots = SealingSlots.of(rows.shape, len(header), lead)
        slots.seal(encrypt_into, header, first_id, implicit_iv, rows)
        return slots.train(rows.count, last)

    def open(
        self, train: Train, decrypt_into: Into, header_octets: int, implicit_iv: bytes
    ) -> tuple[Rows, list[int]] | None:
        """The full packets of a train and their ids; None if they are not all alike and authentic."""
        body_octets = train.slot - train.lead - header_octets - 4 - TAG_OCTETS
        if body_octets <= 0:
            return None
        shape = self._shape(body_octets)
        if train.full > shape.capacity:
            return None
        slots = OpeningSlots.of(shape, header_octets, train.lead)
        memory, bodies = self._places(train, slots.body_at)
        ids = slots.open(train, memory, decrypt_into, implicit_iv, bodies)
        return None if ids is None else (Rows(shape, train.full), ids)

    def join(self, rows: Rows, *, udp: bool) -> list[Write]:
        """What to write to a tun device with offload."""
        return joined(rows, udp=udp)

    def _shape(self, octets: int) -> RowShape:
        shape = self._shapes.get(octets)
        if shape is None:
            if len(self._shapes) >= _SHAPES:
                del self._shapes[next(iter(self._shapes))]
            shape = self._shapes[octets] = RowShape(octets)
        return shape

    def _places(self, train: Train, body_at: int) -> tuple[Bytes, list[memoryview]]:
        """The train's memory as an array, and of each slot the ciphertext and the tag's place behind it."""
        if train.buffer is not self._buffer or self._memory is None or len(self._bodies) > _BERTHS:
            self._buffer, self._memory = train.buffer, np.frombuffer(train.buffer, np.uint8)
            self._bodies.clear()
        key, count, slot = (train.at, train.slot, body_at), train.full, train.slot
        bodies = self._bodies.get(key, [])
        if len(bodies) < count:
            begin = train.at + body_at
            octets = slot - body_at + TAG_OCTETS
            bodies = [train.buffer[at : at + octets] for at in range(begin, begin + count * slot, slot)]
            self._bodies[key] = bodies
        return self._memory, bodies if len(bodies) == count else bodies[:count]
