"""What every detector answers: which protocol it recognised, by which rule, and what that word is worth.

A detector is fed one conversation's packets in order, each with who sent it, and returns `Recognised` with the packet
that decides. `hopeless` says that nothing it could still be fed would change its mind, so that it is let go: a detector
sees at most some hundred packets of a conversation, mostly one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from testbed.observer.model import Certainty


@dataclass(frozen=True, slots=True)
class ClearControl:
    """Of OpenVPN: where in a control packet the body begins, which is not encrypted, and whose session it is."""

    body_at: int
    client_session: bytes
    server_session: bytes


@dataclass(frozen=True, slots=True)
class Recognised:
    """Shape: `client_was_right` is whether the end that was fed as the client is the one the protocol calls so;
    `control` is there where the messages that a tunnel begins with can be read."""

    protocol: str
    rule: str
    false_positives: str
    certainty: Certainty = Certainty.CERTAIN
    client_was_right: bool = True
    control: ClearControl | None = None


class Detector(Protocol):
    @property
    def hopeless(self) -> bool: ...

    def add(self, packet: bytes, from_client: bool) -> Recognised | None: ...


class Counter:
    """One direction's numbered packets: how many in a row have the same header and a number that grows a little."""

    __slots__ = ("header", "last", "run")
    LARGEST_STEP = 64  # lost packets leave holes

    def __init__(self) -> None:
        self.header = b""
        self.last = 0
        self.run = 0

    def add(self, header: bytes, number: int) -> None:
        follows = header == self.header and 0 < number - self.last <= self.LARGEST_STEP
        self.run = self.run + 1 if follows else 1
        self.header, self.last = header, number
