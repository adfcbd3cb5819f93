"""Recognising a tunnel without any header: random octets from the first on, in lengths that betray a block cipher.

OpenVPN's static-key mode sends, without any handshake,

    HMAC (16 to 64) | IV (8 or 16) | CBC ciphertext of packet id, time and inner packet: whole blocks

so every length leaves the same remainder when divided by the block's 16 octets, and no octet of the first sixteen keeps
a value. Each alone means little; with `LEAST_LENGTHS` different lengths, a common remainder has a chance of
16^-(LEAST_LENGTHS - 1) where lengths are arbitrary. What the packets do not say is whose they are: tinc's old protocol
and vtun look the same. A cipher with blocks of 8 octets (Blowfish) is not looked for: remainders of 8 are too common.

Source: openvpn-protocol.md, static-key mode; counted on our own captures (docs/tunnel-detection.md)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.observer.model import Certainty
from testbed.observer.tunnels.recognised import Recognised

BLOCK_OCTETS = 16
LEAST_OCTETS = 48  # HMAC of 16, IV of 16, a block
LEAST_PACKETS, LEAST_EACH_WAY, LEAST_LENGTHS = 16, 3, 5
MOST_PACKETS = 100
HEAD_OCTETS = 16
HEAD_SAMPLE = 16
# 16 random octets at one place hold 15.5 different values on average; fewer than 11 in one place of 16 happens by
# chance less than once in 100,000 conversations.
LEAST_DIFFERENT = 11
HMACS = {0: "an HMAC of 16, 32 or 64 octets or none", 4: "an HMAC of 20 octets (SHA-1)", 12: "an HMAC of 28 octets"}
COST = (
    f"{LEAST_LENGTHS} different lengths with one remainder by 16 in random-looking packets: one in 65,536 where "
    "lengths are arbitrary; other headerless CBC tunnels (tinc 1.0, vtun) fit as well, so the program's name is a guess"
)


@dataclass(slots=True)
class BlockCipherDetector:
    remainder: int = -1
    lengths: set[int] = field(default_factory=set)
    heads: list[bytes] = field(default_factory=list)
    packets: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    refuted: bool = False

    @property
    def hopeless(self) -> bool:
        return self.refuted or sum(self.packets.values()) > MOST_PACKETS

    def add(self, packet: bytes, from_client: bool) -> Recognised | None:
        size = len(packet)
        if self.remainder < 0:
            self.remainder = size % BLOCK_OCTETS
        if size < LEAST_OCTETS or size % BLOCK_OCTETS != self.remainder or self.remainder not in HMACS:
            self.refuted = True
            return None
        self.lengths.add(size)
        self.packets[from_client] += 1
        if len(self.heads) < HEAD_SAMPLE:
            self.heads.append(packet[:HEAD_OCTETS])
            self.refuted = len(self.heads) == HEAD_SAMPLE and not _random_everywhere(self.heads)
        enough = sum(self.packets.values()) >= LEAST_PACKETS and min(self.packets.values()) >= LEAST_EACH_WAY
        if self.refuted or not enough or len(self.lengths) < LEAST_LENGTHS:
            return None
        return Recognised(
            "openvpn-static-key",
            f"no header and no handshake: random octets from the first on, {len(self.lengths)} different lengths that "
            f"all leave {self.remainder} when divided by {BLOCK_OCTETS}: CBC blocks behind an IV and "
            f"{HMACS[self.remainder]}, as in OpenVPN's static-key mode",
            COST,
            Certainty.LIKELY,
        )


def _random_everywhere(heads: list[bytes]) -> bool:
    """Whether no place keeps a value, counts, or is text."""
    return all(len({head[place] for head in heads}) >= LEAST_DIFFERENT for place in range(HEAD_OCTETS))
