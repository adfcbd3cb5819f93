"""What a core tells its driver: one frozen value per thing that happened, taken with `next_event()`.

Events carry facts, never keys. `peer` names one client of a server for as long as it lives (not reused within a
process); a client's or static-key core's events have `peer` None where the field exists. Drops are not events: they
are counted by reason in `core.drops`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from vpn.push import PushedOptions
from vpn.settings import Address, Cipher


class RefusalReason(StrEnum):
    """Why one end would not talk to the other."""

    UNTRUSTED_CERTIFICATE = "certificate not signed by the configured CA"
    EXPIRED_CERTIFICATE = "certificate expired or not yet valid"
    REVOKED_CERTIFICATE = "certificate revoked"
    WRONG_PURPOSE = "certificate not meant for this role"
    WRONG_NAME = "certificate has another name than required"
    NO_CERTIFICATE = "no certificate presented"
    REFUSED_BY_PEER = "the other end refused our certificate"
    TLS_FAILURE = "TLS failed"
    NO_SHARED_CIPHER = "no data channel cipher in common"
    BAD_CREDENTIALS = "wrong user name or password"
    NOT_ADMITTED = "not admitted"
    SERVER_FULL = "no free client slot or address"
    BAD_PUSH = "the server pushed something that cannot be used"
    PROTOCOL_VIOLATION = "the other end broke the protocol"


class CloseReason(StrEnum):
    """How an association ended."""

    LOCAL = "closed here"
    PEER_EXIT = "the other end left"
    PING_TIMEOUT = "nothing heard from the other end"
    HANDSHAKE_TIMEOUT = "handshake not finished in time"
    PUSH_TIMEOUT = "the server sent no configuration"
    REFUSED = "refused"
    AUTH_FAILED = "authentication failed"
    RESTART = "the server asked to reconnect"
    HALT = "the server asked to stop"
    INACTIVE = "no traffic for the configured time"
    SESSION_TIMEOUT = "session time used up"
    TRANSPORT = "transport connection lost or unusable"
    REPLACED = "replaced by a new session of the same client"
    KEY_EXPIRED = "no usable key left"


@dataclass(frozen=True, slots=True)
class TlsEstablished:
    """A TLS handshake ended well; again for each renegotiation, with its key_id."""

    peer: int | None
    key_id: int
    version: str
    cipher: str
    common_name: str
    subject: str


@dataclass(frozen=True, slots=True)
class Connected:
    """Client: the tunnel is usable. Set the interface up with `options`; packets pass from now on."""

    options: PushedOptions
    cipher: Cipher
    peer_id: int | None
    server: Address
    common_name: str
    tun_mtu: int
    tls_version: str
    tls_cipher: str


@dataclass(frozen=True, slots=True, repr=False)
class Password:
    """A password on its way to whoever checks it; `reveal()` is the only way to read it."""

    text: str

    def reveal(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return "Password(…)"


@dataclass(frozen=True, slots=True)
class AdmissionRequested:
    """Server with `external_admission`: answer with `core.admit(peer, overrides)` or `core.refuse(peer, reason)`.

    Comes again with `renegotiation` when a client authenticates anew. The password never shows in `repr`.
    """

    peer: int
    address: Address
    common_name: str
    subject: str
    username: str
    password: Password
    renegotiation: bool


@dataclass(frozen=True, slots=True)
class ClientConnected:
    """Server: a client has its addresses and keys. `routes` are the networks behind it (iroute), as text."""

    peer: int
    peer_id: int
    address: Address
    common_name: str
    username: str
    ifconfig: IPv4Address | None
    ifconfig_ipv6: IPv6Address | None
    routes: tuple[str, ...]
    cipher: Cipher
    tls_version: str
    tls_cipher: str
    client_version: str  # IV_VER


@dataclass(frozen=True, slots=True)
class ClientGone:
    peer: int
    peer_id: int | None
    address: Address
    common_name: str
    reason: CloseReason
    detail: str
    octets_in: int
    octets_out: int


@dataclass(frozen=True, slots=True)
class Floated:
    """The other end moved to another address, proven by an authentic packet from there."""

    peer: int | None
    old: Address
    new: Address


@dataclass(frozen=True, slots=True)
class Refused:
    """A handshake ended for a reason that a person has to mend. `detail` is one line for the log, without keys."""

    peer: int | None
    address: Address
    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class AuthFailed:
    """Client: the server refused user name, password or token."""

    reason: str
    temporary: bool
    backoff: float | None
    advance: str  # "", "no", "addr" or "remote"


@dataclass(frozen=True, slots=True)
class AuthPending:
    timeout: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class Information:
    """INFO, INFO_PRE: text from the server for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class Restart:
    """Client: the server wants a reconnect. Closed follows."""

    text: str
    keep_password: bool
    next_remote: bool


@dataclass(frozen=True, slots=True)
class Renegotiated:
    """A new key is in use; the old one opens packets for the transition window."""

    peer: int | None
    key_id: int


@dataclass(frozen=True, slots=True)
class TransportUnusable:
    """TCP: this connection's stream cannot be trusted any more; close it."""

    address: Address
    detail: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The core is done and stays silent from now on. `retry`: a new core may try again."""

    reason: CloseReason
    detail: str
    retry: bool


Event: TypeAlias = (
    TlsEstablished
    | Connected
    | AdmissionRequested
    | ClientConnected
    | ClientGone
    | Floated
    | Refused
    | AuthFailed
    | AuthPending
    | Information
    | Restart
    | Renegotiated
    | TransportUnusable
    | Closed
)
