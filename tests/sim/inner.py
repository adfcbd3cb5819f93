"""Inner IP packets for simulations: well-formed headers, a number as payload."""

from __future__ import annotations

import struct
from ipaddress import ip_address


def ip_packet(source: str, target: str, number: int, octets: int = 60) -> bytes:
    """A UDP-less IP packet (protocol 253, for experiments) that carries `number`."""
    payload = number.to_bytes(8, "big").ljust(octets, b"\x5a")
    first, second = ip_address(source).packed, ip_address(target).packed
    if len(first) == 4:
        return struct.pack(">BBHHHBBH", 0x45, 0, 20 + octets, 0, 0, 64, 253, 0) + first + second + payload
    return struct.pack(">IHBB", 6 << 28, octets, 253, 64) + first + second + payload


def numbers(packets: list[bytes]) -> list[int]:
    return [int.from_bytes(packet[(20 if packet[0] >> 4 == 4 else 40) :][:8], "big") for packet in packets]
