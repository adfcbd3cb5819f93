"""Echo requests of which every one is answered once, sent from a node of the lab by this process itself.

ping(8) is no judge of lost packets: as soon as one answer has come it waits for the others only for two of the longest
round trips so far, so that on a busy machine an answer that is a little late counts as lost. Here an answer may take
as long as it likes within a deadline. Nothing is started, either: the socket is one of the node's.

Source: iputils ping_common.c, `__schedule_exit`
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import ip_address

from testbed.lab.node import Node

_HEADER = struct.Struct("!BBHHH")
_REQUEST, _ANSWER = {4: 8, 6: 128}, {4: 0, 6: 129}
_LARGEST = 65536


@dataclass(slots=True)
class Echoes:
    """Requests from `node` to `address`, at most `under_way` of them unanswered at any time; then who was answered.

    Units: seconds; `pause` after each request at least, `patience` after the last; octets are those after the header
    """

    node: Node
    address: str
    count: int = 3
    octets: int = 56
    pattern: bytes = b"echo"
    under_way: int = 1
    patience: float = 30.0
    pause: float = 0.0
    source: str = ""
    answers: Counter[int] = field(default_factory=Counter)
    sent: int = 0
    _tag: int = field(default_factory=lambda: int.from_bytes(os.urandom(2), "big"))

    @property
    def _version(self) -> int:
        return ip_address(self.address).version

    def exchange(self) -> Counter[int]:
        """How often each request was answered, by its number from 0. Errors: OSError if there is no route."""
        with self._socket() as own:
            next_at, deadline = 0.0, time.monotonic() + self.patience
            while len(self.answers) < self.count and (now := time.monotonic()) < deadline:
                may_send = self.sent < self.count and self.sent - len(self.answers) < self.under_way
                if may_send and now >= next_at:
                    own.sendto(self._request(), (self.address, 0))
                    self.sent += 1
                    next_at, deadline = now + self.pause, now + self.patience
                else:
                    self._receive(own, (next_at if may_send else deadline) - now)
            while self._receive(own, 0):
                pass  # an answer that came twice
        return self.answers

    def _socket(self) -> socket.socket:
        if self._version == 4:
            own = self.node.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        else:
            own = self.node.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
        if self.source:
            own.bind((self.source, 0))
        return own

    def _request(self) -> bytes:
        """The kernel fills in the checksum of IPv6."""
        payload = (self.pattern * (self.octets // len(self.pattern) + 1))[: self.octets]
        kind = _REQUEST[self._version]
        blank = _HEADER.pack(kind, 0, 0, self._tag, self.sent) + payload
        return _HEADER.pack(kind, 0, _checksum(blank), self._tag, self.sent) + payload

    def _receive(self, own: socket.socket, seconds: float) -> bool:
        if not select.select([own], [], [], seconds)[0]:
            return False
        packet = own.recv(_LARGEST)
        message = packet[(packet[0] & 15) * 4 :] if self._version == 4 else packet  # IPv6 comes without its header
        kind, _, _, tag, number = _HEADER.unpack_from(message)
        if (kind, tag) == (_ANSWER[self._version], self._tag) and number < self.sent:
            self.answers[number] += 1
        return True


def _checksum(message: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(message) // 2}H", message[: len(message) & ~1]))
    total += (message[-1] << 8) * (len(message) & 1)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
