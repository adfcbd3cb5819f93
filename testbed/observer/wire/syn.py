"""Which family of operating systems a TCP SYN comes from: the order of its options and the start of its TTL.

Each network stack writes its options in an order of its own, and starts its TTL at 64, 128 or 255; both pass routers
and NAT unchanged (a TTL counts down). The rules name only families whose order is known and differs from all others:

    Linux, Android      MSS, SACK permitted, timestamps, NOP, window scale              TTL from 64
    Windows             MSS, NOP, window scale, NOP, NOP, SACK permitted                TTL from 128
    macOS, iOS          MSS, NOP, window scale, NOP, NOP, timestamps, SACK permitted, end   TTL from 64
    FreeBSD             MSS, NOP, window scale, SACK permitted, timestamps              TTL from 64
    OpenBSD             MSS, NOP, NOP, SACK permitted, NOP, window scale, NOP, NOP, timestamps  TTL from 64

What it cannot know: a proxy or VPN server that ends TCP shows itself, not who is behind it; settings change the
options (`net.ipv4.tcp_timestamps`), and then there is no guess rather than a wrong one; versions are not told apart.
SYN-ACKs are not used, for they repeat what was offered.

Source: RFC 9293 section 3.2, RFC 7323, RFC 2018; Zalewski, p0f
"""

from __future__ import annotations

import re
from typing import NamedTuple

END, NOP, MSS, SCALE, SACK_PERMITTED, TIMESTAMPS = 0, 1, 2, 3, 4, 8
LETTERS = {END: "E", NOP: "N", MSS: "M", SCALE: "W", SACK_PERMITTED: "S", TIMESTAMPS: "T"}
INITIAL_TTLS = (64, 128, 255)
SYSTEMS = {
    ("MSTNW", 64): "Linux or Android",
    ("MNWNNS", 128): "Windows",
    ("MNWNNTSE", 64): "macOS or iOS",
    ("MNWST", 64): "FreeBSD",
    ("MNNSNWNNT", 64): "OpenBSD",
}
LINUX = re.compile(rb"\x02\x04..\x04\x02\x08\x0a.{8}\x01\x03\x03.", re.DOTALL)  # by far the most common


class SynShape(NamedTuple):
    """Shape: `options` one letter each, in order; `system` is empty where no rule fits."""

    options: str
    ttl: int
    window: int
    system: str


def read_syn(segment: bytes, ttl: int) -> SynShape:
    """`segment` begins with the TCP header."""
    options = _options(segment[20 : (segment[12] >> 4) * 4]) if len(segment) > 20 else ""
    began_at = next(start for start in INITIAL_TTLS if ttl <= start)
    return SynShape(options, ttl, int.from_bytes(segment[14:16], "big"), SYSTEMS.get((options, began_at), ""))


def _options(block: bytes) -> str:
    if LINUX.fullmatch(block):
        return "MSTNW"
    letters, at = [], 0
    while at < len(block):
        kind = block[at]
        letters.append(LETTERS.get(kind, "?"))
        if kind == END:
            break
        at += 1 if kind == NOP else max(block[at + 1] if at + 1 < len(block) else 0, 2)
    return "".join(letters)
