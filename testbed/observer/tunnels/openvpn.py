"""Recognising OpenVPN from the outside, on any port: what its unencrypted headers give away whatever the wrapping.

Every control packet begins with an opcode and the sender's 8-octet session id, in clear also under tls-auth and
tls-crypt. Three rules, each sound by itself:

    echo       the server's reset repeats the client's session id (no wrapping, or tls-auth): certain with packet 2
    repetition client reset, server reset, then the client's next control packet with its session id again, where
               the wrapping hides the echo (tls-crypt): certain with that packet
    data only  both sides send P_DATA with a constant header and a counter that counts, each for several packets:
               for captures that began after the handshake

The first two hold 64 random bits against each other, so chance is no explanation; the third holds at least
`DATA_PACKETS` consecutive counters of 32 bits in each direction. Static-key mode has no header at all and stays
out of reach of these rules: its packets are random octets from the first to the last; see `block_cipher`. What hides
the opcodes (a XOR patch) but keeps their order is left to `openvpn_patterns`.

Source: openvpn-protocol.md sections 1 to 3
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.observer.tunnels.framing import split_frames
from testbed.observer.tunnels.openvpn_control import clear_body_at
from testbed.observer.tunnels.recognised import ClearControl, Counter, Recognised

RESET_CLIENT_V2, RESET_SERVER_V2, RESET_CLIENT_V3 = 7, 8, 10
SOFT_RESET, CONTROL, ACK, CONTROL_WKC = 3, 4, 5, 11
DATA_V1, DATA_V2 = 6, 9
SESSION_ID_OCTETS = 8
# reset without payload: opcode, session id, no acks, message id; tls-auth adds HMAC (16 to 64), packet id and time
SMALLEST_RESET_OCTETS = 14
LARGEST_RESET_OCTETS = 1_600
DATA_PACKETS = 6
HANDSHAKE_PACKETS = 64  # beyond which a flow that is not recognised by its handshake never will be
MOST_PACKETS = 400
SESSION_COST = "64 random bits held against each other: chance alone would need 2^64 conversations"
DATA_COST = "5 successive 32-bit counters in each direction under an equal header: less than one in 2^100 by chance"
TLS_CRYPT_RESET_OCTETS = 54
COUNTER_AND_TAG_OCTETS = 20  # before at least one octet of ciphertext


@dataclass(slots=True)
class _Data:
    """One direction's data packets, by the counter of 4 octets and by that of 8 whose first two are the epoch."""

    plain: Counter = field(default_factory=Counter)
    epoch: Counter = field(default_factory=Counter)

    @property
    def run(self) -> int:
        return max(self.plain.run, self.epoch.run)

    def add(self, packet: bytes) -> None:
        at = 4 if packet[0] >> 3 == DATA_V2 else 1
        if len(packet) > at + COUNTER_AND_TAG_OCTETS:
            self.plain.add(packet[:at], int.from_bytes(packet[at : at + 4], "big"))
            self.epoch.add(packet[: at + 4], int.from_bytes(packet[at + 4 : at + 8], "big"))


@dataclass(slots=True)
class OpenVpnDetector:
    """Feed it one flow's packets in order; `add` returns the rule, in words, with the packet that makes it certain."""

    client_was_right: bool = True  # whether the end that was fed as the client sent the client's reset
    client_session: bytes = b""
    client_reset: bytes = b""
    server_session: bytes = b""
    packets: int = 0
    data: dict[bool, _Data] = field(default_factory=lambda: {True: _Data(), False: _Data()})  # by: from the client

    @property
    def hopeless(self) -> bool:
        if self.packets <= HANDSHAKE_PACKETS:
            return False
        return self.packets > MOST_PACKETS or max(data.run for data in self.data.values()) <= 1

    def add(self, packet: bytes, from_client: bool) -> Recognised | None:
        self.packets += 1
        if len(packet) < SMALLEST_RESET_OCTETS:
            return None
        opcode, key_id = packet[0] >> 3, packet[0] & 7
        session = packet[1 : 1 + SESSION_ID_OCTETS]
        if opcode in (DATA_V1, DATA_V2):
            return self._data(packet, from_client)
        if opcode in (RESET_CLIENT_V2, RESET_CLIENT_V3) and key_id == 0 and any(session):
            if len(packet) <= LARGEST_RESET_OCTETS:
                self.client_session, self.client_reset, self.server_session = session, packet, b""
                self.client_was_right = from_client
        elif opcode == RESET_SERVER_V2 and from_client != self.client_was_right and key_id == 0 and self.client_session:
            return self._server_reset(packet, session)
        elif opcode in (CONTROL, ACK, CONTROL_WKC, SOFT_RESET) and self.server_session and any(session):
            return self._control(session, from_client == self.client_was_right)
        return None

    def _server_reset(self, packet: bytes, session: bytes) -> Recognised | None:
        if not any(session) or session == self.client_session:
            return None
        self.server_session = session
        if self.client_session not in packet[1 + SESSION_ID_OCTETS :]:
            return None
        body_at = clear_body_at(packet, self.client_session)
        return self._recognised(
            f"the server's hard reset repeats the session id of the client's hard reset ({self._wrapping_with_echo()})",
            SESSION_COST,
            ClearControl(body_at, self.client_session, session) if body_at >= 0 else None,
        )

    def _control(self, session: bytes, from_client: bool) -> Recognised | None:
        if session != (self.client_session if from_client else self.server_session):
            return None
        who = "client" if from_client else "server"
        return self._recognised(
            f"hard resets of client and server, then a control packet that repeats the {who}'s session id "
            f"({self._wrapping_without_echo()})",
            SESSION_COST,
        )

    def _recognised(self, rule: str, cost: str, control: ClearControl | None = None) -> Recognised:
        return Recognised("openvpn", rule, cost, client_was_right=self.client_was_right, control=control)

    def _wrapping_with_echo(self) -> str:
        """The acknowledgement could be read, so the body is not encrypted: what the reset has on top is tls-auth's."""
        hmac_octets = len(self.client_reset) - SMALLEST_RESET_OCTETS - 8
        return f"tls-auth, {8 * hmac_octets}-bit HMAC" if hmac_octets > 0 else "no control wrapping"

    def _wrapping_without_echo(self) -> str:
        if self.client_reset[0] >> 3 == RESET_CLIENT_V3:
            return "tls-crypt-v2"
        size = len(self.client_reset)
        return "tls-crypt" if size == TLS_CRYPT_RESET_OCTETS else f"client reset of {size} octets"

    def _data(self, packet: bytes, from_client: bool) -> Recognised | None:
        self.data[from_client].add(packet)
        if min(data.run for data in self.data.values()) < DATA_PACKETS:
            return None
        version = 2 if packet[0] >> 3 == DATA_V2 else 1
        if version == 2 and self.data[True].plain.header[1:4] != self.data[False].plain.header[1:4]:
            return None  # both ends name the same peer id; ESP's two indices differ
        return Recognised(
            "openvpn",
            f"data packets (P_DATA_V{version}) with constant header and counting packet id in both directions",
            DATA_COST,
        )


def split_tcp(data: bytes) -> list[tuple[int, bytes]]:
    """OpenVPN's first packets in a TCP stream, each with the offset behind it; empty if it is not framed like that."""
    packets = split_frames(data, 1, MOST_PACKETS)
    return packets if all(SOFT_RESET <= packet[0] >> 3 <= CONTROL_WKC for _, packet in packets) else []
