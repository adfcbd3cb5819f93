"""The way of a packet that comes alone: a ping, a question to a resolver, a key pressed.

    interface -> `read_one` -> core: `seal_one` -> `send_one`
    wire -> `receive_one` -> core: `open_one` -> `write_one`

Each step takes what is usual in the fewest steps and declines everything else with None, *with nothing done*: the
packet then takes the way of all others, which knows every case, counts what it drops and follows what the packet
changes. So only packets take it that change nothing but counters: a usual IP packet, no SYN to be clamped, sent with a
key that is not about to be replaced, or authentic under it and later than all before.

A packet that comes alone finds the processor's caches cold: what it costs is the memory it touches, not the
instructions. So all that a key needs for it stands in one object, and each direction is one function. The rest stands
beside what does the same for many.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import cache

from cryptography.exceptions import InvalidTag

from vpn.dataplane.cipher import RENEGOTIATE_AT_PACKET_ID, TAG_OCTETS, AeadOpener, AeadSealer

_USUAL_IPV4, _USUAL_IPV6 = 0x45, 0x60
_TCP, _SYN = 6, 0x02
_packed = struct.Struct(">I").pack  # half of what `int.to_bytes` takes
_BEFORE_TAG, _LAST_TAG = slice(None, -TAG_OCTETS), slice(-TAG_OCTETS, None)  # made once: a third less to look up
_LONGEST_OCTETS = 4095  # what is longer has a way that copies less


class Lane:
    """One key's way for usual packets that come alone. `clamps`: a SYN does not go as it is.

    Shape: of a key whose sealer and opener are AEAD's; `header` as the sealer's.
    """

    __slots__ = (  # noqa: RUF023 -- in the order of use
        "_sealer",
        "_clamps",
        "_header",
        "_implicit_out",
        "_encrypt",
        "_with_header",
        "_first_octet",
        "_id",
        "_window",
        "_decrypt",
        "_implicit_in",
        "_body",
        "_tag",
        "_clear",
    )

    def __init__(self, sealer: AeadSealer, opener: AeadOpener, *, clamps: bool) -> None:
        self._sealer = sealer
        self._encrypt, self._implicit_out = sealer.encrypt, sealer.implicit_iv
        self._decrypt, self._implicit_in = opener.decrypt, opener.implicit_iv
        self._header = sealer.header
        self._with_header = len(sealer.header) > 1
        self._first_octet = sealer.header[0]
        end = len(sealer.header) + 4
        self._id, self._clear, self._tag, self._body = _parts(end, self._with_header)
        self._window = opener.window
        self._clamps = clamps

    def seal(self, packet: bytes) -> bytes | None:
        """The datagram of a usual packet; None, and nothing has happened, if it is none or the ids come to an end."""
        sealer = self._sealer
        number = sealer.last_packet_id + 1
        if number >= RENEGOTIATE_AT_PACKET_ID or not is_usual(packet, self._clamps):
            return None
        sealer.last_packet_id = number
        packet_id = _packed(number)
        clear = self._header + packet_id
        sealed = self._encrypt(packet_id + self._implicit_out, packet, clear if self._with_header else packet_id)
        return clear + sealed[_LAST_TAG] + sealed[_BEFORE_TAG]

    def seal_few(self, packets: Sequence[bytes]) -> list[bytes] | None:
        """The datagrams of packets that go as they are; None, and nothing has happened, if the ids come to an end."""
        sealer, encrypt, implicit, header = self._sealer, self._encrypt, self._implicit_out, self._header
        number = sealer.last_packet_id
        if number + len(packets) >= RENEGOTIATE_AT_PACKET_ID:
            return None
        datagrams = []
        for packet in packets:
            number += 1
            packet_id = _packed(number)
            clear = header + packet_id
            sealed = encrypt(packet_id + implicit, packet, clear if self._with_header else packet_id)
            datagrams.append(clear + sealed[_LAST_TAG] + sealed[_BEFORE_TAG])
        sealer.last_packet_id = number
        return datagrams

    def open(self, untrusted: bytes, sources: frozenset[bytes] | None, now: float) -> bytes | None:
        """The usual packet in a datagram; None, and nothing has happened, if it has to go the way of all others.

        Shape: `sources` are the addresses that it may come from, None for all.
        """
        if untrusted[0] != self._first_octet:
            return None
        packet_id = untrusted[self._id]
        number, window = int.from_bytes(packet_id, "big"), self._window
        if number <= window.highest:
            return None
        try:
            packet = self._decrypt(
                packet_id + self._implicit_in, untrusted[self._body] + untrusted[self._tag], untrusted[self._clear]
            )
        except (InvalidTag, ValueError):  # ValueError: cut so short that even the nonce is not whole
            return None
        if not is_usual(packet, self._clamps):
            return None
        if sources is not None and (packet[12:16] if packet[0] == _USUAL_IPV4 else packet[8:24]) not in sources:
            return None
        window.accept(number, now)
        return packet


@cache
def _parts(end: int, with_header: bool) -> tuple[slice, slice, slice, slice]:
    """Packet id, what is authentic besides the packet, tag, packet: one for all clients, so that it stays cached."""
    packet_id = slice(end - 4, end)
    return (
        packet_id,
        slice(0, end) if with_header else packet_id,
        slice(end, end + TAG_OCTETS),
        slice(end + TAG_OCTETS, None),
    )


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


def usual_destination(packet: bytes) -> bytes:
    """The destination address of a usual packet; of anything else some octets."""
    return packet[16:20] if packet[:1] == b"\x45" else packet[24:40]
