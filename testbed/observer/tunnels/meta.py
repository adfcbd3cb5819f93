"""Tunnels that introduce themselves in clear over TCP: tinc's meta connection, PPTP's control connection.

    tinc   "0 NAME 17[.minor]\\n" from both sides: request type, the node's name, the protocol's version
    PPTP   length (2), 1, the magic cookie 1a2b3c4d, type 1: Start-Control-Connection-Request of 156 octets

Source: tinc manual, "The meta-protocol"; RFC 2637 section 2.1
"""

from __future__ import annotations

import re

from testbed.observer.tunnels.recognised import Recognised

TINC_ID = re.compile(rb"0 [A-Za-z0-9_]{1,200} 17(\.\d{1,3})?\n")
PPTP_REQUEST = b"\x00\x9c\x00\x01\x1a\x2b\x3c\x4d\x00\x01"
PPTP_REPLY = b"\x00\x9c\x00\x01\x1a\x2b\x3c\x4d\x00\x02"


def recognise(client: bytes, server: bytes) -> tuple[Recognised, int, int] | None:
    """What the first octets of both sides say, and how many octets of the client's and of the server's it took."""
    ours, theirs = TINC_ID.match(client), TINC_ID.match(server)
    if ours and theirs:
        names = " and ".join(found[0].split()[1].decode("ascii") for found in (ours, theirs))
        rule = f"both sides open tinc's meta connection and say their names: {names}"
        return Recognised("tinc", rule, "none: a line of this form from both sides"), ours.end(), theirs.end()
    if client.startswith(PPTP_REQUEST) and server.startswith(PPTP_REPLY):
        rule = "Start-Control-Connection request and reply of PPTP with its magic cookie"
        cost = "none: 64 fixed bits from both sides"
        return Recognised("pptp", rule, cost), len(PPTP_REQUEST), len(PPTP_REPLY)
    return None
