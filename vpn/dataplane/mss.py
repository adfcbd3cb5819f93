"""MSS clamping: a TCP connection through the tunnel is told at its start to make segments that fit.

Only SYN segments are touched, and only an MSS option that is larger than the limit; the TCP checksum is updated by
the difference (RFC 1624), so a wrong one stays wrong. IPv6 extension headers are not walked: a SYN behind one passes
as it is, as with the real peer. Pure; IPv4 and IPv6.

Source: openvpn-protocol.md pitfall 15; RFC 9293 section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vpn.crypto.wrapping import DIGEST_OCTETS
from vpn.dataplane.cipher import AEAD_CIPHERS
from vpn.dataplane.framing import OVERHEAD_OCTETS
from vpn.settings import Cipher, Compression, Digest, Transport

_TCP = 6
_SYN = 0x02
_OPTION_END, _OPTION_PAD, _OPTION_MSS = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Path:
    """What lies between an inner packet and the outer IP packet."""

    transport: Transport
    transport_ipv6: bool
    cipher: Cipher
    digest: Digest
    compression: Compression
    header_octets: int  # 4 with a peer id, 1 without, 0 in static-key mode
    stamp_octets: int = 4  # 8 in static-key mode


def largest_inner_packet(outer_octets: int, path: Path) -> int:
    """The largest inner packet whose outer packet has at most `outer_octets`."""
    outer = 40 if path.transport_ipv6 else 20
    transport = 8 if path.transport is Transport.UDP else 20 + 2
    room = outer_octets - outer - transport - path.header_octets
    if path.cipher in AEAD_CIPHERS:
        room -= 4 + 16
    else:
        room -= DIGEST_OCTETS[path.digest] + 16
        room = room // 16 * 16 - 1 - path.stamp_octets  # whole blocks, of which at least one octet is padding
    return room - OVERHEAD_OCTETS[path.compression]


@dataclass(frozen=True, slots=True)
class MssLimits:
    ipv4: int
    ipv6: int

    @classmethod
    def of(cls, outer_octets: int, path: Path) -> MssLimits:
        inner = largest_inner_packet(outer_octets, path)
        return cls(inner - 40, inner - 60)

    def clamp_batch(self, packets: Sequence[bytes]) -> Sequence[bytes]:
        """The packets, with the MSS of SYNs clamped; the very same sequence if none needed it."""
        changed: list[bytes] | None = None
        for index, packet in enumerate(packets):
            start = _syn_offset(packet)
            if not start:
                continue
            clamped = _clamp(packet, start, self.ipv4 if packet[0] >> 4 == 4 else self.ipv6)
            if clamped is not packet:
                changed = list(packets) if changed is None else changed
                changed[index] = clamped
        return packets if changed is None else changed


def _syn_offset(packet: bytes) -> int:
    """Where the TCP header of a SYN begins; 0 for anything else."""
    if len(packet) < 40:
        return 0
    version = packet[0] >> 4
    if version == 4:
        if packet[9] != _TCP or packet[6] & 0x1F or packet[7]:
            return 0  # not TCP, or not the first fragment
        start = (packet[0] & 0x0F) * 4
    elif version == 6 and packet[6] == _TCP:
        start = 40
    else:
        return 0
    return start if len(packet) >= start + 20 and packet[start + 13] & _SYN and start >= 20 else 0


def _clamp(packet: bytes, start: int, limit: int) -> bytes:
    end = min(start + (packet[start + 12] >> 4) * 4, len(packet))
    at = start + 20
    while at + 1 < end:
        kind = packet[at]
        if kind == _OPTION_END:
            break
        if kind == _OPTION_PAD:
            at += 1
            continue
        length = packet[at + 1]
        if length < 2:
            break
        if kind == _OPTION_MSS and length == 4 and at + 4 <= end:
            return _with_mss(packet, start, at + 2, limit)
        at += length
    return packet


def _with_mss(packet: bytes, start: int, at: int, limit: int) -> bytes:
    old = int.from_bytes(packet[at : at + 2], "big")
    if old <= limit:
        return packet
    changed = bytearray(packet)
    changed[at : at + 2] = limit.to_bytes(2, "big")
    # an option at an odd offset lies across two checksum words: both octets trade places in the sum
    swap = (at - start) % 2 == 1
    difference = _swapped(old, swap) - _swapped(limit, swap)
    total = int.from_bytes(packet[start + 16 : start + 18], "big") + difference
    changed[start + 16 : start + 18] = (total % 0xFFFF or (0xFFFF if total else 0)).to_bytes(2, "big")
    return bytes(changed)


def _swapped(word: int, swap: bool) -> int:
    return (word >> 8 | word << 8) & 0xFFFF if swap else word
