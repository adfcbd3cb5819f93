"""The observer's quick way gives the answers of the thorough one, which takes the same packets without Ethernet."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.capture.reader import CaptureReader
from testbed.observer import Observation, observe

ETHERNET, RAW_IP = 1, 101
CLIENT_PORT, SERVER_PORT = 40_000, 80
ENDS = {
    4: (bytes([192, 168, 0, 13]), bytes([93, 184, 216, 34])),
    6: (bytes.fromhex("20010db8000100000000000000000013"), bytes.fromhex("20010db8000400000000000000000034")),
}
FIN, SYN, RST, ACK = 1, 2, 4, 16
Packet = tuple[float, bytes]


def conversation(version: int, seed: int) -> list[Packet]:
    """A page asked for and given, with segments lost, repeated, overlapping and out of order; wraps and pauses."""
    dice = random.Random(seed)
    request = b"GET /page HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
    body = dice.randbytes(40_000)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    starts = [(1 << 32) - 20_000, dice.randrange(1 << 32)]
    packets = [tcp(version, 0, starts[0] - 1, SYN), tcp(version, 1, starts[1] - 1, SYN | ACK)]
    for sender, stream in enumerate((request, answer)):
        segments = [(at, stream[at : at + 1000 + dice.randrange(3) * 200]) for at in range(0, len(stream), 1000)]
        for _ in range(dice.randrange(6)):
            one = dice.randrange(len(segments))
            other = min(len(segments) - 1, one + dice.randrange(4))
            segments[one], segments[other] = segments[other], segments[one]
            segments.append(dice.choice(segments))
        if sender and dice.random() < 0.3:
            del segments[dice.randrange(len(segments))]
        packets += [tcp(version, sender, starts[sender] + at, ACK, data) for at, data in segments]
        packets.append(tcp(version, 1 - sender, starts[1 - sender], ACK))
    packets += [tcp(version, side, starts[side] + len((request, answer)[side]), FIN | ACK) for side in (0, 1)]
    packets.append(tcp(version, 0, starts[0], dice.choice((RST, ACK))))
    now, timed = 1_700_000_000.0, []
    for packet in packets:
        now += dice.choice((-0.001, 0.0, 0.01, 1.5))
        timed.append((now, packet))
    return timed


def tcp(version: int, sender: int, sequence: int, flags: int, data: bytes = b"") -> bytes:
    """An IP packet of a TCP segment."""
    source, destination = ENDS[version][sender], ENDS[version][1 - sender]
    ports = (CLIENT_PORT, SERVER_PORT)
    words = (ports[sender], ports[1 - sender], sequence & 0xFFFFFFFF, 0, 5 << 4, flags, 65_535, 0, 0)
    segment = struct.pack("!HHIIBBHHH", *words) + data
    if version == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, len(segment), 6, 64)
    return head + source + destination + segment


def write(path: Path, link_type: int, packets: list[Packet]) -> Path:
    """A capture of the packets as Ethernet frames or without; their lengths on the wire are said to be the same."""
    ethertypes = {4: b"\x08\x00", 6: b"\x86\xdd"}
    out = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, link_type)]
    for at, packet in packets:
        frame = bytes(12) + ethertypes.get(packet[0] >> 4, ethertypes[6]) + packet if link_type == ETHERNET else packet
        out.append(struct.pack("<IIII", int(at), int(at % 1 * 1e6), len(frame), len(packet) + 14) + frame)
    path.write_bytes(b"".join(out))
    return path


def both_ways(directory: Path, packets: list[Packet]) -> tuple[Observation, Observation]:
    quick = observe(write(directory / "ethernet.pcap", ETHERNET, packets))
    thorough = observe(write(directory / "raw.pcap", RAW_IP, packets))
    return _without_cuts(quick), _without_cuts(thorough)


def _without_cuts(seen: Observation) -> Observation:
    """Without the missing link layer, which the second file says to have been cut off."""
    warnings = tuple(warning for warning in seen.warnings if "cut: the capture" not in warning)
    return replace(seen, captured_octets=0, warnings=warnings, complete=not seen.damaged)


@pytest.mark.parametrize("version", [4, 6])
def test_a_page_that_only_the_end_of_its_connection_ends_is_whole_either_way(tmp_path: Path, version: int) -> None:
    page = b"HTTP/1.0 200 OK\r\n\r\nuntil the end"
    packets = [
        (1.0, tcp(version, 0, 9, SYN)),
        (1.1, tcp(version, 1, 99, SYN | ACK)),
        (1.2, tcp(version, 0, 10, ACK, b"GET / HTTP/1.0\r\n\r\n")),
        (1.3, tcp(version, 1, 100, ACK, page)),
        (1.4, tcp(version, 1, 100 + len(page), FIN | ACK)),
    ]
    quick, thorough = both_ways(tmp_path, packets)
    assert quick == thorough
    assert not quick.warnings


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("seed", range(40))
def test_both_ways_see_the_same_in_a_conversation(tmp_path: Path, version: int, seed: int) -> None:
    quick, thorough = both_ways(tmp_path, conversation(version, seed))
    assert quick.flows
    assert quick == thorough


@pytest.mark.parametrize("version", [4, 6])
def test_both_ways_agree_on_packets_that_claim_nonsense(tmp_path: Path, version: int) -> None:
    dice = random.Random(7)
    packets = []
    for at, packet in conversation(version, 1) * 20:
        damaged = bytearray(packet)
        damaged[dice.randrange(min(len(damaged), 60))] = dice.randrange(256)
        packets.append(
            (at, bytes(damaged[: dice.choice((len(damaged), len(damaged), dice.randrange(1, len(damaged))))]))
        )
    quick, thorough = both_ways(tmp_path, packets)
    assert quick == thorough


@pytest.mark.parametrize("version", [4, 6])
def test_a_clean_stream_is_read_to_its_last_octet(tmp_path: Path, version: int) -> None:
    text = b"GET /page HTTP/1.1\r\nHost: www.example.com\r\n\r\n"
    packets = [tcp(version, 0, 9, SYN), tcp(version, 1, 19, SYN | ACK)]
    packets += [tcp(version, 0, 10 + at, ACK, text[at : at + 7]) for at in range(0, len(text), 7)]
    path = write(tmp_path / "clean.pcap", ETHERNET, [(1_700_000_000.0, packet) for packet in packets])
    assert [stream.data for stream in observe(path).streams] == [text]
    with CaptureReader(path) as reader:
        assert len(list(reader)) == len(packets)


def test_a_frame_that_only_claims_to_hold_ipv6_belongs_to_no_conversation(tmp_path: Path) -> None:
    opening, segment = tcp(6, 0, 9, SYN), tcp(6, 0, 10, ACK, b"hello")
    path = write(tmp_path / "x.pcap", ETHERNET, [(1_700_000_000.0, opening), (1_700_000_000.0, b"\x50" + segment[1:])])
    (flow,) = observe(path).flows
    assert (flow.sent.packets, flow.sent.payload_octets) == (1, 0)
