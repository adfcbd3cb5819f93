"""IPv4 and IPv6 headers: addresses, the transport's protocol, where its octets begin and end; fragments put together.

What a header claims is held against what was captured: a packet never reaches beyond its frame, and link-layer padding
behind it is not part of it. Checksums are not verified: an observer reads what is there.

Source: RFC 791, RFC 8200
"""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import Struct
from typing import NamedTuple

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION_OPTIONS = 0, 43, 44, 51, 60
EXTENSION_HEADERS = frozenset((HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, 135, 139, 140))
BEHIND_THEMSELVES = EXTENSION_HEADERS | {AUTHENTICATION}  # headers that say what follows them
SIGNED = frozenset((1, 6, 17))  # ICMP, TCP, UDP
MOST_EXTENSION_HEADERS = 16
LARGEST_DATAGRAM_OCTETS = 65_535
MOST_FRAGMENTS = 1_024  # of one datagram: more than 64 octets each on average, or it is an attack
LONGEST_WAIT_NS = 60_000_000_000  # RFC 8200 section 4.5: then the rest never comes, and its number is another's

_IPV4 = Struct("!BBHHHBBH4s4s")
_IPV6 = Struct("!IHBB16s16s")
_new = tuple.__new__  # of a named tuple, a third of the time that its class takes


class Packet(NamedTuple):
    """Shape: the transport's octets are `data[start:end]`; addresses are 4 or 16 octets.

    `fragment_offset` is None for a whole packet, else where in the original datagram this piece belongs.
    """

    source: bytes
    destination: bytes
    protocol: int
    start: int
    end: int
    fragment_offset: int | None = None
    more_fragments: bool = False
    identification: int = 0
    ttl: int = 0  # of a whole packet


def parse_ip(data: bytes, at: int) -> Packet | None:
    """The packet at `at`, or None if there is none that makes sense."""
    if at < 0 or at >= len(data):
        return None
    version = data[at] >> 4
    if version == 4:
        return _parse_ipv4(data, at)
    return _parse_ipv6(data, at) if version == 6 else None


def _parse_ipv4(data: bytes, at: int) -> Packet | None:
    if len(data) < at + 20:
        return None
    first, _, total, identification, fragment, ttl, protocol, _, source, destination = _IPV4.unpack_from(data, at)
    start = at + (first & 15) * 4
    # A total length of 0 stands in frames that were captured before segmentation: it then means "to the end".
    end = min(at + total, len(data)) if total else len(data)
    if start < at + 20 or start > end:
        return None
    if fragment & 0x3FFF:
        offset, more = (fragment & 0x1FFF) * 8, bool(fragment & 0x2000)
        return Packet(source, destination, protocol, start, end, offset, more, identification)
    if protocol == AUTHENTICATION:
        protocol, start = behind_authentication(data, start, end)
    return _new(Packet, (source, destination, protocol, start, end, None, False, 0, ttl))


def _parse_ipv6(data: bytes, at: int) -> Packet | None:
    if len(data) < at + 40:
        return None
    _, length, protocol, ttl, source, destination = _IPV6.unpack_from(data, at)
    start = at + 40
    end = min(start + length, len(data)) if length else len(data)
    for _ in range(MOST_EXTENSION_HEADERS):
        if protocol in BEHIND_THEMSELVES:
            protocol, start = _behind_extensions(data, protocol, start, end)
        if protocol != FRAGMENT or start + 8 > end:
            break
        word = int.from_bytes(data[start + 2 : start + 4], "big")
        identification = int.from_bytes(data[start + 4 : start + 8], "big")
        protocol, start = data[start], start + 8
        if word & 0xFFF9:
            offset, more = word & 0xFFF8, bool(word & 1)
            return Packet(source, destination, protocol, start, end, offset, more, identification)
    return Packet(source, destination, protocol, start, end, None, False, 0, ttl) if start <= end else None


def _behind_extensions(data: bytes, protocol: int, start: int, end: int) -> tuple[int, int]:
    """What follows IPv6's extension headers, up to that of a fragment, and where."""
    for _ in range(MOST_EXTENSION_HEADERS):
        if start + 8 > end:
            break
        if protocol in EXTENSION_HEADERS:
            protocol, start = data[start], start + 8 + data[start + 1] * 8
        elif protocol == AUTHENTICATION:
            protocol, start = data[start], start + 8 + data[start + 1] * 4
        else:
            break
    return protocol, start


def behind_authentication(data: bytes, start: int, end: int) -> tuple[int, int]:
    """What IPv4's authentication header signs and does not hide, if it is read here: a tunnel's is left to those."""
    behind = start + 8 + data[start + 1] * 4 if start + 12 <= end else end + 1
    if behind > end or data[start] not in SIGNED:
        return AUTHENTICATION, start
    return data[start], behind


def parse_whole(whole: Whole, packet: Packet) -> Packet:
    """The datagram that `packet` was the last piece of: what stands before its transport may be in pieces as well."""
    protocol, start, end = whole.protocol, 0, len(whole.data)
    if len(packet.source) == 16:
        protocol, start = _behind_extensions(whole.data, protocol, start, end)
    elif protocol == AUTHENTICATION:
        protocol, start = behind_authentication(whole.data, start, end)
    return Packet(packet.source, packet.destination, protocol, min(start, end), end)


@dataclass(slots=True)
class _Datagram:
    """One datagram that is still arriving."""

    began_ns: int
    protocol: int  # that the first piece names: in IPv6 the others may name any
    pieces: dict[int, bytes] = field(default_factory=dict)
    octets: int = 0
    end: int | None = None  # known once the last fragment is there
    frames: list[int] = field(default_factory=list)
    frame_octets: int = 0
    contradicts: bool = False


@dataclass(frozen=True, slots=True)
class Whole:
    """A datagram put together. Shape: `frames` are the fragments it took, in order of arrival."""

    data: bytes
    protocol: int
    frames: tuple[int, ...]
    frame_octets: int


@dataclass(slots=True)
class Reassembler:
    """IP fragments into datagrams, in bounded memory: the oldest unfinished datagram goes first."""

    limit_octets: int
    abandoned: int = 0
    expired: int = 0
    contradiction: int = 0  # the frame that completed the first datagram whose fragments overlap and differ
    held_octets: int = 0
    _datagrams: dict[tuple[bytes, bytes, int, int], _Datagram] = field(default_factory=dict)

    @property
    def unfinished(self) -> int:
        return len(self._datagrams) + self.abandoned + self.expired

    def add(self, packet: Packet, data: bytes, frame: int, frame_octets: int, time_ns: int = 0) -> Whole | None:
        """The datagram, if this was the piece it lacked. Where fragments overlap, what came first stays."""
        offset = packet.fragment_offset or 0
        piece = data[packet.start : packet.end]
        if offset + len(piece) > LARGEST_DATAGRAM_OCTETS:
            self.abandoned += 1
            return None
        protocol = packet.protocol if len(packet.source) == 4 else -1  # RFC 8200: not part of the key in IPv6
        key = (packet.source, packet.destination, protocol, packet.identification)
        datagram = self._datagrams.get(key)
        if datagram is not None and time_ns - datagram.began_ns > LONGEST_WAIT_NS:
            self.held_octets -= self._datagrams.pop(key).octets
            self.expired += 1
            datagram = None
        if datagram is None:
            datagram = self._datagrams[key] = _Datagram(time_ns, packet.protocol)
        if not offset:
            datagram.protocol = packet.protocol
        if len(datagram.frames) < MOST_FRAGMENTS:
            datagram.frames.append(frame)
        datagram.frame_octets += frame_octets
        if not packet.more_fragments:
            datagram.end = offset + len(piece)
        self._hold(datagram, offset, piece)
        whole = self._finish(datagram)
        if datagram.contradicts and not self.contradiction:
            self.contradiction = frame
        if whole is not None:
            self.held_octets -= datagram.octets
            del self._datagrams[key]
            return Whole(whole, datagram.protocol, tuple(datagram.frames), datagram.frame_octets)
        self._make_room()
        return None

    def _hold(self, datagram: _Datagram, offset: int, piece: bytes) -> None:
        """Keep a piece; where one begins at the same octet, only what this one has beyond it."""
        while piece and (known := datagram.pieces.get(offset)):
            datagram.contradicts |= not (known.startswith(piece) or piece.startswith(known))
            offset, piece = offset + len(known), piece[len(known) :]
        if piece and len(datagram.pieces) < MOST_FRAGMENTS:
            datagram.pieces[offset] = piece
            datagram.octets += len(piece)
            self.held_octets += len(piece)

    def _finish(self, datagram: _Datagram) -> bytes | None:
        if datagram.end is None or datagram.octets < datagram.end:
            return None
        out = bytearray()
        for offset in sorted(datagram.pieces):
            if offset > len(out):
                return None
            piece, known = datagram.pieces[offset], out[offset:]
            datagram.contradicts |= not (piece.startswith(known) or known.startswith(piece))
            out += piece[len(known) :]
        return bytes(out[: datagram.end]) if len(out) >= datagram.end else None

    def _make_room(self) -> None:
        while self._datagrams and (self.held_octets > self.limit_octets or len(self._datagrams) > MOST_FRAGMENTS):
            oldest = next(iter(self._datagrams))
            self.held_octets -= self._datagrams.pop(oldest).octets
            self.abandoned += 1
