"""`observe`: one pass over a capture file, frame by frame, then the conversations that came of it.

    frame -> link layer -> IP (fragments put together) -> flow -> UDP and ICMP at once, TCP into its stream
    end of file -> every TCP conversation is dissected -> sightings of addresses, volumes and times per flow

Memory is bounded by `Limits`, whatever the file's size; what a limit cuts off is said in `warnings` and `complete`. A
conversation of which nobody speaks takes a few hundred octets (`table`), and so do the flows and sightings told of it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from testbed.capture.reader import CaptureReader, Frame
from testbed.capture.source import NOWHERE, Store
from testbed.observer.conclusion import Conclusion
from testbed.observer.dissect import dissect_datagram
from testbed.observer.findings import CLEAR_KINDS, Findings, Place, clear_text
from testbed.observer.flows import (
    ICMP,
    ICMPV6,
    PROTOCOL_NAMES,
    TCP,
    UDP,
    FlowState,
    Side,
    address_text,
    count,
    guess_client,
)
from testbed.observer.ip import Packet, Reassembler, parse_ip, parse_whole
from testbed.observer.link import KNOWN_LINK_TYPES, network_offset, unread_ethertype
from testbed.observer.model import Endpoint, Limits, Observation
from testbed.observer.quick import QuickPath
from testbed.observer.sights.network import sight_arp, sight_quoted, sight_syn
from testbed.observer.sights.text import sight_datagram_text
from testbed.observer.streams import Budget
from testbed.observer.table import FlowTable
from testbed.observer.told import Rows, Telling
from testbed.observer.tunnels.detect import detect_in_packet, layers_within
from testbed.observer.tunnels.openvpn_control import ControlChannel

MOST_LAYERS = 32  # headers around a packet: eight tunnels one in another

DEFAULT_LIMITS = Limits()
ECHO_REQUESTS, ECHO_REPLIES = {ICMP: 8, ICMPV6: 128}, {ICMP: 0, ICMPV6: 129}
ECHO_FIELDS = {ICMP: "icmp.ident", ICMPV6: "icmpv6.echo.identifier"}
SYN, FIN, RST, ACK = 2, 1, 4, 16
TAILS = tuple(bytes((protocol,)) for protocol in range(256))  # of a flow's key


def observe(
    path: Path | str, *, limits: Limits = DEFAULT_LIMITS, in_columns: bool | None = None, keep_streams: bool = True
) -> Observation:
    """All that somebody who recorded this file can know.

    Shape:  without `keep_streams` the answer is the same but for `streams`, which is empty; what only they need is not
            remembered, and memory hardly grows with the capture
            `in_columns` says whether ordinary packets are taken many at once, with numpy, which gives the same answer
            sooner where there are many of them; None: if the file is large
    Errors: OSError if the file cannot be opened; nothing else, whatever is in it
    """
    with CaptureReader(path) as reader:
        passing = _Pass(limits, reader.store, keep_streams)
        with without_collector():
            passing.add_all(reader, reader.is_large if in_columns is None else in_columns)
            return passing.finish(reader)


@contextmanager
def without_collector() -> Iterator[None]:
    """Keep Python from searching for cycles, in a block or a decorated function: nearly everything that is made there
    is kept, and the search takes a tenth of a pass."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            if not gc.get_freeze_count():
                gc.freeze()  # and back: all that is there now counts as old, and is not searched at once
                gc.unfreeze()
            gc.enable()


@dataclass(slots=True)
class _Pass:
    limits: Limits
    store: Store
    keep_streams: bool = True
    frames: int = 0
    octets: int = 0
    captured_octets: int = 0
    cut_packets: int = 0  # of which the file does not have all octets
    last_frame: int = 0
    last_time_ns: int = 0
    findings: Findings = field(init=False)
    table: FlowTable = field(init=False)
    fragments: Reassembler = field(init=False)
    layers: tuple[str, ...] = ()  # the headers around the packet at hand
    position: int = NOWHERE  # of the octets at hand, in the file
    noted_frames: dict[str, list[int]] = field(default_factory=dict)  # by address: fragments, quotes in ICMP errors

    def __post_init__(self) -> None:
        self.findings = Findings(self.limits)
        budget = Budget(self.limits.total_stream_octets, self.store)
        self.table = FlowTable(self.limits, budget, self.keep_streams)
        self.fragments = Reassembler(self.limits.fragment_octets)

    def add_all(self, reader: CaptureReader, in_columns: bool) -> None:
        """Take every frame: the common ones the quick way, all others, and all that opens or ends, the thorough way."""
        quick = QuickPath(self.table, self.limits)
        if in_columns:
            from testbed.observer.bulk import BulkPath  # and numpy, which a small capture does not wait for

            bulk = BulkPath(self, self.table, self.limits, quick)
            bulk.take_all(reader)
            self.octets, self.captured_octets, self.last_time_ns = bulk.octets, bulk.captured_octets, bulk.last_time_ns
            self.cut_packets = bulk.cut_packets
        else:
            self._add_each(reader, quick.take)
        self.frames = reader.frames

    def _add_each(self, reader: CaptureReader, take_quickly: Callable[[Frame, int], bool]) -> None:
        total_octets = missing_octets = 0
        frame = None
        for frame in reader:
            octets = frame[4]
            total_octets += octets
            if octets != len(frame[3]):
                missing_octets += octets - len(frame[3])
                self.cut_packets += octets > len(frame[3])
            if not take_quickly(frame, reader.position):
                self.add(frame, reader.position)
        if frame is not None:
            self.last_time_ns = frame.time_ns
        self.octets, self.captured_octets = total_octets, total_octets - missing_octets

    def add(self, frame: Frame, position: int) -> None:
        """Shape: `position` is where the frame's octets stand in the file."""
        self.position = position
        number, time_ns, link_type, data, octets, _ = frame
        packet = parse_ip(data, network_offset(link_type, data))
        if packet is None:
            if link_type not in KNOWN_LINK_TYPES:
                self.findings.limit(f"frames of link type {link_type} cannot be read", number)
            else:
                sight_arp(link_type, data, Place(number, time_ns), self.findings)
                if kind := unread_ethertype(link_type, data):
                    self.findings.warn(f"frames of Ethertype {kind} are not read", number)
            return
        if packet.protocol == TCP and packet.fragment_offset is None and packet.end - packet.start >= 20:
            self.layers = ()
            self._tcp(packet, data, Place(number, time_ns), (number,), octets)
        else:
            self._network(packet, data, Place(number, time_ns), (number,), octets, ())

    def _network(
        self, packet: Packet, data: bytes, place: Place, frames: tuple[int, ...], octets: int, layers: tuple[str, ...]
    ) -> None:
        """A packet, whole or a fragment, and the packets in it; `layers` are the headers around it."""
        if packet.fragment_offset is not None:
            whole = self.fragments.add(packet, data, place.frame, octets, place.time_ns)
            if whole is None:
                # The addresses stand in every piece, whether the datagram is ever whole or not.
                self._note_addresses((address_text(packet.source), address_text(packet.destination)), place.frame)
                return
            data, frames, octets, self.position = whole.data, whole.frames, whole.frame_octets, NOWHERE
            packet = parse_whole(whole, packet)
        self.layers = layers
        carrier, inner_at = self._transport(packet, data, place, frames, octets)
        if carrier is not None and inner_at >= 0 and len(layers) < MOST_LAYERS:
            self._follow(carrier, packet, data, inner_at, place, frames, octets)

    def _follow(
        self,
        carrier: FlowState,
        packet: Packet,
        data: bytes,
        at: int,
        place: Place,
        frames: tuple[int, ...],
        octets: int,
    ) -> None:
        """The packet in another one."""
        inner = parse_ip(data[: packet.end], at)
        if inner is not None:
            self._network(inner, data, place, frames, octets, layers_within(carrier))

    def _note_addresses(self, addresses: tuple[str, ...], number: int) -> None:
        """They stand in this frame, but in no header of a flow's packet."""
        for address in dict.fromkeys(addresses):
            if address not in self.noted_frames and len(self.noted_frames) >= self.limits.flows:
                self.findings.limit("more addresses outside of flows than the limit", number)
                continue
            frames = self.noted_frames.setdefault(address, [])
            if len(frames) < self.limits.frames_per_sighting:
                frames.append(number)

    def _transport(
        self, packet: Packet, data: bytes, place: Place, frames: tuple[int, ...], octets: int
    ) -> tuple[FlowState | None, int]:
        """The flow that carries another packet in clear, and where in `data` that packet begins; else None and -1."""
        protocol, start, end = packet.protocol, packet.start, packet.end
        if protocol == TCP and end - start >= 20:
            self._tcp(packet, data, place, frames, octets)
        elif protocol == UDP and end - start >= 8:
            return self._udp(packet, data, place, frames, octets)
        elif protocol in ECHO_REQUESTS and end - start >= 4:
            self._icmp(packet, data, place, frames, octets)
        else:
            side = self._side(packet, b"", True, place)
            if side is not None:
                self._count(side, place, frames, octets, end - start)
                return side.flow, detect_in_packet(side.flow, packet, data, place, self.findings)
        return None, -1

    def _side(
        self,
        packet: Packet,
        ports: bytes,
        sender_is_client: bool,
        place: Place,
        fresh: bool = False,
        opens: bool = False,
    ) -> Side | None:
        """The sender's side of the packet's flow, opened if it is new; None where the limit on flows is reached."""
        tail = TAILS[packet.protocol]
        if self.layers:
            tail += "/".join(self.layers).encode()
        key = packet.source + packet.destination + ports + tail
        side = self.table.find(key)
        if side is not None and not fresh:
            return side
        reverse = packet.destination + packet.source + ports[2:] + ports[:2] + tail
        if fresh:
            self.table.forget((key, reverse))
        elif opens and self.table.forget_closed((key, reverse)):
            fresh = True
        else:
            side = self.table.wake((key, reverse))
            if side is not None:
                return side
        if self.table.full:
            self.findings.limit("more flows than the limit", place.frame)
            return None
        has_ports = packet.protocol in (TCP, UDP)
        source_port = int.from_bytes(ports[:2], "big") if has_ports else 0
        destination_port = int.from_bytes(ports[2:], "big") if has_ports else 0
        opened = self.table.open(
            (key, reverse),
            packet.protocol,
            Endpoint(address_text(packet.source), source_port),
            Endpoint(address_text(packet.destination), destination_port),
            sender_is_client,
            place.frame,
            place.time_ns,
        )
        if self.layers:
            opened.flow.layers, self.table.has_layers = self.layers, True
        opened.flow.reuses = fresh
        return opened

    def _count(self, side: Side, place: Place, frames: tuple[int, ...], octets: int, payload_octets: int) -> None:
        count(side, frames, place.time_ns, octets, payload_octets, self.limits.frames_per_sighting)

    def open_tcp(self, frame: Frame, position: int) -> Side | None:
        """The side that sends this SYN if it begins a new conversation; it is not counted. Else None, nothing done."""
        number, time_ns, link_type, data, _, _ = frame
        packet = parse_ip(data, network_offset(link_type, data))
        if packet is None or self.table.full:
            return None
        self.position, self.layers = position, ()
        place, start = Place(number, time_ns), packet.start
        sequence = int.from_bytes(data[start + 4 : start + 8], "big")
        side = self._side_of_syn(packet, data[start : start + 4], sequence, place)
        if side is None or side.packets or side.peer.packets:
            return None
        sight_syn(packet, data, place, self.findings)
        return side

    def _side_of_syn(self, packet: Packet, ports: bytes, sequence: int, place: Place) -> Side | None:
        side = self._side(packet, ports, True, place, opens=True)
        if side is not None and (side.flow.closed or side.begins_anew(sequence)):
            return self._side(packet, ports, True, place, fresh=True)
        return side

    def _tcp(self, packet: Packet, data: bytes, place: Place, frames: tuple[int, ...], octets: int) -> None:
        start, end = packet.start, packet.end
        sequence = int.from_bytes(data[start + 4 : start + 8], "big")
        flags = data[start + 13]
        payload_at = start + (data[start + 12] >> 4) * 4
        ports = data[start : start + 4]
        opens = flags & (SYN | ACK) == SYN
        if opens:
            side = self._side_of_syn(packet, ports, sequence, place)
        else:
            side = self._side(packet, ports, not flags & SYN and _client_by_ports(ports), place)
        if side is None or side.reassembly is None or not start + 20 <= payload_at <= end:
            return
        payload = data[payload_at:end]
        count(side, frames, place.time_ns, octets, len(payload), self.limits.frames_per_sighting)
        if opens:
            sight_syn(packet, data, place, self.findings)
        if flags & SYN:
            side.reassembly.syn(sequence)
            sequence += 1
        if payload:
            side.reassembly.add(sequence, payload, place.frame, place.time_ns, self._position(payload_at))
            if side.recorder.size > side.recorder.asked_at:
                self.table.skim(side)
        if flags & FIN:
            side.reassembly.fin((sequence + len(payload)) & 0xFFFFFFFF, place.frame, place.time_ns)
        if flags & RST or (flags & FIN and side.peer.reassembly and side.peer.reassembly.fin_position is not None):
            side.flow.closed = True

    def _udp(
        self, packet: Packet, data: bytes, place: Place, frames: tuple[int, ...], octets: int
    ) -> tuple[FlowState | None, int]:
        start = packet.start
        length = int.from_bytes(data[start + 4 : start + 6], "big")
        end = min(start + length, packet.end) if length >= 8 else packet.end
        ports = data[start : start + 4]
        side = self._side(packet, ports, _client_by_ports(ports), place)
        if side is None:
            return None, -1
        inner_at = self._datagram(side, data[start + 8 : end], place, frames, octets, self._position(start + 8))
        return (side.flow, start + 8 + inner_at) if inner_at >= 0 else (None, -1)

    def _datagram(
        self, side: Side, payload: bytes, place: Place, frames: tuple[int, ...], octets: int, position: int
    ) -> int:
        """Where in the payload the IP packet begins that it carries in clear, or -1."""
        count(side, frames, place.time_ns, octets, len(payload), self.limits.frames_per_sighting)
        flow = side.flow
        if payload:
            dissect_datagram(flow, side, payload, place, self.findings)
            if self.keep_streams or side.may_be_dtls:
                side.own_recorder().append(payload, place.frame, place.frame, place.time_ns, position)
        if flow.carries is None:
            if flow.tunnel is not None and not isinstance(flow.dissector, ControlChannel):
                flow.settled = True
            return -1
        return flow.carries(payload)

    def add_datagram(self, key: bytes, payload: bytes, number: int, time_ns: int, octets: int, position: int) -> int:
        """A whole datagram in a frame with nothing unusual about it; returns where in it another packet begins, or -1.

        Shape: `key` is that of its flow, `position` is where the payload stands in the file
        """
        place, side = Place(number, time_ns), self.table.find(key)
        if side is None:
            self.layers, middle, ports = (), len(key) - 5 >> 1, key[-5:-1]
            packet = Packet(key[:middle], key[middle : 2 * middle], UDP, 0, 0)
            side = self._side(packet, ports, _client_by_ports(ports), place)
            if side is None:
                return -1
        position = position if position >= 0 else NOWHERE
        return self._datagram(side, payload, place, (number,), octets, position)

    def add_carried(self, key: bytes, frame: Frame, inner_at: int, position: int) -> None:
        """The packet that begins at `inner_at` of a frame, within a datagram that was added."""
        number, time_ns, link_type, data, octets, _ = frame
        packet, carrier = parse_ip(data, network_offset(link_type, data)), self.table.find(key)
        self.position = position
        if packet is not None and carrier is not None:
            self._follow(carrier.flow, packet, data, inner_at, Place(number, time_ns), (number,), octets)

    def _position(self, at: int) -> int:
        """Where in the file the octet `at` of those at hand stands."""
        return self.position + at if self.position >= 0 else NOWHERE

    def _icmp(self, packet: Packet, data: bytes, place: Place, frames: tuple[int, ...], octets: int) -> None:
        start, protocol = packet.start, packet.protocol
        kind = data[start]
        request, reply = kind == ECHO_REQUESTS[protocol], kind == ECHO_REPLIES[protocol]
        echo = (request or reply) and packet.end - start >= 8
        identifier = data[start + 4 : start + 6] if echo else bytes((0, kind))
        side = self._side(packet, identifier + identifier, not reply, place)
        if side is None:
            return
        payload = data[start + 8 : packet.end] if echo else b""
        self._count(side, place, frames, octets, len(payload))
        side.flow.roles = echo
        side.flow.also = f"{ECHO_FIELDS[protocol]} == {identifier[0] << 8 | identifier[1]}"
        if not echo:
            side.flow.also = f"{PROTOCOL_NAMES[protocol]}.type == {kind}"
            self._note_addresses(sight_quoted(packet, data, place, self.findings), place.frame)
        if payload:
            name = PROTOCOL_NAMES[protocol]
            if self.keep_streams:
                at = self._position(start + 8)
                side.own_recorder().append(payload, place.frame, place.frame, place.time_ns, at)
            sight_datagram_text(payload, name, name, place, self.findings)

    def finish(self, reader: CaptureReader) -> Observation:
        self.table.close()
        conclusion = Conclusion(self.table, self.findings, self.limits, self.keep_streams)
        with self.store.reading_on():
            conclusion.draw()
        findings, table, rows = self.findings, self.table, Rows(self.table.flows, self.table.words)
        if self.fragments.unfinished:
            findings.warn(f"{self.fragments.unfinished} fragmented IP datagrams are incomplete", self.frames)
        if self.fragments.contradiction:
            findings.warn("IP fragments contradict each other", self.fragments.contradiction)
        for frame, times in table.budget.contradictions.items():
            for _ in range(times):
                findings.warn("TCP segments contradict each other", frame)
        if self.fragments.abandoned:
            findings.limit("fragments beyond the limit were given up", self.frames)
        telling = Telling(rows, findings, self.limits.frames_per_sighting)
        telling.sight_addresses(table, self.noted_frames)
        sightings = telling.sightings(table)
        if conclusion.is_cut:
            findings.limit("streams longer than the limit were cut", self.frames)
        streams = conclusion.streams()
        cut = self.cut_packets
        cuts = (f"{cut} packet{' is' if cut == 1 else 's are'} cut: the capture has not all of their octets",)
        damaged = bool(reader.warnings) or not findings.complete
        return Observation(
            sightings=sightings,
            names=findings.names(),
            flows=rows.flows(),
            streams=streams,
            hints=findings.hints(),
            tunnels=tuple(findings.tunnels),
            cleartext=clear_text(sightings.of(*CLEAR_KINDS)),
            warnings=(*reader.warnings, *(cuts if cut else ()), *findings.warnings()),
            frames=self.frames,
            octets=self.octets,
            captured_octets=self.captured_octets,
            dropped=reader.dropped,
            complete=not damaged and not cut,
            damaged=damaged,
            addresses=telling.addresses,
        )


def _client_by_ports(ports: bytes) -> bool:
    return guess_client(ports[0] << 8 | ports[1], ports[2] << 8 | ports[3])
