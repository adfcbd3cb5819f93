"""The quick way for the packets that most of a capture consists of: TCP in a known flow, nothing unusual about it.

    Ethernet · IPv4 without options or fragments, or IPv6 without extensions · TCP that opens nothing ·
    its octets, if any, the very next of the stream

`take` does with such a packet what `observe` does, in one function, and leaves every other one untouched: it returns
False before it has changed anything. The thorough way alone would give the same answer; a test compares them.
"""

from __future__ import annotations

from struct import Struct

from testbed.capture import pcapng
from testbed.capture.reader import Frame
from testbed.observer.flows import BURST_PAUSE_NS
from testbed.observer.model import Limits
from testbed.observer.streams import SEQUENCE_MASK
from testbed.observer.table import FlowTable

_IPV4_PLAIN, _IPV6 = b"\x08\x00\x45", b"\x86\xdd"  # with the octet that says: version 4, no options
_TCP, _TAIL = 6, b"\x06"
_FRAGMENTED = 0x3FFF
_FIN, _SYN, _RST, _FIN_SYN_RST, _ACK = 1, 2, 4, 7, 16
# From the length on: fragment, protocol, addresses with ports, sequence, length of the TCP header, flags.
_IPV4_AT, _IPV4_TCP_AT = 16, 34
_IPV4_TCP = Struct("!H2xHxB2x12sI4xBB")
_IPV6_AT, _IPV6_TCP_AT = 18, 54
_IPV6_TCP = Struct("!HBx36sI4xBB")
_LEAST_OCTETS = 74  # an IPv6 and a TCP header; shorter IPv4 packets are taken where Ethernet's padding is there or not
_LEAST_IPV4_OCTETS = 54


class QuickPath:
    """Takes what it can into the flows of `table`."""

    __slots__ = ("_find", "_most_frames", "_read_ipv4", "_read_ipv6", "_skim")

    def __init__(self, table: FlowTable, limits: Limits) -> None:
        self._find = table.find
        self._skim = table.skim
        self._most_frames = limits.frames_per_sighting
        self._read_ipv4 = _IPV4_TCP.unpack_from
        self._read_ipv6 = _IPV6_TCP.unpack_from

    def take(self, frame: Frame, position: int) -> bool:
        """Enter the frame into its flow and stream; False, and nothing done, if it is not one of the common kind.

        Shape: `position` is where the frame's octets stand in the file
        """
        number, time_ns, link_type, data, octets, _ = frame
        if link_type != pcapng.LINKTYPE_ETHERNET or len(data) < _LEAST_IPV4_OCTETS:
            return False
        if data[12:15] == _IPV4_PLAIN:
            length, fragment, protocol, key, sequence, offset, flags = self._read_ipv4(data, _IPV4_AT)
            if protocol != _TCP or fragment & _FRAGMENTED or not length:
                return False
            start, end = _IPV4_TCP_AT, _IPV4_AT - 2 + length
        elif data[12:14] == _IPV6 and len(data) >= _LEAST_OCTETS and data[14] >> 4 == 6:
            length, protocol, key, sequence, offset, flags = self._read_ipv6(data, _IPV6_AT)
            if protocol != _TCP or not length:
                return False
            start, end = _IPV6_TCP_AT, _IPV6_TCP_AT + length
        else:
            return False
        end = min(end, len(data))
        payload_at = start + (offset >> 4) * 4
        if not start + 20 <= payload_at <= end:
            return False
        key += _TAIL
        edge = flags & _FIN_SYN_RST
        if edge & _SYN and (flags & _ACK == 0 or edge != _SYN or payload_at < end):
            return False
        if not self.enter(key, sequence, data, payload_at, end, number, time_ns, octets, position):
            return False
        if edge:
            self._edge(key, edge, sequence, end - payload_at, number, time_ns)
        return True

    def _edge(self, key: bytes, edge: int, sequence: int, octets: int, number: int, time_ns: int) -> None:
        """The answer to a SYN, or an end, of which everything else is entered. Shape: `edge` has flags of TCP"""
        side = self._find(key)
        if side is None or side.reassembly is None:
            return
        if edge & _SYN:
            side.reassembly.syn(sequence)
        if edge & _FIN:
            side.reassembly.fin((sequence + octets) & SEQUENCE_MASK, number, time_ns)
            if side.peer.reassembly is not None and side.peer.reassembly.fin_position is not None:
                side.flow.closed = True
        if edge & _RST:
            side.flow.closed = True

    def enter(
        self,
        key: bytes,
        sequence: int,
        data: bytes,
        payload_at: int,
        end: int,
        number: int,
        time_ns: int,
        octets: int,
        position: int,
    ) -> bool:
        """The same with a segment whose headers are known to be of the common kind; it carries `data[payload_at:end]`.

        Shape: `position` is where `data` stands in the file; many packets come here: hence arguments and no value
        """
        side = self._find(key)
        if side is None:
            return False
        if payload_at < end:
            reassembly = side.reassembly
            if reassembly is None or not reassembly.extend(sequence, data, payload_at, end, number, time_ns, position):
                return False
            side.payload_octets += end - payload_at
            if side.recorder.size > side.recorder.asked_at:
                self._skim(side)
        side.packets += 1
        side.octets += octets
        flow = side.flow
        ended_ns = flow.ended_ns
        if time_ns > ended_ns:
            if time_ns - ended_ns > BURST_PAUSE_NS:
                flow.bursts += 1
            flow.ended_ns = time_ns
        flow.last_frame = number
        if len(flow.frames) < self._most_frames:
            flow.frames.append(number)
        return True
