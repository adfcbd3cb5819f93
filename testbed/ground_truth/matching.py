"""Finds each opened outer packet among the inner ones: exactly, or as one segment of a larger inner packet.

Both lists are in the order of time, so of several equal inner packets the first that waits is the one. Nothing is
guessed: an outer packet whose content no inner packet holds stays without one, and the reverse.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from testbed.ground_truth.data_keys import DataOpener
from testbed.ground_truth.inner import TCP, UDP, Flow, InnerHead, comparable, read_head
from testbed.ground_truth.outer import OuterPacket
from testbed.verdict.evidence import CapturedFrame

PING = bytes.fromhex("2a187bf3641eb4cb07ed2d0a981fc748")
OCC = bytes.fromhex("287f346bd4ef7a812d56b8d3afc5459c")
CONTROL_OPCODES = frozenset((3, 4, 7, 8, 10, 11))
ACK_OPCODE = 5
DATA_OPCODES = frozenset((6, 9))
MARK_OCTETS = 40  # header, packet id and tag or HMAC: no two packets have them in common


class Carries(StrEnum):
    """What a packet of the tunnel carries."""

    PACKET = "packet"
    PING = "ping"
    OCC = "occ"  # options and exit messages of old, sent as data
    CONTROL = "control"
    ACKNOWLEDGEMENT = "acknowledgement"
    REPEATED = "repeated"  # the same packet once more: the network doubled it
    UNOPENED = "unopened"  # no key of the run opens it


@dataclass(frozen=True, slots=True)
class Carrier:
    """One packet of the tunnel, and what it carries.

    Shape: `payload` is an opened packet's; `key_id` and `packet_id` are -1 where nothing was opened
    """

    outer: OuterPacket
    carries: Carries
    payload: bytes = b""
    key_id: int = -1
    packet_id: int = -1


@dataclass(slots=True)
class InnerPacket:
    """One inner packet, and the packets of the tunnel that carried it, filled in by `match`."""

    frame: int
    time: float
    packet: bytes
    head: InnerHead
    carriers: list[Carrier] = field(default_factory=list)


def inner_packets(frames: Sequence[CapturedFrame]) -> list[InnerPacket]:
    """The IP packets of a raw IP capture."""
    heads = ((frame, read_head(frame.data)) for frame in frames)
    return [InnerPacket(frame.number, frame.time, frame.data, head) for frame, head in heads if head is not None]


def open_all(packets: Sequence[OuterPacket], opener: DataOpener, *, headers: bool) -> list[Carrier]:
    """What each packet of the tunnel carries. Shape: `headers` is False in static-key mode: all packets are data."""
    seen: set[bytes] = set()
    return [_open(packet, opener, seen, headers=headers) for packet in packets]


def _open(packet: OuterPacket, opener: DataOpener, seen: set[bytes], *, headers: bool) -> Carrier:
    opcode = packet.packet[0] >> 3 if headers and packet.packet else -1
    if headers and opcode not in DATA_OPCODES:
        kinds = {ACK_OPCODE: Carries.ACKNOWLEDGEMENT, **dict.fromkeys(CONTROL_OPCODES, Carries.CONTROL)}
        return Carrier(packet, kinds.get(opcode, Carries.UNOPENED))
    opened = opener.open(packet.packet, to_server=packet.to_server)
    if opened is None:
        return Carrier(packet, Carries.UNOPENED)
    payload, key_id, packet_id = opened
    mark = packet.packet[:MARK_OCTETS]
    repeated = mark in seen
    seen.add(mark)
    carries = Carries.PACKET
    if repeated:
        carries = Carries.REPEATED
    elif payload == PING:
        carries = Carries.PING
    elif payload.startswith(OCC):
        carries = Carries.OCC
    return Carrier(packet, carries, payload, key_id, packet_id)


def match(carriers: Sequence[Carrier], inner: Sequence[InnerPacket]) -> list[Carrier]:
    """Give every inner packet its carriers; returns those whose packet the tun device did not record."""
    waiting: dict[bytes, deque[InnerPacket]] = defaultdict(deque)
    flows: dict[Flow, list[InnerPacket]] = defaultdict(list)
    for packet in inner:
        waiting[comparable(packet.packet, packet.head)].append(packet)
        if packet.head.protocol in (TCP, UDP):
            flows[packet.head.flow].append(packet)
    alone = []
    for carrier in carriers:
        if carrier.carries is not Carries.PACKET:
            continue
        head = read_head(carrier.payload)
        found = _whole(carrier, head, waiting) or _larger(carrier, head, flows) if head else None
        if found is None:
            alone.append(carrier)
        else:
            found.carriers.append(carrier)
    return alone


def _whole(carrier: Carrier, head: InnerHead, waiting: dict[bytes, deque[InnerPacket]]) -> InnerPacket | None:
    found = waiting.get(comparable(carrier.payload, head))
    return found.popleft() if found else None


def _larger(carrier: Carrier, head: InnerHead, flows: dict[Flow, list[InnerPacket]]) -> InnerPacket | None:
    """The inner packet of the same flow of which this is one segment."""
    payload = carrier.payload[head.payload_at : head.end]
    if not payload:
        return None
    packets = flows.get(head.flow, [])
    while packets and _filled(packets[0]):
        packets.pop(0)
    for packet in packets:
        have = packet.packet[packet.head.payload_at : packet.head.end]
        if len(have) <= len(payload):
            continue
        if head.protocol == TCP:
            at = (_sequence(carrier.payload, head) - _sequence(packet.packet, packet.head)) & 0xFFFFFFFF
        else:
            at = sum(len(c.payload) - head.payload_at for c in packet.carriers)
        if at < len(have) and have[at : at + len(payload)] == payload and not _has(packet, carrier, at):
            return packet
    return None


def _sequence(packet: bytes, head: InnerHead) -> int:
    return int.from_bytes(packet[head.transport_at + 4 : head.transport_at + 8], "big")


def _has(packet: InnerPacket, carrier: Carrier, at: int) -> bool:
    """Whether the part that a TCP segment brings has come already: then this is a retransmission."""
    if packet.head.protocol != TCP:
        return False
    base = _sequence(packet.packet, packet.head)
    for other in packet.carriers:
        head = read_head(other.payload)
        if head is not None and (_sequence(other.payload, head) - base) & 0xFFFFFFFF == at:
            return True
    return False


def _filled(packet: InnerPacket) -> bool:
    """Whether carriers for all of the packet's octets are known."""
    have = packet.head.end - packet.head.payload_at
    heads = [(carrier, read_head(carrier.payload)) for carrier in packet.carriers]
    return bool(heads) and sum(head.end - head.payload_at for _, head in heads if head) >= have
