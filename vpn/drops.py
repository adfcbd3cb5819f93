"""Why octets went no further: every drop is a value with a reason, counted.

A core has one `Drops`; drivers read it for their status and logs. Nothing here keeps the octets themselves.
"""

from __future__ import annotations

from enum import StrEnum


class Drop(StrEnum):
    """Control channel and transport first, then data channel, then packets from the tunnel interface."""

    MALFORMED = "not a packet of this protocol"
    UNKNOWN_SENDER = "no session with the sender"
    UNAUTHENTIC_CONTROL = "control packet failed authentication"
    REPLAYED_CONTROL = "control packet replayed"
    WRONG_SESSION = "control packet of another session"
    WRONG_KEY_ID = "control packet for a key that does not exist"
    UNEXPECTED = "packet not acceptable in this state"
    BEYOND_WINDOW = "control message beyond the receive window"
    BAD_COOKIE = "third packet without a valid cookie"
    RATE_LIMITED = "first packets arrive too fast"
    HALF_OPEN_LIMIT = "too many unfinished handshakes"
    BAD_CLIENT_KEY = "wrapped client key failed authentication"
    CLOSED = "arrived after the end"

    NO_DATA_KEY = "data packet for a key that does not exist"
    UNAUTHENTIC_DATA = "data packet failed authentication"
    REPLAYED_DATA = "data packet replayed"
    COMPRESSED = "compressed data packet"
    BAD_FRAMING = "data packet with wrong framing"
    WRONG_ADDRESS = "data packet from another address"
    SPOOFED_SOURCE = "source address does not belong to the client"

    NOT_CONNECTED = "packet from the interface before the tunnel is up"
    QUEUE_FULL = "packet from the interface while others wait to be sealed"
    NOT_IP = "packet from the interface is not IP"
    NO_ROUTE = "no client has the destination address"
    KEY_USED_UP = "key has sent as many packets as it may"


class Drops:
    """Counters by reason."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[Drop, int] = {}

    def count(self, reason: Drop, packets: int = 1) -> None:
        self._counts[reason] = self._counts.get(reason, 0) + packets

    def __getitem__(self, reason: Drop) -> int:
        return self._counts.get(reason, 0)

    def by_reason(self) -> dict[str, int]:
        """What was dropped, by reason's name (a StrEnum's name is stable; its text is for people)."""
        return {reason.name: count for reason, count in self._counts.items()}

    @property
    def total(self) -> int:
        return sum(self._counts.values())
