"""Which sealed packet carried which packet: ground truth for the report, never for an observer.

Two sources, the better one first. A run that could open the tunnel's packets leaves the pairs in a CSV file beside its
captures. Without it, packets are paired by order and size, and only where that
leaves no doubt: over UDP with a cipher that does not pad, each data packet is as much longer than what it carries as
every other, so in each direction the sealed packets of the right sizes, in order, must be the inner packets, all of
them, and no packet may arrive before it was sent.

Not here: a tunnel over TCP or with a padding cipher, where one size does not tell one packet. Then there are no pairs.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from io import StringIO

from testbed.report.packets import Inside, PacketLine

_DATA = "P_DATA"
_MOST_OVERHEAD_OCTETS = 160
_CLOCKS_APART_S = 0.002  # two taps stamp with one clock, but not in the same instant

Pairs = dict[int, int]


def paired(
    file: str, inner: Sequence[PacketLine], outer_file: str, outer: Sequence[PacketLine], clients: frozenset[str]
) -> Inside:
    """The inner packets with the outer frames that carried them. Shape: `clients` are the client's own addresses."""
    sealed = [line for line in outer if line.protocol == "OpenVPN" and _DATA in line.summary]
    if any("," in line.summary for line in sealed):
        sealed = []  # over TCP one frame may hold several packets, or a part of one
    pairs: Pairs = {}
    longer = set()
    for upward in (True, False):
        within = [line for line in inner if (line.source in clients) == upward]
        around = [line for line in sealed if (line.source in clients) == upward]
        found, overhead = _in_order(within, around, upward=upward)
        if len(found) != len(within):
            return Inside(file, tuple(inner), outer_file, {}, _NO_PAIRS)
        pairs |= found
        longer |= {overhead} if found else set()
    if not pairs or len(longer) != 1:
        return Inside(file, tuple(inner), outer_file, {}, _NO_PAIRS)
    (overhead,) = longer
    how = (
        f"Paired by order and size: in each direction, all {len(pairs)} packets inside are found again in order, "
        f"each in a packet exactly {overhead} octets longer."
    )
    return Inside(file, tuple(inner), outer_file, pairs, how)


_NO_PAIRS = "Which sealed packet carried which packet inside cannot be told with certainty from order and size here."


def _in_order(inner: Sequence[PacketLine], outer: Sequence[PacketLine], *, upward: bool) -> tuple[Pairs, int]:
    """Pairs of one direction in order, and how much longer the outer packets are."""
    overhead = _overhead(inner, outer)
    pairs: Pairs = {}
    waiting = list(outer)
    for line in inner:
        while waiting and not _fits(line, waiting[0], overhead, upward=upward):
            waiting.pop(0)  # a ping of the tunnel's own carries no packet
        if waiting:
            pairs[line.frame] = waiting.pop(0).frame
    return pairs, overhead


def _fits(inner: PacketLine, outer: PacketLine, overhead: int, *, upward: bool) -> bool:
    first, then = (inner, outer) if upward else (outer, inner)
    return outer.packet_octets - inner.packet_octets == overhead and first.time <= then.time + _CLOCKS_APART_S


def _overhead(inner: Sequence[PacketLine], outer: Sequence[PacketLine]) -> int:
    """The difference of sizes that fits most often, of packets at the same place in both lists or nearly so."""
    counted = Counter(
        difference
        for at, line in enumerate(inner)
        for other in outer[at : at + 4]
        if 0 < (difference := other.packet_octets - line.packet_octets) <= _MOST_OVERHEAD_OCTETS
    )
    return max(counted, key=lambda difference: (counted[difference], -difference), default=0)


def read_pairs(text: str) -> Pairs:
    """The pairs that a run wrote down: columns `inner_frame` and `outer_frame`; a packet in several datagrams counts by
    its first. Lines that hold no two numbers are left out."""
    pairs: Pairs = {}
    for row in csv.DictReader(StringIO(text)):
        inner, outer = _number(row, "inner_frame"), _number(row, "outer_frame")
        if inner and outer:
            pairs.setdefault(inner, outer)
    return pairs


def _number(row: Mapping[str, str | None], column: str) -> int:
    value = row.get(column) or ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else 0
