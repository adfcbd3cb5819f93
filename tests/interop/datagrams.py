"""UDP datagrams sent many at a time (UDP_SEGMENT), each numbered, as a program in a node.

datagrams.py take COUNT            on port 7200; says `taking`, then JSON: how many came whole, how many out of order
datagrams.py send ADDRESS TIMES    TIMES superpackets of 40 datagrams

number (4)   octets that follow from it
"""

from __future__ import annotations

import json
import socket
import struct
import sys

PORT = 7200
OCTETS, AT_ONCE = 1300, 40
_SOL_UDP, _UDP_SEGMENT = 17, 103
_PATIENCE_SECONDS = 20.0


def datagram(number: int) -> bytes:
    return number.to_bytes(4, "big") + bytes((number + at) & 0xFF for at in range(16)) * ((OCTETS - 4) // 16 + 1)


def _take(count: int) -> int:
    whole, misplaced, last = 0, 0, -1
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        sock.bind(("::", PORT))
        sock.settimeout(_PATIENCE_SECONDS)
        print("taking", flush=True)
        while whole < count:
            try:
                found = sock.recv(65536)
            except TimeoutError:
                break
            number = int.from_bytes(found[:4], "big")
            whole += found == datagram(number)[:OCTETS]
            misplaced += number <= last
            last = number
    print(json.dumps({"whole": whole, "misplaced": misplaced}), flush=True)
    return 0


def _send(address: str, times: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        for first in range(0, times * AT_ONCE, AT_ONCE):
            parts = [datagram(number)[:OCTETS] for number in range(first, first + AT_ONCE)]
            sock.sendmsg(parts, [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", OCTETS))], 0, (address, PORT))
    print("sent", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_take(int(sys.argv[2])) if sys.argv[1] == "take" else _send(sys.argv[2], int(sys.argv[3])))
