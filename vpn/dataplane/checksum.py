"""The Internet checksum: sums of 16-bit words in ones' complement, of octets as Python has them.

A run of 16-bit words, read as one large number, is congruent to the words' sum modulo 65535: the sum is one division.
All values here are in the host's order of octets, in which a sum may be stored as it is (RFC 1071 section 2(B)).
"""

from __future__ import annotations

import struct
import sys

MODULUS = 0xFFFF
_UDP_CHECKSUM_AT = 6
_PSEUDO_END = struct.Struct(">HH")
_WORD = struct.Struct("=H")


def ones_sum(octets: bytes | memoryview) -> int:
    """The words' sum modulo 65535. Shape: an odd last octet counts as if a zero followed."""
    if len(octets) & 1:
        octets = bytes(octets) + b"\0"
    return int.from_bytes(octets, sys.byteorder) % MODULUS


def pseudo_sum(ip_header: bytes, protocol: int, octets: int) -> int:
    """What TCP's and UDP's checksums cover besides the segment of `octets`. Shape: at least a whole IP header."""
    addresses = ip_header[12:20] if ip_header[0] >> 4 == 4 else ip_header[8:40]
    return ones_sum(addresses + _PSEUDO_END.pack(protocol, octets))


def stored(checksum: int) -> bytes:
    """A checksum or sum as it stands in a header."""
    return _WORD.pack(checksum)


def complement(total: int) -> int:
    """The checksum that makes a sum of all words 0. Shape: 0 to 65534, as TCP and IP write it; UDP has 65535 for 0."""
    return (MODULUS - total % MODULUS) % MODULUS


def completed(packet: bytes, start: int, offset: int) -> bytes:
    """The packet with the checksum that its sender left to the interface; from `start` on, stored `offset` behind it.

    The field holds the sum of the pseudo header already. A checksum of 0 becomes 65535 for UDP alone, where 0 means
    that there is none; of TCP no sender writes 65535, and who looks closely calls it wrong (RFC 1624).
    """
    at = start + offset
    covered = packet[start:]
    if at + 2 > len(packet) or len(covered) & 1:
        # rare: a packet of odd length, or no packet at all
        return packet if at + 2 > len(packet) else completed(packet + b"\0", start, offset)[:-1]
    checksum = MODULUS - int.from_bytes(covered, sys.byteorder) % MODULUS
    if checksum == MODULUS and offset != _UDP_CHECKSUM_AT:
        checksum = 0
    return b"".join((packet[:at], _WORD.pack(checksum), packet[at + 2 :]))
