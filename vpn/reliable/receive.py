"""Receiving side of the reliability layer: messages back in order, each once.

Takes ids up to 11 beyond the next expected one; later ones are dropped and not acknowledged. Old ones are
acknowledged again (their acknowledgement may have been lost) but not delivered again.

Source: openvpn-protocol.md section 2.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vpn.wire.packet import MessageId, Opcode

RECEIVE_WINDOW = 12


class Verdict(Enum):
    NEW = "new"
    DUPLICATE = "duplicate"
    BEYOND = "beyond the window"


@dataclass(frozen=True, slots=True)
class Message:
    message_id: MessageId
    opcode: Opcode
    payload: bytes


class ReceiveWindow:
    __slots__ = ("_expected", "_waiting")

    def __init__(self, first_id: int = 0) -> None:
        self._expected = first_id
        self._waiting: dict[int, Message] = {}

    @property
    def expected(self) -> MessageId:
        return MessageId(self._expected)

    def accept(self, message: Message) -> Verdict:
        """Take one message; acknowledge it unless the verdict is BEYOND."""
        number = message.message_id
        if number >= self._expected + RECEIVE_WINDOW:
            return Verdict.BEYOND
        if number < self._expected or number in self._waiting:
            return Verdict.DUPLICATE
        self._waiting[number] = message
        return Verdict.NEW

    def take(self) -> Message | None:
        """The next message in order, if it is there."""
        message = self._waiting.pop(self._expected, None)
        if message is not None:
            self._expected += 1
        return message
