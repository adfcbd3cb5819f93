"""One capture file out of many: an interface per tap and direction, names, secrets, and remarks on packets.

    section header | names | secrets | interfaces | packets of all files in the order of time | statistics

`Tape` is one capture to be merged: the octets of a file that a tap wrote, or frames made anew. `numbered` says which
number each frame gets in the merged file, so that remarks can name other frames; `write_merged` writes it. What is
read are the enhanced packets of one section in this machine's byte order, as our taps write them; a file that breaks
off gives the packets before that point.

Source: draft-ietf-opsawg-pcapng; draft-ietf-tls-keylogfile
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, NamedTuple

from testbed.capture import pcapng

APPLICATION = "vpn-testbed merge"
_HEAD = struct.Struct("=II")
_PACKET = struct.Struct("=IIIII")
_OPTION = struct.Struct("=HH")
DIRECTION_NAMES = {pcapng.INBOUND: "in", pcapng.OUTBOUND: "out"}


class TapeFrame(NamedTuple):
    """One frame of a tape. Shape: `direction` as the tapped interface saw it, 0 if the file does not say."""

    number: int
    time_ns: int
    data: bytes
    octets: int
    direction: int


class Place(NamedTuple):
    """A frame of a tape, by the tape's key and its number there."""

    tape: str
    frame: int


@dataclass(frozen=True, slots=True)
class Remark:
    """What is to be said of a frame. Shape: each `{}` in `text` is the merged number of the next of `about`."""

    text: str
    about: tuple[Place, ...] = ()


@dataclass(frozen=True, slots=True)
class Tape:
    """One capture to be merged.

    Shape: `name` is node:link, `describes` gives the description of the interface of a direction
    """

    key: str
    name: str
    link_type: int
    frames: Sequence[TapeFrame]
    describes: Callable[[int], str]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Additions:
    """What a merged file says besides its packets. Shape: `names` by address (4 or 16 octets)."""

    names: Mapping[bytes, Sequence[str]] = field(default_factory=dict)
    secrets: str = ""
    remarks: Mapping[Place, Sequence[Remark]] = field(default_factory=dict)


def read_tape_frames(octets: bytes | memoryview) -> Iterator[TapeFrame]:
    """The packets of a tap's file."""
    at, number = 0, 0
    whole = memoryview(octets)
    while at + 12 <= len(whole):
        block_type, total = _HEAD.unpack_from(whole, at)
        if total < 12 or total % 4 or at + total > len(whole):
            return
        if block_type == pcapng.ENHANCED_PACKET and total >= 32:
            _, high, low, kept, original = _PACKET.unpack_from(whole, at + 8)
            begin = at + 28
            if begin + kept > at + total - 4:
                return
            number += 1
            direction = _direction(whole, begin + (kept + 3) // 4 * 4, at + total - 4)
            yield TapeFrame(number, high << 32 | low, bytes(whole[begin : begin + kept]), original, direction)
        at += total


def read_link_type(octets: bytes | memoryview) -> int:
    """The link type of the file's first interface; Ethernet where it describes none."""
    at = 0
    whole = memoryview(octets)
    while at + 12 <= len(whole):
        block_type, total = _HEAD.unpack_from(whole, at)
        if block_type == pcapng.INTERFACE_DESCRIPTION and at + 10 <= len(whole):
            return int.from_bytes(whole[at + 8 : at + 10], sys.byteorder)
        if total < 12 or total % 4:
            break
        at += total
    return pcapng.LINKTYPE_ETHERNET


def _direction(octets: memoryview, at: int, end: int) -> int:
    while at + 4 <= end:
        code, length = _OPTION.unpack_from(octets, at)
        if code == 2 and length == 4 and at + 8 <= end:
            return int.from_bytes(octets[at + 4 : at + 8], sys.byteorder) & 3
        if code == 0:
            return 0
        at += 4 + (length + 3) // 4 * 4
    return 0


def numbered(tapes: Iterable[Tape]) -> dict[Place, int]:
    """The number of every frame in the merged file."""
    return {place: number for number, (place, _) in enumerate(_in_order(tapes), 1)}


def _in_order(tapes: Iterable[Tape]) -> list[tuple[Place, TapeFrame]]:
    every = [
        (frame.time_ns, index, frame.number, tape.key, frame)
        for index, tape in enumerate(tapes)
        for frame in tape.frames
    ]
    every.sort(key=lambda entry: entry[:3])
    return [(Place(key, number), frame) for _, _, number, key, frame in every]


def write_merged(out: IO[bytes], tapes: Sequence[Tape], additions: Additions) -> int:
    """Write the merged file; returns how many packets it has."""
    out.write(pcapng.build_section_header(APPLICATION))
    if additions.names:
        out.write(pcapng.build_names(sorted(additions.names.items())))
    if additions.secrets:
        out.write(pcapng.build_secrets(additions.secrets))
    interfaces: dict[tuple[str, int], int] = {}
    for tape in tapes:
        for direction in sorted({frame.direction for frame in tape.frames}):
            interfaces[tape.key, direction] = len(interfaces)
            name = f"{tape.name} {DIRECTION_NAMES[direction]}" if direction in DIRECTION_NAMES else tape.name
            out.write(pcapng.build_interface(name, tape.link_type, description=tape.describes(direction)))
    order = _in_order(tapes)
    numbers = {place: number for number, (place, _) in enumerate(order, 1)} if additions.remarks else {}
    for place, frame in order:
        remarks = additions.remarks.get(place, ())
        comments = [_spelled(remark, numbers) for remark in remarks]
        interface = interfaces[place.tape, frame.direction]
        out.write(
            pcapng.build_commented_packet(interface, frame.time_ns, frame.data, frame.octets, frame.direction, comments)
        )
    _write_statistics(out, tapes, interfaces)
    return len(order)


def _spelled(remark: Remark, numbers: Mapping[Place, int]) -> str:
    if not remark.about:
        return remark.text
    pieces = remark.text.split("{}")
    told = [str(numbers.get(place, "?")) for place in remark.about]
    return "".join(piece + number for piece, number in zip(pieces, [*told, ""], strict=False))


def _write_statistics(out: IO[bytes], tapes: Sequence[Tape], interfaces: Mapping[tuple[str, int], int]) -> None:
    """A tap counts its losses for both directions together: they stand at the first of its two interfaces."""
    for tape in tapes:
        dropped = tape.dropped
        for direction in sorted({frame.direction for frame in tape.frames}):
            times = [frame.time_ns for frame in tape.frames if frame.direction == direction]
            number = interfaces[tape.key, direction]
            out.write(pcapng.build_statistics(number, min(times), max(times), len(times) + dropped, dropped))
            dropped = 0
