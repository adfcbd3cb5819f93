"""What a tun device with offload puts before each packet, and the packets too large for the wire that it allows.

    flags (1)   kind (1)   header octets (2)   segment octets (2)   checksum start (2)   checksum offset (2)   packet

All numbers are in the host's order. A *superpacket* is one IP packet with the payload of many TCP segments or UDP
datagrams of one flow; its kernel neighbour cuts or joins them. Reading: `read` completes what a small packet lacks.
Writing: a small packet goes behind `PLAIN`, a joined one behind `superpacket_prefix`.

Sources: virtio 1.2 section 5.1.6; linux/include/uapi/linux/virtio_net.h; linux/Documentation/networking/tuntap.rst
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

from vpn.dataplane.checksum import completed

PREFIX_OCTETS = 10
PLAIN = bytes(PREFIX_OCTETS)
TCP, UDP = 6, 17
CHECKSUM_AT = {TCP: 16, UDP: 6}
_PREFIX = struct.Struct("=BBHHHH")
_NEEDS_CHECKSUM = 1
_ECN = 0x80


_NONE = 0


class Kind(IntEnum):
    TCP4 = 1
    TCP6 = 4
    UDP = 5


@dataclass(frozen=True, slots=True)
class Superpacket:
    """One IP packet that stands for several. Its lengths and checksums are those of the whole, or not set at all."""

    octets: bytes
    transport_at: int
    payload_at: int
    segment_octets: int
    protocol: int

    @property
    def version(self) -> int:
        return self.octets[0] >> 4

    @property
    def segments(self) -> int:
        return -(-(len(self.octets) - self.payload_at) // self.segment_octets)


def read(untrusted: bytes) -> bytes | Superpacket | None:
    """What the device gave, without its prefix; None for a superpacket that does not hold together."""
    flags, kind, _, segment_octets, start, offset = _PREFIX.unpack_from(untrusted)
    packet = untrusted[PREFIX_OCTETS:]
    if kind == _NONE:
        return completed(packet, start, offset) if flags & _NEEDS_CHECKSUM else packet
    return _superpacket(packet, kind & ~_ECN, segment_octets, start) if flags & _NEEDS_CHECKSUM else None


def _superpacket(packet: bytes, kind: int, segment_octets: int, transport_at: int) -> Superpacket | None:
    shortest = 20 if packet and packet[0] >> 4 == 4 else 40
    if not segment_octets or transport_at < shortest or transport_at & 1 or len(packet) <= transport_at + 8:
        return None
    if kind == Kind.UDP:
        protocol, least, header_octets = UDP, 8, 8
    elif kind in (Kind.TCP4, Kind.TCP6) and len(packet) > transport_at + 20:
        protocol, least, header_octets = TCP, 20, (packet[transport_at + 12] >> 4) * 4
    else:
        return None
    payload_at = transport_at + header_octets
    if header_octets < least or payload_at >= len(packet):
        return None
    return Superpacket(packet, transport_at, payload_at, segment_octets, protocol)


def superpacket_prefix(protocol: int, version: int, transport_at: int, payload_at: int, segment_octets: int) -> bytes:
    """What goes before a superpacket whose checksum field holds the sum of its pseudo header."""
    kind = Kind.UDP if protocol == UDP else Kind.TCP4 if version == 4 else Kind.TCP6
    return _PREFIX.pack(_NEEDS_CHECKSUM, kind, payload_at, segment_octets, transport_at, CHECKSUM_AT[protocol])
