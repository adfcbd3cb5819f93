"""Packets in a TCP stream: a length of two octets (not counting itself), then the packet.

A length of 0 or above the limit means that the stream cannot be read on: the connection has to go.
Source: openvpn-protocol.md section 1.
"""

from __future__ import annotations

from collections.abc import Iterator

from vpn.wire.packet import Malformed

_LONGEST_RUN = 384
MAX_PACKET_OCTETS = 1768  # what a real peer with default MTU takes
_ABOVE_MTU_OCTETS = 268  # what that is more than the MTU
LARGEST_FRAMED_OCTETS = 0xFFFF  # of which the length field can tell


def largest_packet(tun_mtu: int) -> int:
    """The largest packet to take from a stream whose inner packets may be so large."""
    return min(max(MAX_PACKET_OCTETS, tun_mtu + _ABOVE_MTU_OCTETS), LARGEST_FRAMED_OCTETS)


def frame(packet: bytes) -> bytes:
    """One packet as it goes into the stream."""
    return len(packet).to_bytes(2, "big") + packet


class Deframer:
    """Cuts a TCP stream into packets; holds at most one unfinished packet.

    Errors: `feed` raises Malformed for a length out of range; the deframer must not be used afterwards.
    """

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = MAX_PACKET_OCTETS) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, untrusted: bytes) -> list[bytes]:
        """Take what the socket gave; return the packets that are complete now."""
        buffer = self._buffer
        buffer += untrusted
        packets, offset = [], 0
        while len(buffer) - offset >= 2:
            length = buffer[offset] << 8 | buffer[offset + 1]
            if not 1 <= length <= self._limit:
                raise Malformed("packet length out of range in the TCP stream")
            end = offset + 2 + length
            if end > len(buffer):
                break
            packets.append(bytes(buffer[offset + 2 : end]))
            offset = end
        del buffer[:offset]
        return packets


def framed_runs(untrusted: memoryview, octets: int, limit: int = MAX_PACKET_OCTETS) -> Iterator[tuple[int, int, int]]:
    """The complete packets among the first octets, runs of equal length as one: (begin, octets of each, how many).

    Shape: a run's begin is that of its first length field; the octets of each count their length field.
    Errors: Malformed for a length out of range
    """
    at = 0
    while octets - at >= 2:
        high, low = untrusted[at], untrusted[at + 1]
        length = high << 8 | low
        if not 1 <= length <= limit:
            raise Malformed("packet length out of range in the TCP stream")
        slot, end = length + 2, at + length + 2
        if end > octets:
            return
        count = 1
        while count < _LONGEST_RUN and end + slot <= octets and untrusted[end] == high and untrusted[end + 1] == low:
            end += slot
            count += 1
        yield at, slot, count
        at = end
