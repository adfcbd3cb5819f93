"""Sending side of the reliability layer: numbered messages, resent until each is acknowledged.

At most 6 numbers are out at once (counted from the lowest unacknowledged one). Each message has its own timer, which
doubles with every transmission up to four times its start (the real peer's grows without end: under loss its
handshakes spend most of their 60 s waiting); three acknowledgements of later messages make it due at once. Holds
payloads as they are: acknowledgements and protection are added anew for every transmission.

Source: openvpn-protocol.md section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vpn.wire.packet import MessageId, Opcode

SEND_WINDOW = 6
_FAST_RETRANSMIT_ACKS = 3
_LONGEST_TIMEOUT = 4  # times the first


@dataclass(slots=True)
class _Outstanding:
    message_id: MessageId
    opcode: Opcode
    payload: bytes
    due_at: float
    timeout: float
    later_acks: int = 0
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Transmission:
    """One message that is due; `again` if it has been sent before."""

    message_id: MessageId
    opcode: Opcode
    payload: bytes
    again: bool


class SendWindow:
    """Units: `now` and `timeout` in seconds."""

    __slots__ = ("_next_id", "_outstanding", "_timeout")

    def __init__(self, timeout: float, first_id: int = 0) -> None:
        self._timeout = timeout
        self._next_id = first_id
        self._outstanding: list[_Outstanding] = []  # in order of message id

    @property
    def has_room(self) -> bool:
        return not self._outstanding or self._next_id - self._outstanding[0].message_id < SEND_WINDOW

    @property
    def is_idle(self) -> bool:
        return not self._outstanding

    def push(self, opcode: Opcode, payload: bytes, now: float) -> None:
        """Number a message; it is due at once. Errors: misuse if the window is full."""
        if not self.has_room:
            raise RuntimeError("send window is full: look at has_room first")
        message_id = MessageId(self._next_id)
        self._next_id += 1
        self._outstanding.append(_Outstanding(message_id, opcode, payload, now, self._timeout))

    def acknowledge(self, ids: Iterable[MessageId]) -> bool:
        """Take acknowledgements; those of unknown messages mean nothing. Returns whether any was news."""
        known = {message.message_id for message in self._outstanding}
        fresh = known.intersection(ids)
        if not fresh:
            return False
        self._outstanding = [message for message in self._outstanding if message.message_id not in fresh]
        for message in self._outstanding:
            message.later_acks += sum(1 for acked in fresh if acked > message.message_id)
        return True

    def expedite(self, now: float) -> None:
        """Make everything outstanding due now: the other end has just shown that it is there."""
        for message in self._outstanding:
            message.due_at = now

    def due(self, now: float) -> list[Transmission]:
        """What has to be sent now; the timers are set anew."""
        transmissions = []
        for message in self._outstanding:
            fast = message.later_acks >= _FAST_RETRANSMIT_ACKS
            if message.due_at > now and not fast:
                continue
            again, message.sent = message.sent, True
            transmissions.append(Transmission(message.message_id, message.opcode, message.payload, again))
            message.later_acks = 0
            message.due_at = now + message.timeout
            message.timeout = min(2 * message.timeout, _LONGEST_TIMEOUT * self._timeout)
        return transmissions

    def next_at(self) -> float | None:
        """When `due` will next have something."""
        if any(message.later_acks >= _FAST_RETRANSMIT_ACKS for message in self._outstanding):
            return float("-inf")
        return min((message.due_at for message in self._outstanding), default=None)
