"""Packets as the HTML report shows them: already dissected, so that the report itself dissects nothing.

The caller (which may use scapy or the observer's own dissectors) fills these in for the frames that the evidence
names. All strings may be hostile; the renderer makes them safe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Layer:
    """One protocol layer of a packet, outermost first.

    Shape: `start` and `end` are the octets of the frame it covers (its header, or for the last layer its data); both -1
        if unknown, then the hex dump does not colour it
    """

    name: str
    fields: tuple[tuple[str, str], ...]
    start: int = -1
    end: int = -1
    encrypted: bool = False


@dataclass(frozen=True, slots=True)
class PacketView:
    """One packet opened layer by layer. Units: `time` in Unix seconds."""

    time: float
    source: str
    destination: str
    protocol: str
    summary: str
    layers: tuple[Layer, ...]
    octets: bytes


@dataclass(frozen=True, slots=True)
class PacketLine:
    """One line of an observer's packet list. Units: `time` in Unix seconds.

    Shape: `ports` are source and destination, 0 where there are none; of `length_octets` the first `link_octets` are
        the link's header, which a tunnel device has none of
    """

    frame: int
    time: float
    source: str
    destination: str
    protocol: str
    length_octets: int
    summary: str
    ports: tuple[int, int] = (0, 0)
    link_octets: int = 0

    @property
    def packet_octets(self) -> int:
        """The IP packet's own octets, by which packets of different links compare."""
        return self.length_octets - self.link_octets


@dataclass(frozen=True, slots=True)
class Inside:
    """What went into the tunnel and came out of it, as the client's own tunnel device recorded it.

    It is ground truth, which no observer has: it shows what a sealed packet carries.

    Shape: `outer_of` maps a frame of `file` to the frame of `outer_file` that carried it, only where that is certain;
        `how` says in one sentence how the pairs were found, or why there are none
    """

    file: str
    lines: tuple[PacketLine, ...]
    outer_file: str = ""
    outer_of: Mapping[int, int] = field(default_factory=dict)
    how: str = ""


PacketKey = tuple[str, int]  # capture file relative to the run directory, 1-based frame number
Packets = Mapping[PacketKey, PacketView]
