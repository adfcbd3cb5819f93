"""The way of a packet that comes alone: a ping, a question to a resolver, a key pressed.

    interface -> `read_one` -> core: `seal_one` -> `send_one`
    wire -> `receive_one` -> core: `open_one` -> `write_one`

Each step takes what is usual in the fewest steps and declines everything else with None, *with nothing done*: the
packet then takes the way of all others, which knows every case, counts what it drops and follows what the packet
changes. So only packets take it that change nothing but counters: a usual IP packet, no SYN to be clamped, sent with a
key that is not about to be replaced, or authentic under it and later than all before.

Here is what decides about the inner packet; the rest stands beside what does the same for many.
"""

from __future__ import annotations

_USUAL_IPV4, _USUAL_IPV6 = 0x45, 0x60
_TCP, _SYN = 6, 0x02
_LONGEST_OCTETS = 4095  # what is longer has a way that copies less


def is_usual(packet: bytes, clamps: bool) -> bool:
    """Whether the packet is an IP packet that goes as it is. `clamps`: a SYN does not.

    No says nothing: a packet with options, say, may well go as it is, too.
    """
    octets = len(packet)
    if 20 <= octets <= _LONGEST_OCTETS and packet[0] == _USUAL_IPV4:
        return not (clamps and packet[9] == _TCP and octets > 33 and packet[33] & _SYN)
    if 40 <= octets <= _LONGEST_OCTETS and packet[0] == _USUAL_IPV6:
        return not (clamps and packet[6] == _TCP and octets > 53 and packet[53] & _SYN)
    return False


def usual_source(packet: bytes) -> bytes:
    """The source address of a usual packet."""
    return packet[12:16] if packet[0] == _USUAL_IPV4 else packet[8:24]


def usual_destination(packet: bytes) -> bytes:
    """The destination address of a usual packet; of anything else some octets."""
    return packet[16:20] if packet[:1] == b"\x45" else packet[24:40]
