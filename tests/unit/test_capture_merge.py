"""Captures merged into one: order, numbers in remarks, names, secrets; and frames made anew."""

from __future__ import annotations

import struct
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from testbed.annotate import learned_remarks
from testbed.capture import pcapng
from testbed.capture.merge import (
    Additions,
    Place,
    Remark,
    Tape,
    TapeFrame,
    numbered,
    read_link_type,
    read_tape_frames,
    write_merged,
)
from testbed.capture.reader import CaptureReader
from testbed.ground_truth.rewrite import with_tcp_payload, with_udp_payload
from testbed.result import Evidence, Exposure, FactRef, Verdict


def tap_file(*packets: tuple[int, bytes, int], link_type: int = 1) -> bytes:
    """What a tap writes: (time, octets, direction) each."""
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("isp:eth0", link_type)]
    blocks += [pcapng.build_packet(0, time, data, len(data) + 3, way) for time, data, way in packets]
    return b"".join([*blocks, pcapng.build_statistics(0, 0, 9, len(packets), 0)])


def tape(key: str, *packets: tuple[int, bytes, int], link_type: int = 1) -> Tape:
    frames = list(read_tape_frames(tap_file(*packets, link_type=link_type)))
    return Tape(key, f"node:{key}", link_type, frames, lambda way: f"{key} {way}")


def merged(*tapes: Tape, additions: Additions | None = None, path: Path) -> tuple[bytes, CaptureReader]:
    out = BytesIO()
    write_merged(out, tapes, additions or Additions())
    path.write_bytes(out.getvalue())
    return out.getvalue(), CaptureReader(path)


ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # named, or scapy would ask the host's network
ONE = tape("a", (10, b"first", pcapng.INBOUND), (30, b"third", pcapng.OUTBOUND))
TWO = tape("b", (20, b"second", pcapng.INBOUND), (40, b"fourth!", 0), link_type=pcapng.LINKTYPE_RAW)


def test_what_a_tap_wrote_is_read_back_with_directions() -> None:
    data = tap_file((7, b"abc", pcapng.INBOUND), (8, b"defgh", pcapng.OUTBOUND), (9, b"", 0))
    assert list(read_tape_frames(data)) == [
        TapeFrame(1, 7, b"abc", 6, pcapng.INBOUND),
        TapeFrame(2, 8, b"defgh", 8, pcapng.OUTBOUND),
        TapeFrame(3, 9, b"", 3, 0),
    ]
    assert read_link_type(tap_file(link_type=pcapng.LINKTYPE_RAW)) == pcapng.LINKTYPE_RAW


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(0, 399), st.integers(0, 255))
def test_a_file_that_is_cut_off_or_damaged_gives_what_can_be_read(end: int, at: int, value: int) -> None:
    data = bytearray(tap_file(*[(number, bytes(number), 1) for number in range(5)]))
    if at < len(data):
        data[at] = value
    cut = bytes(data[:end])
    assert len(list(read_tape_frames(cut))) <= 6
    read_link_type(cut)


def test_packets_are_merged_in_the_order_of_time_each_with_its_own_interface(tmp_path: Path) -> None:
    _, reader = merged(ONE, TWO, path=tmp_path / "m")
    with reader:
        frames = list(reader)
    assert [frame.data for frame in frames] == [b"first", b"second", b"third", b"fourth!"]
    assert [frame.octets for frame in frames] == [8, 9, 8, 10]
    assert [frame.time_ns for frame in frames] == [10, 20, 30, 40]
    names = [reader.interfaces[frame.interface].name for frame in frames]
    assert names == ["node:a in", "node:b in", "node:a out", "node:b"]
    assert [frame.link_type for frame in frames] == [1, 101, 1, 101]
    assert reader.warnings == []


def test_remarks_name_frames_by_their_number_in_the_merged_file(tmp_path: Path) -> None:
    numbers = numbered([ONE, TWO])
    assert numbers == {Place("a", 1): 1, Place("b", 1): 2, Place("a", 2): 3, Place("b", 2): 4}
    remarks = {
        Place("b", 1): [Remark("carried by packet {} and {}", (Place("a", 2), Place("b", 2))), Remark("a { } b")],
        Place("a", 1): [Remark("of {}", (Place("nowhere", 1),))],
    }
    data, _ = merged(ONE, TWO, additions=Additions(remarks=remarks), path=tmp_path / "m")
    assert b"carried by packet 3 and 4" in data
    assert b"a { } b" in data
    assert b"of ?" in data


def test_names_and_secrets_stand_before_the_packets_and_only_if_given(tmp_path: Path) -> None:
    names = {ip_address("192.0.2.1").packed: ["node", "site"], ip_address("2001:db8::1").packed: ["six"]}
    data, reader = merged(ONE, additions=Additions(names, "CLIENT_RANDOM aa bb\n"), path=tmp_path / "m")
    assert data.index(b"\xc0\x00\x02\x01node\0site\0") < data.index(b"CLIENT_RANDOM") < data.index(b"first")
    assert struct.pack("=I", pcapng.TLS_KEY_LOG) in data
    with reader:
        assert len(list(reader)) == 2
        assert reader.warnings == []
    bare, _ = merged(ONE, path=tmp_path / "b")
    assert struct.pack("=I", pcapng.TLS_KEY_LOG) not in bare


def test_a_remark_longer_than_a_block_can_tell_is_cut(tmp_path: Path) -> None:
    additions = Additions(remarks={Place("a", 1): [Remark("ä" * 70_000)]})
    _, reader = merged(ONE, additions=additions, path=tmp_path / "m")
    with reader:
        assert [frame.data for frame in reader] == [b"first", b"third"]


def test_a_fact_is_remarked_once_at_its_first_packet_with_all_actions() -> None:
    evidence = (Evidence("with/isp.pcapng", 7, 1.0, "dns"), Evidence("with/isp.pcapng", 9, 1.0, "dns"))
    rows = [
        Exposure("isp", FactRef("dns-name", "www.example.com", action), Verdict.SEEN, evidence)
        for action in ("1-dns", "2-http")
    ]
    hidden = Exposure("isp", FactRef("http-url", "x", "2-http"), Verdict.HIDDEN)
    volume = Exposure("isp", FactRef("volume", "much", "session"), Verdict.SEEN, evidence)
    strange = Exposure("isp", FactRef("payload", "{}\x1b[31m", "3-ping"), Verdict.SEEN, evidence[:1])
    leak = {"observer": "isp", "kind": "dns-name", "value": "www.example.com"}
    found = learned_remarks([*rows, hidden, volume, strange], [leak])
    assert list(found) == [Place("with/isp.pcapng", 7)]
    (remark,) = found[Place("with/isp.pcapng", 7)]
    assert remark.text == (
        "isp learns here: LEAK dns-name www.example.com (1-dns, 2-http); payload { }\\x1b[31m (3-ping)"
    )


@pytest.mark.parametrize("network", [IP(src="192.0.2.1", dst="192.0.2.2"), IPv6(src="2001:db8::1", dst="2001:db8::2")])
@pytest.mark.parametrize("payload", [b"", b"x", b"odd", bytes(1400), b"\xff" * 9])
def test_a_frame_with_another_payload_has_lengths_and_checksums_as_scapy_makes_them(
    network: IP | IPv6, payload: bytes
) -> None:
    datagram = bytes(ETHER / network / UDP(sport=1194, dport=40000) / Raw(b"what was there"))
    assert with_udp_payload(datagram, payload, 1) == bytes(
        ETHER / network / UDP(sport=1194, dport=40000) / Raw(payload)
    )
    segment = bytes(ETHER / network / TCP(sport=1194, dport=40000, flags="S", options=[("MSS", 1460)]))
    expected = TCP(sport=1194, dport=40000, seq=2**32 - 1, ack=7, flags="PA", window=0xFFFF)
    made = with_tcp_payload(segment, 2**32 - 1, 7 + 2**32, payload, 1)
    assert made == bytes(ETHER / network / expected / Raw(payload))
    assert with_udp_payload(segment, payload, 1) is None
    assert with_tcp_payload(datagram, 1, 1, payload, 1) is None
