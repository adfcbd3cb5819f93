"""Recognising fastd by its handshake, which says in clear what it is.

    type (1: handshake, 2: data) | reserved (0) | length of the records (2, big-endian) |
    records: type (2) | length (2), little-endian | value

Certain with the first datagram whose records fill it to the octet and whose record 0, the step of the handshake, is a
single octet from 1 to 3: a request is step 1, sent by who opens the connection.

Source: fastd documentation, "Protocol"; checked against fastd 22 in the interop tests
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.observer.tunnels.recognised import Recognised

HEADER_OCTETS = 4
STEP_RECORD = 0
MOST_RECORDS = 64
PACKETS = 8
COST = "none by chance: records of 16-bit types and lengths that fill the datagram to the octet"


@dataclass(slots=True)
class FastdDetector:
    packets: int = 0

    @property
    def hopeless(self) -> bool:
        return self.packets >= PACKETS

    def add(self, packet: bytes, from_client: bool) -> Recognised | None:
        self.packets += 1
        step = handshake_step(packet)
        if not step:
            return None
        return Recognised(
            "fastd",
            f"step {step} of fastd's handshake in clear, its records whole to the octet",
            COST,
            client_was_right=(step != 2) == from_client,
        )


def handshake_step(packet: bytes) -> int:
    """1 to 3, or 0 if the datagram is no handshake."""
    if packet[:2] != b"\1\0" or int.from_bytes(packet[2:4], "big") + HEADER_OCTETS != len(packet):
        return 0
    at, step, records = HEADER_OCTETS, 0, 0
    while at + 4 <= len(packet) and records < MOST_RECORDS:
        kind, length = (int.from_bytes(packet[place : place + 2], "little") for place in (at, at + 2))
        if kind == STEP_RECORD and length == 1:
            step = packet[at + 4] if at + 4 < len(packet) else 0
        at += 4 + length
        records += 1
    return step if at == len(packet) and records > 1 and 1 <= step <= 3 else 0
