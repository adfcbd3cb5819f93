"""Every conversation past the detectors: the datagrams as they come, a TCP conversation when it is over.

The first rule that is certain decides; the tunnel is then entered once, and the detectors are let go. What is only
likely or possible waits until the end of the capture for something better. What is only possible makes no sighting.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from testbed.facts import Kind
from testbed.observer import filters
from testbed.observer.findings import Findings, Place
from testbed.observer.flows import FlowState, is_unicast
from testbed.observer.ip import Packet
from testbed.observer.model import Certainty, Tunnel
from testbed.observer.tunnels import envelopes, segments
from testbed.observer.tunnels.dtls import record_types
from testbed.observer.tunnels.openvpn_control import ControlChannel
from testbed.observer.tunnels.recognised import Recognised
from testbed.observer.tunnels.related import Related

ONE_FLOW_EACH_WAY = frozenset(("vxlan", "geneve"))  # whose source port is a hash of what they carry


def detect_in_datagram(flow: FlowState, from_client: bool, packet: bytes, place: Place, findings: Findings) -> bool:
    """Whether the flow is a tunnel as far as known; the first time, say so."""
    if flow.tunnel is not None:
        return True
    if flow.detectors is None:
        from testbed.observer.tunnels.candidates import datagram_detectors  # and all of them: many captures need none

        flow.detectors = datagram_detectors(packet)
        if not flow.application and record_types(packet):
            flow.application, findings.saw_dtls = "dtls", True
    if not flow.detectors:
        return False
    keep = True
    for detector in flow.detectors:
        recognised = detector.add(packet, from_client)
        if recognised is None:
            keep = keep and not detector.hopeless
        elif recognised.certainty is Certainty.CERTAIN:
            enter(flow, recognised, place, findings)
            return True
        elif flow.suspicion is None or flow.suspicion[0].certainty is Certainty.POSSIBLE:
            flow.suspicion = recognised, place
    if not keep:
        flow.detectors = [detector for detector in flow.detectors if not detector.hopeless]
    return False


def detect_in_packet(flow: FlowState, packet: Packet, data: bytes, place: Place, findings: Findings) -> int:
    """A packet of neither TCP nor UDP: where in `data` the IP packet begins that it carries in clear, or -1."""
    recognised = envelopes.recognise_protocol(packet, data)
    if recognised is None:
        return -1
    if flow.tunnel is None and is_unicast(flow.server.endpoint.address):
        enter(flow, recognised, place, findings)
    return envelopes.inner_offset_of_packet(packet, data)


def detect_in_streams(flow: FlowState, findings: Findings) -> bool:
    """Whether a finished TCP conversation is a tunnel of which no octet can be read."""
    found = segments.recognise(flow)
    if found is None:
        return False
    if found[0].certainty is Certainty.CERTAIN:
        enter(flow, *found, findings)
    else:
        flow.suspicion = found
    return found[0].certainty is not Certainty.POSSIBLE


def conclude(flows: Iterable[FlowState], related: Related, findings: Findings) -> None:
    """Once all conversations are over: what only several of them together tell, then what was only suspected.

    Shape: `flows` has, in their order, at least all that are in question or suspected
    """
    held = list(flows)
    for flow in held:
        found = related.judge(flow) if related.is_in_question(flow) else None
        if found is not None:
            enter(flow, *found, findings)
    for flow in held:
        refuted = flow.application == "tls"  # as found behind what looked encrypted
        if flow.suspicion is not None and flow.tunnel is None and not refuted:
            enter(flow, *flow.suspicion, findings)
    findings.tunnels.sort(key=lambda tunnel: tunnel.frame)


def layers_within(flow: FlowState, protocol: str = "") -> tuple[str, ...]:
    """The headers around what a tunnel carries, its own included."""
    version = "ipv6" if ":" in flow.client.endpoint.address else "ipv4"
    transport = (flow.protocol,) if flow.protocol in ("tcp", "udp") else ()
    return (*flow.layers, version, *transport, protocol or (flow.tunnel.protocol if flow.tunnel else flow.protocol))


def enter(flow: FlowState, recognised: Recognised, place: Place, findings: Findings) -> None:
    """Say once that the conversation is a tunnel, with the client where the protocol says that it is."""
    if not recognised.client_was_right:
        flow.swap_roles()
    client, server = flow.client.endpoint, flow.server.endpoint
    protocol, transport = recognised.protocol, flow.protocol if flow.protocol in ("tcp", "udp") else "ip"
    flow.application = protocol
    flow.detectors = []
    if recognised.control is not None:
        flow.dissector = ControlChannel(recognised.control)
    flow.carries = envelopes.CARRIERS.get(protocol) if transport == "udp" else None
    number = bisect_right(flow.frames, place.frame)
    flow.tunnel = Tunnel(
        protocol,
        transport,
        client,
        server,
        recognised.rule,
        place.frame,
        recognised.certainty,
        recognised.false_positives,
        layers_within(flow, protocol),
        number,
    )
    ends = (protocol, frozenset((client.address, server.address)))
    if transport == "udp" and protocol in ONE_FLOW_EACH_WAY and ends in findings.tunnel_ends:
        return  # the same tunnel again, from another port
    findings.tunnel_ends.add(ends)
    findings.tunnels.append(flow.tunnel)
    if recognised.certainty is Certainty.POSSIBLE:
        return
    findings.sight(
        Kind.TUNNEL,
        f"{protocol} {client} -> {server}",
        place.frame,
        place.time_ns,
        filters.between(flow.protocol, server, client),
        protocol,
        rule=recognised.rule,
        transport=transport,
        certainty=recognised.certainty.value,
    )
