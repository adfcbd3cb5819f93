"""What client and server give a new session: identity, protection, settings, and the ids it begins with. Pure.

Sources: openvpn-protocol.md sections 2.1, 2.3 and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vpn.crypto.wrapping import Wrapper
from vpn.drops import Drops
from vpn.settings import DataSettings, Timers, Transport
from vpn.tls import TlsContext
from vpn.wire.key_method import PRE_MASTER_OCTETS, RANDOM_OCTETS, KeyMessage
from vpn.wire.packet import SESSION_ID_OCTETS, SessionId


@dataclass(frozen=True, slots=True)
class Identity:
    """What this end says in its key messages. `secrets` gives user name and password at the time of each handshake."""

    options: str
    peer_info: str
    secrets: Callable[[], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SessionSetup:
    """What client and server give a new session.

    Shape: `base_key` is the 256-octet key of the wrapping, empty without. `client_key` is the WKc to append where the
    protocol wants it. `first_id` is 1 after the stateless start, when `remote_id` is known already.
    `decides_about_renegotiations`: a server's, which says with `Session.answer` that the other end's credentials are
    still good; a new key is of no use before.
    """

    is_server: bool
    own_id: SessionId
    wrapper: Wrapper
    tls: TlsContext
    timers: Timers
    data: DataSettings
    transport: Transport
    transport_ipv6: bool
    max_packet_octets: int
    identity: Identity
    random_bytes: Callable[[int], bytes]
    drops: Drops
    base_key: bytes = field(default=b"", repr=False)
    client_key: bytes = field(default=b"", repr=False)
    first_id: int = 0
    remote_id: SessionId | None = None
    decides_about_renegotiations: bool = False

    def own_message(self) -> KeyMessage:
        """A key message with new randomness; the secrets as they are now."""
        username, password = self.identity.secrets()
        pre_master = b"" if self.is_server else self.random_bytes(PRE_MASTER_OCTETS)
        return KeyMessage(
            pre_master,
            self.random_bytes(RANDOM_OCTETS),
            self.random_bytes(RANDOM_OCTETS),
            self.identity.options,
            username,
            password,
            self.identity.peer_info,
        )


def new_session_id(random_bytes: Callable[[int], bytes]) -> SessionId:
    """A random session id; all zeros would mean "none" on the wire."""
    while not any(octets := random_bytes(SESSION_ID_OCTETS)):
        pass
    return SessionId(octets)
