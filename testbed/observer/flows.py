"""Conversations: which frames belong together, who started them, how much went each way and when.

A flow is found by the octets of its addresses, protocol and ports; both directions are entered in one table, each as
the `Side` that sends. The client is who starts it: the sender of the SYN, of the echo request, of the first datagram;
where the capture began in the middle, the port of a known service tells the server.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from testbed.observer.findings import Place
from testbed.observer.model import Direction, Endpoint, Flow, Limits, Tunnel, Volume
from testbed.observer.streams import Budget, Reassembly, Recorder
from testbed.observer.tunnels.recognised import Detector, Recognised

BURST_PAUSE_NS = 1_000_000_000
SERVICE_PORTS = frozenset((53, 67, 80, 123, 443, 500, 547, 853, 1194, 3478, 4500, 5353, 5355, 8080, 8443, 51820))
FirstSpeaker = bool  # whether who sends the first frame is the client; see `guess_client`


@lru_cache(maxsize=4096)
def address_text(address: bytes) -> str:
    return str(IPv4Address(address)) if len(address) == 4 else str(IPv6Address(address))


@lru_cache(maxsize=4096)
def is_unicast(address: str) -> bool:
    """Whether an address names one host: neither multicast, nor broadcast, nor unspecified."""
    if ":" in address:
        return not (address.startswith("ff") or address == "::")
    return int(address.split(".", 1)[0]) not in (*range(224, 256), 0)


@dataclass(slots=True)
class Side:
    """What one end of a flow sends."""

    endpoint: Endpoint
    recorder: Recorder
    reassembly: Reassembly | None
    packets: int = 0
    octets: int = 0
    payload_octets: int = 0
    flow: FlowState = field(init=False)
    peer: Side = field(init=False)
    is_client: bool = field(init=False)


@dataclass(slots=True)
class FlowState:
    index: int
    protocol: str
    client: Side
    server: Side
    first_frame: int
    started_ns: int
    last_frame: int
    ended_ns: int
    bursts: int = 1
    application: str = ""
    closed: bool = False  # TCP: reset, or finished by both sides
    frames: array[int] = field(default_factory=lambda: array("Q"))  # the first ones, up to a limit
    fragments: list[int] | None = None  # frames of all but the last piece of a datagram
    also: str = ""  # what a display filter needs besides addresses and ports
    roles: bool = True  # whether it has a client and a server: an ICMP error has neither
    tunnel: Tunnel | None = None
    settled: bool = False  # UDP: no datagram to come can tell anything new; they are counted and kept, not dissected
    detectors: list[Detector] | None = None  # None until the first datagram needs them; empty once it is decided
    suspicion: tuple[Recognised, Place] | None = None  # a rule that is less than certain held
    carries: Callable[[bytes], int] | None = None  # a tunnel in clear: where in a datagram the inner IP header begins
    layers: tuple[str, ...] = ()  # the headers around it, from the outermost, where it was found inside a tunnel
    dissector: object | None = None  # what a protocol's dissector remembers from datagram to datagram
    decoded: list[tuple[Side, bytes, int]] | None = None  # HTTP bodies with the frame that ended them

    @property
    def sides(self) -> tuple[tuple[Side, Direction], ...]:
        return (self.client, Direction.CLIENT_TO_SERVER), (self.server, Direction.SERVER_TO_CLIENT)

    def add_decoded(self, side: Side, body: bytes, frame: int) -> None:
        self.decoded = self.decoded or []
        self.decoded.append((side, body, frame))

    def swap_roles(self) -> None:
        """The protocol says that it is the other end that began."""
        self.client, self.server = self.server, self.client
        self.client.is_client, self.server.is_client = True, False

    def finished(self) -> Flow:
        return Flow(
            self.protocol,
            self.client.endpoint,
            self.server.endpoint,
            Volume(self.client.packets, self.client.octets, self.client.payload_octets),
            Volume(self.server.packets, self.server.octets, self.server.payload_octets),
            self.first_frame,
            self.last_frame,
            self.started_ns / 1e9,
            self.ended_ns / 1e9,
            self.bursts,
            self.application,
        )


def guess_client(source_port: int, destination_port: int) -> FirstSpeaker:
    """Whether the sender of the first frame seen is the client, if nothing but the ports can tell."""
    from_service, to_service = source_port in SERVICE_PORTS, destination_port in SERVICE_PORTS
    if from_service != to_service:
        return to_service
    from_low, to_low = source_port < 1024, destination_port < 1024
    return to_low if from_low != to_low else True


@dataclass(slots=True)
class FlowTable:
    limits: Limits
    budget: Budget
    flows: list[FlowState] = field(default_factory=list)
    _sides: dict[bytes, Side] = field(default_factory=dict)

    def find(self, key: bytes) -> Side | None:
        return self._sides.get(key)

    def forget(self, keys: tuple[bytes, bytes]) -> None:
        """The ports are used again for another conversation."""
        for key in keys:
            self._sides.pop(key, None)

    def dissolve(self) -> None:
        """Let conversations and their sides no longer hold each other, and with them the capture file open."""
        self._sides.clear()
        for flow in self.flows:
            for side, _ in flow.sides:
                del side.flow, side.peer
        self.flows.clear()

    @property
    def full(self) -> bool:
        return len(self.flows) >= self.limits.flows

    def open(
        self,
        keys: tuple[bytes, bytes],
        protocol: str,
        sender: Endpoint,
        receiver: Endpoint,
        sender_is_client: bool,
        frame: int,
        time_ns: int,
    ) -> Side:
        one, other = self._side(sender, protocol), self._side(receiver, protocol)
        client, server = (one, other) if sender_is_client else (other, one)
        flow = FlowState(len(self.flows), protocol, client, server, frame, time_ns, frame, time_ns)
        one.peer, other.peer = other, one
        one.flow = other.flow = flow
        client.is_client, server.is_client = True, False
        self.flows.append(flow)
        self._sides[keys[0]] = one
        self._sides.setdefault(keys[1], other)  # the same key where a host talks to itself
        return one

    def _side(self, endpoint: Endpoint, protocol: str) -> Side:
        recorder = Recorder(self.limits.stream_octets, self.budget)
        reassembly = Reassembly(recorder, self.limits.out_of_order_octets) if protocol == "tcp" else None
        return Side(endpoint, recorder, reassembly)


def count(
    side: Side, frames: tuple[int, ...], time_ns: int, octets: int, payload_octets: int, most_frames: int
) -> None:
    """Enter a packet, in one frame or several fragments, into its flow's volumes and times."""
    side.packets += len(frames)
    side.octets += octets
    side.payload_octets += payload_octets
    flow = side.flow
    if time_ns > flow.ended_ns:
        if time_ns - flow.ended_ns > BURST_PAUSE_NS:
            flow.bursts += 1
        flow.ended_ns = time_ns
    flow.last_frame = last = frames[-1]
    if len(flow.frames) < most_frames:
        flow.frames.append(last)
        if len(frames) > 1:
            flow.fragments = flow.fragments or []
            flow.fragments.extend(frames[:-1])
