"""Packets of one size as the rows of an array: memory laid out once per size, and views of it kept for every use.

    zeros (6)   prefix for the tun device (10, zeros)   packet (n)   zeros up to a multiple of 8

A row's packet begins at a multiple of 16 and what is round it is zero, so that checksums are sums over whole rows, in
words of four octets. Making a view costs as much as sealing a short packet; therefore all are made once and kept.

`Rows` are valid until rows of that size are made again: whoever gets them uses them up at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = npt.NDArray[np.uint8]
Numbers: TypeAlias = npt.NDArray[Any]

PACKET_AT = 16
PREFIX_AT = 6
MOST_ROWS = 512
_TRAINS_OCTETS = 3 * 65536
_HEAD_WORDS = 20
_TCP, _SYN = 6, 0x02
_LONGEST_HEADERS = 120


class RowShape:
    """The memory for packets of one size. Read and written through views that are made when first asked for."""

    def __init__(self, octets: int) -> None:
        self.octets = octets
        self.capacity = min(MOST_ROWS, _TRAINS_OCTETS // max(octets - _LONGEST_HEADERS, 64) + 2)
        self.stride = (PACKET_AT + octets + 7) & ~7
        self.array: Bytes = np.zeros((self.capacity, self.stride), np.uint8)
        self.words: Numbers = self.array.view("=u4")
        self.counting: Numbers = np.arange(self.capacity, dtype=np.uint32)
        self.packets = self._views(PACKET_AT)
        self._kept: dict[Any, Any] = {}

    def column(self, at: int, kind: str) -> Numbers:
        """One field of all packets. Shape: `kind` as numpy spells it, `>u4` for four octets in network order."""
        column: Numbers = self.keep(
            (at, kind), lambda: np.ndarray((self.capacity,), kind, self.array, PACKET_AT + at, (self.stride,))
        )
        return column

    def heads(self, octets: int) -> Bytes:
        """The first octets of all packets."""
        return self.array[:, PACKET_AT : PACKET_AT + octets]

    @property
    def prefixed(self) -> list[memoryview]:
        """Each packet behind the zeros that tell a tun device that it is an ordinary one."""
        views: list[memoryview] = self.keep("prefixed", lambda: self._views(PREFIX_AT))
        return views

    def payloads(self, payload_at: int) -> list[memoryview]:
        """What stands behind the headers of each packet."""
        views: list[memoryview] = self.keep(("payloads", payload_at), lambda: self._views(PACKET_AT + payload_at))
        return views

    def keep(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returned the first time."""
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = make()
        return kept

    def _views(self, begin: int) -> list[memoryview]:
        flat, end = self.array.reshape(-1).data, PACKET_AT + self.octets
        return [flat[row * self.stride + begin : row * self.stride + end] for row in range(self.capacity)]


class Rows:
    """The first `count` packets of a shape, then `last` if it is not empty: a shorter one."""

    __slots__ = ("_varies", "count", "last", "shape")

    def __init__(self, shape: RowShape, count: int, last: bytes = b"") -> None:
        self.shape = shape
        self.count = count
        self.last = last
        self._varies: bytes | None = None

    def __len__(self) -> int:
        return self.count + bool(self.last)

    @property
    def octets(self) -> int:
        return self.count * self.shape.octets + len(self.last)

    @property
    def first(self) -> bytes:
        return bytes(self.shape.packets[0])

    @property
    def varies(self) -> bytes:
        """Of the first 80 octets, or all if they are fewer, which bits are not the same in all full packets."""
        if self._varies is None:
            begin = PACKET_AT // 4
            heads = self.shape.words[: self.count, begin : begin + _HEAD_WORDS]
            self._varies = np.bitwise_or.reduce(np.bitwise_xor(heads, heads[0]), axis=0).tobytes()
        return self._varies

    def common(self, at: int, octets: int) -> bytes | None:
        """What stands in all packets at this place; None if it is not the same in all, or not there."""
        first = bytes(self.shape.packets[0][at : at + octets])
        if self.last and self.last[at : at + octets] != first:
            return None
        return first if len(first) == octets and not any(self.varies[at : at + octets]) else None

    @property
    def may_hold_syn(self) -> bool:
        """Whether one of the packets opens a TCP connection, as far as the usual headers tell."""
        first, last = self.shape.packets[0], self.last
        flags_at, protocol_at = (33, 9) if first[0] >> 4 == 4 else (53, 6)
        if len(last) > flags_at and last[protocol_at] == _TCP and last[flags_at] & _SYN:
            return True
        if self.shape.octets <= flags_at:
            return False
        varies = self.varies
        is_tcp = first[protocol_at] == _TCP or varies[protocol_at]
        return bool(is_tcp and (first[flags_at] | varies[flags_at]) & _SYN)

    def packets(self) -> list[bytes]:
        """A copy of each."""
        return [*map(bytes, self.shape.packets[: self.count]), *([self.last] if self.last else [])]
