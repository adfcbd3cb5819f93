"""Segmentation and joining against slow, obvious models, and against scapy's own checksums.

The model of segmentation builds each packet with scapy from the fields it should have. The model of joining cuts what
was joined again and compares octets: whatever was joined, the kernel must be able to give back exactly what came in.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet

from vpn.dataplane.few import few_segments
from vpn.dataplane.offload import PREFIX_OCTETS, Superpacket, read
from vpn.dataplane.rows import PACKET_AT, Rows, RowShape
from vpn.dataplane.segment import segmented
from vpn.dataplane.workbench import Workbench

OCTETS = bytes(range(256)) * 256
TCP_OPTIONS = [[], [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))], [("SAck", (1, 2, 3, 4))]]


@dataclass(frozen=True)
class Flow:
    """What a superpacket is made of."""

    ipv6: bool
    tcp: bool
    flags: str = "A"
    options: int = 0
    sequence: int = 0
    ip_id: int = 0
    dont_fragment: bool = True
    tos: int = 0
    port: int = 1000

    def packet(self, payload: bytes, index: int = 0, offset: int = 0, flags: str | None = None) -> bytes:
        """One right packet of the flow, as scapy builds it."""
        ip: Packet
        if self.ipv6:
            ip = IPv6(src="2001:db8::1", dst="2001:db8::2", tc=self.tos, fl=5)
        else:
            number = self.ip_id + index & 0xFFFF
            ip = IP(src="10.8.0.2", dst="10.8.0.1", id=number, flags="DF" if self.dont_fragment else 0, tos=self.tos)
        if not self.tcp:
            return bytes(ip / UDP(sport=self.port, dport=53) / payload)
        tcp = TCP(
            sport=self.port,
            seq=self.sequence + offset & 0xFFFFFFFF,
            ack=77,
            flags=self.flags if flags is None else flags,
            options=TCP_OPTIONS[self.options],
        )
        return bytes(ip / tcp / payload)

    @property
    def transport_at(self) -> int:
        return 40 if self.ipv6 else 20

    def superpacket(self, payload: bytes, segment_octets: int) -> Superpacket:
        """As the kernel hands it over: through the reader of the device's prefix."""
        whole = self.packet(payload)
        kind = 5 if not self.tcp else 4 if self.ipv6 else 1
        start, offset = self.transport_at, 16 if self.tcp else 6
        prefix = struct.pack("=BBHHHH", 1, kind | (0x80 if "C" in self.flags else 0), 0, segment_octets, start, offset)
        found = read(prefix + whole)
        assert isinstance(found, Superpacket)
        return found

    def segments(self, payload: bytes, segment_octets: int) -> list[bytes]:
        """The model: what the superpacket stands for."""
        parts = [payload[at : at + segment_octets] for at in range(0, len(payload), segment_octets)]
        packets = []
        for index, part in enumerate(parts):
            flags = "".join(
                flag
                for flag in self.flags
                if not (flag in "FP" and index < len(parts) - 1) and not (flag == "C" and index > 0)
            )
            packets.append(self.packet(part, index, index * segment_octets, flags))
        return packets


flows = st.builds(
    Flow,
    ipv6=st.booleans(),
    tcp=st.booleans(),
    flags=st.sampled_from(["A", "PA", "FA", "FPA", "CA", "CPA", "EA", "UA"]),
    options=st.integers(0, len(TCP_OPTIONS) - 1),
    sequence=st.sampled_from([0, 1, 0xFFFFFF00, 0x7FFFFFFF, 0xFFFFFFFF]),
    ip_id=st.sampled_from([0, 1, 0xFFF0, 0xFFFF]),
    dont_fragment=st.booleans(),
    tos=st.integers(0, 255),
    port=st.integers(1, 65535),
)


def payload_of(octets: int, seed: int) -> bytes:
    return OCTETS[seed : seed + octets] if seed else bytes(octets)


@given(flows, st.integers(1, 700), st.integers(1, 40), st.integers(0, 699), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_segments_are_those_of_the_model(flow: Flow, size: int, full: int, rest: int, seed: int) -> None:
    payload = payload_of(full * size + rest % size, seed)
    superpacket = flow.superpacket(payload, size)
    expected = flow.segments(payload, size)
    assert segmented(superpacket, None) == expected
    rows = Workbench().segment(superpacket, None)
    if full > 1:
        assert rows is not None
        assert rows.packets() == expected
        assert (len(rows), rows.octets) == (len(expected), sum(map(len, expected)))


@given(flows, st.integers(200, 1400), st.integers(100, 1400), st.integers(2, 20), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_no_tcp_segment_is_larger_than_the_path_allows(
    flow: Flow, size: int, largest: int, full: int, seed: int
) -> None:
    payload = payload_of(full * size, seed)
    superpacket = flow.superpacket(payload, size)
    packets = segmented(superpacket, largest)
    rows = Workbench().segment(superpacket, largest)
    if rows is not None:
        assert rows.packets() == packets
    if flow.tcp:
        assert max(map(len, packets)) <= max(largest, superpacket.payload_at)
    smaller = min(size, largest - superpacket.payload_at) if flow.tcp else size
    assert packets == flow.segments(payload, smaller)


@given(flows, st.integers(1, 1400), st.integers(1, 1400), st.integers(1, 9), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_a_few_tcp_segments_are_those_of_any_superpacket(
    flow: Flow, size: int, largest: int, full: int, seed: int
) -> None:
    superpacket = flow.superpacket(payload_of(full * size - seed % size, seed), size)
    for limit in (None, largest):
        few = few_segments(superpacket, limit)
        assert few == (segmented(superpacket, limit) if flow.tcp else None)


def test_segments_behind_ip_options_are_no_few() -> None:
    plain = Flow(ipv6=False, tcp=True).superpacket(bytes(500), 100)
    octets = b"\x46" + plain.octets[1:20] + bytes(4) + plain.octets[20:]
    assert few_segments(Superpacket(octets, 24, plain.payload_at + 4, 100, plain.protocol), None) is None


def test_a_workbench_gives_the_same_packets_again_after_others_of_the_same_size() -> None:
    bench = Workbench()
    first, second = Flow(ipv6=False, tcp=True, flags="CFPA"), Flow(ipv6=False, tcp=True, sequence=9, port=2)
    for flow in (first, second, first):
        rows = bench.segment(flow.superpacket(OCTETS[:5000], 1000), None)
        assert rows is not None
        assert rows.packets() == flow.segments(OCTETS[:5000], 1000)


@given(st.binary(min_size=PREFIX_OCTETS, max_size=200))
@settings(max_examples=300)
def test_any_prefix_and_packet_are_read_to_something(untrusted: bytes) -> None:
    found = read(untrusted)
    if isinstance(found, Superpacket):
        assert sum(len(packet) - found.payload_at for packet in segmented(found, None)) == (
            len(found.octets) - found.payload_at
        )


@given(st.booleans(), st.booleans(), st.binary(max_size=80))
def test_a_checksum_left_to_the_device_is_completed(ipv6: bool, tcp: bool, payload: bytes) -> None:
    flow = Flow(ipv6=ipv6, tcp=tcp)
    right = flow.packet(payload)
    start, offset = flow.transport_at, 16 if tcp else 6
    parsed = IPv6(right) if ipv6 else IP(right)
    del parsed[TCP if tcp else UDP].chksum
    length = len(right) - start
    addresses = right[8:40] if ipv6 else right[12:20]
    words = struct.unpack(f">{len(addresses) // 2}H", addresses)
    total = sum(words) + length + (6 if tcp else 17)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    partial = right[: start + offset] + total.to_bytes(2, "big") + right[start + offset + 2 :]
    found = read(struct.pack("=BBHHHH", 1, 0, 0, 0, start, offset) + partial)
    assert isinstance(found, bytes)
    layer = (IPv6(found) if ipv6 else IP(found))[TCP if tcp else UDP]
    assert layer.chksum in ({bytes_checksum(right, start + offset)} | {0, 0xFFFF})
    assert (layer.chksum in (0, 0xFFFF)) == (bytes_checksum(right, start + offset) in (0, 0xFFFF))


def bytes_checksum(packet: bytes, at: int) -> int:
    return int.from_bytes(packet[at : at + 2], "big")


# -- joining -------------------------------------------------------------------------------------------------------


def rows_of(packets: list[bytes], last: bytes = b"") -> Rows:
    shape = RowShape(len(packets[0]))
    for row, packet in enumerate(packets):
        shape.array[row, PACKET_AT : PACKET_AT + len(packet)] = list(packet)
    return Rows(shape, len(packets), last)


def cut_again(write: bytes) -> list[bytes]:
    """The kernel's part: what it makes of one write, superpackets cut as the model of segmentation has it."""
    found = read(write)
    if isinstance(found, Superpacket):
        return segmented(found, None)
    assert isinstance(found, bytes)
    return [found]


def written(rows: Rows) -> list[bytes]:
    return [b"".join(map(bytes, write)) for write in Workbench().join(rows, udp=True)]


@given(flows, st.integers(1, 700), st.integers(2, 40), st.integers(0, 699), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_joined_packets_come_apart_as_they_were(flow: Flow, size: int, full: int, rest: int, seed: int) -> None:
    packets = flow.segments(payload_of(full * size + rest % size, seed), size)
    last = packets.pop() if len(packets) > full else b""
    writes = written(rows_of(packets, last))
    assert [packet for write in writes for packet in cut_again(write)] == [*packets, *([last] if last else [])]
    plain = flow.flags in ("A", "PA") or not flow.tcp
    if plain:
        assert len(writes) == 1


CHANGES = st.sampled_from(
    ["nothing", "another flow", "a gap", "twice", "swapped", "checksum", "ip checksum", "flags", "tos", "payload", "id"]
)


@given(flows, st.integers(8, 300), st.lists(CHANGES, min_size=2, max_size=20), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_whatever_the_packets_are_the_same_come_apart_in_the_same_order(
    flow: Flow, size: int, changes: list[str], seed: int
) -> None:
    other = Flow(flow.ipv6, flow.tcp, "A", flow.options, 5, 9, flow.dont_fragment, flow.tos, flow.port ^ 1)
    packets: list[bytes] = []
    offset = 0
    for index, change in enumerate(changes):
        payload = payload_of(size, seed)
        source = other if change == "another flow" else flow
        flags = "PA" if change == "flags" else "A"
        offset += size * {"a gap": 2, "twice": 0}.get(change, 1)
        jump = 5 if change == "id" else 0
        packet = bytearray(source.packet(payload, index + jump, offset, flags))
        if change == "checksum":
            packet[flow.transport_at + (16 if flow.tcp else 6)] ^= 1
        elif change == "ip checksum" and not flow.ipv6:
            packet[10] ^= 1
        elif change == "tos":
            packet[1] ^= 3  # of a right header it makes a wrong one, too
        elif change == "payload":
            packet[-1] ^= 1
        packets.append(bytes(packet))
        if change == "swapped" and len(packets) > 1:
            packets[-2:] = reversed(packets[-2:])
    writes = written(rows_of(packets))
    again = [packet for write in writes for packet in cut_again(write)]
    if flow.dont_fragment and not flow.ipv6:
        # the id of a packet that is never fragmented says nothing (RFC 6864): the kernel may count it anew
        assert [without_id(packet) for packet in again] == [without_id(packet) for packet in packets]
    else:
        assert again == packets


@pytest.mark.parametrize("change", ["nothing", "a gap", "another flow", "checksum", "flags", "type of service"])
@pytest.mark.parametrize("tcp", [True, False])
@pytest.mark.parametrize("ipv6", [True, False])
def test_a_shorter_last_packet_is_joined_only_where_it_goes_on(ipv6: bool, tcp: bool, change: str) -> None:
    flow = Flow(ipv6, tcp)
    packets = flow.segments(OCTETS[:400], 100)
    source = Flow(ipv6, tcp, port=flow.port ^ (change == "another flow"), tos=4 * (change == "type of service"))
    last = bytearray(source.packet(OCTETS[:30], 4, 400 + (change == "a gap"), "FA" if change == "flags" else "A"))
    if change == "checksum":
        last[flow.transport_at + (16 if tcp else 6)] ^= 1
    writes = written(rows_of(packets, bytes(last)))
    goes_on = change == "nothing" or (not tcp and change in ("a gap", "flags"))
    assert len(writes) == (1 if goes_on else 2)
    assert [packet for write in writes for packet in cut_again(write)] == [*packets, bytes(last)]


def without_id(packet: bytes) -> tuple[bytes, bool]:
    words = struct.unpack(">10H", packet[:20])
    total = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return packet[:4] + packet[6:10] + packet[12:], total == 0xFFFF


@given(st.lists(st.binary(min_size=70, max_size=70), min_size=2, max_size=8), st.binary(max_size=69))
def test_packets_of_any_octets_are_written_as_they_are(packets: list[bytes], last: bytes) -> None:
    assert written(rows_of(packets, last)) == [bytes(PREFIX_OCTETS) + packet for packet in packets] + (
        [bytes(PREFIX_OCTETS) + last] if last else []
    )


@pytest.mark.parametrize("tcp", [True, False])
@pytest.mark.parametrize("ipv6", [True, False])
def test_a_superpacket_is_never_larger_than_ip_allows(ipv6: bool, tcp: bool) -> None:
    flow = Flow(ipv6, tcp)
    packets = flow.segments(OCTETS[:63_000] + OCTETS[:7_000], 1000)
    writes = written(rows_of(packets[:60])) + written(rows_of(packets[:48], packets[48][:900]))
    assert max(map(len, writes)) <= 65535 + PREFIX_OCTETS
