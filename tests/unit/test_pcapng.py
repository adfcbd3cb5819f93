"""Capture files: what is written is read back, every common form is read, and damage costs only what is damaged."""

from __future__ import annotations

import gzip
import struct
import subprocess
from pathlib import Path

import pytest

from testbed.capture import pcapng
from testbed.capture.reader import CaptureReader, Frame

FRAMES = [(1_700_000_000_123_456_789, b"first frame of odd size"), (1_700_000_001_000_000_001, b"\0" * 60), (0, b"x")]


def written(dropped: int = 0) -> bytes:
    packets = [pcapng.build_packet(0, at, data, len(data) + 5, pcapng.OUTBOUND) for at, data in FRAMES]
    blocks = [pcapng.build_section_header("a test"), pcapng.build_interface("isp:client", pcapng.LINKTYPE_ETHERNET)]
    return b"".join((*blocks, *packets, pcapng.build_statistics(0, 1, 2, 10 + dropped, dropped)))


def read(path: Path, content: bytes) -> tuple[list[Frame], CaptureReader]:
    path.write_bytes(content)
    with CaptureReader(path) as reader:
        return list(reader), reader


def classic(order: str, magic: int, ticks: int) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, pcapng.LINKTYPE_RAW)
    records = []
    for at, data in FRAMES:
        seconds, nanoseconds = divmod(at, 1_000_000_000)
        fraction = nanoseconds * ticks // 1_000_000_000
        records.append(struct.pack(order + "IIII", seconds, fraction, len(data), len(data) + 7) + data)
    return head + b"".join(records)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    frames, reader = read(tmp_path / "a", written(dropped=3))
    assert [(f.number, f.time_ns, f.data, f.octets) for f in frames] == [
        (number, at, data, len(data) + 5) for number, (at, data) in enumerate(FRAMES, 1)
    ]
    assert [(i.name, i.link_type, i.received, i.dropped) for i in reader.interfaces] == [("isp:client", 1, 13, 3)]
    assert reader.dropped == 3
    assert reader.warnings == []


@pytest.mark.interop
def test_capinfos_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    (tmp_path / "a.pcapng").write_bytes(written(dropped=3))
    done = subprocess.run(["capinfos", str(tmp_path / "a.pcapng")], capture_output=True, text=True, check=True)
    assert "Name = isp:client" in done.stdout
    assert "Number of packets = 3" in done.stdout
    assert "nanoseconds (9)" in done.stdout


@pytest.mark.parametrize(
    ("order", "magic", "ticks"),
    [
        ("<", 0xA1B2C3D4, 1_000_000),
        (">", 0xA1B2C3D4, 1_000_000),
        ("<", 0xA1B23C4D, 1_000_000_000),
        (">", 0xA1B23C4D, 1_000_000_000),
    ],
)
def test_classic_pcap_is_read_in_both_byte_orders_and_resolutions(
    tmp_path: Path, order: str, magic: int, ticks: int
) -> None:
    frames, reader = read(tmp_path / "a", classic(order, magic, ticks))
    coarse = 1_000_000_000 // ticks
    assert [f.time_ns for f in frames] == [at // coarse * coarse for at, _ in FRAMES]
    assert [f.data for f in frames] == [data for _, data in FRAMES]
    assert {f.link_type for f in frames} == {pcapng.LINKTYPE_RAW}
    assert reader.warnings == []


def test_big_endian_pcapng_with_microseconds_and_two_sections_is_read(tmp_path: Path) -> None:
    def block(kind: int, body: bytes) -> bytes:
        return struct.pack(">II", kind, len(body) + 12) + body + struct.pack(">I", len(body) + 12)

    section = block(pcapng.SECTION_HEADER, struct.pack(">IHHq", pcapng.BYTE_ORDER_MAGIC, 1, 0, -1))
    interface = block(pcapng.INTERFACE_DESCRIPTION, struct.pack(">HHI", pcapng.LINKTYPE_RAW, 0, 0))
    packet = block(pcapng.ENHANCED_PACKET, struct.pack(">IIIII", 0, 0, 1_500_000, 4, 4) + b"abcd")
    frames, reader = read(tmp_path / "a", section + interface + packet + written())
    assert frames[0] == Frame(1, 1_500_000_000, pcapng.LINKTYPE_RAW, b"abcd", 4, 0)
    assert [f.number for f in frames] == [1, 2, 3, 4]
    assert reader.warnings == []


def test_a_compressed_file_is_read_like_a_plain_one(tmp_path: Path) -> None:
    frames, reader = read(tmp_path / "a.gz", gzip.compress(written()))
    assert [f.data for f in frames] == [data for _, data in FRAMES]
    assert reader.warnings == []


@pytest.mark.parametrize("wrap", [bytes, gzip.compress])
def test_a_file_cut_anywhere_gives_the_frames_before_the_cut_and_one_warning(tmp_path: Path, wrap: type[bytes]) -> None:
    whole = wrap(written())
    ends = set()
    for cut in range(len(whole)):
        frames, reader = read(tmp_path / "a", whole[:cut])
        assert [f.data for f in frames] == [data for _, data in FRAMES][: len(frames)]
        assert len(reader.warnings) <= 1
        if not reader.warnings:
            ends.add(len(frames))  # cut between two blocks: a whole file of fewer frames
    assert len(ends) <= 4


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x0a\x0d\x0d\x0a", b"\xa1\xb2\xc3\xd4", b"\x1f\x8bnonsense"])
def test_what_is_no_capture_gives_no_frame_and_a_warning(tmp_path: Path, content: bytes) -> None:
    frames, reader = read(tmp_path / "a", content)
    assert frames == []
    assert len(reader.warnings) == 1


def test_a_block_that_claims_gigabytes_is_not_believed(tmp_path: Path) -> None:
    block = struct.pack("=II", pcapng.ENHANCED_PACKET, 0xFFFFFFF0) + b"\0" * 100
    frames, reader = read(tmp_path / "a", written() + block)
    assert len(frames) == 3
    assert "a block of 4294967280 octets" in reader.warnings[0]
