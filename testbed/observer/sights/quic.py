"""What a QUIC conversation tells: the name in the client's Initial packets, versions, and that it is QUIC at all."""

from __future__ import annotations

from testbed.facts import Kind
from testbed.observer import filters, tls
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState, Side
from testbed.observer.sights.tls import OVER_QUIC, sight_handshake
from testbed.observer.wire.quic import VERSIONS
from testbed.observer.wire.quic_handshake import QuicHandshake

LONG_HEADER, FIXED_BIT = 0x80, 0x40
TAIL_OCTETS = 48  # encrypted, and so in no other datagram
SHORTEST_TELLING_ID_OCTETS = 8  # shorter ones occur by chance


def dissect_quic(flow: FlowState, side: Side, data: bytes, place: Place, findings: Findings) -> None:
    """A datagram of a flow of QUIC. Cheap for all but the first ones with long headers."""
    handshake = flow.dissector
    if not isinstance(handshake, QuicHandshake):
        handshake = flow.dissector = QuicHandshake()
    if not data[0] & LONG_HEADER:
        flow.settled = handshake.over
        return
    if handshake.over:
        if not handshake.begins_anew(data):
            return
        handshake = flow.dissector = QuicHandshake(former=handshake.former + 1)
    had = len(handshake.unfinished_hello) if not handshake.hellos else 0
    versions, retried, offered = set(handshake.versions), handshake.retried, handshake.offered
    messages = handshake.add(data, side.is_client)
    flow.application = flow.application or "quic"
    if handshake.client_side is False:
        flow.swap_roles()
        handshake.client_side = True
    if not handshake.hellos and len(handshake.unfinished_hello) > had:
        handshake.grown_with = (*place, data[-TAIL_OCTETS:])
    _hint_headers(flow, handshake, (versions, retried, offered), place, findings)
    for message in messages:
        detail = {"quic_version": VERSIONS[message.version]}
        carrier = OVER_QUIC
        if message.from_client and not message.first_keys:  # Wireshark takes it for the first hello once more
            packet = f"quic.dcid == {message.destination.hex(':')} && quic.version == 0x{message.version:08x}"
            carrier = OVER_QUIC._replace(instead=packet)
        sight_handshake(flow, message.type, message.body, carrier, place, findings, **detail)
    for connection_id in handshake.ids:
        if len(connection_id) >= SHORTEST_TELLING_ID_OCTETS:
            findings.know_connection(connection_id, flow.index)


def sight_unfinished_quic(flow: FlowState, findings: Findings) -> None:
    """A ClientHello whose last packets the capture does not have; the name may be in the first ones."""
    handshake = flow.dissector
    body = handshake.unfinished_hello if isinstance(handshake, QuicHandshake) else b""
    hello = tls.parse_client_hello(body, cut_off=True) if body else None
    if not isinstance(handshake, QuicHandshake) or hello is None or not hello.server_name:
        return
    frame, time_ns, tail = handshake.grown_with
    place = Place(frame, time_ns)
    findings.warn("a QUIC ClientHello is not in the capture to its end", place.frame)
    name = as_text(hello.server_name).lower()
    display_filter = f"udp.payload contains {filters.octets(tail)}"  # Wireshark shows no name
    findings.sight(Kind.QUIC_NAME, name, place.frame, place.time_ns, display_filter, "quic")
    findings.name(name, "quic", place.frame, display_filter)


def _hint_headers(
    flow: FlowState,
    handshake: QuicHandshake,
    before: tuple[set[int], bool, tuple[int, ...]],
    place: Place,
    findings: Findings,
) -> None:
    versions, retried, offered = before
    server = str(flow.server.endpoint)
    both = filters.between("udp", flow.client.endpoint, flow.server.endpoint)
    for version in handshake.versions - versions:
        display_filter = f"{both} && quic.version == 0x{version:08x}"
        findings.hint("quic", f"version {VERSIONS[version]}", server, place, display_filter)
    if handshake.retried and not retried:
        findings.hint("quic", "the server asks for another try (Retry)", server, place, f"{both} && quic.retry_token")
    if handshake.offered and not offered:
        names = ", ".join(VERSIONS.get(version, f"0x{version:08x}") for version in handshake.offered)
        words = f"the server offers versions {names}"
        findings.hint("quic", words, server, place, f"{both} && quic.supported_version")


def recognise_migrated(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    """Whether a flow's first datagram has a short header with a connection id known from another: it moved here."""
    if not data[0] & FIXED_BIT or data[0] & LONG_HEADER or not findings.connections:
        return False
    for size in findings.connection_id_sizes:
        former = findings.connections.get(data[1 : 1 + size]) if len(data) > size else None
        if former is not None and former != flow.index:
            flow.application = "quic"
            flow.dissector = QuicHandshake()
            display_filter = filters.between("udp", flow.client.endpoint, flow.server.endpoint)
            ends = f"udp {flow.client.endpoint} -> {flow.server.endpoint}"
            rule = "the first datagram carries a connection id that another flow agreed on"
            findings.hint(
                "quic", "a connection moved here from another address or port", ends, place, display_filter, rule
            )
            return True
    return False
