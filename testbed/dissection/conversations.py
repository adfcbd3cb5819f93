"""What a capture has shown of each conversation so far: two endpoints, a protocol, and what its messages agreed on."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.dissection import http2, openvpn, quic, ssh, tls

Endpoint = tuple[bytes, int]


@dataclass(slots=True)
class Half:
    """One direction of a TCP connection.

    Shape: `next_octet` is the sequence number that follows without a hole; `pending` are segments of a message that
        came in `frames` and is complete when they hold `wanted` octets or more
    """

    first: int
    shift: int | None = None
    next_octet: int = 0
    pending: list[bytes] = field(default_factory=list)
    pending_octets: int = 0
    wanted: int = 0
    frames: list[int] = field(default_factory=list)

    def keep(self, rest: bytes, wanted: int) -> None:
        self.pending, self.pending_octets, self.wanted = [rest] if rest else [], len(rest), wanted

    def forget(self) -> None:
        self.keep(b"", 0)
        self.frames = []


@dataclass(slots=True)
class Conversation:
    """Two endpoints and a protocol. Shape: direction True is the one that spoke first."""

    first_speaker: Endpoint
    halves: dict[bool, Half] = field(default_factory=dict)
    application: str = ""
    tls: tls.TlsState = field(default_factory=tls.TlsState)
    openvpn: openvpn.OpenVpnState | None = None
    http2: http2.Http2State = field(default_factory=http2.Http2State)
    quic: quic.QuicState = field(default_factory=quic.QuicState)
    ssh: ssh.SshState = field(default_factory=ssh.SshState)
