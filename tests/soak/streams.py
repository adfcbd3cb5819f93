"""TCP streams in both directions whose every octet is checked, as a program in a node.

    streams.py serve            on port 7000, any address; says `serving`
    streams.py talk ADDRESS     two connections until SIGTERM; prints JSON; exit code 1 if octets are lost

    frame     length (4)   sequence number (8)   octets
    the last  length 0     octets sent (8)   SHA-256 of everything sent (32)

Both ends of a connection send all the time, at a rate that leaves a small machine room; each checks numbers, count and
hash of what it gets. The server's end stops when it has the client's last frame.
"""

from __future__ import annotations

import hashlib
import json
import random
import signal
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import Any

PORT = 7000
_CONNECTIONS = 2
_FRAME_OCTETS = 16_384
_FRAMES_PER_SECOND = 20
_PATIENCE_SECONDS = 60.0  # what a stream may stand still
_HEAD = struct.Struct(">IQ")
_POOL = random.Random(7).randbytes(4 * _FRAME_OCTETS)


@dataclass(slots=True)
class Way:
    """What one direction of one connection came to."""

    octets: int = 0
    problem: str = ""
    longest_pause: float = 0.0


@dataclass(slots=True)
class Talk:
    """One connection, both directions at once."""

    sock: socket.socket
    told_to_end: threading.Event
    sent: Way = field(default_factory=Way)
    received: Way = field(default_factory=Way)

    def run(self) -> None:
        self.sock.settimeout(_PATIENCE_SECONDS)
        sender = threading.Thread(target=self._guard, args=(self._send, self.sent))
        sender.start()
        self._guard(self._receive, self.received)
        self.told_to_end.set()
        sender.join()
        self.sock.close()

    def _guard(self, work: Any, way: Way) -> None:
        try:
            work()
        except (OSError, ValueError, EOFError) as error:
            way.problem = f"{type(error).__name__}: {error}"

    def _send(self) -> None:
        digest, began, number = hashlib.sha256(), time.monotonic(), 0
        while not self.told_to_end.is_set():
            start = number * 997 % (3 * _FRAME_OCTETS)
            octets = _POOL[start : start + _FRAME_OCTETS]
            self.sock.sendall(_HEAD.pack(len(octets), number) + octets)
            digest.update(octets)
            self.sent.octets += len(octets)
            number += 1
            ahead = number / _FRAMES_PER_SECOND - (time.monotonic() - began)
            if ahead > 0:
                self.told_to_end.wait(ahead)
        self.sock.sendall(_HEAD.pack(0, self.sent.octets) + digest.digest())

    def _receive(self) -> None:
        digest, expected, heard_at = hashlib.sha256(), 0, time.monotonic()
        while True:
            length, number = _HEAD.unpack(self._exactly(_HEAD.size))
            now = time.monotonic()
            self.received.longest_pause = max(self.received.longest_pause, now - heard_at)
            heard_at = now
            if length == 0:
                break
            if number != expected or length > _FRAME_OCTETS:
                raise ValueError(f"frame {number} of {length} octets instead of frame {expected}")
            octets = self._exactly(length)
            digest.update(octets)
            self.received.octets += length
            expected += 1
        if number != self.received.octets or self._exactly(32) != digest.digest():
            raise ValueError(f"{self.received.octets} of {number} octets, or another hash")

    def _exactly(self, count: int) -> bytes:
        parts = b""
        while len(parts) < count:
            part = self.sock.recv(count - len(parts))
            if not part:
                raise EOFError("the stream ended early")
            parts += part
        return parts


def _serve() -> int:
    with socket.create_server(("", PORT)) as listener:
        print("serving", flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve_one, args=(Talk(sock, threading.Event()),), daemon=True).start()


def _serve_one(talk: Talk) -> None:
    talk.run()
    print(json.dumps({"problems": [talk.sent.problem, talk.received.problem]}), flush=True)


def _talk(address: str) -> int:
    told_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told_to_end.set())
    talks = []
    for _ in range(_CONNECTIONS):
        sock = socket.create_connection((address, PORT), timeout=_PATIENCE_SECONDS)
        talks.append(Talk(sock, told_to_end))
    threads = [threading.Thread(target=talk.run) for talk in talks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    problems = [way.problem for talk in talks for way in (talk.sent, talk.received) if way.problem]
    result = {
        "sent": sum(talk.sent.octets for talk in talks),
        "received": sum(talk.received.octets for talk in talks),
        "longest_pause": round(max(talk.received.longest_pause for talk in talks), 2),
        "problems": problems,
    }
    print(json.dumps(result), flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(_serve() if sys.argv[1] == "serve" else _talk(sys.argv[2]))
