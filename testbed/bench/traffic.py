"""What runs in the nodes while a benchmark measures: `python -m testbed.bench.traffic ROLE [ADDRESS]`.

    role    in the node  on a line of stdin     answers with one JSON line
    echo    server       -                      (sends every datagram back)
    count   server       anything               {"packets": those of 64 octets since the last line}
    blast   client       "PACKETS_PER_S SECONDS" {"packets": sent, "seconds": taken}; bursts with sleep between them
    trip    client       "COUNT"                {"microseconds": [one per answer], "lost": those not answered in time}
    ping    client       "COUNT INTERVAL"       the same; one every INTERVAL seconds, whatever became of the others
    probe   client       anything               {"at": monotonic time of the first answer}; asks until there is one

All say {"ready": true} first. Packets are UDP with 64 octets inside. Standard library only: it starts in no time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable

ECHO_PORT, COUNT_PORT = 7007, 7009
PACKET_OCTETS = 64
_BUFFER_OCTETS = 8 << 20
_BURSTS_PER_SECOND = 2000
_ANSWER_SECONDS = 0.25
_LOST_AT_MOST = 0.1  # of the packets that were to be sent; then waiting for the rest makes no sense
_LATEST_SECONDS = 1.0  # for an answer beside a full stream, behind every queue there is
_PROBE_SECONDS = 0.005
_SO_RCVBUFFORCE = 33


def say(**values: object) -> None:
    print(json.dumps(values), flush=True)


def echo(_: str) -> None:
    """Answers until it is killed."""
    with _receiver(ECHO_PORT) as sock:
        say(ready=True)
        buffer = bytearray(2048)
        while True:
            octets, sender = sock.recvfrom_into(buffer)
            sock.sendto(buffer[:octets], sender)


def count(_: str) -> None:
    """Counts in the main thread; another one answers, which the counting never waits for."""
    with _receiver(COUNT_PORT) as sock:
        packets = 0

        def answer() -> None:
            told = 0
            for _line in sys.stdin:
                now = packets
                say(packets=now - told)
                told = now

        threading.Thread(target=answer, daemon=True).start()
        say(ready=True)
        buffer, receive = bytearray(PACKET_OCTETS), sock.recv_into
        while True:
            receive(buffer)
            packets += 1


def blast(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        say(ready=True)
        for line in sys.stdin:
            rate, seconds = (float(word) for word in line.split())
            with contextlib.suppress(OSError):
                sock.connect((address, COUNT_PORT))
            packets, taken = _blast(sock.send, rate, seconds)
            say(packets=packets, seconds=taken)


def _blast(send: Callable[[bytes], int], rate: float, seconds: float) -> tuple[int, float]:
    """Send at `rate`; how many, and in which time. A sender that comes late makes up for two bursts and no more.

    Otherwise the time it had to wait for the processor would become a burst longer than a tunnel's queue.
    """
    packet, sent, skipped = bytes(PACKET_OCTETS), 0, 0
    most = max(8, int(2 * rate / _BURSTS_PER_SECOND))
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        due = int(passed * rate) - skipped
        skipped += max(0, due - sent - most)
        due = min(due, sent + most)
        while sent < due:
            try:
                while sent < due:
                    send(packet)
                    sent += 1
            except OSError:  # a queue is full, or the other end is not there: it counts as sent, and as lost
                sent += 1
        time.sleep(1 / _BURSTS_PER_SECOND)
    return sent, time.monotonic() - began


def trip(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_ANSWER_SECONDS)
        say(ready=True)
        for line in sys.stdin:
            sock.connect((address, ECHO_PORT))
            microseconds, lost = [], 0
            for number in range(int(line)):
                if lost > int(line) * _LOST_AT_MOST:
                    break
                taken = _one_trip(sock, number.to_bytes(4, "big") + bytes(PACKET_OCTETS - 4))
                if taken is None:
                    lost += 1
                else:
                    microseconds.append(round(taken * 1e6, 1))
            say(microseconds=microseconds, lost=lost)


def _one_trip(sock: socket.socket, packet: bytes) -> float | None:
    began = time.perf_counter()
    try:
        sock.send(packet)
        while sock.recv(2048) != packet:  # an answer that came too late for the one before
            pass
    except OSError:
        return None
    return time.perf_counter() - began


def ping(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        say(ready=True)
        for line in sys.stdin:
            count, interval = line.split()
            sock.connect((address, ECHO_PORT))
            microseconds = _paced_trips(sock, int(count), float(interval))
            say(microseconds=microseconds, lost=int(count) - len(microseconds))


def _paced_trips(sock: socket.socket, count: int, interval: float) -> list[float]:
    """Ask by the clock: whoever waits for an answer before asking again asks seldom while answers are slow."""
    mark = os.urandom(8)  # of this call: an answer to an earlier one is none
    asked: dict[bytes, float] = {}
    microseconds: list[float] = []
    began = time.perf_counter()
    for number in range(count + 1):
        last = number == count
        until = began + number * interval + (_LATEST_SECONDS if last else 0)
        while (asked or not last) and (wait := until - time.perf_counter()) > 0:
            if select.select([sock], [], [], wait)[0]:
                _note_answer(sock, asked, microseconds)
        if not last:
            packet = mark + number.to_bytes(4, "big") + bytes(PACKET_OCTETS - 12)
            asked[packet] = time.perf_counter()
            with contextlib.suppress(OSError):
                sock.send(packet)
    return microseconds


def _note_answer(sock: socket.socket, asked: dict[bytes, float], microseconds: list[float]) -> None:
    with contextlib.suppress(OSError):
        answer = sock.recv(2048)
        now = time.perf_counter()
        if answer in asked:
            microseconds.append(round((now - asked.pop(answer)) * 1e6, 1))


def probe(address: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(_PROBE_SECONDS)
        say(ready=True)
        for _line in sys.stdin:
            say(at=_first_answer(sock, address))


def _first_answer(sock: socket.socket, address: str) -> float:
    """Asks every five milliseconds. Whoever waits for it gives up; this never does."""
    while True:
        began = time.monotonic()
        with contextlib.suppress(OSError):
            sock.sendto(bytes(PACKET_OCTETS), (address, ECHO_PORT))
            sock.recv(2048)
            return time.monotonic()
        time.sleep(max(0.0, _PROBE_SECONDS - (time.monotonic() - began)))


def _receiver(port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_OCTETS)
    except OSError:  # not root: as much as the host allows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
    sock.bind(("", port))
    return sock


ROLES: dict[str, Callable[[str], None]] = {
    "echo": echo,
    "count": count,
    "blast": blast,
    "trip": trip,
    "ping": ping,
    "probe": probe,
}

if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        ROLES[sys.argv[1]](sys.argv[2] if sys.argv[2:] else "")
