"""Conversations: who started them, how much went each way and when, and what dissectors know of them so far.

The client is who starts one: the sender of the SYN, of the echo request, of the first datagram; where the capture began
in the middle, the port of a known service tells the server.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from testbed.observer.findings import Place
from testbed.observer.model import Direction, Endpoint, Tunnel
from testbed.observer.streams import Reassembly, Recorder
from testbed.observer.tunnels.recognised import Detector, Recognised

BURST_PAUSE_NS = 1_000_000_000
SERVICE_PORTS = frozenset((53, 67, 80, 123, 443, 500, 547, 853, 1194, 3478, 4500, 5353, 5355, 8080, 8443, 51820))
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
PROTOCOL_NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6"}
MOST_DATAGRAMS = 400  # of a conversation, looked at in the end
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
    shares_recorder: bool  # with all others of which nothing was recorded
    packets: int = 0
    octets: int = 0
    payload_octets: int = 0
    flow: FlowState = field(init=False)
    peer: Side = field(init=False)
    is_client: bool = field(init=False)
    sent_first: bool = field(init=False)

    @property
    def may_be_dtls(self) -> bool:
        """Whether the first datagrams will be asked for in the end: an application that is known stays what it is."""
        return self.flow.application in ("", "dtls") and len(self.recorder.offsets) < MOST_DATAGRAMS

    def begins_anew(self, sequence: int) -> bool:
        """Whether a SYN with this number begins another conversation: nobody need have seen the former one's end."""
        mine, other = self.reassembly, self.peer.reassembly
        if mine is None or other is None or mine.position is None:
            return mine is not None and other is not None and other.is_midway
        return mine.began_at != sequence

    def own_recorder(self) -> Recorder:
        """To be recorded into. Most sides of short conversations of datagrams never need one."""
        if self.shares_recorder:
            shared = self.recorder
            self.recorder = Recorder(shared.limit_octets, shared.budget, shared.asked_at)
            self.shares_recorder = False
        return self.recorder


@dataclass(slots=True)
class FlowState:
    """A conversation with all that packets and dissectors need. `rows` has it at rest, in little room."""

    index: int
    keys: tuple[bytes, bytes]  # in the table of flows: of the packets of who sent the first one, of the other's
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
    indexed: bool = False  # whether it is found when it rests
    forgotten: bool = False  # another conversation has its ports now
    reuses: bool = False  # another conversation had them before

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

    def join(self, client_sent_first: bool) -> None:
        """Let both sides know each other and the conversation."""
        client, server = self.client, self.server
        client.flow = server.flow = self
        client.peer, server.peer = server, client
        client.is_client, server.is_client = True, False
        client.sent_first, server.sent_first = client_sent_first, not client_sent_first

    def dissolve(self) -> None:
        """Let the conversation and its sides no longer hold each other."""
        for side, _ in self.sides:
            del side.flow, side.peer


def guess_client(source_port: int, destination_port: int) -> FirstSpeaker:
    """Whether the sender of the first frame seen is the client, if nothing but the ports can tell."""
    from_service, to_service = source_port in SERVICE_PORTS, destination_port in SERVICE_PORTS
    if from_service != to_service:
        return to_service
    from_low, to_low = source_port < 1024, destination_port < 1024
    return to_low if from_low != to_low else True


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
