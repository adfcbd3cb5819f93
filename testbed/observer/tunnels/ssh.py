"""SSH, which says itself what it is, and whether a session is used like a tunnel, which nothing says for sure.

SSH carries a shell, a file copy or somebody's web traffic in the same packets. What a forwarded connection has and a
shell or a file copy has not: request and answer of more than a keystroke's or an acknowledgement's size, taking turns,
again and again. That is a hint; automation that runs many commands over one connection looks like it.

Source: RFC 4253 section 4.2; the thresholds are ours, measured in docs/tunnel-detection.md
"""

from __future__ import annotations

from collections.abc import Sequence

from testbed.observer.model import Certainty
from testbed.observer.tunnels.recognised import Recognised

BANNER = b"SSH-"
HANDSHAKE_TURNS = 12  # banners, key exchange, authentication, opening of a channel
LARGE_OCTETS = 160  # a keystroke or an adjustment of the window is below 100, also with padding and check value
LEAST_TURNS = 8
COST = "automation over one SSH connection (many commands with long output) looks alike; no published figure"


def is_ssh(client: bytes, server: bytes) -> bool:
    return client.startswith(BANNER) and server.startswith(BANNER)


def recognise_forwarding(messages: Sequence[tuple[bool, int]]) -> tuple[Recognised, int] | None:
    """The hint and the index of the message that completes it.

    Shape: `messages` are (sent by the client, octets) in order; what one side sends without being answered is one.
    """
    exchanges = 0
    asked = False
    for index, (from_client, octets) in enumerate(messages[HANDSHAKE_TURNS:], HANDSHAKE_TURNS):
        if octets < LARGE_OCTETS:
            continue
        if from_client:
            asked = True
        elif asked:
            exchanges, asked = exchanges + 1, False
            if exchanges >= LEAST_TURNS:
                return _hint(), index
    return None


def _hint() -> Recognised:
    return Recognised(
        "ssh",
        f"an SSH session in which both sides take turns with messages of {LARGE_OCTETS} octets or more, {LEAST_TURNS} "
        "times: forwarded connections look like that, a shell or one file copy does not",
        COST,
        Certainty.POSSIBLE,
    )
