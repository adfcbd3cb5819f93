"""Recognising OpenVPN by how its handshake runs, whatever the opcodes' values are: the two passive rules of Xue et al.

    opcodes           the first octet of packets 1 and 2 (the resets of client and server) never comes back once four
                      values are known, and the first N packets hold 4 to 10 different ones
    acknowledgements  packet 3, the client's, has the size of an acknowledgement; packets of that size fill the bins of
                      10 packets as a handshake does: 1 to 3 in the first, 2 to 5 in the second, at most 5 in the third
                      to fifth, at most 1 in every later one

Neither needs a value or a port, so a XOR patch over the opcodes changes nothing; both need N = 100 packets. Over TCP
the paper takes the third octet of each segment, behind the length; where the lengths can be followed, packets are taken
here instead. The values of packets 1 and 2 count among the 4: an ordinary handshake has five (two resets, control,
acknowledgement, data), so that counting them apart would never find it.

Deliberately not here: the paper's second phase, in which a prober connects to the suspected server.

Source: Xue, Kallitsis, Houmansadr, Ensafi: OpenVPN is Open to VPN Fingerprinting, USENIX Security 2022
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from testbed.observer.model import Certainty
from testbed.observer.tunnels.recognised import Recognised

PACKETS = 100
LEAST_OPCODES, MOST_OPCODES = 4, 10
BIN_PACKETS = 10
BINS = ((1, 3), (2, 5), (0, 5), (0, 5), (0, 5))
LATER_BINS = (0, 1)
FIRST_OCTET_OF_TCP = 2

COST = (
    "Xue et al. 2022: of 10.07 million ISP flows that were long enough, both passive rules together flagged 75,850 "
    "(0.75 %); the prober, which is not here, left at most 0.0039 % false"
)


def opcodes_run_as_a_handshake(octets: Sequence[int]) -> bool:
    """The rule of opcodes over the first `PACKETS` packets' first octets."""
    detector = OpcodeOrder()
    return any(detector.add_octet(octet) for octet in octets[:PACKETS])


def acknowledgements_run_as_a_handshake(sizes: Sequence[int], third_is_from_client: bool) -> bool:
    """The rule of acknowledgements over the first `PACKETS` packets' payload sizes."""
    if len(sizes) < PACKETS or not third_is_from_client:
        return False
    size = sizes[2]
    for index in range(PACKETS // BIN_PACKETS):
        least, most = BINS[index] if index < len(BINS) else LATER_BINS
        found = sizes[index * BIN_PACKETS : (index + 1) * BIN_PACKETS].count(size)
        if not least <= found <= most:
            return False
    return True


@dataclass(slots=True)
class OpcodeOrder:
    """The rule of opcodes, packet by packet, so that most conversations are let go after a few."""

    resets: list[int] = field(default_factory=list)
    values: set[int] = field(default_factory=set)
    packets: int = 0
    broken: bool = False

    def add_octet(self, octet: int) -> bool:
        """Whether the rule holds, known with packet `PACKETS`."""
        self.packets += 1
        if self.packets <= 2:
            self.resets.append(octet)
        elif len(self.values) >= LEAST_OPCODES and octet in self.resets:
            self.broken = True
        self.values.add(octet)
        self.broken = self.broken or len(self.values) > MOST_OPCODES
        return self.packets == PACKETS and not self.broken and len(self.values) >= LEAST_OPCODES


@dataclass(slots=True)
class OpenVpnPatternDetector:
    """Both rules at once. Shape: `octet_at` is where a packet's opcode would stand."""

    octet_at: int = 0
    opcodes: OpcodeOrder = field(default_factory=OpcodeOrder)
    sizes: list[int] = field(default_factory=list)
    acknowledgements: bool = True  # still possible
    first_from_client: bool = True

    @property
    def hopeless(self) -> bool:
        return len(self.sizes) >= PACKETS or (self.opcodes.broken and not self.acknowledgements)

    def add(self, packet: bytes, from_client: bool) -> Recognised | None:
        if len(packet) <= self.octet_at:
            return None
        count = len(self.sizes) + 1
        if count == 1:
            self.first_from_client = from_client
        elif count <= 3 and from_client is not (self.first_from_client if count == 3 else not self.first_from_client):
            self.acknowledgements = False  # the resets go there and back, the acknowledgement goes there again
            self.opcodes.broken = self.opcodes.broken or count == 2
        self.sizes.append(len(packet))
        if not self.opcodes.broken and self.opcodes.add_octet(packet[self.octet_at]):
            return self._recognised(
                f"the order of first octets in {PACKETS} packets: {len(self.opcodes.values)} different ones, those of "
                "the first two packets only at the beginning, as OpenVPN's handshake has them",
                Certainty.LIKELY,
            )
        if self.acknowledgements and count % BIN_PACKETS == 0:
            return self._acknowledgements(count)
        return None

    def _acknowledgements(self, count: int) -> Recognised | None:
        index = count // BIN_PACKETS - 1
        least, most = BINS[index] if index < len(BINS) else LATER_BINS
        self.acknowledgements = least <= self.sizes[count - BIN_PACKETS :].count(self.sizes[2]) <= most
        if not self.acknowledgements or count < PACKETS:
            return None
        return self._recognised(
            f"packets as large as the third ({self.sizes[2]} octets) gather at the beginning of {PACKETS} packets, as "
            "the acknowledgements of OpenVPN's handshake do",
            Certainty.POSSIBLE,
        )

    def _recognised(self, rule: str, certainty: Certainty) -> Recognised:
        return Recognised("openvpn", rule, COST, certainty, client_was_right=self.first_from_client)
