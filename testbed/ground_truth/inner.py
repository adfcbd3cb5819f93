"""Inner packets as the client's tun device recorded them: what tells one from another, and which flow it belongs to.

The tunnel changes a packet a little on its way: it lowers the MSS of a TCP handshake, and where the kernel hands over
or takes several segments as one large packet, checksums and lengths are those of the large one. So packets are
compared without checksums and MSS, and a segment that is found in no packet of its own is looked for within a larger
one of its flow.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple

ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6"}
CHECKSUM_AT = {TCP: 16, UDP: 6, ICMPV6: 2}
SYN = 2
MSS_OPTION = 2


Flow = tuple[bytes, bytes, int, tuple[int, int]]


class InnerHead(NamedTuple):
    """What an IP packet's headers say. Shape: `payload_at` is where the transport's octets begin; ports 0 if none."""

    source: bytes
    destination: bytes
    protocol: int
    ports: tuple[int, int]
    transport_at: int
    payload_at: int
    end: int

    @property
    def flow(self) -> Flow:
        """The same for every packet of one direction of a conversation."""
        return self[:4]


def read_head(packet: bytes) -> InnerHead | None:
    """The headers of a raw IP packet; None if it is none. Shape: IPv6 extension headers count as the transport."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        at, protocol = (packet[0] & 15) * 4, packet[9]
        end = min(int.from_bytes(packet[2:4], "big") or len(packet), len(packet))
        fragment = int.from_bytes(packet[6:8], "big") & 0x1FFF
        source, destination = packet[12:16], packet[16:20]
    elif version == 6 and len(packet) >= 40:
        at, protocol, fragment = 40, packet[6], 0
        end = min(40 + int.from_bytes(packet[4:6], "big"), len(packet)) if packet[4:6] != b"\0\0" else len(packet)
        source, destination = packet[8:24], packet[24:40]
    else:
        return None
    ports, payload_at = (0, 0), at
    if protocol in (TCP, UDP) and not fragment and end >= at + 8:
        ports = int.from_bytes(packet[at : at + 2], "big"), int.from_bytes(packet[at + 2 : at + 4], "big")
        payload_at = at + 8 if protocol == UDP else at + (packet[at + 12] >> 4) * 4 if end >= at + 20 else end
    return InnerHead(source, destination, protocol, ports, at, min(payload_at, end), end)


def comparable(packet: bytes, head: InnerHead) -> bytes:
    """The packet without what the way through a tunnel may change."""
    octets = bytearray(packet[: head.end])
    at = head.transport_at
    if octets[0] >> 4 == 4:
        octets[10:12] = b"\0\0"
    checksum = CHECKSUM_AT.get(head.protocol)
    if checksum is not None and head.end >= at + checksum + 2:
        octets[at + checksum : at + checksum + 2] = b"\0\0"
    if head.protocol == TCP and head.end >= at + 20 and octets[at + 13] & SYN:
        _without_mss(octets, at + 20, head.payload_at)
    return bytes(octets)


def _without_mss(octets: bytearray, at: int, end: int) -> None:
    while at + 1 < end and octets[at] != 0:
        if octets[at] == 1:
            at += 1
            continue
        length = octets[at + 1]
        if octets[at] == MSS_OPTION and length == 4:
            octets[at + 2 : at + 4] = b"\0\0"
        if length < 2:
            return
        at += length


@lru_cache(maxsize=1 << 14)
def flow_name(flow: Flow, *, up: bool) -> str:
    """The conversation in words, the client first: `tcp 10.8.0.2:40000 -> 93.184.216.34:80`."""
    source, destination, protocol, ports = flow
    one, other = _end(source, ports[0]), _end(destination, ports[1])
    return f"{NAMES.get(protocol, protocol)} {one if up else other} -> {other if up else one}"


def _end(address: bytes, port: int) -> str:
    text = str(ip_address(address))
    if not port:
        return text
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"
