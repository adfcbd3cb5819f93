"""What a server knows of one client: its session, how far it has come, and what was decided about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vpn.limits import Limits
from vpn.negotiation import Agreement
from vpn.pool import Lease
from vpn.session import Session
from vpn.settings import Address
from vpn.wire.key_method import KeyMessage
from vpn.wire.packet import KeyId, PeerId
from vpn.wire.peer_info import PeerInfo


class Stage(Enum):
    HANDSHAKE = "handshake"
    ADMISSION = "waiting for admission"
    CONNECTED = "connected"
    LEAVING = "leaving"  # only told things again until it acknowledges them
    GONE = "gone"


@dataclass(slots=True)
class Peer:
    """Mutable; the server changes it. `number` is the driver's name for it, never used twice."""

    number: int
    address: Address
    session: Session
    inner_sources: frozenset[bytes] = frozenset()  # its own virtual addresses, as octets
    stage: Stage = Stage.HANDSHAKE
    common_name: str = ""
    subject: str = ""
    username: str = ""
    info: PeerInfo = field(default_factory=PeerInfo)
    agreement: Agreement | None = None
    lease: Lease | None = None
    peer_id: PeerId | None = None
    replies: list[str] = field(default_factory=list, repr=False)  # the PUSH_REPLY messages; may hold a token
    replied_at: float | None = None
    asked_for_push: bool = False
    awaiting_key: KeyId | None = None  # renegotiated key that waits for admission
    token_session: bytes = b""
    token_first_at: int = 0
    limits: Limits = field(default_factory=Limits)
    gone_at: float = float("inf")

    @property
    def who(self) -> str:
        """Whom it is for the pool and for duplicate-cn."""
        return self.common_name

    @property
    def key_message(self) -> KeyMessage | None:
        """What the client said last about itself."""
        return self.session.primary.peer_message
