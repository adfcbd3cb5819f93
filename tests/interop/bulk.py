"""Random octets over several TCP connections at once, whose hashes must agree, as a program in a node.

    bulk.py serve                          on port 7100, any address; says `serving`
    bulk.py send ADDRESS OCTETS STREAMS    so many octets in all; prints JSON; exit code 1 if any hash differs
    bulk.py fetch ADDRESS OCTETS STREAMS   the same from there to here

    request   S or F (1)   octets (8)        then the octets, then their SHA-256 (32), then S or F from the other end

Writes are of odd sizes, so that segments of all lengths occur.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import struct
import sys
import threading
from collections.abc import Callable

PORT = 7100
_PATIENCE_SECONDS = 120.0
_REQUEST = struct.Struct(">cQ")
_BLOCK_OCTETS = 1 << 20


def push(sock: socket.socket, octets: int) -> bool:
    """Sends random octets and their hash; returns whether the other end found them right."""
    digest, sizes = hashlib.sha256(), random.Random(octets)
    while octets:
        block = memoryview(os.urandom(min(octets, _BLOCK_OCTETS)))
        digest.update(block)
        octets -= len(block)
        while block:
            part = block[: sizes.choice((1, 700, 1388, 1389, 9000, 65_000, 262_144))]
            sock.sendall(part)
            block = block[len(part) :]
    sock.sendall(digest.digest())
    return exactly(sock, 1) == b"="


def pull(sock: socket.socket, octets: int) -> bool:
    """Takes octets and their hash; says to the other end, and returns, whether they agree."""
    digest = hashlib.sha256()
    while octets:
        part = sock.recv(min(octets, _BLOCK_OCTETS))
        if not part:
            raise EOFError("the stream ended early")
        digest.update(part)
        octets -= len(part)
    good = exactly(sock, 32) == digest.digest()
    sock.sendall(b"=" if good else b"!")
    return good


def exactly(sock: socket.socket, octets: int) -> bytes:
    parts = b""
    while len(parts) < octets:
        part = sock.recv(octets - len(parts))
        if not part:
            raise EOFError("the stream ended early")
        parts += part
    return parts


def _serve() -> int:
    family = socket.AF_INET6
    with socket.create_server(("", PORT), family=family, dualstack_ipv6=True) as listener:
        print("serving", flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve_one, args=(sock,), daemon=True).start()


def _serve_one(sock: socket.socket) -> None:
    with sock:
        sock.settimeout(_PATIENCE_SECONDS)
        way, octets = _REQUEST.unpack(exactly(sock, _REQUEST.size))
        (pull if way == b"S" else push)(sock, octets)


def _talk(address: str, way: bytes, octets: int, streams: int) -> int:
    good: list[bool] = []

    def one() -> None:
        with socket.create_connection((address, PORT), timeout=_PATIENCE_SECONDS) as sock:
            sock.sendall(_REQUEST.pack(way, octets // streams))
            work: Callable[[socket.socket, int], bool] = push if way == b"S" else pull
            good.append(work(sock, octets // streams))

    threads = [threading.Thread(target=one) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"equal": sum(good), "of": streams}), flush=True)
    return 0 if good == [True] * streams else 1


if __name__ == "__main__":
    ways = {"send": b"S", "fetch": b"F"}
    sys.exit(_serve() if sys.argv[1] == "serve" else _talk(sys.argv[2], ways[sys.argv[1]], *map(int, sys.argv[3:5])))
