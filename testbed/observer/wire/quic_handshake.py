"""One QUIC conversation's handshake in clear: datagrams of both directions in, TLS messages out.

The keys of Initial packets come from the destination id that the client chose first, for that version. They change
when the client answers a Retry, and when the ends agree on another version; a destination id that changes because the
server named its own does not change them. So each Initial is tried with the keys known, newest first, and a client's
also with the keys of its own destination id.

Memory and work are bounded: so many keys, so many failures, so many octets of handshake.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from testbed.observer.wire import quic
from testbed.observer.wire.assembler import Assembler
from testbed.observer.wire.quic import LongPacket
from testbed.observer.wire.quic_keys import InitialKeys, derive, open_packet

MOST_KEYS = 8
MOST_FAILURES = 16
MOST_IDS = 16
MOST_CONNECTIONS = 64  # of one flow, one after the other
SHORTEST_FIRST_ID_OCTETS = 8  # RFC 9000 section 7.2
LONGEST_HANDSHAKE_OCTETS = 1 << 16
# A ServerHello with this random asks for another ClientHello: RFC 8446 section 4.1.3.
RETRY_RANDOM = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


class HandshakeMessage(NamedTuple):
    """A TLS message that a datagram completed."""

    type: int
    body: bytes
    version: int
    from_client: bool
    destination: bytes  # the id in the packet's header
    first_keys: bool  # False after a Retry or a change of version


@dataclass(slots=True)
class _Keys:
    """What one destination id of the client's gives for one version, and the handshake read with it."""

    version: int
    destination: bytes
    client: InitialKeys
    server: InitialKeys
    streams: dict[bool, Assembler] = field(default_factory=dict)  # by whether from the client
    parsed: dict[bool, int] = field(default_factory=dict)


@dataclass(slots=True)
class QuicHandshake:
    """Shape: `client_side` is which side (True: the one fed as the client) sent what opened as the client's."""

    keys: list[_Keys] = field(default_factory=list)
    versions: set[int] = field(default_factory=set)
    ids: set[bytes] = field(default_factory=set)  # chosen by either end, to be found in short headers later
    failures: int = 0
    retried: bool = False
    offered: tuple[int, ...] = ()  # by the server, in a Version Negotiation
    client_side: bool | None = None
    hellos: set[int] = field(default_factory=set)
    former: int = 0  # connections before this one between the same ports
    # Frame, time and last octets of the datagram with which the client's unfinished hello grew last.
    grown_with: tuple[int, int, bytes] = (0, 0, b"")

    @property
    def over(self) -> bool:
        """Whether nothing more is to be learned from long headers."""
        return self.hellos >= {1, 2} or self.failures >= MOST_FAILURES

    def begins_anew(self, datagram: bytes) -> bool:
        """Whether a datagram opens another connection between the same ports: its id was agreed on by nobody."""
        first = quic.split_datagram(datagram)[:1]
        if not first or first[0].kind != quic.INITIAL or self.former >= MOST_CONNECTIONS:
            return False
        known = self.ids | {keys.destination for keys in self.keys}
        return len(first[0].destination) >= SHORTEST_FIRST_ID_OCTETS and first[0].destination not in known

    def add(self, datagram: bytes, from_client: bool) -> list[HandshakeMessage]:
        messages: list[HandshakeMessage] = []
        for packet in quic.split_datagram(datagram):
            if packet.version:
                self.versions.add(packet.version)
            if len(packet.source) and len(self.ids) < MOST_IDS:
                self.ids.add(packet.source)
            if packet.kind == quic.RETRY:
                self.retried = True
            elif packet.kind == quic.NEGOTIATION:
                self.offered = packet.versions
            elif packet.kind == quic.INITIAL and self.failures < MOST_FAILURES:
                messages += self._initial(datagram, packet, from_client)
        return messages

    def _initial(self, datagram: bytes, packet: LongPacket, from_client: bool) -> list[HandshakeMessage]:
        opened = self._open(datagram, packet, from_client)
        if opened is None:
            self.failures += 1
            return []
        keys, by_client, payload = opened
        if by_client:
            self.client_side = from_client
        stream = keys.streams.setdefault(by_client, Assembler(LONGEST_HANDSHAKE_OCTETS))
        grown = False
        for piece in quic.crypto_pieces(payload):
            grown |= stream.add(piece.offset, piece.data)
        return self._messages(keys, by_client, packet.destination) if grown else []

    def _messages(self, keys: _Keys, by_client: bool, destination: bytes) -> list[HandshakeMessage]:
        messages = []
        data, first = keys.streams[by_client].data, keys is self.keys[0]
        at = keys.parsed.get(by_client, 0)
        while at + 4 <= len(data):
            end = at + 4 + int.from_bytes(data[at + 1 : at + 4], "big")
            if end > len(data):
                break
            body = bytes(data[at + 4 : end])
            messages.append(HandshakeMessage(data[at], body, keys.version, by_client, destination, first))
            if data[at + 6 : at + 38] != RETRY_RANDOM:  # else another hello follows
                self.hellos.add(data[at])
            at = end
        keys.parsed[by_client] = at
        return messages

    @property
    def unfinished_hello(self) -> bytes:
        """The body of a client's hello of which the end is missing, as far as it goes without a hole."""
        if 1 in self.hellos:
            return b""
        for keys in self.keys:
            stream = keys.streams.get(True)
            begun = bytes(stream.data[keys.parsed.get(True, 0) :]) if stream is not None else b""
            if begun[:1] == b"\1":
                return begun[4:]
        return b""

    def _open(self, datagram: bytes, packet: LongPacket, from_client: bool) -> tuple[_Keys, bool, bytes] | None:
        """The keys that open it, whether they are the client's, and what it holds."""
        roles = (from_client, not from_client) if self.client_side is None else (from_client == self.client_side,)
        for keys in reversed(self.keys):
            if keys.version != packet.version:
                continue
            for by_client in roles:
                payload = open_packet(datagram, packet, keys.client if by_client else keys.server)
                if payload is not None:
                    return keys, by_client, payload
        for destination, by_client in self._untried(packet, roles):
            keys = _Keys(packet.version, destination, *derive(packet.version, destination))
            payload = open_packet(datagram, packet, keys.client if by_client else keys.server)
            if payload is not None and len(self.keys) < MOST_KEYS:
                self.keys.append(keys)
                return keys, by_client, payload
        return None

    def _untried(self, packet: LongPacket, roles: tuple[bool, ...]) -> list[tuple[bytes, bool]]:
        """Destination ids whose keys may be those: its own; the client's former ones, where the version has changed."""
        known = {(keys.version, keys.destination) for keys in self.keys}
        own = True in roles and (packet.version, packet.destination) not in known
        untried = [(packet.destination, True)] if own else []
        for keys in self.keys:
            if (packet.version, keys.destination) not in known and keys.version != packet.version:
                untried += [(keys.destination, by_client) for by_client in roles]
        return untried
