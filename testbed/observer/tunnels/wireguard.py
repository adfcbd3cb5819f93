"""Recognising WireGuard from the outside, on any port: four message types of fixed shape.

    1 initiation, 148 octets, sender index at 4        3 cookie reply, 64 octets
    2 response, 92 octets, sender index at 4,          4 data, 32 + 16 n octets, receiver index at 4,
      receiver index at 8                                counter at 8 (little-endian)

Certain when a response names the index of an initiation, or, in a capture that began later, when both sides send data
messages with a constant index and a counter that counts, each for several packets.

Source: WireGuard: Next Generation Kernel Network Tunnel, section 5.4
"""

from __future__ import annotations

from dataclasses import dataclass, field

INITIATION, RESPONSE, DATA = b"\1\0\0\0", b"\2\0\0\0", b"\4\0\0\0"
INITIATION_OCTETS, RESPONSE_OCTETS, SMALLEST_DATA_OCTETS = 148, 92, 32
DATA_PACKETS = 6
LARGEST_COUNTER_STEP = 64
HANDSHAKE_PACKETS = 200


@dataclass(slots=True)
class _Counter:
    index: bytes = b""
    last: int = 0
    run: int = 0

    def add(self, packet: bytes) -> None:
        index, number = packet[4:8], int.from_bytes(packet[8:16], "little")
        follows = index == self.index and 0 < number - self.last <= LARGEST_COUNTER_STEP
        self.run = self.run + 1 if follows else 1
        self.index, self.last = index, number


@dataclass(slots=True)
class WireGuardDetector:
    initiations: dict[bytes, bool] = field(default_factory=dict)  # sender index -> sent by the client
    packets: int = 0
    counters: dict[bool, _Counter] = field(default_factory=lambda: {True: _Counter(), False: _Counter()})

    client_was_right: bool = True  # both ends may initiate: who speaks first is as good as any

    @property
    def hopeless(self) -> bool:
        return self.packets > HANDSHAKE_PACKETS and max(counter.run for counter in self.counters.values()) <= 1

    def add(self, packet: bytes, from_client: bool) -> str | None:
        self.packets += 1
        kind, size = packet[:4], len(packet)
        if kind == INITIATION and size == INITIATION_OCTETS and len(self.initiations) < HANDSHAKE_PACKETS:
            self.initiations[packet[4:8]] = from_client
        elif kind == RESPONSE and size == RESPONSE_OCTETS:
            if self.initiations.get(packet[8:12]) is (not from_client):
                return "a handshake response of 92 octets names the index of the initiation of 148 octets"
        elif kind == DATA and size >= SMALLEST_DATA_OCTETS and size % 16 == 0:
            self.counters[from_client].add(packet)
            if min(counter.run for counter in self.counters.values()) >= DATA_PACKETS:
                return "data messages with constant receiver index and counting counter in both directions"
        return None
