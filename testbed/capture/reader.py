"""Reading capture files: pcapng and classic pcap, in either byte order, compressed with gzip or not, whole or damaged.

`CaptureReader` gives one `Frame` after the other and reads the file in chunks, so memory does not grow with it;
`batches` gives the ordinary packets of a large file by the thousand, as arrays. A file that ends in the middle of
something, or that holds nonsense, compressed or not, gives the frames before that point and a warning.

Source: draft-ietf-opsawg-pcapng, draft-ietf-opsawg-pcap
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, NamedTuple, cast

from testbed.capture import pcapng
from testbed.capture.source import CHUNK_OCTETS, GZIP_MAGIC, NOWHERE, Damage, Inflated, Source, Store, reopened

if TYPE_CHECKING:
    from testbed.capture.columns import Columns

LARGEST_BLOCK_OCTETS = 16 << 20
LARGE_FILE_OCTETS = 16 << 20  # from here on the time that columns save is more than numpy's import takes
BATCH_OCTETS = 4 << 20
MOST_IN_BATCH = 1 << 16  # a bound for the columns' memory, however small the packets
OBSOLETE_PACKET = 2
PACKET_BLOCKS = frozenset((pcapng.ENHANCED_PACKET, pcapng.SIMPLE_PACKET, OBSOLETE_PACKET))
MOST_INTERFACES = 10_000
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
# first four octets -> byte order, nanoseconds per unit of the fraction
PCAP_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}


class Frame(NamedTuple):
    """One captured frame. Shape: `number` is 1-based, as Wireshark counts; `octets` is its length on the wire."""

    number: int
    time_ns: int
    link_type: int
    data: bytes
    octets: int
    interface: int


def begins_capture(octets: bytes) -> bool:
    """Whether a file with these first four octets can be a capture."""
    return octets in (PCAPNG_MAGIC, *PCAP_MAGICS) or octets.startswith(GZIP_MAGIC)


@dataclass(slots=True)
class Interface:
    """What a file says of one interface. Shape: `dropped` and `received` are None where the file does not say."""

    link_type: int
    name: str = ""
    ticks_per_second: int = 1_000_000
    offset_seconds: int = 0
    snap_octets: int = 0
    received: int | None = None
    dropped: int | None = None


@dataclass(slots=True)
class CaptureReader:
    """Iterate to get the frames; afterwards `warnings`, `interfaces` and `dropped` say how the file was.

    Shape:  while a frame is given, `position` is where its octets stand in the file, negative if they do not stand
            there as they are; `store` gives octets back by their position, also when the reader is closed
    Errors: OSError if the file cannot be opened; nothing else
    """

    path: Path | str
    warnings: list[str] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    frames: int = 0
    position: int = NOWHERE
    store: Store = field(default_factory=Store)
    _files: list[IO[bytes]] = field(default_factory=list)
    _inflated: Inflated | None = None
    _in_columns: bool = False

    def __enter__(self) -> CaptureReader:
        file = open(self.path, "rb")
        self._files.append(file)
        if file.peek(2)[:2] == GZIP_MAGIC:
            self._inflated = Inflated(file)
        else:
            self.store = Store(reopened(file))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in reversed(self._files):
            file.close()

    @property
    def dropped(self) -> int:
        """Packets the recording side lost, as the file's statistics say; 0 where it has none."""
        return sum(interface.dropped or 0 for interface in self.interfaces)

    @property
    def is_large(self) -> bool:
        """Whether it pays to read the file in columns; of a compressed one, its compressed size is asked."""
        status = os.fstat(self._files[0].fileno()) if self._files else None
        return status is not None and stat.S_ISREG(status.st_mode) and status.st_size >= LARGE_FILE_OCTETS

    def __iter__(self) -> Iterator[Frame]:
        return cast(Iterator[Frame], self._read())

    def batches(self) -> Iterator[Frame | Columns]:
        """The same frames in the same order, ordinary ones in columns."""
        self._in_columns = True
        return self._read()

    def _read(self) -> Iterator[Frame | Columns]:
        if not self._files:
            raise RuntimeError("a CaptureReader is read inside its with block")
        chunk_octets = BATCH_OCTETS if self._in_columns else CHUNK_OCTETS
        source = Source(self._inflated or self._files[-1], self.store.descriptor, chunk_octets)
        try:
            magic = source.take(4)
            if magic == PCAPNG_MAGIC:
                yield from self._pcapng(source)
            elif magic in PCAP_MAGICS:
                yield from self._pcap(source, magic)
            else:
                raise Damage("neither pcapng nor pcap" if magic else "the file is empty")
        except Damage as damage:
            self.warnings.append(f"capture file damaged or cut off after frame {self.frames}: {damage}")

    def _pcap(self, source: Source, magic: bytes) -> Iterator[Frame | Columns]:
        order, tick_ns = PCAP_MAGICS[magic]
        header = _need(source, 20, "its header")
        _, _, _, _, snap_octets, network = struct.unpack(order + "HHiIII", header)
        link_type = network & 0x0FFFFFFF  # the upper bits may tell the length of a frame check sequence
        self.interfaces.append(Interface(link_type, snap_octets=snap_octets))
        record = struct.Struct(order + "IIII")
        while True:
            yield from self._whole_records(source, order, tick_ns, link_type)
            head = source.take(16)  # what is not whole in the buffer: read on, or find the end or the damage
            if not head:
                return
            if len(head) < 16:
                raise Damage("in the middle of a packet's header")
            seconds, fraction, captured, octets = record.unpack(head)
            if captured > LARGEST_BLOCK_OCTETS:
                raise Damage(f"a packet of {captured} octets")
            data = _need(source, captured, "a packet")
            self.frames += 1
            self.position = source.position - captured
            yield Frame(self.frames, seconds * 1_000_000_000 + fraction * tick_ns, link_type, data, octets, 0)

    def _whole_records(self, source: Source, order: str, tick_ns: int, link_type: int) -> Iterator[Frame | Columns]:
        """The packets that are whole in the buffer. Every packet goes through this loop: it calls nothing of ours."""
        if self._in_columns:
            yield from self._columns_of_records(source, order, tick_ns, link_type)
            return
        buffer, at, unpack, new = source.buffer, source.at, struct.Struct(order + "IIII").unpack_from, tuple.__new__
        last, base = len(buffer) - 16, source.base
        while at <= last:
            seconds, fraction, captured, octets = unpack(buffer, at)
            start = at + 16
            at = start + captured
            if captured > LARGEST_BLOCK_OCTETS or at > len(buffer):
                break
            source.at = at
            self.frames = number = self.frames + 1
            self.position = base + start
            time_ns = seconds * 1_000_000_000 + fraction * tick_ns
            yield new(Frame, (number, time_ns, link_type, buffer[start:at], octets, 0))

    def _columns_of_records(self, source: Source, order: str, tick_ns: int, link_type: int) -> Iterator[Columns]:
        from testbed.capture import columns

        buffer, at, unpack = source.buffer, source.at, struct.Struct(order + "8xI").unpack_from
        starts: list[int] = []
        end, largest, append = len(buffer), LARGEST_BLOCK_OCTETS, starts.append
        last = end - 16
        for _ in range(MOST_IN_BATCH):
            if at > last:
                break
            (captured,) = unpack(buffer, at)
            following = at + 16 + captured
            if following > end or captured > largest:
                break
            append(at)
            at = following
        source.at = at
        if starts:
            first, self.frames = self.frames + 1, self.frames + len(starts)
            yield columns.of_records(first, buffer, source.base, starts, order, tick_ns, link_type)

    def _pcapng(self, source: Source) -> Iterator[Frame | Columns]:
        order = self._section(source)
        interfaces: list[Interface] = []  # of this section: their numbers start anew in each
        words = struct.Struct(order + "II")
        while True:
            yield from self._whole_packets(source, order, interfaces)
            head = source.take(8)  # any other block, or a packet that is not whole in the buffer
            if not head:
                return
            if len(head) < 8:
                raise Damage("in the middle of a block's header")
            if head[:4] == PCAPNG_MAGIC:
                source.at -= 4
                order, interfaces = self._section(source), []
                words = struct.Struct(order + "II")
                continue
            block_type, total = words.unpack(head)
            if total < 12 or total % 4 or total > LARGEST_BLOCK_OCTETS:
                raise Damage(f"a block of {total} octets")
            body = _need(source, total - 8, "a block")[:-4]
            self.position = source.position - total + 8
            if block_type in PACKET_BLOCKS:
                yield self._packet(block_type, body, order, interfaces)
            elif block_type == pcapng.INTERFACE_DESCRIPTION:
                self._interface(body, order, interfaces)
            elif block_type == pcapng.INTERFACE_STATISTICS:
                self._statistics(body, order, interfaces)

    def _whole_packets(self, source: Source, order: str, interfaces: list[Interface]) -> Iterator[Frame | Columns]:
        """The enhanced packet blocks in a row that are whole in the buffer and need no second look.

        Every packet goes through this loop: it calls nothing of ours. What it leaves is read, or refused, one by one.
        """
        if self._in_columns:
            yield from self._columns_of_packets(source, order, interfaces)
            return
        buffer, at, new = source.buffer, source.at, tuple.__new__
        unpack = struct.Struct(order + "IIIIIII").unpack_from
        last, base = len(buffer) - 32, source.base
        while at <= last:
            block_type, total, number, high, low, captured, octets = unpack(buffer, at)
            if block_type != pcapng.ENHANCED_PACKET or total & 3 or captured > total - 32 or at + total > len(buffer):
                return
            if total > LARGEST_BLOCK_OCTETS or number >= len(interfaces):
                return
            interface = interfaces[number]
            if interface.ticks_per_second != 1_000_000_000 or interface.offset_seconds:
                return
            source.at = at + total
            self.frames = frame = self.frames + 1
            self.position = base + at + 28
            data = buffer[at + 28 : at + 28 + captured]
            at += total
            yield new(Frame, (frame, high << 32 | low, interface.link_type, data, octets, number))

    def _columns_of_packets(self, source: Source, order: str, interfaces: list[Interface]) -> Iterator[Columns]:
        from testbed.capture import columns

        buffer, at, unpack = source.buffer, source.at, struct.Struct(order + "II").unpack_from
        starts: list[int] = []
        end, largest, packet, append = len(buffer), LARGEST_BLOCK_OCTETS, pcapng.ENHANCED_PACKET, starts.append
        last = end - 32
        for _ in range(MOST_IN_BATCH):
            if at > last:
                break
            block_type, total = unpack(buffer, at)
            following = at + total
            if block_type != packet or total & 3 or total < 32 or following > end or total > largest:
                break
            append(at)
            at = following
        append(at)
        found = columns.of_packets(self.frames + 1, buffer, source.base, starts[:-1], order, interfaces)
        count = len(found.data_at)
        source.at = starts[count]
        self.frames += count
        if count:
            yield found

    def _section(self, source: Source) -> str:
        """Read a section header, its first four octets already taken; returns the byte order."""
        head = _need(source, 8, "a section header")
        order = {b"\x4d\x3c\x2b\x1a": "<", b"\x1a\x2b\x3c\x4d": ">"}.get(head[4:])
        if order is None:
            raise Damage("a section header without byte order")
        (total,) = struct.unpack(order + "I", head[:4])
        if total < 28 or total % 4 or total > LARGEST_BLOCK_OCTETS:
            raise Damage(f"a section header of {total} octets")
        _need(source, total - 12, "a section header")
        return order

    def _interface(self, body: bytes, order: str, interfaces: list[Interface]) -> None:
        if len(body) < 8 or len(self.interfaces) >= MOST_INTERFACES:
            raise Damage("an interface description that makes no sense")
        link_type, _, snap_octets = struct.unpack_from(order + "HHI", body)
        interface = Interface(link_type, snap_octets=snap_octets)
        for code, value in _options(body, 8, order):
            if code == 2:
                interface.name = value.decode("utf-8", "replace")
            elif code == 9 and value:
                interface.ticks_per_second = _ticks_per_second(value[0])
            elif code == 14 and len(value) == 8:
                (interface.offset_seconds,) = struct.unpack(order + "q", value)
        interfaces.append(interface)
        self.interfaces.append(interface)

    def _statistics(self, body: bytes, order: str, interfaces: list[Interface]) -> None:
        if len(body) < 12:
            raise Damage("interface statistics that make no sense")
        (number,) = struct.unpack_from(order + "I", body)
        if number >= len(interfaces):
            raise Damage(f"statistics of interface {number}, which the file does not describe")
        for code, value in _options(body, 12, order):
            if code == 4 and len(value) == 8:
                (interfaces[number].received,) = struct.unpack(order + "Q", value)
            elif code == 5 and len(value) == 8:
                (interfaces[number].dropped,) = struct.unpack(order + "Q", value)

    def _packet(self, block_type: int, body: bytes, order: str, interfaces: list[Interface]) -> Frame:
        """A packet in a block of any of the three kinds; `position` is still that of the body."""
        if block_type == pcapng.SIMPLE_PACKET:
            return self._simple_packet(body, order, interfaces)
        if len(body) < 20:
            raise Damage("a packet block that makes no sense")
        number, high, low, captured, octets = struct.unpack_from(order + "IIIII", body)
        if block_type == OBSOLETE_PACKET:
            (number,) = struct.unpack_from(order + "H", body)  # and how many were dropped before it
        if number >= len(interfaces) or captured > len(body) - 20:
            raise Damage(f"a packet of interface {number} with {captured} octets")
        interface = interfaces[number]
        ticks = high << 32 | low
        if interface.ticks_per_second != 1_000_000_000:
            ticks = ticks * 1_000_000_000 // interface.ticks_per_second
        self.frames += 1
        self.position += 20
        time_ns = ticks + interface.offset_seconds * 1_000_000_000
        return Frame(self.frames, time_ns, interface.link_type, body[20 : 20 + captured], octets, number)

    def _simple_packet(self, body: bytes, order: str, interfaces: list[Interface]) -> Frame:
        if len(body) < 4 or not interfaces:
            raise Damage("a simple packet block that makes no sense")
        (octets,) = struct.unpack_from(order + "I", body)
        kept = min(octets, len(body) - 4, interfaces[0].snap_octets or octets)
        self.frames += 1
        self.position += 4
        return Frame(self.frames, 0, interfaces[0].link_type, body[4 : 4 + kept], octets, 0)


def _need(source: Source, count: int, what: str) -> bytes:
    data = source.take(count)
    if len(data) < count:
        raise Damage(f"in the middle of {what}")
    return data


def _ticks_per_second(resolution: int) -> int:
    exponent = resolution & 0x7F
    return 1 << min(exponent, 63) if resolution & 0x80 else int(10 ** min(exponent, 18))


def _options(body: bytes, at: int, order: str) -> Iterator[tuple[int, bytes]]:
    head = struct.Struct(order + "HH")
    while at + 4 <= len(body):
        code, length = head.unpack_from(body, at)
        if code == 0:
            return
        yield code, body[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4
