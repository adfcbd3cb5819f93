"""SSH's beginning: the two banners and the key exchange are readable, all behind New Keys is sealed.

    banner: SSH-2.0-software … CR LF       packet: length (4) | padding length (1) | message number (1) | …

Source: RFC 4253 sections 4.2, 6 and 7, RFC 5656
"""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.dissection.opening import Opening, text_of

_MESSAGES = {
    1: "Disconnect",
    2: "Ignore",
    4: "Debug",
    20: "Key Exchange Init",
    21: "New Keys",
    30: "Key Exchange: client's share",
    31: "Key Exchange: server's share",
}
_NEW_KEYS = 21
_LONGEST_BANNER_OCTETS, _LONGEST_PACKET_OCTETS = 255, 1 << 16


@dataclass(slots=True)
class SshState:
    """Which directions have said their banner, and which have changed to new keys."""

    greeted: set[bool] = field(default_factory=set)
    sealed: set[bool] = field(default_factory=set)


def begins(octets: bytes) -> bool:
    return octets.startswith((b"SSH-2.0-", b"SSH-1.99-"))


def open_stream(opening: Opening, octets: bytes, start: int, end: int, state: SshState, direction: bool) -> int:
    """What a direction's octets hold completely. Shape: they end at the frame's `end`. Returns how many were read."""
    at, names = 0, []
    base = end - len(octets)
    who = "Client" if direction else "Server"
    if direction not in state.greeted and direction not in state.sealed:
        banner_end = octets.find(b"\n", 0, _LONGEST_BANNER_OCTETS) + 1
        if not banner_end:
            return 0
        state.greeted.add(direction)
        words = text_of(octets[:banner_end].rstrip())
        names.append(f"Protocol ({words})")
        at = banner_end
        opening.add("SSH banner", max(start, base), max(start, base + at), ("software", words))
    while at + 6 <= len(octets) and direction not in state.sealed:
        packet_end = at + 4 + int.from_bytes(octets[at : at + 4], "big")
        if packet_end > len(octets):
            if packet_end - at > _LONGEST_PACKET_OCTETS:
                state.sealed.add(direction)  # no key exchange is so long: this cannot be read
            break
        name = _MESSAGES.get(octets[at + 5], f"message {octets[at + 5]}")
        names.append(name)
        opening.add("SSH packet", max(start, base + at), max(start, base + packet_end), ("message", name))
        if octets[at + 5] == _NEW_KEYS:
            state.sealed.add(direction)
        at = packet_end
    if direction in state.sealed and at < len(octets):
        names.append(f"Encrypted packet (len={len(octets) - at})")
        opening.add("SSH, encrypted", max(start, base + at), end, ("octets", len(octets) - at), encrypted=True)
        at = len(octets)
    if names:
        opening.say("SSHv2", f"{who}: " + ", ".join(names))
    return at
