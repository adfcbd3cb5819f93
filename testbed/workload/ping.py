"""`ping`: ICMP and ICMPv6 echo requests whose payload carries a canary; no program needed.

    type (1) | code (1) | checksum (2) | identifier (2) | sequence (2) | payload (56)

A raw socket where this process may open one, else the kernel's ping socket, which sets the identifier itself. The
kernel computes the ICMPv6 checksum; the ICMP one is ours. Every request of an action carries the same payload.

Sources: RFC 792, RFC 4443 section 4; icmp(7), raw(7).
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from dataclasses import dataclass

from testbed.facts import Kind
from testbed.workload.attempt import ActionFailed, Attempt, in_words
from testbed.workload.resolve import resolve

PAYLOAD_OCTETS = 56
ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}
ECHO_REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}
PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}


@dataclass(frozen=True, slots=True)
class Echo:
    """An echo request's or reply's fields."""

    type: int
    identifier: int
    sequence: int
    payload: bytes

    def build(self) -> bytes:
        unsigned = struct.pack("!BBHHH", self.type, 0, 0, self.identifier, self.sequence) + self.payload
        return unsigned[:2] + checksum(unsigned).to_bytes(2, "big") + unsigned[4:]

    @classmethod
    def parse(cls, untrusted: bytes) -> Echo | None:
        """None for what is too short to be one."""
        if len(untrusted) < 8:
            return None
        kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", untrusted)
        return cls(kind, identifier, sequence, untrusted[8:])


def perform(attempt: Attempt) -> str:
    """Send the echo requests; returns how many came back, from where and how fast."""
    host, tokens = attempt.canaries.expand(attempt.action.target.lower(), "name")
    address = resolve(attempt, host, tokens)[0]
    try:
        with _open_socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            return _ping(attempt, sock, address)
    except OSError as error:
        raise ActionFailed(f"{address}: {in_words(error)}") from None


def checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = octets + b"\0" * (len(octets) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def payload_text(token: str) -> str:
    """56 octets, the length that ping(8) sends, with the token in front."""
    return f"{token} echo ".ljust(PAYLOAD_OCTETS, ".")


def _open_socket(family: socket.AddressFamily) -> socket.socket:
    try:
        return socket.socket(family, socket.SOCK_RAW, PROTOCOL[family])
    except PermissionError:
        return socket.socket(family, socket.SOCK_DGRAM, PROTOCOL[family])


def _ping(attempt: Attempt, sock: socket.socket, address: str) -> str:
    token = attempt.canaries.token("payload")
    payload = payload_text(token)
    sock.connect((address, 0))
    identifier = os.getpid() & 0xFFFF
    times_s = []
    for sequence in range(1, attempt.action.count + 1):
        sent_at = time.monotonic()
        sock.send(Echo(ECHO_REQUEST[sock.family], identifier, sequence, payload.encode()).build())
        attempt.note_ends(sock, address)
        attempt.note(Kind.PAYLOAD, payload, attempt.site_of_address(address), (token,))
        if _await_reply(attempt, sock, sequence, payload.encode()):
            times_s.append(time.monotonic() - sent_at)
        if sequence < attempt.action.count:
            time.sleep(max(0.0, min(attempt.action.interval - (time.monotonic() - sent_at), attempt.remaining_s())))
    if not times_s:
        raise ActionFailed(f"{address}: no answer to {attempt.action.count} echo requests")
    mean_ms = sum(times_s) / len(times_s) * 1000
    return f"{len(times_s)} of {attempt.action.count} answered by {address}, {mean_ms:.2f} ms"


def _await_reply(attempt: Attempt, sock: socket.socket, sequence: int, payload: bytes) -> bool:
    until = time.monotonic() + attempt.remaining_s() / (attempt.action.count - sequence + 1)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while (left := until - time.monotonic()) > 0 and poll.poll(left * 1000):
        untrusted = sock.recv(65535)
        if sock.type == socket.SOCK_RAW and sock.family == socket.AF_INET and untrusted:
            untrusted = untrusted[(untrusted[0] & 0x0F) * 4 :]
        reply = Echo.parse(untrusted)
        if reply and (reply.type, reply.sequence, reply.payload) == (ECHO_REPLY[sock.family], sequence, payload):
            return True
    return False
