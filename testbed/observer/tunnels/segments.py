"""What a finished TCP conversation of which nothing can be read is: the detectors over its streams and its segments.

OpenVPN over TCP puts two octets of length before each packet; the packets of both directions are put in the order in
which they were complete. Where the order of segments is what matters (the patterns of Xue et al., SSH), a piece of the
stream counts as a segment: what was sent again or out of order is in it once, in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from testbed.observer.findings import Place
from testbed.observer.flows import FlowState, Side
from testbed.observer.streams import Run
from testbed.observer.tunnels import block_cipher, encrypted, meta, openvpn, openvpn_patterns, ssh
from testbed.observer.tunnels.block_cipher import BlockCipherDetector
from testbed.observer.tunnels.framing import split_frames
from testbed.observer.tunnels.openvpn import OpenVpnDetector
from testbed.observer.tunnels.openvpn_patterns import FIRST_OCTET_OF_TCP, OpenVpnPatternDetector
from testbed.observer.tunnels.recognised import Detector, Recognised

MOST_SEGMENTS = 600  # of one side, looked at
MOST_BEGINNINGS = 12  # segments at which a packet is looked for in a stream whose beginning is missing
LEAST_ALIGNED, PROBE_OCTETS = 4, 32 << 10
IKE_OVER_TCP = b"IKETCP"
IKE_COST = "none: a prefix of 48 bits that the standard reserves for it"
_NOTHING = Run(0, b"")

Found = tuple[Recognised, Place]
Packets = list[tuple[int, bytes]]  # with the offset behind each


class Segment(NamedTuple):
    """Also an OpenVPN packet: what one side sent in one piece, and where it was complete."""

    place: Place
    from_client: bool
    data: bytes


def recognise(flow: FlowState) -> Found | None:
    client, server = _beginning(flow.client), _beginning(flow.server)
    if ssh.is_ssh(client.data, server.data):
        flow.application = "ssh"
        return _ssh(flow)
    introduced = meta.recognise(client.data, server.data)
    if introduced is not None:
        recognised, sent, received = introduced
        return recognised, max(_place(flow.client, sent), _place(flow.server, received))
    if client.data.startswith(IKE_OVER_TCP):
        rule = "the connection begins with IKETCP: IKE and ESP over TCP"
        return Recognised("ipsec", rule, IKE_COST), _place(flow.client, len(IKE_OVER_TCP))
    by_packets = _openvpn(flow, client, server) or _static_key(flow, client, server) or _patterns(flow, client, server)
    return by_packets or _by_segments(flow)


def _beginning(side: Side) -> Run:
    """A side's octets up to the first that are missing."""
    return next(iter(side.recorder.runs()), _NOTHING)


def _place(side: Side, end: int) -> Place:
    return Place(*side.recorder.completed(end))


def _openvpn(flow: FlowState, client: Run, server: Run) -> Found | None:
    packets = [_aligned(side, run, openvpn.split_tcp) for side, run in ((flow.client, client), (flow.server, server))]
    return _feed(OpenVpnDetector(), _framed(flow, *packets))


def openvpn_packets(flow: FlowState) -> list[tuple[Segment, int, int]]:
    """A TCP conversation's first OpenVPN packets in order, each with where in its side's octets it begins and ends."""
    found = [
        (Segment(_place(side, end), side.is_client, packet), end - len(packet), end)
        for side in (flow.client, flow.server)
        for end, packet in _aligned(side, _beginning(side), openvpn.split_tcp)
    ]
    return sorted(found, key=lambda framed: framed[0].place)


def _static_key(flow: FlowState, client: Run, server: Run) -> Found | None:
    def split(data: bytes) -> Packets:
        return split_frames(data, block_cipher.LEAST_OCTETS, block_cipher.MOST_PACKETS)

    packets = [_aligned(side, run, split) for side, run in ((flow.client, client), (flow.server, server))]
    return _feed(BlockCipherDetector(), _framed(flow, *packets)) if all(packets) else None


def _aligned(side: Side, run: Run, split: Callable[[bytes], Packets]) -> Packets:
    """The packets of a stream; if its beginning is not in the capture, from the first segment with which one begins."""
    packets = split(run.data)
    if packets or side.reassembly is None or side.reassembly.began_at is not None:
        return packets
    for start in side.recorder.offsets[1:MOST_BEGINNINGS]:
        if len(split(run.data[start : start + PROBE_OCTETS])) >= LEAST_ALIGNED:
            return [(start + end, packet) for end, packet in split(run.data[start:])]
    return []


def _patterns(flow: FlowState, client: Run, server: Run) -> Found | None:
    """The order of opcodes and the sizes of acknowledgements, where the stream is framed: what hides the opcodes does
    not hide the lengths, and by packets the patterns hold where segments cut packets in two."""
    frames = [split_frames(run.data, 1, openvpn_patterns.PACKETS) for run in (client, server)]
    return _feed(OpenVpnPatternDetector(), _framed(flow, *frames)) if all(frames) else None


def _framed(flow: FlowState, client: Packets, server: Packets) -> list[Segment]:
    """Packets with the offset behind each, of both directions, in the order in which they were complete."""
    found = [
        Segment(_place(side, end), side.is_client, packet)
        for side, packets in ((flow.client, client), (flow.server, server))
        for end, packet in packets
    ]
    return sorted(found, key=lambda segment: segment.place)


def segments(flow: FlowState, most: int = MOST_SEGMENTS) -> list[Segment]:
    """The first segments or datagrams with payload of both directions, `most` of each, in the order of their frames."""
    found = []
    for side in (flow.client, flow.server):
        recorder, data = side.recorder, side.recorder.data()
        for index in range(min(len(recorder.offsets), most)):
            start = recorder.offsets[index]
            if start >= len(data):  # of a long stream only the beginning is shown
                break
            end = recorder.offsets[index + 1] if index + 1 < len(recorder.offsets) else len(data)
            place = Place(recorder.frames[index], recorder.times_ns[index])
            found.append(Segment(place, side.is_client, data[start:end]))
    return sorted(found, key=lambda segment: segment.place.frame)


def _ssh(flow: FlowState) -> Found | None:
    turns: list[tuple[bool, int]] = []
    places: list[Place] = []
    for segment in segments(flow):
        if turns and turns[-1][0] == segment.from_client:
            turns[-1] = segment.from_client, turns[-1][1] + len(segment.data)
            places[-1] = segment.place
        else:
            turns.append((segment.from_client, len(segment.data)))
            places.append(segment.place)
    hint = ssh.recognise_forwarding(turns)
    return (hint[0], places[hint[1]]) if hint is not None else None


def _by_segments(flow: FlowState) -> Found | None:
    """What needs only sizes, directions and first octets."""
    reassembly = flow.client.reassembly
    from_the_beginning = reassembly is not None and reassembly.began_at is not None
    if not from_the_beginning:
        return None
    found = segments(flow)
    pattern = _feed(OpenVpnPatternDetector(octet_at=FIRST_OCTET_OF_TCP), found)
    if pattern is not None:
        return pattern
    first = next((segment for segment in found if segment.from_client), None)
    recognised = encrypted.recognise(first.data) if first is not None else None
    return (recognised, first.place) if first is not None and recognised is not None else None


def _feed(detector: Detector, packets: Iterable[Segment]) -> Found | None:
    for segment in packets:
        recognised = detector.add(segment.data, segment.from_client)
        if recognised is not None:
            return recognised, segment.place
        if detector.hopeless:
            return None
    return None
