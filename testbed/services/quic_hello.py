"""The server name in a QUIC connection's first packets: the log wants it, and the library keeps it to itself.

A ClientHello may be spread over several Initial packets and CRYPTO frames in any order (Chromium does that on purpose,
against middleboxes that look into the first packet only), so the pieces are put together until the message is whole.
The keys of Initial packets follow from the connection id, so nothing secret is needed.

Does not read Retry or 0-RTT packets: the server of the lab sends and takes none.

Sources: RFC 9000 sections 12.4, 17.2.2 and 19.6; RFC 9001 section 5.2; RFC 8446 section 4.1.2.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

# The library gives these names out without saying so in an __all__.
from aioquic.buffer import Buffer, BufferReadError  # type: ignore[attr-defined]
from aioquic.quic.crypto import CryptoError, CryptoPair  # type: ignore[attr-defined]
from aioquic.quic.packet import QuicPacketType, pull_quic_header
from aioquic.tls import Alert, pull_client_hello

HELLO_OCTETS = 1 << 14
DATAGRAMS = 16  # in which the whole ClientHello must have come
HANDSHAKE_HEADER_OCTETS = 4
PADDING, PING, ACK, ACK_ECN, CRYPTO = 0, 1, 2, 3, 6
_UNREADABLE = (ValueError, BufferReadError, CryptoError, Alert, AssertionError)  # what the library raises on bad octets


@dataclass(slots=True)
class HelloReader:
    """Reads a client's datagrams until the ClientHello is whole.

    Shape: `connection_id` is the one that the first datagram was sent to.
    """

    connection_id: bytes
    pieces: dict[int, bytes] = field(default_factory=dict)  # offset -> octets of the handshake
    datagrams: int = 0
    name: str | None = None
    done: bool = False

    def read(self, untrusted: bytes) -> None:
        """Take a datagram; once `done`, `name` is the name asked for, or None if the client sent none."""
        if self.done:
            return
        self.datagrams += 1
        # What is no packet is the end of the datagram: clients may pad it with zeros.
        with contextlib.suppress(*_UNREADABLE):
            self._read_packets(untrusted)
        try:
            message = self._message()
            if message is not None:
                self.name, self.done = pull_client_hello(Buffer(data=message)).server_name, True
        except _UNREADABLE:
            self.done = True  # the library tells the peer
        self.done = self.done or self.datagrams >= DATAGRAMS

    def _read_packets(self, datagram: bytes) -> None:
        buffer = Buffer(data=datagram)
        while not buffer.eof():
            start = buffer.tell()
            header = pull_quic_header(buffer, host_cid_length=len(self.connection_id))
            end = start + header.packet_length
            if header.packet_type == QuicPacketType.INITIAL and header.version is not None:
                keys = CryptoPair()
                keys.setup_initial(cid=self.connection_id, is_client=False, version=header.version)
                _, payload, _ = keys.decrypt_packet(datagram[start:end], buffer.tell() - start, 0)
                self._read_frames(Buffer(data=payload))
            buffer.seek(end)

    def _read_frames(self, frames: Buffer) -> None:
        while not frames.eof():
            kind = frames.pull_uint_var()
            if kind == CRYPTO:
                offset = frames.pull_uint_var()
                self.pieces[offset] = frames.pull_bytes(frames.pull_uint_var())
            elif kind in (ACK, ACK_ECN):
                _skip_acknowledgement(frames, with_counts=kind == ACK_ECN)
            elif kind not in (PADDING, PING):
                return

    def _message(self) -> bytes | None:
        """The ClientHello, if every octet of it has come."""
        whole = b""
        for offset, piece in sorted(self.pieces.items()):
            if offset > len(whole):
                return None
            whole += piece[len(whole) - offset :]
        if len(whole) > HELLO_OCTETS:
            raise ValueError("a ClientHello that is too long")
        if len(whole) < HANDSHAKE_HEADER_OCTETS:
            return None
        wanted = HANDSHAKE_HEADER_OCTETS + int.from_bytes(whole[1:HANDSHAKE_HEADER_OCTETS], "big")
        return whole[:wanted] if len(whole) >= wanted else None


def _skip_acknowledgement(frames: Buffer, *, with_counts: bool) -> None:
    frames.pull_uint_var()
    frames.pull_uint_var()
    ranges = frames.pull_uint_var()
    for _ in range(1 + 2 * ranges + (3 if with_counts else 0)):
        frames.pull_uint_var()
