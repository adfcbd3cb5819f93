"""What TLS says before it is encrypted: the ClientHello's names and versions, the server's certificate up to TLS 1.2.

    record:    type 22 | version | length | fragment        handshake:  type | length (3) | body

Handshake messages are put together across records; reading ends with the first record that is no handshake, where
encryption begins. Nothing is decrypted.

Source: RFC 8446 section 4.1.2, RFC 5246 section 7.4.2, RFC 6066 section 3, RFC 7301
"""

from __future__ import annotations

from dataclasses import dataclass

RECORD_HANDSHAKE = 22
CLIENT_HELLO, SERVER_HELLO, CERTIFICATE = 1, 2, 11
EXTENSION_SERVER_NAME, EXTENSION_ALPN, EXTENSION_VERSIONS = 0, 16, 43
EXTENSION_ENCRYPTED_CLIENT_HELLO = 0xFE0D
LARGEST_RECORD_OCTETS = (1 << 14) + 2048
LARGEST_MESSAGE_OCTETS = 1 << 18
MOST_CERTIFICATES = 32


@dataclass(frozen=True, slots=True)
class Handshake:
    """One handshake message. Shape: `end` is the offset in the stream behind the record that completed it."""

    type: int
    body: bytes
    end: int


@dataclass(frozen=True, slots=True)
class ClientHello:
    server_name: bytes | None
    alpn: tuple[bytes, ...]
    versions: tuple[int, ...]  # as offered; the oldest form of the field if the extension is absent
    encrypted_client_hello: bool


class _Short(Exception):
    """A length points beyond the octets there are."""


@dataclass(slots=True)
class _Reader:
    data: bytes
    at: int = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _Short
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def vector(self, length_octets: int) -> bytes:
        return self.take(self.number(length_octets))


def looks_like_tls(data: bytes) -> bool:
    """Whether a stream begins with a handshake record that holds a ClientHello or a ServerHello."""
    return (
        len(data) >= 6
        and data[0] == RECORD_HANDSHAKE
        and data[1] == 3
        and data[2] <= 4
        and data[5] in (CLIENT_HELLO, SERVER_HELLO)
        and 4 <= int.from_bytes(data[3:5], "big") <= LARGEST_RECORD_OCTETS
    )


def parse_handshakes(data: bytes) -> list[Handshake]:
    """The handshake messages in clear at the beginning of one direction's octets."""
    messages: list[Handshake] = []
    pending = b""
    at = 0
    while at + 5 <= len(data) and data[at] == RECORD_HANDSHAKE and data[at + 1] == 3:
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        end = at + 5 + length
        if length > LARGEST_RECORD_OCTETS or end > len(data):
            break
        pending += data[at + 5 : end]
        while len(pending) >= 4:
            size = 4 + int.from_bytes(pending[1:4], "big")
            if size > LARGEST_MESSAGE_OCTETS:
                return messages
            if size > len(pending):
                break
            messages.append(Handshake(pending[0], pending[4:size], end))
            pending = pending[size:]
        at = end
    return messages


def parse_client_hello(body: bytes) -> ClientHello | None:
    reader = _Reader(body)
    try:
        legacy_version = reader.number(2)
        reader.take(32)
        reader.vector(1)
        reader.vector(2)
        reader.vector(1)
        extensions = _extensions(reader.vector(2)) if reader.left else {}
        return ClientHello(
            _server_name(extensions.get(EXTENSION_SERVER_NAME, b"")),
            _alpn(extensions.get(EXTENSION_ALPN, b"")),
            _versions(extensions.get(EXTENSION_VERSIONS, b"")) or (legacy_version,),
            EXTENSION_ENCRYPTED_CLIENT_HELLO in extensions,
        )
    except _Short:
        return None


def parse_certificates(body: bytes) -> list[bytes]:
    """The DER certificates of a Certificate message up to TLS 1.2, the server's own first."""
    certificates: list[bytes] = []
    try:
        chain = _Reader(_Reader(body).vector(3))
        while chain.left and len(certificates) < MOST_CERTIFICATES:
            certificates.append(chain.vector(3))
    except _Short:
        pass
    return certificates


def _extensions(block: bytes) -> dict[int, bytes]:
    reader = _Reader(block)
    found: dict[int, bytes] = {}
    while reader.left:
        kind = reader.number(2)
        found.setdefault(kind, reader.vector(2))
    return found


def _server_name(extension: bytes) -> bytes | None:
    if not extension:
        return None
    names = _Reader(_Reader(extension).vector(2))
    while names.left:
        kind, name = names.number(1), names.vector(2)
        if kind == 0:
            return name
    return None


def _alpn(extension: bytes) -> tuple[bytes, ...]:
    if not extension:
        return ()
    names, found = _Reader(_Reader(extension).vector(2)), []
    while names.left:
        found.append(names.vector(1))
    return tuple(found)


def _versions(extension: bytes) -> tuple[int, ...]:
    if not extension:
        return ()
    listed = _Reader(extension).vector(1)
    return tuple(int.from_bytes(listed[at : at + 2], "big") for at in range(0, len(listed) - 1, 2))
