"""Behind the server: sends packets to the clients' inner addresses, when asked, or as fast as it can.

python inner_source.py                          asked by `crowd.py`: a burst, a size, and whom to send to, in order
python inner_source.py SECONDS MBIT ADDRESS…    a flood of datagrams, the addresses in turns
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import sys
import time

SOURCE_PORT = 4000
_SOL_UDP, _UDP_SEGMENT = 17, 103
_FLOOD_OCTETS, _FLOOD_BURST = 1372, 40


def answer(sock: socket.socket, server_process: int) -> None:
    """Does what one request wants."""
    request, _ = sock.recvfrom(65535)
    burst, octets = struct.unpack_from("!HH", request)
    payload = bytes(octets * burst)
    os.kill(server_process, signal.SIGSTOP)
    try:
        for at in range(4, len(request), 4):
            send(sock, payload, octets, socket.inet_ntoa(request[at : at + 4]))
    finally:
        os.kill(server_process, signal.SIGCONT)


def send(sock: socket.socket, payload: bytes, octets: int, address: str) -> None:
    if len(payload) == octets:
        sock.sendto(payload, (address, 9))
    else:
        sock.sendmsg([payload], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", octets))], 0, (address, 9))


def flood(sock: socket.socket, seconds: float, rate_bit_s: float, addresses: list[str]) -> int:
    """Returns how many datagrams each address was sent."""
    payload, turns = bytes(_FLOOD_OCTETS * _FLOOD_BURST), 0
    began = time.monotonic()
    per_turn = len(addresses) * len(payload) * 8 / rate_bit_s
    while (now := time.monotonic()) < began + seconds:
        if began + turns * per_turn > now:
            time.sleep(min(per_turn, 0.001))
            continue
        for address in addresses:
            send(sock, payload, _FLOOD_OCTETS, address)
        turns += 1
    return turns * _FLOOD_BURST


def main() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    sock.bind(("0.0.0.0", 0 if sys.argv[2:] else SOURCE_PORT))
    if sys.argv[2:]:
        print("sending", flush=True)
        print(flood(sock, float(sys.argv[1]), float(sys.argv[2]) * 1e6, sys.argv[3:]), flush=True)
        return
    print("serving", flush=True)
    while True:
        answer(sock, int(sys.argv[1]))


if __name__ == "__main__":
    main()
