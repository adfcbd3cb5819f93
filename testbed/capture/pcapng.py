"""The pcapng file format: what a tap writes, block by block, and the door to the reader of capture files.

    section header | interface description | enhanced packet … | interface statistics       what a tap writes
    … | name resolution | decryption secrets | …                      what is added for people: see `merge`

A block is `type, total length, body, total length`, padded to four octets. Times are nanoseconds since 1970
(`if_tsresol` 9). Every packet carries its direction as the interface saw it. The functions build octets and do no
I/O; this module imports next to nothing, because a tap's process must be recording within milliseconds.

Source: draft-ietf-opsawg-pcapng
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False  # typing.TYPE_CHECKING without the import's milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from testbed.capture.reader import Frame

SECTION_HEADER = 0x0A0D0D0A
INTERFACE_DESCRIPTION = 1
SIMPLE_PACKET = 3
NAME_RESOLUTION = 4
INTERFACE_STATISTICS = 5
ENHANCED_PACKET = 6
DECRYPTION_SECRETS = 10
TLS_KEY_LOG = 0x544C534B
BYTE_ORDER_MAGIC = 0x1A2B3C4D

LINKTYPE_NULL = 0
LINKTYPE_ETHERNET = 1
LINKTYPE_PPP = 9
LINKTYPE_RAW = 101
LINKTYPE_LOOP = 108
LINKTYPE_LINUX_SLL = 113
LINKTYPE_IPV4 = 228
LINKTYPE_IPV6 = 229
LINKTYPE_LINUX_SLL2 = 276

INBOUND = 1
OUTBOUND = 2

LONGEST_OPTION = 0xFFF0

_END_OF_OPTIONS = struct.pack("=HH", 0, 0)
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")

# An enhanced packet block around its packet: the head, and by length modulo 4 the padding with flags and length.
PACKET_HEAD = struct.Struct("=IIIIIII")  # type, total, interface, time high and low, octets kept, octets on the wire
PACKET_TAILS = tuple(struct.Struct(f"={len(padding)}xHHIHHI") for padding in _PADDING)
PACKET_OVERHEADS = tuple(PACKET_HEAD.size + tail.size for tail in PACKET_TAILS)


def _block(block_type: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("=II", block_type, length) + body + struct.pack("=I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("=HH", code, len(value)) + value + _PADDING[len(value) & 3]


def build_section_header(application: str) -> bytes:
    """The block a file starts with; its length is left open, since a tap cannot know it."""
    head = struct.pack("=IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    return _block(SECTION_HEADER, head + _option(4, application.encode()) + _END_OF_OPTIONS)


def build_interface(name: str, link_type: int, snap_octets: int = 0, description: str = "") -> bytes:
    """An interface with nanosecond times. Shape: `snap_octets` 0 means whole packets."""
    described = _option(3, _text(description)) if description else b""
    options = _option(2, name.encode()) + described + _option(9, b"\x09") + _END_OF_OPTIONS
    return _block(INTERFACE_DESCRIPTION, struct.pack("=HHI", link_type, 0, snap_octets) + options)


def build_packet(interface: int, time_ns: int, data: bytes, original_octets: int, direction: int = 0) -> bytes:
    """One packet's block. Shape: `direction` is INBOUND, OUTBOUND or 0 for unknown."""
    kept = len(data)
    total = PACKET_OVERHEADS[kept & 3] + kept
    times = (time_ns >> 32, time_ns & 0xFFFFFFFF)
    head = PACKET_HEAD.pack(ENHANCED_PACKET, total, interface, *times, kept, original_octets)
    return head + data + PACKET_TAILS[kept & 3].pack(2, 4, direction, 0, 0, total)


def build_names(names: Iterable[tuple[bytes, Iterable[str]]]) -> bytes:
    """What addresses are called. Shape: each address is 4 or 16 octets; of several names Wireshark shows the last."""
    body = b""
    for address, called in names:
        record = address + b"".join(name.encode("ascii", "replace") + b"\0" for name in called)
        body += struct.pack("=HH", 1 if len(address) == 4 else 2, len(record)) + record + _PADDING[len(record) & 3]
    return _block(NAME_RESOLUTION, body + struct.pack("=HH", 0, 0))


def build_secrets(key_log: str) -> bytes:
    """TLS secrets in the form of a key log, for the packets behind this block."""
    octets = key_log.encode("ascii", "replace")
    head = struct.pack("=II", TLS_KEY_LOG, len(octets))
    return _block(DECRYPTION_SECRETS, head + octets + _PADDING[len(octets) & 3])


def build_commented_packet(
    interface: int, time_ns: int, data: bytes, original_octets: int, direction: int, comments: Iterable[str]
) -> bytes:
    """As `build_packet`, with remarks for whoever reads the file. Shape: each is cut to what a block can hold."""
    options = b"".join(_option(1, _text(comment)) for comment in comments)
    options += _option(2, struct.pack("=I", direction)) + _END_OF_OPTIONS
    head = struct.pack("=IIIII", interface, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), original_octets)
    return _block(ENHANCED_PACKET, head + data + _PADDING[len(data) & 3] + options)


def _text(text: str) -> bytes:
    """A text as an option's value: UTF-8, no longer than its length field can tell."""
    return text.encode("utf-8", "backslashreplace")[:LONGEST_OPTION].decode("utf-8", "ignore").encode()


def build_statistics(interface: int, started_ns: int, ended_ns: int, received: int, dropped: int) -> bytes:
    """How many packets the interface delivered and how many the kernel dropped for want of room."""
    options = (
        _option(2, struct.pack("=II", started_ns >> 32, started_ns & 0xFFFFFFFF))
        + _option(3, struct.pack("=II", ended_ns >> 32, ended_ns & 0xFFFFFFFF))
        + _option(4, struct.pack("=Q", received))
        + _option(5, struct.pack("=Q", dropped))
        + _END_OF_OPTIONS
    )
    body = struct.pack("=III", interface, ended_ns >> 32, ended_ns & 0xFFFFFFFF)
    return _block(INTERFACE_STATISTICS, body + options)


def read(path: Path | str) -> Iterator[Frame]:
    """The frames of a pcapng or pcap file, whatever state it is in; `testbed.capture.reader` has the warnings too."""
    from testbed.capture.reader import CaptureReader

    with CaptureReader(path) as reader:
        yield from reader
