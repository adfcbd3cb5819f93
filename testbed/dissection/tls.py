"""TLS records in one stretch of octets: what kind each is, what the hello says, and where encryption begins.

    type | version (2) | length (2) | fragment            types 20 change cipher spec, 21 alert, 22 handshake, 23 data

Source: RFC 8446 section 5.1, RFC 5246
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.dissection.opening import Opening, text_of
from testbed.observer import tls

_TYPES = {20: "Change Cipher Spec", 21: "Alert", 22: "Handshake", 23: "Application Data"}
HANDSHAKES = {
    0: "Hello Request",
    1: "Client Hello",
    2: "Server Hello",
    4: "New Session Ticket",
    8: "Encrypted Extensions",
    11: "Certificate",
    12: "Server Key Exchange",
    13: "Certificate Request",
    14: "Server Hello Done",
    15: "Certificate Verify",
    16: "Client Key Exchange",
    20: "Finished",
}
VERSIONS = {0x0300: "SSLv3", 0x0301: "TLSv1", 0x0302: "TLSv1.1", 0x0303: "TLSv1.2", 0x0304: "TLSv1.3"}
_HEADER_OCTETS = 5
APPLICATION_DATA = 23
_HANDSHAKE, _CHANGE_CIPHER_SPEC = 22, 20
_VERSIONS_EXTENSION, _SERVER_VERSION_AT = 43, 2 + 32


@dataclass(slots=True)
class TlsState:
    """What one connection has agreed on so far. `encrypted` holds the directions that have switched to encryption."""

    version: str = ""
    encrypted: set[bool] | None = None

    def is_encrypted(self, direction: bool) -> bool:
        return self.encrypted is not None and direction in self.encrypted

    def encrypt(self, direction: bool) -> None:
        self.encrypted = (self.encrypted or set()) | {direction}


def looks_like_records(octets: bytes) -> bool:
    return len(octets) >= _HEADER_OCTETS and octets[0] in _TYPES and octets[1] == 3 and octets[2] <= 4


def records_end(octets: bytes) -> int:
    """How many of the octets are whole records."""
    at = 0
    while looks_like_records(octets[at : at + _HEADER_OCTETS]):
        end = at + _HEADER_OCTETS + int.from_bytes(octets[at + 3 : at + 5], "big")
        if end > len(octets):
            break
        at = end
    return at


def open_records(opening: Opening, octets: bytes, start: int, end: int, state: TlsState, direction: bool) -> None:
    """Whole records. Shape: `octets` end at the frame's octet `end`; those before `start` came in earlier frames."""
    names: list[str] = []
    fields: list[tuple[str, object]] = []
    sealed_from = -1
    at = 0
    base = end - len(octets)
    version = VERSIONS.get(int.from_bytes(octets[1:3], "big"), "TLS")
    while at < len(octets):
        body_end = at + _HEADER_OCTETS + int.from_bytes(octets[at + 3 : at + 5], "big")
        name = _name_of(octets[at], octets[at + _HEADER_OCTETS : body_end], state, direction, fields)
        names.append(name)
        fields.append((f"record {len(names)}", f"{name}, {body_end - at - _HEADER_OCTETS:,} octets"))
        sealed = octets[at] == APPLICATION_DATA or name.startswith("Encrypted")
        if sealed and sealed_from < 0:
            sealed_from = max(start, base + at)
        at = body_end
    opening.say(state.version or version, ", ".join(names))
    fields.insert(0, ("version", state.version or version))
    clear_end = sealed_from if sealed_from >= 0 else end
    if clear_end > start or sealed_from < 0:
        opening.add("Transport Layer Security", start, clear_end, *fields)
        fields = [("octets", end - clear_end)]
    if sealed_from >= 0:
        opening.add("TLS, encrypted", sealed_from, end, *fields, encrypted=True)


def _name_of(kind: int, body: bytes, state: TlsState, direction: bool, fields: list[tuple[str, object]]) -> str:
    if kind == _CHANGE_CIPHER_SPEC:
        state.encrypt(direction)
    if kind == _HANDSHAKE and state.is_encrypted(direction):
        return "Encrypted Handshake Message"
    if kind == 21 and (state.is_encrypted(direction) or len(body) != 2):
        return "Encrypted Alert"
    if kind != _HANDSHAKE:
        return _TYPES.get(kind, f"record type {kind}")
    messages = tls.parse_handshakes(b"\x16\x03\x03" + len(body).to_bytes(2, "big") + body)
    for message in messages:
        if message.type == tls.CLIENT_HELLO:
            client_hello_fields(message.body, fields)
        elif message.type == tls.SERVER_HELLO:
            _server_hello(message.body, state, fields)
    return ", ".join(HANDSHAKES.get(message.type, "Handshake") for message in messages) or "Handshake"


def client_hello_fields(body: bytes, fields: list[tuple[str, object]]) -> None:
    """Add what a ClientHello tells everybody: the name, the protocols and the versions it offers."""
    hello = tls.parse_client_hello(body)
    if hello is None:
        return
    if hello.server_name is not None:
        fields.append(("server name", text_of(hello.server_name)))
    if hello.alpn:
        fields.append(("application protocols", ", ".join(map(text_of, hello.alpn))))
    known = [VERSIONS[number] for number in hello.versions if number in VERSIONS]
    fields.append(("versions offered", ", ".join(known)))
    if hello.encrypted_client_hello:
        fields.append(("encrypted client hello", "yes"))


def _server_hello(body: bytes, state: TlsState, fields: list[tuple[str, object]]) -> None:
    """The version it chose: an extension's in TLS 1.3, which hides behind 1.2 in the old field."""
    chosen = int.from_bytes(body[:2], "big")
    at = _SERVER_VERSION_AT + 1 + (body[_SERVER_VERSION_AT] if len(body) > _SERVER_VERSION_AT else 0)
    cipher = int.from_bytes(body[at : at + 2], "big")
    at += 5
    while at + 4 <= len(body):
        kind, length = int.from_bytes(body[at : at + 2], "big"), int.from_bytes(body[at + 2 : at + 4], "big")
        if kind == _VERSIONS_EXTENSION:
            chosen = int.from_bytes(body[at + 4 : at + 4 + length], "big")
        at += 4 + length
    state.version = VERSIONS.get(chosen, "TLS")
    fields.append(("cipher suite", f"0x{cipher:04x}"))
