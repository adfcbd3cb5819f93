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

from testbed.observer.tunnels.recognised import Counter, Recognised

INITIATION, RESPONSE, DATA = b"\1\0\0\0", b"\2\0\0\0", b"\4\0\0\0"
MESSAGES = frozenset((INITIATION, RESPONSE, b"\3\0\0\0", DATA))
INITIATION_OCTETS, RESPONSE_OCTETS, SMALLEST_DATA_OCTETS = 148, 92, 32
DATA_PACKETS = 6
HANDSHAKE_PACKETS = 64
MOST_PACKETS = 400
HANDSHAKE_COST = "a 32-bit index that is named back between two messages of fixed sizes and types: none by chance"
DATA_COST = "two constant 32-bit indices and two 64-bit counters that count: none by chance"


@dataclass(slots=True)
class WireGuardDetector:
    initiations: dict[bytes, bool] = field(default_factory=dict)  # sender index -> sent by the client
    packets: int = 0
    counters: dict[bool, Counter] = field(default_factory=lambda: {True: Counter(), False: Counter()})

    @property
    def hopeless(self) -> bool:
        if self.packets <= HANDSHAKE_PACKETS:
            return False
        return self.packets > MOST_PACKETS or max(counter.run for counter in self.counters.values()) <= 1

    def add(self, packet: bytes, from_client: bool) -> Recognised | None:
        self.packets += 1
        kind, size = packet[:4], len(packet)
        if kind == INITIATION and size == INITIATION_OCTETS and len(self.initiations) < HANDSHAKE_PACKETS:
            self.initiations[packet[4:8]] = from_client
        elif kind == RESPONSE and size == RESPONSE_OCTETS:
            if self.initiations.get(packet[8:12]) is (not from_client):
                return Recognised(
                    "wireguard",
                    "a handshake response of 92 octets names the index of the initiation of 148 octets",
                    HANDSHAKE_COST,
                    client_was_right=not from_client,
                )
        elif kind == DATA and size >= SMALLEST_DATA_OCTETS and size % 16 == 0:
            self.counters[from_client].add(packet[4:8], int.from_bytes(packet[8:16], "little"))
            if min(counter.run for counter in self.counters.values()) >= DATA_PACKETS:
                return Recognised(
                    "wireguard",
                    "data messages with constant receiver index and counting counter in both directions",
                    DATA_COST,
                )
        return None
