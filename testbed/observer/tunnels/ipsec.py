"""Recognising IPsec in UDP on any port: IKE's handshake, and ESP wrapped in UDP.

    IKE   initiator's SPI (8) | responder's SPI (8, zero in the first message) | next payload | version (0x10, 0x20) |
          exchange type | flags | message id (4) | length (4); on port 4500 behind 4 zero octets, the non-ESP marker
    ESP   SPI (4, never zero) | sequence number (4) | ciphertext

IKE is certain when an answer repeats the initiator's SPI and brings one of its own; in a capture that began later, with
one message of IKEv2 whose length is exact and whose fields all make sense. ESP is likely when both sides send a
constant SPI with a counter that counts, each for several packets; the two SPIs differ, unlike OpenVPN's peer id. It is
no more than likely because nothing in it is IPsec's alone: any protocol that begins with an index and a counter fits.

Source: RFC 7296 section 3.1, RFC 2408 section 3.1, RFC 3948, RFC 4303
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.observer.model import Certainty
from testbed.observer.tunnels.recognised import Counter, Recognised

MARKER = b"\0\0\0\0"
HEADER_OCTETS = 28
VERSIONS = {0x10: "IKEv1", 0x20: "IKEv2"}
EXCHANGES = {0x10: frozenset((1, 2, 3, 4, 5, 6, 32, 33)), 0x20: frozenset((34, 35, 36, 37, 38, 43))}
INITIATOR_FLAG, RESPONSE_FLAG = 0x08, 0x20  # of IKEv2
LARGEST_PAYLOAD_TYPE = {0x10: 21, 0x20: 54}
SMALLEST_ESP_OCTETS = 8 + 8 + 12  # header, at least 8 octets of ciphertext, check value
LEAST_SPI = 256
ESP_PACKETS = 6
HANDSHAKE_PACKETS = 16
MOST_PACKETS = 400
HANDSHAKE_COST = "64 random bits repeated under an exact length and version: none by chance"
FIELDS_COST = "none by chance: more than 45 fixed bits"
ESP_COST = (
    "none by chance (two constant 32-bit indices, two counters that count), but another protocol that begins with an "
    "index for each direction and a counter would be taken for it; no published figure"
)


@dataclass(slots=True)
class IpsecDetector:
    initiations: dict[bytes, bool] = field(default_factory=dict)  # initiator's SPI -> sent by the client
    packets: int = 0
    told: bool = False
    association: tuple[bytes, bool] | None = None  # both SPIs of the first message of one, and who sent it
    esp: dict[bool, Counter] = field(default_factory=lambda: {True: Counter(), False: Counter()})

    @property
    def hopeless(self) -> bool:
        if self.packets <= HANDSHAKE_PACKETS:
            return False
        return self.told or self.packets > MOST_PACKETS or max(counter.run for counter in self.esp.values()) <= 1

    def add(self, packet: bytes, from_client: bool) -> Recognised | None:
        self.packets += 1
        if packet == b"\xff":  # keeps a NAT's entry alive
            return None
        message = packet[4:] if packet[:4] == MARKER else packet
        if is_ike(message):
            return self._ike(message, from_client)
        return self._esp(packet, from_client) if packet[:4] != MARKER else None

    def _ike(self, message: bytes, from_client: bool) -> Recognised | None:
        initiator, responder, version = message[:8], message[8:16], message[17]
        if not any(responder):
            if len(self.initiations) < HANDSHAKE_PACKETS:
                self.initiations[initiator] = from_client
            return None
        began = self.initiations.get(initiator)
        if began is None:
            return self._established(message, from_client)
        if began == from_client:
            return None
        return Recognised(
            "ipsec",
            f"{VERSIONS[version]}: an answer repeats the initiator's SPI and adds the responder's",
            HANDSHAKE_COST,
            client_was_right=began,
        )

    def _established(self, message: bytes, from_client: bool) -> Recognised | None:
        """The beginning is missing: IKEv2 says in each message who initiated; IKEv1 takes one from either side."""
        if message[17] == 0x20 and message[18] != 34:
            rule = "an IKEv2 message inside an established association, its length exact"
            initiated = bool(message[19] & INITIATOR_FLAG)
            return Recognised("ipsec", rule, FIELDS_COST, client_was_right=initiated == from_client)
        if self.association is None:
            self.association = message[:16], from_client
        if self.association[0] != message[:16] or self.association[1] == from_client:
            return None
        return Recognised("ipsec", "IKE messages with the same two SPIs from both sides", HANDSHAKE_COST)

    def _esp(self, packet: bytes, from_client: bool) -> Recognised | None:
        spi, number = packet[:4], int.from_bytes(packet[4:8], "big")
        if len(packet) < SMALLEST_ESP_OCTETS or len(packet) % 4 or int.from_bytes(spi, "big") < LEAST_SPI:
            self.esp[from_client].run = 0
            return None
        self.esp[from_client].add(spi, number)
        one, other = self.esp.values()
        if min(one.run, other.run) < ESP_PACKETS or one.header[1:] == other.header[1:]:
            return None
        self.told = True
        rule = "ESP in UDP: a constant SPI and a counting sequence number in each direction"
        return Recognised("ipsec", rule, ESP_COST, Certainty.LIKELY)


def is_ike(message: bytes) -> bool:
    """Whether every field of an IKE header makes sense, the length to the octet."""
    if len(message) < HEADER_OCTETS or not any(message[:8]):
        return False
    version = message[17]
    if version not in VERSIONS or message[18] not in EXCHANGES[version] or message[16] > LARGEST_PAYLOAD_TYPE[version]:
        return False
    return int.from_bytes(message[24:28], "big") == len(message)
