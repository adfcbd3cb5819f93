"""What OpenVPN's control channel tells where nobody encrypts it: the tunnel's own TLS handshake, with all its names.

Over UDP packet by packet as they come, over TCP once the conversation is over. Wireshark does not put these messages
together, and knows OpenVPN by its port; so the findings are found by the first octets of the packets that carried them.
"""

from __future__ import annotations

from testbed.facts import Kind
from testbed.observer import filters, tls
from testbed.observer.findings import Findings, Place
from testbed.observer.flows import FlowState
from testbed.observer.sights.tls import VERSION_NAMES, Carrier, sight_handshake
from testbed.observer.tunnels.openvpn_control import ControlChannel, ControlMessage, Piece
from testbed.observer.tunnels.segments import openvpn_packets

RULE = "in OpenVPN's control channel, which is not encrypted"
IN_OPENVPN = Carrier(Kind.TLS_NAME, "tls in openvpn", "t", "tls", "", within="openvpn", rule=RULE)
NEEDLE_OCTETS = 48  # as far as the message's number behind four acknowledgements; an HMAC is within
SHORTEST_NEEDLE_OCTETS = 16


def dissect_openvpn_datagram(flow: FlowState, from_client: bool, data: bytes, place: Place, findings: Findings) -> None:
    """A datagram of a tunnel, which is told nothing unless its control channel is in clear."""
    channel = flow.dissector
    if not isinstance(channel, ControlChannel):
        return
    for message in channel.add(data, from_client, ((data[:NEEDLE_OCTETS], place.frame),)):
        _sight(flow, message, place, findings)
    if channel.over:
        flow.dissector = None


def dissect_openvpn_streams(flow: FlowState, findings: Findings) -> None:
    """A finished TCP conversation; nothing, unless it is OpenVPN whose control channel is in clear."""
    channel = flow.dissector
    if not isinstance(channel, ControlChannel):
        return
    for packet, start, end in openvpn_packets(flow):
        side = flow.client if packet.from_client else flow.server
        pieces = side.recorder.pieces_between(start, end)
        needles = tuple((octets[:NEEDLE_OCTETS], frame) for octets, frame in pieces)
        for message in channel.add(packet.data, packet.from_client, needles):
            _sight(flow, message, packet.place, findings)
    flow.dissector = None


def _sight(flow: FlowState, message: ControlMessage, place: Place, findings: Findings) -> None:
    """Shape: `place` is where the message's last octet came; every packet that carried some of it proves it"""
    pieces = _telling(message.pieces)
    payload = f"{flow.protocol}.payload"
    ends = filters.between(flow.protocol, flow.client.endpoint, flow.server.endpoint)
    needles = tuple(dict.fromkeys(f"{payload} contains {filters.octets(octets)}" for octets, _ in pieces))
    several = filters.either(needles)
    carrier = IN_OPENVPN._replace(instead=f"{ends} && ({several})" if len(needles) > 1 else f"{ends} && {several}")
    kind, body = message.handshake.type, message.handshake.body
    for _, frame in pieces:
        seen_at = Place(frame, place.time_ns)
        sight_handshake(flow, kind, body, carrier, seen_at, findings)
        if kind == tls.CLIENT_HELLO:
            _hint_offer(flow, body, carrier, seen_at, findings)


def _telling(pieces: tuple[Piece, ...]) -> tuple[Piece, ...]:
    """Those that are long enough to be found by their octets."""
    return tuple(piece for piece in pieces if len(piece[0]) >= SHORTEST_NEEDLE_OCTETS) or pieces


def _hint_offer(flow: FlowState, body: bytes, carrier: Carrier, place: Place, findings: Findings) -> None:
    """What the tunnel's client offers: OpenVPN sends no name that a sighting could have these with."""
    hello = tls.parse_client_hello(body)
    if hello is None:
        return
    words = "offers " + ", ".join(VERSION_NAMES.get(version, f"0x{version:04x}") for version in hello.versions)
    if hello.alpn:
        words += "; ALPN " + ", ".join(protocol.decode("utf-8", "backslashreplace") for protocol in hello.alpn)
    findings.hint("tls", words, flow.client.endpoint.address, place, carrier.instead, RULE)
