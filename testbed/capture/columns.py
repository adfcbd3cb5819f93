"""A run of ordinary packets as columns: where each one's octets stand, how many, when, on which link.

The reader walks the blocks of a chunk of the file, for each says where the next begins; everything else about them is
read here for all of them at once. `Columns.frames` gives single ones back, as the reader would have given them.

numpy is imported with this module, which costs more than reading a small capture: only large files come here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from testbed.capture.reader import Frame

if TYPE_CHECKING:
    from testbed.capture.reader import Interface

Integers = NDArray[np.int64]
NANOSECONDS = 1_000_000_000
LARGEST_TIME = (1 << 63) - 1


class Columns(NamedTuple):
    """Shape: frame i is number `first + i`; its octets are `buffer[data_at[i]:][:captured[i]]`.

    `position` is where the buffer stands in the file, negative by far if it does not stand there as it is.
    """

    first: int
    buffer: bytes
    position: int
    data_at: Integers
    captured: Integers
    octets: Integers
    times_ns: Integers
    link_types: Integers
    interfaces: Integers

    def frames(self, chosen: Integers) -> Iterator[tuple[Frame, int]]:
        """The chosen ones in order, each with its position in the file."""
        buffer, first, position, new = self.buffer, self.first, self.position, tuple.__new__
        columns = (self.data_at, self.captured, self.octets, self.times_ns, self.link_types, self.interfaces)
        rows = zip(chosen.tolist(), *(column[chosen].tolist() for column in columns), strict=True)
        for index, at, captured, octets, time_ns, link_type, interface in rows:
            data = buffer[at : at + captured]
            yield new(Frame, (first + index, time_ns, link_type, data, octets, interface)), position + at


def numbers_at(buffer: bytes, dtype: str | np.dtype[Any]) -> NDArray[Any]:
    """The number, or the record, at every offset of the buffer, aligned or not."""
    kind = np.dtype(dtype)
    return np.ndarray((max(len(buffer) - kind.itemsize + 1, 0),), kind, buffer, strides=(1,))


def of_records(
    first: int, buffer: bytes, position: int, starts: Sequence[int], order: str, tick_ns: int, link_type: int
) -> Columns:
    """Packets of a pcap file, each whole in the buffer."""
    at = np.array(starts, np.int64)
    records = numbers_at(buffer, "V16")[at].view(order + "u4").reshape(len(at), 4)
    seconds, fraction, captured, octets = (records[:, which].astype(np.int64) for which in range(4))
    times_ns = seconds * NANOSECONDS + fraction * tick_ns
    link_types, interfaces = np.full(len(at), link_type, np.int64), np.zeros(len(at), np.int64)
    return Columns(first, buffer, position, at + 16, captured, octets, times_ns, link_types, interfaces)


def of_packets(
    first: int, buffer: bytes, position: int, starts: Sequence[int], order: str, known: Sequence[Interface]
) -> Columns:
    """Enhanced packet blocks, each whole in the buffer; only those before the first that needs a second look."""
    at = np.array(starts, np.int64)
    words = numbers_at(buffer, order + "u4")
    fields = (words[at + offset].astype(np.int64) for offset in (4, 8, 12, 16, 20, 24))
    total, number, high, low, captured, octets = fields
    factors = np.array([_nanoseconds_per_tick(interface) for interface in known], np.int64)
    plain = (captured <= total - 32) & (number < len(known))
    factor = factors[np.where(plain, number, 0)] if len(known) else np.zeros(len(at), np.int64)
    plain &= factor > 0
    ticks = high << 32 | low
    plain &= (high < 1 << 31) & (ticks <= LARGEST_TIME // np.maximum(factor, 1))
    count = len(at) if plain.all() else int(plain.argmin())
    links = np.array([interface.link_type for interface in known], np.int64)
    return Columns(
        first,
        buffer,
        position,
        at[:count] + 28,
        captured[:count],
        octets[:count],
        (ticks * factor)[:count],
        links[number[:count]] if count else number[:0],
        number[:count],
    )


def _nanoseconds_per_tick(interface: Interface) -> int:
    """0 where the interface counts time in another way than in whole nanoseconds since 1970."""
    if interface.offset_seconds or NANOSECONDS % interface.ticks_per_second:
        return 0
    return NANOSECONDS // interface.ticks_per_second
