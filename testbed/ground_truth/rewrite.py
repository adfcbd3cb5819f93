"""Frames made anew with another payload, lengths and checksums right: for a capture that shows what was wrapped.

A frame of the real conversation is the template: its Ethernet and IP headers and its ports stay.

Source: RFC 768, 791, 1071, 8200, 9293
"""

from __future__ import annotations

from testbed.verdict.headers import TCP, UDP, Transport, transport

PUSH_ACK = 0x18
WINDOW = 0xFFFF


def with_udp_payload(frame: bytes, payload: bytes, link_type: int) -> bytes | None:
    """The datagram with another payload; None if the frame holds no whole UDP datagram."""
    packet = transport(frame, link_type)
    if packet is None or packet.protocol != UDP or packet.fragment is not None:
        return None
    head = frame[packet.start : packet.start + 4] + (8 + len(payload)).to_bytes(2, "big") + b"\0\0"
    return _framed(frame, packet, _summed(packet, head + payload, 6))


def with_tcp_payload(frame: bytes, sequence: int, acknowledgement: int, payload: bytes, link_type: int) -> bytes | None:
    """A segment with this payload and these numbers, without options; None if the frame holds no TCP segment."""
    packet = transport(frame, link_type)
    if packet is None or packet.protocol != TCP or packet.fragment is not None:
        return None
    numbers = (sequence & 0xFFFFFFFF).to_bytes(4, "big") + (acknowledgement & 0xFFFFFFFF).to_bytes(4, "big")
    tail = bytes((0x50, PUSH_ACK)) + WINDOW.to_bytes(2, "big") + bytes(4)
    head = frame[packet.start : packet.start + 4] + numbers + tail
    return _framed(frame, packet, _summed(packet, head + payload, 16))


def _summed(packet: Transport, octets: bytes, at: int) -> bytes:
    """The transport's octets with their checksum."""
    length = len(octets)
    if len(packet.source) == 4:
        pseudo = packet.source + packet.destination + bytes((0, packet.protocol)) + length.to_bytes(2, "big")
    else:
        pseudo = packet.source + packet.destination + length.to_bytes(4, "big") + bytes((0, 0, 0, packet.protocol))
    total = _checksum(pseudo + octets) or 0xFFFF  # zero would mean that there is none
    return octets[:at] + total.to_bytes(2, "big") + octets[at + 2 :]


def _framed(frame: bytes, packet: Transport, octets: bytes) -> bytes:
    """The octets behind the frame's headers, with the lengths that are theirs now."""
    at = packet.end - packet.octets
    head = bytearray(frame[: packet.start])
    if len(packet.source) == 4:
        head[at + 2 : at + 4] = (packet.start - at + len(octets)).to_bytes(2, "big")
        head[at + 10 : at + 12] = b"\0\0"
        head[at + 10 : at + 12] = _checksum(bytes(head[at : packet.start])).to_bytes(2, "big")
    else:
        head[at + 4 : at + 6] = (packet.start - at - 40 + len(octets)).to_bytes(2, "big")
    return bytes(head) + octets


def _checksum(octets: bytes) -> int:
    """The Internet checksum. Shape: words of two octets add up modulo 65,535, as a long number in that base does."""
    padded = octets + b"\0" * (len(octets) & 1)
    return 0xFFFF - (int.from_bytes(padded, "big") % 0xFFFF or (0xFFFF if any(padded) else 0))
