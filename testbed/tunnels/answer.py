"""Whether an address inside a tunnel answers: one echo request through the tunnel's device, and no other way.

Bound to the device, so that the question cannot leave beside a tunnel that is not up yet.
"""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

from testbed.workload.ping import ECHO_REPLY, ECHO_REQUEST, PROTOCOL, Echo

if TYPE_CHECKING:
    from testbed.lab.node import Node

WAIT_S = 0.25
IDENTIFIER = 0x7E57
PAYLOAD = b"is the tunnel up?".ljust(56, b".")


def answers(node: Node, device: str, address: str) -> bool:
    """Whether `address` answers within a quarter of a second."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with node.socket(family, socket.SOCK_RAW, PROTOCOL[family]) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.sendto(Echo(ECHO_REQUEST[family], IDENTIFIER, 1, PAYLOAD).build(), (address, 0))
        except OSError:
            return False  # no device, no address or no route yet
        while select.select([sock], [], [], WAIT_S)[0]:
            untrusted = sock.recv(2048)
            head = (untrusted[0] & 0x0F) * 4 if family == socket.AF_INET and untrusted else 0
            reply = Echo.parse(untrusted[head:])
            if reply and (reply.type, reply.payload) == (ECHO_REPLY[family], PAYLOAD):
                return True
    return False
