"""Which messages to acknowledge in the next packet.

New acknowledgements go first; the space left is filled with the most recent old ones, so that a lost packet's
acknowledgements arrive with one of the next. Source: openvpn-protocol.md section 2.2.
"""

from __future__ import annotations

from vpn.wire.control import MAX_ACKS
from vpn.wire.packet import MessageId

ACKS_IN_CONTROL = 4
ACKS_IN_ACK = MAX_ACKS


class AckLedger:
    __slots__ = ("_pending", "_recent")

    def __init__(self) -> None:
        self._pending: list[MessageId] = []
        self._recent: list[MessageId] = []  # most recent first, at most MAX_ACKS

    def note(self, message_id: MessageId) -> None:
        """A message arrived (again): its acknowledgement is due."""
        if message_id not in self._pending:
            self._pending.append(message_id)

    @property
    def is_due(self) -> bool:
        return bool(self._pending)

    def take(self, limit: int) -> tuple[MessageId, ...]:
        """Acknowledgements for one packet: new ones first, then repeated ones; at most `limit`."""
        fresh, self._pending = self._pending[:limit], self._pending[limit:]
        repeated = [number for number in self._recent if number not in fresh][: limit - len(fresh)]
        remembered = [*reversed(fresh), *(number for number in self._recent if number not in fresh)]
        self._recent = remembered[:MAX_ACKS]
        return (*fresh, *repeated)
