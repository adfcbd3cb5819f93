"""QUIC as anybody on the path reads it: long headers with version and ids, and what an Initial packet holds.

    long header   form, type (1) | version (4) | destination id | source id | … | packet number, payload
    short header  form (1) | destination id | packet number, payload

An Initial packet is encrypted with keys that follow from its own header, so everybody can open it; its payload is shown
as readable, with the name in the ClientHello. Handshake, 0-RTT and 1-RTT packets are sealed. Opening is the observer's
parser's work, whose memory and tries are bounded.

Source: RFC 9000 section 17, RFC 9001 section 5.2, RFC 9369
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.dissection.opening import Opening
from testbed.dissection.tls import HANDSHAKES, client_hello_fields
from testbed.observer.wire import quic
from testbed.observer.wire.quic import LongPacket
from testbed.observer.wire.quic_handshake import HandshakeMessage, QuicHandshake

_CLIENT_HELLO = 1
_NAMES = {
    quic.INITIAL: "Initial",
    quic.ZERO_RTT: "0-RTT",
    quic.HANDSHAKE: "Handshake",
    quic.RETRY: "Retry",
    quic.NEGOTIATION: "Version Negotiation",
}
_SHORT_HEADER_OCTETS = 1


@dataclass(slots=True)
class QuicState:
    """What one conversation has shown."""

    handshake: QuicHandshake = field(default_factory=QuicHandshake)


def begins(datagram: bytes) -> bool:
    """Whether a datagram opens a conversation of QUIC."""
    return quic.looks_like_long_header(datagram) and bool(quic.split_datagram(datagram))


def open_datagram(opening: Opening, start: int, end: int, state: QuicState, direction: bool) -> None:
    """A datagram of a conversation that is known to be QUIC's."""
    datagram = opening.data[start:end]
    packets = quic.split_datagram(datagram)
    messages = state.handshake.add(datagram, direction) if packets else []
    names = []
    for packet in packets:
        told = messages if packet.kind == quic.INITIAL else []
        names.append(_open_long(opening, start, packet, told))
        messages = [] if told else messages
    at = packets[-1].end if packets else 0
    if at < len(datagram):
        names.append(_open_short(opening, start + at, end) if datagram[at] & 0x40 else "Padding")
        if names[-1] == "Padding":
            opening.add("Padding", start + at, end, ("octets", end - start - at))
    opening.say("QUIC", "; ".join(names))


def _open_long(opening: Opening, base: int, packet: LongPacket, messages: list[HandshakeMessage]) -> str:
    name = _NAMES[packet.kind]
    version = quic.VERSIONS.get(packet.version, f"0x{packet.version:08x}")
    fields: list[tuple[str, object]] = [
        *(("kind", name), ("version", version if packet.version else "negotiation")),
        *(("destination id", packet.destination.hex()), ("source id", packet.source.hex())),
    ]
    offered = [quic.VERSIONS.get(number, f"0x{number:08x}") for number in packet.versions]
    fields += [("versions offered", ", ".join(offered))] if offered else []
    header_end = max(packet.start, min(packet.number_at, packet.end))
    opening.add("QUIC header", base + packet.start, base + header_end, *fields)
    said = [HANDSHAKES.get(message.type, "Handshake message") for message in messages]
    if header_end < packet.end:
        _open_payload(opening, base + header_end, base + packet.end, packet.kind, messages)
    ids = f"DCID={packet.destination.hex()}" + (f", SCID={packet.source.hex()}" if packet.source else "")
    return ", ".join([name, ids, *said])


def _open_payload(opening: Opening, start: int, end: int, kind: str, messages: list[HandshakeMessage]) -> None:
    if kind != quic.INITIAL:
        sealed = kind != quic.RETRY
        opening.add(f"QUIC {_NAMES[kind]} packet", start, end, ("octets", end - start), encrypted=sealed)
        return
    fields: list[tuple[str, object]] = [("keys", "follow from the header: everybody can open this")]
    for message in messages:
        fields.append(("message", HANDSHAKES.get(message.type, f"type {message.type}")))
        if message.type == _CLIENT_HELLO:
            client_hello_fields(message.body, fields)
    opening.add("Initial packet of QUIC, opened", start, end, *fields)


def _open_short(opening: Opening, start: int, end: int) -> str:
    header_end = min(start + _SHORT_HEADER_OCTETS, end)
    opening.add("QUIC header", start, header_end, ("kind", "short: 1-RTT"))
    if header_end < end:
        opening.add("QUIC 1-RTT packet", header_end, end, ("octets", end - header_end), encrypted=True)
    return "Protected Payload"
