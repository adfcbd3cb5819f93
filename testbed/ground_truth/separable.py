"""Which inner flows stay apart from outside, by what an observer can measure of sealed packets: their order and sizes.

    alone     from its first to its last packet no packet of another flow came: a pause or a change of size is its edge
    sizes     sizes of sealed packets in one direction that no other flow of the run has

A flow that is neither is mixed with others, packet by packet; that is what a tunnel hides best. Ground truth says which
it is; an observer has to guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SealedPacket:
    """One packet of the tunnel with an inner packet in it. Units: Unix seconds; `octets` of the outer IP packet."""

    flow: str
    action: str
    up: bool
    frame: int
    time: float
    octets: int
    inner_octets: int


@dataclass(slots=True)
class FlowShape:
    """One inner flow as it looks from outside. Units: `pause_before` in seconds since the sealed packet before it."""

    flow: str
    action: str
    packets_up: int = 0
    packets_down: int = 0
    octets_up: int = 0
    octets_down: int = 0
    first_frame: int = 0
    last_frame: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    pause_before: float = 0.0
    alone: bool = True
    own_sizes: int = 0  # packets whose size only this flow has

    @property
    def packets(self) -> int:
        return self.packets_up + self.packets_down


def flow_shapes(packets: Sequence[SealedPacket]) -> list[FlowShape]:
    """Every inner flow, in the order in which they began. Shape: `packets` are in the order of time."""
    shapes: dict[str, FlowShape] = {}
    sizes: dict[tuple[bool, int], set[str]] = defaultdict(set)
    last: SealedPacket | None = None
    for packet in packets:
        shape = shapes.get(packet.flow)
        if shape is None:
            pause = packet.time - last.time if last else 0.0
            shape = shapes[packet.flow] = FlowShape(packet.flow, packet.action, pause_before=max(pause, 0.0))
            shape.first_frame, shape.started_at = packet.frame, packet.time
        _count(shape, packet)
        sizes[packet.up, packet.octets].add(packet.flow)
        last = packet
    _mark_mixed(shapes, packets)
    for packet in packets:
        shapes[packet.flow].own_sizes += len(sizes[packet.up, packet.octets]) == 1
    return list(shapes.values())


def _count(shape: FlowShape, packet: SealedPacket) -> None:
    if packet.up:
        shape.packets_up += 1
        shape.octets_up += packet.octets
    else:
        shape.packets_down += 1
        shape.octets_down += packet.octets
    shape.last_frame, shape.ended_at = packet.frame, max(shape.ended_at, packet.time)


def _mark_mixed(shapes: dict[str, FlowShape], packets: Sequence[SealedPacket]) -> None:
    """Who comes between the packets of another flow is not alone either: nobody can cut it out of the other."""
    opened: dict[str, None] = {}  # flows that have begun and not ended
    fresh: list[str] = []  # those of them that nothing was known to be mixed with
    left = {name: shape.packets for name, shape in shapes.items()}
    for packet in packets:
        if packet.flow not in opened:
            opened[packet.flow] = None
            fresh.append(packet.flow)
        if len(opened) > 1:
            for name in fresh:
                shapes[name].alone = False
            fresh.clear()
        left[packet.flow] -= 1
        if not left[packet.flow]:
            del opened[packet.flow]
            fresh = [name for name in fresh if name != packet.flow]
