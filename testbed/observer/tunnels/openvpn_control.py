"""OpenVPN's control channel where it is not encrypted: the octets of TLS in it, in order, and the messages they make.

    opcode and key id | session id (8) | [tls-auth: HMAC, packet id (4), time (4)] | body
    body: count | so many acknowledged ids (4 each) | the peer's session id (8), if count | message id (4) | TLS

Without wrapping, and under tls-auth, which signs and hides nothing, the body is in clear; `clear_body_at` finds from
the server's hard reset where it begins, and so how long the HMAC is. Each direction of each key of a session numbers
its messages from 0, the reset; what is sent again has its old number, what comes early waits. Key 0 is the handshake,
the others are renegotiations (unless tls-crypt hides them, as two peers of 2.6 agree: then nothing makes sense here).

Only packets of sessions are read whose two resets belong together. Everything is bounded: packets, sessions, messages,
octets that wait; which is more than any handshake has.

Source: openvpn-protocol.md sections 1, 2, 3.2 and 10.2
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.observer.tls import Handshake, HandshakeReader
from testbed.observer.tunnels.recognised import ClearControl

RESET_CLIENT_V2, RESET_SERVER_V2, CONTROL = 7, 8, 4
SESSION_AT, SESSION_OCTETS, ID_OCTETS = 1, 8, 4
BODY_AT = SESSION_AT + SESSION_OCTETS
# What stands before the body: nothing, or an HMAC (MD5, SHA1, SHA224, SHA256, SHA384, SHA512), packet id and time.
ENVELOPES = (0, *(8 + digest for digest in (16, 20, 28, 32, 48, 64)))
MOST_ACKNOWLEDGED = 8
MOST_PACKETS = 400  # of a conversation, looked at
MOST_SESSIONS = 8
MOST_STREAMS = 32  # directions of keys of sessions
MOST_MESSAGES = 256  # of one direction of one key
FURTHEST_AHEAD = 64  # OpenVPN itself takes 12
MOST_WAITING_OCTETS = 64 << 10  # of all messages that came early
MOST_TLS_OCTETS = 64 << 10  # of one direction of one key

Piece = tuple[bytes, int]  # octets as they came, and in which frame


class ControlMessage(NamedTuple):
    """A TLS message, and the packets that carried its octets, piece by piece."""

    handshake: Handshake
    pieces: tuple[Piece, ...]


class _Body(NamedTuple):
    peer_session: bytes  # empty where nothing is acknowledged
    number: int
    tls: bytes


def clear_body_at(packet: bytes, client_session: bytes) -> int:
    """Where the body begins in a server's hard reset that acknowledges the client's, or -1 if nothing fits."""
    for envelope in ENVELOPES:
        body = _read_body(packet, BODY_AT + envelope)
        if body is not None and body.peer_session == client_session and not body.number and not body.tls:
            return BODY_AT + envelope
    return -1


def _read_body(packet: bytes, at: int) -> _Body | None:
    if at >= len(packet) or packet[at] > MOST_ACKNOWLEDGED:
        return None
    behind = at + 1 + ID_OCTETS * packet[at]
    number_at = behind + SESSION_OCTETS if packet[at] else behind
    tls_at = number_at + ID_OCTETS
    if tls_at > len(packet):
        return None
    return _Body(packet[behind:number_at], int.from_bytes(packet[number_at:tls_at], "big"), packet[tls_at:])


@dataclass(slots=True)
class _Stream:
    """One direction of one key: what came early waits by its number."""

    reader: HandshakeReader = field(default_factory=HandshakeReader)
    expected: int = 1  # 0 is the reset
    octets: int = 0
    waiting: dict[int, tuple[bytes, tuple[Piece, ...]]] = field(default_factory=dict)
    proofs: list[tuple[int, tuple[Piece, ...]]] = field(default_factory=list)  # by the offset behind each packet's TLS

    @property
    def over(self) -> bool:
        return self.reader.over or self.expected > MOST_MESSAGES or self.octets >= MOST_TLS_OCTETS

    def take(self, data: bytes, pieces: tuple[Piece, ...]) -> list[ControlMessage]:
        """The next message's octets."""
        self.expected += 1
        self.octets += len(data)
        self.proofs.append((self.octets, pieces))
        found = [ControlMessage(message, self._proof(message)) for message in self.reader.add(data)]
        if self.over:
            self.waiting.clear()
            self.proofs.clear()
            self.reader = HandshakeReader(over=True)
        return found

    def _proof(self, message: Handshake) -> tuple[Piece, ...]:
        """The pieces of all packets with octets of the records in which the message stands."""
        found, begin = list[Piece](), 0
        for end, pieces in self.proofs:
            if begin < message.end and end > message.start:
                found += pieces
            begin = end
        return tuple(found)


@dataclass(slots=True)
class ControlChannel:
    """Shape: fed one conversation's packets of both directions from the reset on, or from right behind it."""

    control: ClearControl
    packets: int = 0
    waiting_octets: int = 0
    _sessions: set[tuple[bytes, bytes]] = field(default_factory=set)  # of client and server
    _reset: bytes = b""  # the session of a client that may begin anew
    _streams: dict[tuple[bool, bytes, int], _Stream] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sessions.add((self.control.client_session, self.control.server_session))

    @property
    def over(self) -> bool:
        return self.packets >= MOST_PACKETS

    def add(self, packet: bytes, from_client: bool, pieces: tuple[Piece, ...]) -> list[ControlMessage]:
        """The TLS messages that a packet completes. Shape: `pieces` are the packet's octets by frame"""
        self.packets += 1
        if self.over or len(packet) < self.control.body_at:
            return []
        opcode, session = packet[0] >> 3, packet[SESSION_AT:BODY_AT]
        if opcode == CONTROL:
            return self._control(packet, from_client, session, pieces)
        if opcode == RESET_CLIENT_V2 and from_client:
            self._reset = session
        elif opcode == RESET_SERVER_V2 and not from_client:
            self._server_reset(packet, session)
        return []

    def _server_reset(self, packet: bytes, session: bytes) -> None:
        """Another session between the same ports, if the server's reset acknowledges that of the client."""
        body = _read_body(packet, self.control.body_at)
        asked = {client for client, _ in self._sessions} | {self._reset}
        known = body is not None and any(body.peer_session) and body.peer_session in asked
        if body is not None and known and len(self._sessions) < MOST_SESSIONS:
            self._sessions.add((body.peer_session, session))

    def _control(
        self, packet: bytes, from_client: bool, session: bytes, pieces: tuple[Piece, ...]
    ) -> list[ControlMessage]:
        body = _read_body(packet, self.control.body_at)
        if body is None or not self._belongs(from_client, session, body.peer_session):
            return []
        stream = self._stream((from_client, session, packet[0] & 7))
        if stream is None or stream.over or not body.tls or not 0 <= body.number - stream.expected < FURTHEST_AHEAD:
            return []
        if body.number > stream.expected:
            self._wait(stream, body, pieces)
            return []
        found = stream.take(body.tls, pieces)
        while not stream.over and stream.expected in stream.waiting:
            data, later = stream.waiting.pop(stream.expected)
            found += stream.take(data, later)
        self.waiting_octets = sum(len(data) for each in self._streams.values() for data, _ in each.waiting.values())
        return found

    def _belongs(self, from_client: bool, session: bytes, peer_session: bytes) -> bool:
        """Whether a packet names a session that was agreed on, and no other peer than that session's."""
        ours, theirs = (0, 1) if from_client else (1, 0)
        return any(
            pair[ours] == session and (not peer_session or pair[theirs] == peer_session) for pair in self._sessions
        )

    def _stream(self, key: tuple[bool, bytes, int]) -> _Stream | None:
        if key not in self._streams and len(self._streams) >= MOST_STREAMS:
            return None
        return self._streams.setdefault(key, _Stream())

    def _wait(self, stream: _Stream, body: _Body, pieces: tuple[Piece, ...]) -> None:
        if body.number not in stream.waiting and self.waiting_octets + len(body.tls) <= MOST_WAITING_OCTETS:
            stream.waiting[body.number] = body.tls, pieces
            self.waiting_octets += len(body.tls)
