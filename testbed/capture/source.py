"""A capture file as octets: read once from its start in chunks, and again in places, for whoever kept only the places.

`Source` is the way through the file, also where it is compressed or a pipe. `Store` keeps the octets of streams: where
the file can be read again it remembers their position there and nothing else, so that a long capture needs no more
memory than a short one; only what stands in no file as such (decompressed, put together from fragments) is held.

The file is read, never mapped: one that shrinks meanwhile is an error that can be told, not a fault of the process.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import add
from typing import IO

CHUNK_OCTETS = 1 << 20
COMPRESSED_OCTETS = 32 << 10  # taken from a compressed file at a time
GZIP_MAGIC, GZIP_WINDOW_BITS = b"\x1f\x8b", 31
NOWHERE = -1  # position of octets that do not stand in the file as they are
FAR_BELOW = -1 << 62  # with any offset added it is still nowhere
IN_MEMORY = 1 << 62  # added to the number of a piece that is held
WINDOW_OCTETS = 128 << 10
NEAR_OCTETS = 32 << 10


class Damage(Exception):
    """The file cannot be read on from here; says why."""


class CaptureChanged(OSError):
    """The file no longer holds what was read from it."""


@dataclass(slots=True)
class Inflated:
    """What a gzip file of any number of members holds, in order. Never more than was asked for is made at once.

    Errors: `Damage`, once everything before the damage was given
    """

    file: IO[bytes]
    _inflate: zlib._Decompress | None = None  # of the member at hand
    _compressed: bytes = b""  # taken from the file, and not used up
    _ended: bool = False  # the file, not what was taken from it
    _damage: str = ""

    def read(self, count: int) -> bytes:
        """So many octets, fewer only at the end or before damage."""
        pieces: list[bytes] = []
        while count > 0 and not self._damage and self._is_in_member() and self._inflate is not None:
            piece = self._more(self._inflate, count)
            count -= len(piece)
            pieces.append(piece)
        if not pieces and self._damage:
            raise Damage(self._damage)
        return b"".join(pieces)

    def _is_in_member(self) -> bool:
        """Whether there is more to read: the member at hand, or else another one behind it."""
        while self._inflate is None:
            self._compressed = (self._compressed or self._take()).lstrip(b"\0")  # filling, as of a tape's blocks
            if self._compressed:
                self._inflate = zlib.decompressobj(GZIP_WINDOW_BITS)
            elif self._ended or self._damage:
                return False
        return True

    def _more(self, inflate: zlib._Decompress, count: int) -> bytes:
        """What the next octets of the file make, at most so many; nothing where they only go before others."""
        self._compressed = self._compressed or self._take()
        before = inflate.copy()
        try:
            piece = inflate.decompress(self._compressed, count)
        except zlib.error as error:
            self._damage = f"the compressed data are damaged: {str(error).rpartition(': ')[2]}"
            return _as_far_as_it_goes(before, self._compressed, count)
        self._compressed = inflate.unused_data or inflate.unconsumed_tail
        if inflate.eof:
            self._inflate = None
        elif self._ended and not piece and not self._compressed:
            self._damage = self._damage or "the compressed data are cut off"
        return piece

    def _take(self) -> bytes:
        try:
            octets = self.file.read(COMPRESSED_OCTETS)
        except OSError as error:
            self._damage, octets = f"cannot read on: {error}", b""
        self._ended = not octets
        return octets


def _as_far_as_it_goes(inflate: zlib._Decompress, compressed: bytes, count: int) -> bytes:
    """What octets that lead into damage make before it: of a whole piece of them nothing would be given."""
    pieces: list[bytes] = []
    try:
        for at in range(len(compressed)):
            piece = inflate.decompress(compressed[at : at + 1], count)
            count -= len(piece)
            pieces.append(piece)
            if count <= 0 or inflate.eof:
                break
    except zlib.error:
        pass
    return b"".join(pieces)


@dataclass(slots=True)
class Source:
    """A file read in chunks. `take` gives exactly what was asked for, or fewer octets at the end of the file.

    Shape: with a `descriptor` it is read in its place, and `position` says where; else `position` is negative by far
    """

    file: IO[bytes] | Inflated
    descriptor: int | None = None
    chunk_octets: int = CHUNK_OCTETS
    buffer: bytes = b""
    at: int = 0
    _start: int = 0  # of the buffer, in the file

    @property
    def base(self) -> int:
        """The position of the buffer's first octet."""
        return self._start if self.descriptor is not None else FAR_BELOW

    @property
    def position(self) -> int:
        """The position of the octet that is taken next."""
        return self.base + self.at

    def take(self, count: int) -> bytes:
        end = self.at + count
        if end > len(self.buffer):
            self._fill(count)
            end = self.at + count
        piece = self.buffer[self.at : end]
        self.at = min(end, len(self.buffer))
        return piece

    def _fill(self, count: int) -> None:
        """Have at least `count` octets in the buffer from `at` on, if the file has them."""
        try:
            if self.descriptor is None:
                self._read_on(count)
            else:
                self._start, self.at = self._start + self.at, 0
                self.buffer = os.pread(self.descriptor, max(self.chunk_octets, count), self._start)
        except OSError as error:
            raise Damage(f"cannot read on: {error}") from error

    def _read_on(self, count: int) -> None:
        while (have := len(self.buffer) - self.at) < count:
            piece = self.file.read(max(self.chunk_octets - have, count - have))
            if not piece:
                break
            self.buffer, self.at = self.buffer[self.at :] + piece, 0


@dataclass(slots=True)
class Store:
    """Octets to be had again. Shape: `descriptor` is a file to read in any place, or None; it is closed with this."""

    descriptor: int | None = None
    held: list[bytes] = field(default_factory=list)
    _near: tuple[int, bytes] | None = None  # where some octets stand, and these

    def keep(self, data: bytes, position: int) -> int:
        """A handle for the octets: their position in the file where they have one, else they are held."""
        if position >= 0 and self.descriptor is not None:
            return position
        self.held.append(data)
        return IN_MEMORY + len(self.held) - 1

    def read(self, handles: Sequence[int], lengths: Sequence[int]) -> bytes:
        """The pieces, one after the other.

        Errors: CaptureChanged
        """
        if not handles:
            return b""
        first, last = handles[0], handles[-1]
        if self._near is not None and first <= last < min(first + NEAR_OCTETS, IN_MEMORY):
            found = self._read_near(self._near, first, last + lengths[-1], handles, lengths)
            if found is not None:
                return found
        elif len(handles) == 1 and first < IN_MEMORY:
            return self._window(first, lengths[0], 0)[: lengths[0]]
        out = []
        window, window_at = b"", 0
        last = max((handle for handle in handles if handle < IN_MEMORY), default=0) + max(lengths, default=0)
        for handle, length in zip(handles, lengths, strict=True):
            if handle >= IN_MEMORY:
                out.append(self.held[handle - IN_MEMORY])
                continue
            start = handle - window_at
            if start < 0 or start + length > len(window):
                window = self._window(handle, length, last)
                window_at, start = handle, 0
            out.append(window[start : start + length])
        return b"".join(out)

    @contextmanager
    def reading_on(self) -> Iterator[None]:
        """Meanwhile what is read next often stands near what was read before, and is then in memory already."""
        self._near = (0, b"")
        try:
            yield
        finally:
            self._near = None

    def _read_near(
        self, near: tuple[int, bytes], first: int, end: int, handles: Sequence[int], lengths: Sequence[int]
    ) -> bytes | None:
        """Pieces in a small part of the file; None if they do not all stand between the first of them and the end."""
        at, octets = near
        if not at <= first <= end <= at + len(octets):
            if self.descriptor is None:
                return None
            at, octets = self._near = first, os.pread(self.descriptor, max(NEAR_OCTETS, end - first), first)
            if first + len(octets) < end:
                return None
        if len(handles) == 1:
            return octets[first - at : end - at]
        if min(handles) < first or max(map(add, handles, lengths)) > end:
            return None
        starts = [handle - at for handle in handles]
        return b"".join([octets[start : start + length] for start, length in zip(starts, lengths, strict=True)])

    def _window(self, position: int, length: int, last: int) -> bytes:
        """The octets from there on, some more than are asked for: the next piece is often near."""
        wanted = max(length, min(WINDOW_OCTETS, last - position))
        window = os.pread(self.descriptor, wanted, position) if self.descriptor is not None else b""
        if len(window) < length:
            raise CaptureChanged(f"the capture file has become shorter than {position + length} octets")
        return window

    def __del__(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)


def reopened(file: IO[bytes]) -> int | None:
    """A descriptor of its own for a file that can be read in any place; None for pipes and the like."""
    try:
        descriptor = os.dup(file.fileno())
    except OSError:
        return None
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None
