"""Who comes in: what a server decides about a client whose keys are exchanged, and what it pushes to it.

Pure decisions; `vpn.server` carries them out. Sources: openvpn-protocol.md sections 5.2, 8.1, 8.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from vpn.crypto.auth_token import PREFIX, SESSION_OCTETS, TokenMint
from vpn.negotiation import agree_as_equals, agree_as_server
from vpn.pool import AddressPool
from vpn.server_peer import Peer
from vpn.settings import ClientOverrides, Compression, ServerSettings
from vpn.wire.key_method import KeyMessage
from vpn.wire.peer_info import PeerInfo

_TOKEN_RENEWALS = 2  # a token is good for two renewal periods, as with the real server


class Answer(Enum):
    ADMIT = "admit"
    ASK = "ask the driver"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Judgement:
    answer: Answer
    reason: str = ""


class Admission:
    def __init__(self, settings: ServerSettings, pool: AddressPool, random_bytes: Callable[[int], bytes]) -> None:
        self._settings = settings
        self._pool = pool
        self._random_bytes = random_bytes
        lifetime = settings.auth_token_lifetime
        renewal = _TOKEN_RENEWALS * (settings.auth_token_renewal or settings.timers.reneg_sec)
        self._mint = None if lifetime is None else TokenMint(random_bytes(32), lifetime, renewal)

    def identify(self, peer: Peer, message: KeyMessage) -> None:
        """Note who the client says it is. Errors: NoSharedCipher."""
        settings = self._settings
        peer.username = message.username
        if settings.username_as_common_name and message.username:
            peer.common_name = message.username
        peer.info = PeerInfo.parse(message.peer_info)
        agree = partial(agree_as_equals, tls_server=True) if settings.point_to_point else agree_as_server
        peer.agreement = agree(
            peer.info,
            message.options,
            settings.data,
            key_export=settings.tls_key_export,
            dynamic_tls_crypt=settings.dynamic_tls_crypt,
        )

    def judge(self, peer: Peer, message: KeyMessage, unix_time: int) -> Judgement:
        """What to do about a client's credentials, at the start and at every renegotiation."""
        settings = self._settings
        if settings.password_required and not message.username:
            return Judgement(Answer.REFUSE)
        if self._mint is not None and message.password.startswith(PREFIX):
            times = self._mint.check(message.username, message.password, unix_time)
            if times is None:
                return Judgement(Answer.REFUSE, "SESSION: token expired")
            peer.token_session, peer.token_first_at = times.session, times.first_at
            return Judgement(Answer.ADMIT)
        return Judgement(Answer.ASK if settings.external_admission else Answer.ADMIT)

    def push_options(self, peer: Peer, overrides: ClientOverrides, unix_time: int) -> list[str]:
        """Everything to push to an admitted client, in the real server's order."""
        settings = self._settings
        options = [] if overrides.push_reset else list(settings.push)
        if peer.lease is not None:
            options += self._pool.push_options(peer.lease, whole_network=settings.client_to_client)
        if settings.push_ping:
            options.append(f"ping {settings.push_ping}")
        if settings.push_ping_restart:
            options.append(f"ping-restart {settings.push_ping_restart}")
        if settings.data.compression is not Compression.NONE:
            options.append("comp-lzo no" if settings.data.compression is Compression.COMP_LZO else _compress(settings))
        options += overrides.push
        agreement = peer.agreement
        if agreement is not None:
            if agreement.data_v2 and peer.peer_id is not None:
                options.append(f"peer-id {peer.peer_id}")
            options += agreement.pushed
        token = self.token_option(peer, unix_time)
        return [*options, token] if token else options

    def token_option(self, peer: Peer, unix_time: int) -> str:
        """A fresh auth-token for a client that has proven a password; empty if there are none."""
        if self._mint is None or not peer.username:
            return ""
        if not peer.token_session:
            peer.token_session, peer.token_first_at = self._random_bytes(SESSION_OCTETS), unix_time
        token = self._mint.issue(peer.username, peer.token_session, peer.token_first_at, unix_time)
        return f"auth-token {token}"


def _compress(settings: ServerSettings) -> str:
    return "compress stub-v2" if settings.data.compression is Compression.STUB_V2 else "compress"
