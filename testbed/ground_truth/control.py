"""Makes control packets readable: takes their protection off, and puts whole TLS records into one packet each.

    tls-crypt  opcode, session id (9) | packet id, time (8) | tag (32) | encrypted: acknowledgements, message id, TLS
    tls-auth   opcode, session id (9) | HMAC (20) | packet id, time (8) | acknowledgements, message id, TLS
    bare       opcode, session id (9) | acknowledgements, message id, TLS

A client's first packet with tls-crypt-v2 carries its wrapped key behind that; it is left out, and the opcode becomes
the one without. Packets of a renegotiation with dynamic tls-crypt have another key's protection, and keep it.

TLS is cut into packets wherever they are full. Wireshark does not join them again, so `RecordKeeper` holds back the
beginning of a record until the packet that ends it.

Source: openvpn-protocol.md sections 1, 2.1, 3 and 4
"""

from __future__ import annotations

import hmac

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

HEADER_OCTETS, STAMP_OCTETS, TAG_OCTETS = 9, 8, 32
RESET_V3, CONTROL_WKC = 10, 11
WITHOUT_KEY = {RESET_V3: 7, CONTROL_WKC: 4}
CONTROL_OPCODES = frozenset((3, 4, 5, 7, 8, 10, 11))
KEY_OCTETS = 32
CONTROL = 4
HMAC_OCTETS = 20  # tls-auth's, where `auth` is not set: SHA-1
MOST_ACKS = 8
RECORD_HEADER_OCTETS = 5


def without_hmac(packet: bytes) -> bytes | None:
    """The control packet without tls-auth; None if it is none."""
    at = HEADER_OCTETS + HMAC_OCTETS + STAMP_OCTETS
    if not _is_of_first_key(packet) or len(packet) <= at or packet[at] > MOST_ACKS:
        return None
    return packet[:HEADER_OCTETS] + packet[at:]


def bare(packet: bytes) -> bytes | None:
    """The control packet itself; None if it is none."""
    return packet if _is_of_first_key(packet) and len(packet) > HEADER_OCTETS else None


def _is_of_first_key(packet: bytes) -> bool:
    """Whether it is a control packet of the first handshake: later ones may have dynamic tls-crypt around them."""
    return bool(packet) and packet[0] >> 3 in CONTROL_OPCODES and not packet[0] & 7


def unwrap(packet: bytes, block: bytes, *, to_server: bool) -> bytes | None:
    """The control packet as it were without tls-crypt; None if it is none, or not protected by this key."""
    opcode = packet[0] >> 3 if packet else 0
    if opcode not in CONTROL_OPCODES:
        return None
    if opcode in WITHOUT_KEY:
        length = int.from_bytes(packet[-2:], "big")
        packet = packet[:-length] if length < len(packet) else b""
    at = HEADER_OCTETS + STAMP_OCTETS
    head, tag, sealed = packet[:at], packet[at : at + TAG_OCTETS], packet[at + TAG_OCTETS :]
    if len(tag) < TAG_OCTETS or not sealed:
        return None
    part = 128 if to_server else 0  # the server sends with the first key of the block, the client with the second
    cipher, secret = block[part : part + KEY_OCTETS], block[part + 64 : part + 64 + KEY_OCTETS]
    decryptor = Cipher(algorithms.AES(cipher), modes.CTR(tag[:16])).decryptor()
    body = decryptor.update(sealed) + decryptor.finalize()
    if not hmac.compare_digest(hmac.digest(secret, head + body, "sha256"), tag):
        return None
    first = WITHOUT_KEY.get(opcode, opcode) << 3 | packet[0] & 7
    return bytes((first,)) + head[1:HEADER_OCTETS] + body


class RecordKeeper:
    """One direction's control packets, each TLS record whole in the packet that ends it."""

    def __init__(self) -> None:
        self._held = b""
        self._next: dict[int, int] = {}  # message id expected next, by key id

    def aligned(self, packet: bytes) -> tuple[bytes, int, int]:
        """The bare packet with whole records; how many octets came from packets before, how many are held back."""
        at = _payload_at(packet)
        if packet[0] >> 3 != CONTROL or at is None:
            return packet, 0, 0
        key_id, message = packet[0] & 7, int.from_bytes(packet[at - 4 : at], "big")
        if message < self._next.get(key_id, 0):  # sent again: its octets have been shown
            return packet[:at], 0, 0
        self._next[key_id] = message + 1
        stream = self._held + packet[at:]
        whole, got = _whole_records(stream), len(self._held)
        self._held = stream[whole:]
        return packet[:at] + stream[:whole], got if whole else 0, len(self._held)


def _payload_at(packet: bytes) -> int | None:
    """Where TLS begins in a bare control packet."""
    if len(packet) <= HEADER_OCTETS:
        return None
    acks = packet[HEADER_OCTETS]
    at = HEADER_OCTETS + 1 + 4 * acks + (8 if acks else 0) + 4
    return at if at <= len(packet) else None


def _whole_records(stream: bytes) -> int:
    """How many octets at the beginning are whole TLS records."""
    at = 0
    while at + RECORD_HEADER_OCTETS <= len(stream):
        end = at + RECORD_HEADER_OCTETS + int.from_bytes(stream[at + 3 : at + 5], "big")
        if end > len(stream):
            break
        at = end
    return at
