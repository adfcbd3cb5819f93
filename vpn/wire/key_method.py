"""The key-method-2 message: the first record of each end inside TLS.

    0 (4)   2 (1)   pre-master (48, client only)   random1 (32)   random2 (32)
    options, user name, password, peer info: each length (2, with the final NUL), text, NUL; empty: length 0

The leading zeros are not checked and the method's high nibble is ignored, as the real peer does. Fields that are cut
off at the end count as empty. Source: openvpn-protocol.md section 5.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vpn.wire.packet import Malformed

RANDOM_OCTETS = 32
PRE_MASTER_OCTETS = 48
MAX_OPTIONS_OCTETS = 512  # with the NUL; the real peer fails the handshake above


@dataclass(frozen=True, slots=True)
class KeyMessage:
    """Shape: `pre_master` is 48 octets from a client and empty from a server."""

    pre_master: bytes = field(repr=False)
    random1: bytes = field(repr=False)
    random2: bytes = field(repr=False)
    options: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    peer_info: str = ""

    @classmethod
    def parse(cls, message: bytes, *, from_client: bool) -> KeyMessage:
        secret = PRE_MASTER_OCTETS if from_client else 0
        fixed = 5 + secret + 2 * RANDOM_OCTETS
        if len(message) < fixed:
            raise Malformed("key message cut short")
        if message[4] & 0x0F != 2:
            raise Malformed("key method other than 2")
        randoms = 5 + secret
        texts, offset = [], fixed
        for _ in range(4):
            text, offset = _parse_text(message, offset)
            texts.append(text)
        options, username, password, peer_info = texts
        if len(options) >= MAX_OPTIONS_OCTETS:
            raise Malformed("options string too long")
        return cls(
            message[5:randoms],
            message[randoms : randoms + RANDOM_OCTETS],
            message[randoms + RANDOM_OCTETS : fixed],
            options,
            username,
            password,
            peer_info,
        )

    def build(self) -> bytes:
        texts = (self.options, self.username, self.password, self.peer_info)
        head = bytes((0, 0, 0, 0, 2)) + self.pre_master + self.random1 + self.random2
        return head + b"".join(map(_build_text, texts))


def _parse_text(message: bytes, offset: int) -> tuple[str, int]:
    if len(message) < offset + 2:
        return "", len(message)
    length = int.from_bytes(message[offset : offset + 2], "big")
    octets = message[offset + 2 : offset + 2 + length]
    if len(octets) != length:
        raise Malformed("text of the key message cut short")
    end = octets.find(b"\0")
    # surrogateescape: a user name is octets to the wire; it must come back as it was sent
    text = octets[: end if end >= 0 else length].decode("utf-8", "surrogateescape")
    return text, offset + 2 + length


def _build_text(text: str) -> bytes:
    if not text:
        return b"\0\0"
    octets = text.encode("utf-8", "surrogateescape") + b"\0"
    return len(octets).to_bytes(2, "big") + octets
