"""What a session tells the client or server that holds it; `vpn.events` is what those tell the driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from vpn.events import CloseReason, RefusalReason
from vpn.wire.packet import KeyId


@dataclass(frozen=True, slots=True)
class TlsDone:
    key_id: KeyId
    version: str
    cipher: str
    common_name: str
    subject: str


@dataclass(frozen=True, slots=True)
class KeysExchanged:
    """Both key messages have been read; data keys may be made for this key id."""

    key_id: KeyId


@dataclass(frozen=True, slots=True)
class TextReceived:
    text: str = field(repr=False)  # a pushed token may stand in it


@dataclass(frozen=True, slots=True)
class HandshakeFailed:
    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more will come of the session."""

    reason: CloseReason
    detail: str


Happening: TypeAlias = TlsDone | KeysExchanged | TextReceived | HandshakeFailed | Ended
