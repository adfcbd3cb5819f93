"""Netlink attributes: (kind, value) pairs to octets and back.

    length (2 octets, header included) · kind (2 octets) · value, padded to a multiple of 4

A value is octets, or text (written with the zero that ends it), or pairs of its own, which is a nested attribute.
Numbers are packed by whoever knows their width and order: `native32` for rtnetlink, `network32` for nf_tables.

Source: kernel include/uapi/linux/netlink.h (struct nlattr).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Union

Value = Union[bytes, str, "Attributes"]
Attributes = tuple[tuple[int, Value], ...]

_HEAD = struct.Struct("=HH")
_NESTED = 0x8000
_KIND_MASK = 0x3FFF

native32 = struct.Struct("=I").pack
network32 = struct.Struct("!I").pack
_read_native32 = struct.Struct("=I").unpack


def build_attributes(attributes: Iterable[tuple[int, Value]]) -> bytes:
    """Return `attributes` as the kernel reads them."""
    parts = []
    for kind, value in attributes:
        if isinstance(value, tuple):
            kind |= _NESTED
            value = build_attributes(value)
        elif isinstance(value, str):
            value = value.encode() + b"\0"
        parts += [_HEAD.pack(_HEAD.size + len(value), kind), value, bytes(-len(value) & 3)]
    return b"".join(parts)


def parse_attributes(octets: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the values from `offset` on by kind; of several of one kind the first."""
    found: dict[int, bytes] = {}
    while offset + _HEAD.size <= len(octets):
        length, kind = _HEAD.unpack_from(octets, offset)
        found.setdefault(kind & _KIND_MASK, octets[offset + _HEAD.size : offset + length])
        offset += max(_HEAD.size, (length + 3) & ~3)
    return found


def text_of(value: bytes | None) -> str | None:
    """Return a text value without the zero that ends it."""
    return None if value is None else value.rstrip(b"\0").decode(errors="replace")


def number_of(value: bytes | None) -> int | None:
    """Return a number of four octets in this machine's order."""
    return None if value is None else int(_read_native32(value)[0])
