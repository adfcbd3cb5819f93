"""Compression framing without compression: the octet or two that some configurations put round every packet.

    comp-lzo            FA packet
    compress            FB rest-of-packet first-octet      (the first octet goes to the end)
    compress stub-v2    packet; one that begins with 50 goes as 50 00 packet

A compressed packet is dropped: this project neither compresses nor decompresses, since compression before encryption
leaks (VORACLE). Source: openvpn-protocol.md section 7.4.
"""

from __future__ import annotations

from collections.abc import Sequence

from vpn.drops import Drop, Drops
from vpn.settings import Compression

OVERHEAD_OCTETS = {
    Compression.NONE: 0,
    Compression.COMP_LZO: 1,
    Compression.STUB: 1,
    Compression.STUB_V2: 0,
}
_LZO_PLAIN = 0xFA
_SWAPPED_PLAIN = 0xFB
_V2_ESCAPE = 0x50


def add_framing(packets: Sequence[bytes], compression: Compression) -> Sequence[bytes]:
    if compression is Compression.NONE:
        return packets
    if compression is Compression.COMP_LZO:
        return [b"\xfa" + packet for packet in packets]
    if compression is Compression.STUB:
        return [b"\xfb" + packet[1:] + packet[:1] for packet in packets]
    return [b"\x50\x00" + packet if packet[:1] == b"\x50" else packet for packet in packets]


def remove_framing(packets: list[bytes], compression: Compression, drops: Drops) -> list[bytes]:
    if compression is Compression.NONE:
        return packets
    plain = [_remove(packet, compression) for packet in packets]
    bad = sum(1 for packet in plain if packet is None)
    if bad:
        drops.count(Drop.COMPRESSED, bad)
    return [packet for packet in plain if packet is not None]


def _remove(packet: bytes, compression: Compression) -> bytes | None:
    if not packet:
        return None
    first = packet[0]
    if compression is Compression.STUB_V2:
        if first != _V2_ESCAPE:
            return packet
        # the real sender writes 0a where its own reader expects 00
        return packet[2:] if packet[1:2] in (b"\x00", b"\x0a") else None
    if compression is Compression.STUB:
        return packet[-1:] + packet[1:-1] if first == _SWAPPED_PLAIN and len(packet) > 1 else None
    return packet[1:] if first == _LZO_PLAIN else None
