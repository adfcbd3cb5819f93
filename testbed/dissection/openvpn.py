"""OpenVPN's packets as anybody on the path can read them: opcode, key id, session id or peer id; the rest is sealed.

    control    opcode|key id (1) | session id (8) | wrapping | acknowledged ids … | message id (4) | TLS
    data V1/2  opcode|key id (1) | [peer id (3)] | packet id (4) | tag (16) | ciphertext          with an AEAD cipher

A conversation is OpenVPN's once a plausible hard reset opened it; the reset's size and octets tell the wrapping of the
control channel: none, tls-auth (an HMAC, readable) or tls-crypt (encrypted). Static-key mode has no header at all and
stays unknown octets.

Source: openvpn-protocol.md sections 1 to 3
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.dissection import tls
from testbed.dissection.opening import Opening, Reader

OPCODES = {
    1: "P_CONTROL_HARD_RESET_CLIENT_V1",
    2: "P_CONTROL_HARD_RESET_SERVER_V1",
    3: "P_CONTROL_SOFT_RESET_V1",
    4: "P_CONTROL_V1",
    5: "P_ACK_V1",
    6: "P_DATA_V1",
    7: "P_CONTROL_HARD_RESET_CLIENT_V2",
    8: "P_CONTROL_HARD_RESET_SERVER_V2",
    9: "P_DATA_V2",
    10: "P_CONTROL_HARD_RESET_CLIENT_V3",
    11: "P_CONTROL_WKC_V1",
}
_ACK, _DATA_V1, _DATA_V2, _RESET_V2, _RESET_V3 = 5, 6, 9, 7, 10
_BARE_RESET_OCTETS, _LARGEST_RESET_OCTETS = 14, 1_600
_PACKET_ID_OCTETS, _CRYPT_TAG_OCTETS, _AEAD_TAG_OCTETS = 8, 32, 16
_HMAC_OCTETS = frozenset((16, 20, 28, 32, 48, 64))
_RESETS = frozenset((1, 2, 3, 7, 8, 10))
_MOST_PARKED = 16
_LONGEST_PENDING_OCTETS = 1 << 17
_FIRST_COUNTERS = 1 << 10  # a counter begins at 1: a random word is as small once in four million


@dataclass(slots=True)
class ControlStream:
    """One direction of a key's control channel: its messages in order are a stream of TLS records.

    Shape: `pending` is the begin of a record whose rest is to come, `parked` messages that came too early
    """

    next_id: int
    pending: bytes = b""
    parked: dict[int, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class OpenVpnState:
    """What one conversation has shown, by direction and key.

    Shape: `hmac_octets` is 0 without wrapping, -1 with an encrypted one; `counts` says of data packets whether their
        packet id is readable
    """

    hmac_octets: int = 0
    counts: dict[tuple[bool, int], bool] = field(default_factory=dict)
    streams: dict[tuple[bool, int], ControlStream] = field(default_factory=dict)
    tls: dict[int, tls.TlsState] = field(default_factory=dict)  # by key


def recognise(packet: bytes) -> OpenVpnState | None:
    """The state of a conversation that this packet opens, or None if it is no client's hard reset."""
    reset = bool(packet) and packet[0] & 7 == 0 and packet[0] >> 3 in (_RESET_V2, _RESET_V3)
    if not reset or not _BARE_RESET_OCTETS <= len(packet) <= _LARGEST_RESET_OCTETS or not any(packet[1:9]):
        return None
    if len(packet) == _BARE_RESET_OCTETS:
        return OpenVpnState(0) if not any(packet[9:]) else None
    hmac_octets = len(packet) - _BARE_RESET_OCTETS - _PACKET_ID_OCTETS
    counter = packet[9 + hmac_octets : 13 + hmac_octets] if hmac_octets > 0 else b""
    authenticated = hmac_octets in _HMAC_OCTETS and not any(packet[-5:]) and counter == b"\0\0\0\1"
    if authenticated:
        return OpenVpnState(hmac_octets)
    return OpenVpnState(-1) if packet[9:13] == b"\0\0\0\1" or packet[9] == 0x0F else None


def open_packet(opening: Opening, start: int, end: int, state: OpenVpnState, direction: bool) -> None:
    """One packet of a conversation that is known to be OpenVPN's. Errors: Short"""
    reader = Reader(opening.data, start, end)
    first = reader.number(1)
    opcode, key_id = first >> 3, first & 7
    name = OPCODES.get(opcode, f"opcode {opcode}")
    opening.say("OpenVPN", f"MessageType: {name}")
    fields: list[tuple[str, object]] = [("opcode", f"{name} ({opcode})"), ("key id", key_id)]
    if opcode in (_DATA_V1, _DATA_V2):
        _open_data(opening, reader, state, (direction, key_id), fields, has_peer_id=opcode == _DATA_V2)
    else:
        _open_control(opening, reader, state, (direction, key_id), fields, opcode=opcode)


def _open_data(
    opening: Opening,
    reader: Reader,
    state: OpenVpnState,
    key: tuple[bool, int],
    fields: list[tuple[str, object]],
    *,
    has_peer_id: bool,
) -> None:
    start = reader.at - 1
    if has_peer_id:
        fields.append(("peer id", reader.number(3)))
    word = int.from_bytes(reader.data[reader.at : min(reader.at + 4, reader.end)], "big")
    if state.counts.setdefault(key, 0 < word <= _FIRST_COUNTERS):
        fields.append(("packet id", reader.number(4)))
    opening.add("OpenVPN", start, reader.at, *fields)
    left = reader.left
    inner = [("inside", "one packet of the client's or to it"), ("octets", f"{left:,}")]
    if state.counts[key] and left > _AEAD_TAG_OCTETS:
        inner.append(("of these", f"{_AEAD_TAG_OCTETS} of the authentication tag"))
    opening.add("OpenVPN data", reader.at, reader.end, *inner, encrypted=True)


def _open_control(
    opening: Opening,
    reader: Reader,
    state: OpenVpnState,
    key: tuple[bool, int],
    fields: list[tuple[str, object]],
    *,
    opcode: int,
) -> None:
    direction, key_id = key
    start = reader.at - 1
    fields.append(("session id", f"0x{reader.take(8).hex()}"))
    if state.hmac_octets:
        fields.append(("control channel", "tls-crypt: encrypted" if state.hmac_octets < 0 else "tls-auth: readable"))
    if state.hmac_octets < 0:
        _packet_id(reader, fields)
        fields.append(("authentication tag", reader.take(_CRYPT_TAG_OCTETS).hex()))
        opening.add("OpenVPN", start, reader.at, *fields)
        opening.add("OpenVPN control message", reader.at, reader.end, ("octets", f"{reader.left:,}"), encrypted=True)
        return
    if state.hmac_octets:
        fields.append(("HMAC", reader.take(state.hmac_octets).hex()))
        _packet_id(reader, fields)
    acknowledged = [reader.number(4) for _ in range(reader.number(1))]
    if acknowledged:
        fields.append(("acknowledges messages", ", ".join(map(str, acknowledged))))
        fields.append(("the other's session id", f"0x{reader.take(8).hex()}"))
    if opcode == _ACK:
        opening.add("OpenVPN", start, reader.at, *fields)
        return
    message_id = reader.number(4)
    fields.append(("message id", message_id))
    opening.add("OpenVPN", start, reader.at, *fields)
    stream = state.streams.setdefault((direction, key_id), ControlStream(message_id))
    if opcode in _RESETS and stream.next_id != message_id:  # a new session, or a new key
        stream = state.streams[direction, key_id] = ControlStream(message_id)
    if opcode in _RESETS:
        state.tls[key_id] = tls.TlsState()
    _open_message(opening, reader, state.tls.setdefault(key_id, tls.TlsState()), stream, (message_id, direction))


def _open_message(
    opening: Opening, reader: Reader, state: tls.TlsState, stream: ControlStream, which: tuple[int, bool]
) -> None:
    """One message of the control channel: whole TLS records as far as it completes them, parts of others counted."""
    message_id, direction = which
    start, end = reader.at, reader.end
    octets = reader.data[start:end]
    if message_id != stream.next_id:
        later = (message_id - stream.next_id) & 0xFFFFFFFF < 1 << 31
        if later and len(stream.parked) < _MOST_PARKED:
            stream.parked[message_id] = octets
        words = "came before an earlier one" if later else "sent again"
        opening.summary += f" [{words}]"
        if octets:
            opening.add("Part of a TLS record", start, end, ("octets", f"{len(octets):,}"), ("message", words))
        return
    whole = stream.pending + octets
    used = tls.records_end(whole)
    if used:
        said = opening.summary
        records_end = max(start, end - (len(whole) - used))
        tls.open_records(opening, whole[:used], start, records_end, state, direction)
        opening.say("OpenVPN", f"{said}, {opening.summary}")
    rest = whole[used:]
    if rest and octets:
        begin = max(start, end - len(rest))
        wanted = 5 + int.from_bytes(rest[3:5], "big") if len(rest) >= 5 else 0
        fields = (("octets", f"{end - begin:,}"), *((("of", f"{wanted:,} octets"),) if wanted else ()))
        opening.add("Part of a TLS record", begin, end, *fields, encrypted=rest[0] == tls.APPLICATION_DATA)
    stream.next_id = (message_id + 1) & 0xFFFFFFFF
    while stream.next_id in stream.parked:
        rest += stream.parked.pop(stream.next_id)
        stream.next_id = (stream.next_id + 1) & 0xFFFFFFFF
    stream.pending = rest[:_LONGEST_PENDING_OCTETS] if tls.looks_like_records(rest) or len(rest) < 5 else b""


def _packet_id(reader: Reader, fields: list[tuple[str, object]]) -> None:
    fields.append(("packet id", reader.number(4)))
    fields.append(("packet time", f"{reader.number(4)} s since 1970"))
