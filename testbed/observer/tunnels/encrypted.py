"""Fully encrypted traffic: the exemptions by which the Great Firewall let a TCP connection pass, after Wu et al. 2023.

The client's first payload is exempt if any of these holds; what none exempts looks encrypted from its first octet on:

    1  3.4 or fewer, or 4.6 or more, bits per octet are set on average
    2  the first six octets are printable ASCII                    4  more than 20 octets in a row are
    3  more than half of the octets are                            5  it begins as TLS or HTTP do

The rule names no protocol: Shadowsocks, VMess and Obfs4 are what it was made for, and OpenVPN over TCP with tls-crypt
falls under it. It is never certain, and it is for TCP: over UDP most modern protocols would fall under it.

Source: Wu, Sippe, Sivakumar et al.: How the Great Firewall of China Detects and Blocks Fully Encrypted Traffic,
USENIX Security 2023, algorithm 1
"""

from __future__ import annotations

from testbed.observer.model import Certainty
from testbed.observer.tunnels.recognised import Recognised

LEAST_BITS, MOST_BITS = 3.4, 4.6
PRINTABLE = bytes(range(0x20, 0x7F))
IS_PRINTABLE = bytes(int(octet in PRINTABLE) for octet in range(256))
FIRST_PRINTABLE_OCTETS = 6
PRINTABLE_SHARE = 0.5
LONGEST_PRINTABLE_RUN = 20
HTTP_VERBS = (b"GET ", b"PUT ", b"POST", b"HEAD")
COST = (
    "Wu et al. 2023: applied to everything, the rule would block about 0.6 % of ordinary connections; any protocol "
    "without a header falls under it, tunnel or not"
)


def exemption(payload: bytes) -> str:
    """Why a client's first payload does not count as fully encrypted; empty if nothing exempts it."""
    if not payload:
        return "there is no payload"
    bits = int.from_bytes(payload, "big").bit_count() / len(payload)
    if not LEAST_BITS < bits < MOST_BITS:
        return f"{bits:.2f} bits per octet are set"
    printable = payload.translate(IS_PRINTABLE)
    if len(payload) >= FIRST_PRINTABLE_OCTETS and all(printable[:FIRST_PRINTABLE_OCTETS]):
        return "the first six octets are printable"
    if sum(printable) > PRINTABLE_SHARE * len(payload):
        return "more than half of the octets are printable"
    if max(map(len, printable.split(b"\0"))) > LONGEST_PRINTABLE_RUN:
        return "more than 20 octets in a row are printable"
    if payload[0] in (0x16, 0x17) and payload[1:2] == b"\x03" and payload[2:3] and payload[2] <= 9:
        return "it begins as TLS does"
    return "it begins as HTTP does" if payload.startswith(HTTP_VERBS) else ""


def recognise(payload: bytes) -> Recognised | None:
    """Shape: `payload` is the client's first segment of a connection whose beginning was seen."""
    if exemption(payload):
        return None
    bits = int.from_bytes(payload, "big").bit_count() / len(payload)
    return Recognised(
        "fully-encrypted",
        f"the first payload ({len(payload)} octets) is encrypted from its first octet on: {bits:.2f} bits per octet "
        "set, no printable beginning, half or run, neither TLS nor HTTP",
        COST,
        Certainty.POSSIBLE,
    )
