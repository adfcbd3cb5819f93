"""Every conversation past the detectors: the datagrams as they come, a TCP conversation when it is over.

The first rule that is certain decides; the tunnel is then entered once, and the detectors are let go.
"""

from __future__ import annotations

from testbed.facts import Kind
from testbed.observer import filters
from testbed.observer.findings import Findings, Place
from testbed.observer.flows import FlowState
from testbed.observer.model import Tunnel
from testbed.observer.tunnels import openvpn
from testbed.observer.tunnels.openvpn import OpenVpnDetector
from testbed.observer.tunnels.wireguard import WireGuardDetector


def detect_in_datagram(flow: FlowState, from_client: bool, packet: bytes, place: Place, findings: Findings) -> bool:
    """Whether the flow is a tunnel as far as known; the first time, say so."""
    if flow.tunnel is not None:
        return True
    detectors = flow.detectors
    if detectors is None:
        detectors = flow.detectors = {"openvpn": OpenVpnDetector(), "wireguard": WireGuardDetector()}
    for protocol, detector in list(detectors.items()):
        rule = detector.add(packet, from_client)
        if rule is not None:
            if not detector.client_was_right:
                flow.swap_roles()
            sight_tunnel(flow, protocol, rule, place, findings)
            return True
        if detector.hopeless:
            del detectors[protocol]
    return False


def sight_tunnel(flow: FlowState, protocol: str, rule: str, place: Place, findings: Findings) -> None:
    client, server = flow.client.endpoint, flow.server.endpoint
    flow.application = protocol
    flow.detectors = {}
    flow.tunnel = Tunnel(protocol, flow.protocol, client, server, rule, place.frame)
    findings.tunnels.append(flow.tunnel)
    findings.sight(
        Kind.TUNNEL,
        f"{protocol} {client} -> {server}",
        place.frame,
        place.time_ns,
        filters.between(flow.protocol, server, client),
        protocol,
        rule=rule,
        transport=flow.protocol,
    )


def detect_in_streams(flow: FlowState, findings: Findings) -> bool:
    """OpenVPN over TCP: both directions' packets in the order in which they were complete."""
    packets = []
    for side in (flow.client, flow.server):
        for run in side.recorder.runs()[:1]:
            for end, packet in openvpn.split_tcp(run.data):
                frame, time_ns = side.recorder.completed(run.start + end)
                packets.append((frame, time_ns, side.is_client, packet))
    detector = OpenVpnDetector()
    for frame, time_ns, from_client, packet in sorted(packets, key=lambda entry: entry[0]):
        rule = detector.add(packet, from_client)
        if rule is not None:
            if not detector.client_was_right:
                flow.swap_roles()
            sight_tunnel(flow, "openvpn", rule, Place(frame, time_ns), findings)
            return True
    return False
