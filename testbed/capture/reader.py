"""Reading capture files: pcapng and classic pcap, in either byte order, compressed with gzip or not, whole or damaged.

`CaptureReader` gives one `Frame` after the other and reads the file in chunks, so memory does not grow with it. A file
that ends in the middle of something, or that holds nonsense, gives the frames before that point and a warning.

Source: draft-ietf-opsawg-pcapng, draft-ietf-opsawg-pcap
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

from testbed.capture import pcapng

CHUNK_OCTETS = 1 << 20
LARGEST_BLOCK_OCTETS = 16 << 20
MOST_INTERFACES = 10_000
GZIP_MAGIC = b"\x1f\x8b"
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


class Damage(Exception):
    """The file cannot be read on from here; says why."""


@dataclass(slots=True)
class _Input:
    """A file read in chunks. `take` gives exactly what was asked for, or fewer octets at the end of the file."""

    file: IO[bytes]
    buffer: bytes = b""
    at: int = 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.buffer):
            self._fill(count)
            end = self.at + count
        piece = self.buffer[self.at : end]
        self.at = min(end, len(self.buffer))
        return piece

    def _fill(self, count: int) -> None:
        pieces = [self.buffer[self.at :]]
        have = len(pieces[0])
        while have < count:
            try:
                piece = self.file.read(max(CHUNK_OCTETS, count - have))
            except (OSError, EOFError, zlib.error) as error:  # a damaged gzip file shows itself here
                self.buffer, self.at = b"".join(pieces), 0
                raise Damage(f"cannot read on: {error}") from error
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        self.buffer, self.at = b"".join(pieces), 0


@dataclass(slots=True)
class CaptureReader:
    """Iterate to get the frames; afterwards `warnings`, `interfaces` and `dropped` say how the file was.

    Errors: OSError if the file cannot be opened; nothing else
    """

    path: Path | str
    warnings: list[str] = field(default_factory=list)
    interfaces: list[Interface] = field(default_factory=list)
    frames: int = 0
    _file: IO[bytes] | None = None

    def __enter__(self) -> CaptureReader:
        file: IO[bytes] = open(self.path, "rb")
        if file.peek(2)[:2] == GZIP_MAGIC:  # type: ignore[attr-defined]  # a BufferedReader has it
            import gzip

            file.close()
            file = gzip.open(self.path, "rb")  # type: ignore[assignment]  # reads like any binary file
        self._file = file
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def dropped(self) -> int:
        """Packets the recording side lost, as the file's statistics say; 0 where it has none."""
        return sum(interface.dropped or 0 for interface in self.interfaces)

    def __iter__(self) -> Iterator[Frame]:
        if self._file is None:
            raise RuntimeError("a CaptureReader is read inside its with block")
        source = _Input(self._file)
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

    def _pcap(self, source: _Input, magic: bytes) -> Iterator[Frame]:
        order, tick_ns = PCAP_MAGICS[magic]
        header = _need(source, 20, "its header")
        _, _, _, _, snap_octets, network = struct.unpack(order + "HHiIII", header)
        link_type = network & 0x0FFFFFFF  # the upper bits may tell the length of a frame check sequence
        self.interfaces.append(Interface(link_type, snap_octets=snap_octets))
        record = struct.Struct(order + "IIII")
        while True:
            yield from self._whole_records(source, record, tick_ns, link_type)
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
            yield Frame(self.frames, seconds * 1_000_000_000 + fraction * tick_ns, link_type, data, octets, 0)

    def _whole_records(self, source: _Input, record: struct.Struct, tick_ns: int, link_type: int) -> Iterator[Frame]:
        """The packets that are whole in the buffer. Every packet goes through this loop: it calls nothing of ours."""
        buffer, at, unpack, new = source.buffer, source.at, record.unpack_from, tuple.__new__
        last = len(buffer) - record.size
        while at <= last:
            seconds, fraction, captured, octets = unpack(buffer, at)
            start = at + 16
            at = start + captured
            if captured > LARGEST_BLOCK_OCTETS or at > len(buffer):
                break
            source.at = at
            self.frames = number = self.frames + 1
            time_ns = seconds * 1_000_000_000 + fraction * tick_ns
            yield new(Frame, (number, time_ns, link_type, buffer[start:at], octets, 0))

    def _pcapng(self, source: _Input) -> Iterator[Frame]:
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
            if block_type == pcapng.ENHANCED_PACKET:
                yield self._enhanced_packet(body, order, interfaces)
            elif block_type == pcapng.SIMPLE_PACKET:
                yield self._simple_packet(body, order, interfaces)
            elif block_type == pcapng.INTERFACE_DESCRIPTION:
                self._interface(body, order, interfaces)
            elif block_type == pcapng.INTERFACE_STATISTICS:
                self._statistics(body, order, interfaces)

    def _whole_packets(self, source: _Input, order: str, interfaces: list[Interface]) -> Iterator[Frame]:
        """The enhanced packet blocks in a row that are whole in the buffer and need no second look.

        Every packet goes through this loop: it calls nothing of ours. What it leaves is read, or refused, one by one.
        """
        buffer, at, new = source.buffer, source.at, tuple.__new__
        unpack = struct.Struct(order + "IIIIIII").unpack_from
        last = len(buffer) - 32
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
            data = buffer[at + 28 : at + 28 + captured]
            at += total
            yield new(Frame, (frame, high << 32 | low, interface.link_type, data, octets, number))

    def _section(self, source: _Input) -> str:
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

    def _enhanced_packet(self, body: bytes, order: str, interfaces: list[Interface]) -> Frame:
        if len(body) < 20:
            raise Damage("a packet block that makes no sense")
        number, high, low, captured, octets = struct.unpack_from(order + "IIIII", body)
        if number >= len(interfaces) or captured > len(body) - 20:
            raise Damage(f"a packet of interface {number} with {captured} octets")
        interface = interfaces[number]
        ticks = high << 32 | low
        if interface.ticks_per_second != 1_000_000_000:
            ticks = ticks * 1_000_000_000 // interface.ticks_per_second
        self.frames += 1
        time_ns = ticks + interface.offset_seconds * 1_000_000_000
        return Frame(self.frames, time_ns, interface.link_type, body[20 : 20 + captured], octets, number)

    def _simple_packet(self, body: bytes, order: str, interfaces: list[Interface]) -> Frame:
        if len(body) < 4 or not interfaces:
            raise Damage("a simple packet block that makes no sense")
        (octets,) = struct.unpack_from(order + "I", body)
        kept = min(octets, len(body) - 4, interfaces[0].snap_octets or octets)
        self.frames += 1
        return Frame(self.frames, 0, interfaces[0].link_type, body[4 : 4 + kept], octets, 0)


def _need(source: _Input, count: int, what: str) -> bytes:
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
