"""Peer info: what a client says of itself, `KEY=VALUE` lines, and the bits of IV_PROTO.

Source: openvpn-protocol.md section 5.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntFlag


class Protocol(IntFlag):
    """IV_PROTO: what the sender understands, as far as this project knows it."""

    DATA_V2 = 1 << 1
    REQUEST_PUSH = 1 << 2
    TLS_KEY_EXPORT = 1 << 3
    AUTH_PENDING_KW = 1 << 4
    NCP_P2P = 1 << 5
    DNS_OPTION = 1 << 6
    CC_EXIT_NOTIFY = 1 << 7
    AUTH_FAIL_TEMP = 1 << 8
    DYN_TLS_CRYPT = 1 << 9


_KNOWN_BITS = sum(Protocol)


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """The parsed lines, in order; of a key given twice the first counts."""

    entries: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> PeerInfo:
        pairs = (line.partition("=") for line in text.split("\n") if "=" in line)
        return cls(tuple((key, value) for key, _, value in pairs))

    def build(self) -> str:
        return "".join(f"{key}={value}\n" for key, value in self.entries)

    def get(self, key: str) -> str | None:
        return next((value for name, value in self.entries if name == key), None)

    @property
    def protocol(self) -> Protocol:
        # an IntFlag remembers every value it was ever made with: unknown bits would let a peer fill the memory
        return Protocol((self._number("IV_PROTO") or 0) & _KNOWN_BITS)

    @property
    def mtu(self) -> int | None:
        return self._number("IV_MTU")

    @property
    def ciphers(self) -> tuple[str, ...]:
        """Ciphers the peer can do; old peers that only say IV_NCP=2 mean the two GCM ones."""
        listed = self.get("IV_CIPHERS")
        if listed is not None:
            return tuple(name for name in listed.split(":") if name)
        return ("AES-256-GCM", "AES-128-GCM") if self._number("IV_NCP") == 2 else ()

    @property
    def negotiates_ciphers(self) -> bool:
        return self.get("IV_CIPHERS") is not None or self.get("IV_NCP") is not None

    def _number(self, key: str) -> int | None:
        value = self.get(key)
        # nine digits hold every value in use; more would only be an attempt to make us compute
        return int(value) if value is not None and value.isascii() and value.isdigit() and len(value) <= 9 else None


def build_peer_info(
    protocol: Protocol, ciphers: Iterable[str], tun_mtu: int, version: str, extra: Iterable[tuple[str, str]]
) -> PeerInfo:
    """What this project's client says of itself."""
    entries = [
        ("IV_VER", version),
        ("IV_PLAT", "linux"),
        ("IV_TCPNL", "1"),
        ("IV_MTU", str(tun_mtu)),
        ("IV_NCP", "2"),
        ("IV_CIPHERS", ":".join(ciphers)),
        ("IV_PROTO", str(int(protocol))),
        ("IV_LZO_STUB", "1"),
        ("IV_COMP_STUB", "1"),
        ("IV_COMP_STUBv2", "1"),
    ]
    return PeerInfo((*entries, *extra))
