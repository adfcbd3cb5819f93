"""Packets in a TCP stream, each with two octets of length before it, as OpenVPN sends them in every mode."""

from __future__ import annotations

LARGEST_PACKET_OCTETS = 4_096


def split_frames(data: bytes, least_octets: int, most_packets: int) -> list[tuple[int, bytes]]:
    """The stream's first packets, each with the offset behind it; empty where the lengths do not lead on.

    Shape: packets shorter than `least_octets` or longer than OpenVPN's are taken for a sign of another protocol.
    """
    packets: list[tuple[int, bytes]] = []
    at = 0
    while at + 2 <= len(data) and len(packets) < most_packets:
        length = int.from_bytes(data[at : at + 2], "big")
        if not least_octets <= length <= LARGEST_PACKET_OCTETS:
            return []
        end = at + 2 + length
        if end > len(data):
            break
        packets.append((end, data[at + 2 : end]))
        at = end
    return packets
