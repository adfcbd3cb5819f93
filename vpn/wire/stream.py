"""Packets in a TCP stream: a length of two octets (not counting itself), then the packet.

A length of 0 or above the limit means that the stream cannot be read on: the connection has to go.
Source: openvpn-protocol.md section 1.
"""

from __future__ import annotations

from vpn.wire.packet import Malformed

MAX_PACKET_OCTETS = 1768  # what a real peer with default MTU takes


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
