"""Frames of one capture, in order, as packets for people: the entry to this package."""

from __future__ import annotations

from dataclasses import dataclass, field

from testbed.capture.reader import Frame
from testbed.dissection.icmp import open_icmp
from testbed.dissection.network import open_ip, open_link
from testbed.dissection.opening import Opening, Short, add_data
from testbed.dissection.transport import Transport
from testbed.dissection.tunnels import open_ah, open_esp
from testbed.observer import ip
from testbed.report.packets import PacketView

_ICMP, _TCP, _UDP, _ICMPV6, _ESP, _AH = 1, 6, 17, 58, 50, 51
_IP_IN_IP = frozenset((4, 41))
_MOST_NESTED = 4  # IP in IP


@dataclass(slots=True)
class CaptureDissector:
    """Give it each frame of a capture in order; it returns the frame opened layer by layer."""

    transport: Transport = field(default_factory=Transport)

    def open(self, frame: Frame) -> PacketView:
        opening = Opening(frame.number, frame.data)
        try:
            self._open(opening, frame.link_type)
        except Short:
            start = max((layer.end for layer in opening.layers), default=0)
            opening.summary = f"{opening.summary} [cut off or malformed]".lstrip()
            if start < len(frame.data):
                opening.add("Cut off or malformed", start, len(frame.data))
        return opening.view(frame.time_ns / 1e9)

    def _open(self, opening: Opening, link_type: int) -> None:
        at = open_link(opening, link_type)
        for _ in range(_MOST_NESTED):
            packet = open_ip(opening, at) if at >= 0 else None
            if packet is None:
                return
            start, protocol = packet.start, packet.protocol
            if protocol == _AH:
                start, protocol = open_ah(opening, packet.start, packet.end)
            if protocol not in _IP_IN_IP:
                self._open_above(opening, packet._replace(start=start, protocol=protocol))
                return
            at = start

    def _open_above(self, opening: Opening, packet: ip.Packet) -> None:
        if packet.protocol == _UDP:
            self.transport.open_udp(opening, packet)
        elif packet.protocol == _TCP:
            self.transport.open_tcp(opening, packet)
        elif packet.protocol in (_ICMP, _ICMPV6):
            open_icmp(opening, packet, version=4 if packet.protocol == _ICMP else 6)
        elif packet.protocol == _ESP:
            open_esp(opening, packet.start, packet.end)
        elif packet.start < packet.end:
            add_data(opening, packet.start, packet.end)
