"""QUIC's packets as anybody can read them: long headers, and the frames of an Initial packet once it is opened.

    long header:  1 1 type(2) ….  | version (4) | len, destination id | len, source id | …
    Initial:      … | token length, token | length | packet number, payload (protected)
    Retry:        … | token | integrity tag (16)          Version Negotiation: version 0 | ids | versions

Several packets may share a datagram; each long header says where the next begins. Version 2 numbers the types anew.

Source: RFC 8999, RFC 9000 sections 12.2, 17.2 and 19, RFC 9369
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VERSION_1, VERSION_2, DRAFT_29 = 0x00000001, 0x6B3343CF, 0xFF00001D
VERSIONS = {VERSION_1: "1", VERSION_2: "2", DRAFT_29: "draft-29"}
INITIAL, ZERO_RTT, HANDSHAKE, RETRY, NEGOTIATION = "initial", "0-rtt", "handshake", "retry", "version negotiation"
TYPES = (INITIAL, ZERO_RTT, HANDSHAKE, RETRY)
TYPES_V2 = (RETRY, INITIAL, ZERO_RTT, HANDSHAKE)
LONGEST_ID_OCTETS = 20
RETRY_TAG_OCTETS = 16
SHORTEST_PROTECTED_OCTETS = 20  # a sample of 16 octets behind the longest packet number
MOST_PACKETS = 16  # in one datagram
MOST_FRAMES = 1_000  # in one packet
MOST_VERSIONS = 64
FRAME_PADDING, FRAME_PING, FRAME_ACK, FRAME_ACK_ECN, FRAME_CRYPTO = 0, 1, 2, 3, 6


class LongPacket(NamedTuple):
    """Shape: `number_at` is where the protected packet number stands; the packet is `datagram[start:end]`.

    `versions` only for a Version Negotiation.
    """

    kind: str
    version: int
    destination: bytes
    source: bytes
    start: int
    number_at: int
    end: int
    versions: tuple[int, ...] = ()


class CryptoPiece(NamedTuple):
    offset: int
    data: bytes


def looks_like_long_header(data: bytes) -> bool:
    """Whether a datagram begins with a long header of a version known here, or of a Version Negotiation."""
    if len(data) < 7 or not data[0] & 0x80:
        return False
    version = int.from_bytes(data[1:5], "big")
    if version in VERSIONS:
        return bool(data[0] & 0x40)
    return version == 0 and bool(_negotiation(data))


def split_datagram(data: bytes) -> list[LongPacket]:
    """The packets with long headers at the beginning of a datagram."""
    packets: list[LongPacket] = []
    at = 0
    while at < len(data) and len(packets) < MOST_PACKETS:
        packet = _parse_long(data, at)
        if packet is None:
            break
        packets.append(packet)
        at = packet.end
    return packets


def _parse_long(data: bytes, at: int) -> LongPacket | None:
    if len(data) < at + 7 or not data[at] & 0x80:
        return None
    version = int.from_bytes(data[at + 1 : at + 5], "big")
    if version == 0:
        return _negotiation(data) if at == 0 else None
    if version not in VERSIONS or not data[at] & 0x40:
        return None
    ids = _ids(data, at + 5)
    if ids is None:
        return None
    destination, source, behind = ids
    kind = (TYPES_V2 if version == VERSION_2 else TYPES)[data[at] >> 4 & 3]
    if kind == RETRY:
        whole = behind + RETRY_TAG_OCTETS <= len(data)
        return LongPacket(kind, version, destination, source, at, behind, len(data)) if whole else None
    if kind == INITIAL:
        token_octets, behind = read_number(data, behind)
        behind += token_octets
    length, number_at = read_number(data, behind)
    end = number_at + length
    if behind < 0 or number_at < 0 or end > len(data) or length < SHORTEST_PROTECTED_OCTETS:
        return None
    return LongPacket(kind, version, destination, source, at, number_at, end)


def _negotiation(data: bytes) -> LongPacket | None:
    ids = _ids(data, 5)
    if ids is None:
        return None
    destination, source, at = ids
    listed = data[at:]
    if not listed or len(listed) % 4 or len(listed) > 4 * MOST_VERSIONS:
        return None
    versions = tuple(int.from_bytes(listed[i : i + 4], "big") for i in range(0, len(listed), 4))
    if not any(version in VERSIONS for version in versions):
        return None  # else any datagram of zeros might be one
    return LongPacket(NEGOTIATION, 0, destination, source, 0, at, len(data), versions)


def _ids(data: bytes, at: int) -> tuple[bytes, bytes, int] | None:
    ids = []
    for _ in range(2):
        length = data[at] if at < len(data) else LONGEST_ID_OCTETS + 1
        end = at + 1 + length
        if length > LONGEST_ID_OCTETS or end > len(data):
            return None
        ids.append(data[at + 1 : end])
        at = end
    return ids[0], ids[1], at


def read_number(data: bytes, at: int) -> tuple[int, int]:
    """A number of variable length and where what follows begins; a position beyond `data` where it is cut off."""
    if not 0 <= at < len(data):
        return 0, len(data) + 1
    size = 1 << (data[at] >> 6)
    if at + size > len(data):
        return 0, len(data) + 1
    return int.from_bytes(data[at : at + size], "big") & ((1 << (8 * size - 2)) - 1), at + size


def crypto_pieces(payload: bytes) -> Iterator[CryptoPiece]:
    """The pieces of the handshake in an Initial packet's frames, up to a frame that does not belong there."""
    at = 0
    for _ in range(MOST_FRAMES):
        while at < len(payload) and payload[at] == FRAME_PADDING:
            at += 1
        if at >= len(payload):
            return
        kind = payload[at]
        at += 1
        if kind in (FRAME_ACK, FRAME_ACK_ECN):
            at = _behind_ack(payload, at, kind == FRAME_ACK_ECN)
        elif kind == FRAME_CRYPTO:
            offset, at = read_number(payload, at)
            length, at = read_number(payload, at)
            if at + length > len(payload):
                return
            yield CryptoPiece(offset, payload[at : at + length])
            at += length
        elif kind != FRAME_PING:
            return


def _behind_ack(payload: bytes, at: int, counts: bool) -> int:
    _, at = read_number(payload, at)
    _, at = read_number(payload, at)
    ranges, at = read_number(payload, at)
    for _ in range(1 + 2 * min(ranges, len(payload)) + (3 if counts else 0)):
        if at > len(payload):
            break
        _, at = read_number(payload, at)
    return at
