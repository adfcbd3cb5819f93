"""UDP datagrams that cross a device of the lab, as this process sees them: no program to start, wait for and read from.

Look often: what has not been collected waits in a socket buffer of ordinary size. Datagrams that a program hands over
many at once show up as one; who counts must see to it that they come one at a time.
"""

from __future__ import annotations

import socket
from types import TracebackType

from testbed.lab.node import Node

_ANY_PROTOCOL = 0x0003  # ETH_P_ALL
_UDP, _UDP_HEADER = 17, 8
_LARGEST = 65536


class Wiretap:
    def __init__(self, node: Node, device: str) -> None:
        # protocol 0 takes nothing yet: else other devices' packets came in until it is bound
        self._socket = node.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.bind((device, _ANY_PROTOCOL))
        self._socket.setblocking(False)
        self._packets: list[bytes] = []

    def __enter__(self) -> Wiretap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.collect()
        self._socket.close()

    def collect(self) -> None:
        """Take what came since the last call."""
        while True:
            try:
                self._packets.append(self._socket.recv(_LARGEST))
            except BlockingIOError:
                return

    def udp_payloads(self, port: int) -> list[bytes]:
        """Of the IPv4 datagrams from or to `port`, in order, both ways."""
        found = []
        for packet in self._packets:
            at = (packet[0] & 15) * 4
            if packet[0] >> 4 == 4 and packet[9] == _UDP and port in _ports(packet[at : at + 4]):
                found.append(packet[at + _UDP_HEADER : int.from_bytes(packet[2:4], "big")])
        return found


def _ports(header: bytes) -> tuple[int, int]:
    return int.from_bytes(header[:2], "big"), int.from_bytes(header[2:4], "big")
