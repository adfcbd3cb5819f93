"""What TLS says before it is encrypted: the ClientHello, the server's choice, the server's certificate up to TLS 1.2.

    record:    type 22 | version | length | fragment        handshake:  type | length (3) | body

Handshake messages are put together across records. Reading ends with the first record that is no handshake, where
encryption begins; only behind a ChangeCipherSpec it looks once more, for a second hello in clear (TLS 1.3's answer to
a HelloRetryRequest). Nothing is decrypted. DTLS's hello has one field more, the cookie.

Source: RFC 8446 section 4.1 and D.4, RFC 5246 section 7.4, RFC 6066 section 3, RFC 7301, RFC 9147, RFC 9849 (ECH)
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field

from testbed.observer.wire.ech import outer_config_id

RECORD_CHANGE_CIPHER_SPEC, RECORD_ALERT, RECORD_HANDSHAKE = 20, 21, 22
ALERT_OCTETS = 7  # a record with level and description
WARNING = re.compile(rb"\x15\x03[\x00-\x04]\x00\x02\x01.", re.DOTALL)  # of a server that knows no such name
CLIENT_HELLO, SERVER_HELLO, CERTIFICATE = 1, 2, 11
EXTENSION_SERVER_NAME, EXTENSION_ALPN, EXTENSION_VERSIONS = 0, 16, 43
EXTENSION_GROUPS, EXTENSION_POINT_FORMATS, EXTENSION_SIGNATURES = 10, 11, 13
EXTENSION_ENCRYPTED_CLIENT_HELLO = 0xFE0D
LONGEST_PRELUDE_OCTETS = 4096
RECORD_OF_HELLO = re.compile(rb"\x16\x03[\x00-\x04]..[\x01\x02]\x00..\x03", re.DOTALL)
# The same in records of one to eight octets, which are allowed: the next one begins right behind.
TINY_RECORDS = re.compile(
    rb"\x16\x03[\x00-\x04]\x00(?:%s)\x16\x03[\x00-\x04]\x00"
    % b"|".join(
        b"\\x%02x[\\x01\\x02]%s" % (size, b"\\x00"[: 4 * (size > 1)] + b"." * (size - 2)) for size in range(1, 9)
    ),
    re.DOTALL,
)
LARGEST_RECORD_OCTETS = (1 << 14) + 2048
LARGEST_MESSAGE_OCTETS = 1 << 18
MOST_CERTIFICATES = 32
MOST_EXTENSIONS = 512


@dataclass(frozen=True, slots=True)
class Handshake:
    """One handshake message. Shape: offsets in the stream, `start` of the record in which it begins, `end` behind the
    one that completed it."""

    type: int
    body: bytes
    end: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class ClientHello:
    server_name: bytes | None
    alpn: tuple[bytes, ...]
    versions: tuple[int, ...]  # as offered; the oldest form of the field if the extension is absent
    encrypted_client_hello: bool
    legacy_version: int = 0
    cipher_suites: tuple[int, ...] = ()
    extensions: tuple[int, ...] = ()  # all, in order
    groups: tuple[int, ...] = ()
    point_formats: tuple[int, ...] = ()
    signature_algorithms: tuple[int, ...] = ()
    ech_config_id: int = -1  # that the outer form of ECH names
    complete: bool = True  # False: the octets ended before the hello did


@dataclass(frozen=True, slots=True)
class ServerHello:
    """What the server chose. Shape: `alpn` is empty where it is encrypted (TLS 1.3) or was not negotiated."""

    version: int
    cipher_suite: int
    alpn: bytes
    legacy_version: int
    extensions: tuple[int, ...]


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
    """Whether a stream begins with a handshake record that holds a ClientHello or a ServerHello; a server may warn
    before it that it knows no host of the name asked for."""
    if WARNING.match(data):
        data = data[ALERT_OCTETS : ALERT_OCTETS + 64]
    return (
        len(data) >= 6
        and data[0] == RECORD_HANDSHAKE
        and data[1] == 3
        and data[2] <= 4
        and data[5] in (CLIENT_HELLO, SERVER_HELLO)
        and 4 <= int.from_bytes(data[3:5], "big") <= LARGEST_RECORD_OCTETS
    ) or TINY_RECORDS.match(data) is not None


def find_tls(data: bytes) -> int:
    """Where TLS begins behind a few octets of another protocol (STARTTLS, SOCKS), or -1."""
    found = RECORD_OF_HELLO.search(data, 0, LONGEST_PRELUDE_OCTETS)
    if found and looks_like_tls(data[found.start() : found.start() + 6]):
        return found.start()
    tiny = TINY_RECORDS.search(data, 0, LONGEST_PRELUDE_OCTETS)
    return tiny.start() if tiny else -1


def parse_handshakes(data: bytes) -> list[Handshake]:
    """The handshake messages in clear at the beginning of one direction's octets."""
    return HandshakeReader().add(data)


@dataclass(slots=True)
class HandshakeReader:
    """One direction's octets in order, piece by piece; every record is looked at once.

    Shape: `over` says that nothing in clear can follow; `offset` is that of the first octet not yet read
    """

    over: bool = False
    offset: int = 0
    _left: bytes = b""  # a record that is not whole
    _pending: bytearray = field(default_factory=bytearray)  # a message that is not whole
    _start: int = 0  # where it begins
    _changed: bool = False

    def add(self, data: bytes) -> list[Handshake]:
        """The messages that these octets complete."""
        messages: list[Handshake] = []
        data = self._left + data if self._left else data
        at = 0
        while not self.over and at + 5 <= len(data):
            length = int.from_bytes(data[at + 3 : at + 5], "big")
            end = at + 5 + length
            if not self._changed and WARNING.match(data, at):
                at = end
            elif data[at] not in (RECORD_HANDSHAKE, RECORD_CHANGE_CIPHER_SPEC) or length > LARGEST_RECORD_OCTETS:
                self.over = True
            elif end > len(data):
                break
            else:
                self._record(data[at], data[at + 5 : end], self.offset + at, self.offset + end, messages)
                at = end
        self.offset += at
        self._left = b"" if self.over else data[at:]
        return messages

    def _record(self, kind: int, fragment: bytes, start: int, end: int, messages: list[Handshake]) -> None:
        pending = self._pending
        if kind == RECORD_CHANGE_CIPHER_SPEC:
            self._changed = True
            return
        if self._changed and not _is_hello(fragment):
            self.over = True
            return
        self._start = self._start if pending else start
        pending += fragment
        at = 0
        while len(pending) - at >= 4:
            size = 4 + int.from_bytes(pending[at + 1 : at + 4], "big")
            if size > LARGEST_MESSAGE_OCTETS:
                self.over = True
                return
            if size > len(pending) - at:
                break
            messages.append(Handshake(pending[at], bytes(pending[at + 4 : at + size]), end, self._start))
            self._start = start
            at += size
        del pending[:at]


def _is_hello(fragment: bytes) -> bool:
    """Whether a record behind a ChangeCipherSpec is a hello in clear: else it is encrypted, and begins at random."""
    size = 4 + int.from_bytes(fragment[1:4], "big")
    return fragment[:1] in (b"\1", b"\2") and fragment[4:5] == b"\3" and size == len(fragment)


def unfinished_client_hello(data: bytes) -> bytes:
    """The body of a ClientHello that begins `data` and does not end in it, as far as it goes; else nothing."""
    body, at = bytearray(), 0
    while at + 5 <= len(data) and data[at] == RECORD_HANDSHAKE and len(body) < LARGEST_MESSAGE_OCTETS:
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        body += data[at + 5 : at + 5 + length]
        at += 5 + length
    size = 4 + int.from_bytes(body[1:4], "big")
    return bytes(body[4:]) if body[:1] == b"\1" and len(body) < size else b""


def parse_client_hello(body: bytes, *, cookie: bool = False, cut_off: bool = False) -> ClientHello | None:
    """The hello, or None if it makes no sense. Shape: DTLS's has a `cookie`; one that is `cut_off` is read as far as
    it goes, and is still None where that is not as far as its extensions."""
    reader = _Reader(body)
    try:
        legacy_version = reader.number(2)
        reader.take(32)
        reader.vector(1)
        if cookie:
            reader.vector(1)
        suites = _numbers(reader.vector(2))
        reader.vector(1)
        kinds, extensions = _extensions(reader, cut_off) if reader.left else ((), {})
        groups = extensions.get(EXTENSION_GROUPS, b"")
        formats = extensions.get(EXTENSION_POINT_FORMATS, b"")
        signatures = extensions.get(EXTENSION_SIGNATURES, b"")
        return ClientHello(
            _server_name(extensions.get(EXTENSION_SERVER_NAME, b"")),
            _alpn(extensions.get(EXTENSION_ALPN, b"")),
            _numbers(_vector(extensions.get(EXTENSION_VERSIONS, b""), 1)) or (legacy_version,),
            EXTENSION_ENCRYPTED_CLIENT_HELLO in extensions,
            legacy_version,
            suites,
            kinds,
            _numbers(_vector(groups, 2)),
            tuple(_vector(formats, 1)),
            _numbers(_vector(signatures, 2)),
            outer_config_id(extensions.get(EXTENSION_ENCRYPTED_CLIENT_HELLO, b"")),
            complete=not cut_off,
        )
    except _Short:
        return None


def parse_server_hello(body: bytes) -> ServerHello | None:
    reader = _Reader(body)
    try:
        legacy_version = reader.number(2)
        reader.take(32)
        reader.vector(1)
        suite = reader.number(2)
        reader.take(1)
        kinds, extensions = _extensions(reader, False) if reader.left else ((), {})
        chosen = extensions.get(EXTENSION_VERSIONS, b"")
        version = int.from_bytes(chosen, "big") if len(chosen) == 2 else legacy_version
        alpn = _alpn(extensions.get(EXTENSION_ALPN, b""))
        return ServerHello(version, suite, alpn[0] if alpn else b"", legacy_version, kinds)
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


def _extensions(reader: _Reader, cut_off: bool) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """The kinds in order, and the first extension of each kind."""
    if cut_off:
        reader.number(2)
        block = reader
    else:
        block = _Reader(reader.vector(2))
    kinds: list[int] = []
    found: dict[int, bytes] = {}
    while block.left and len(kinds) < MOST_EXTENSIONS:
        try:
            kind, extension = block.number(2), block.vector(2)
        except _Short:
            if cut_off or EXTENSION_SERVER_NAME in found:
                break
            raise
        kinds.append(kind)
        found.setdefault(kind, extension)
    return tuple(kinds), found


def _numbers(block: bytes) -> tuple[int, ...]:
    """Numbers of two octets each."""
    return tuple(int.from_bytes(block[at : at + 2], "big") for at in range(0, len(block) - 1, 2))


def _vector(extension: bytes, length_octets: int) -> bytes:
    """What an extension lists; as far as it goes where its length says more, for the others are read all the same."""
    length = int.from_bytes(extension[:length_octets], "big")
    return extension[length_octets : length_octets + length]


def _server_name(extension: bytes) -> bytes | None:
    names = _Reader(_vector(extension, 2))
    with suppress(_Short):
        while names.left:
            kind, name = names.number(1), names.vector(2)
            if kind == 0:
                return name
    return None


def _alpn(extension: bytes) -> tuple[bytes, ...]:
    names, found = _Reader(_vector(extension, 2)), list[bytes]()
    with suppress(_Short):
        while names.left:
            found.append(names.vector(1))
    return tuple(found)
