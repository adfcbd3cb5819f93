"""Capture files that are damaged, hostile or rare: what can be read is read, the rest is said, memory stays bounded."""

from __future__ import annotations

import gzip
import os
import random
import struct
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.capture import pcapng
from testbed.capture.columns import Columns
from testbed.capture.reader import CaptureReader, Frame
from testbed.capture.source import CaptureChanged
from testbed.observer import observe

MEGABYTE = 1 << 20
MOST_MEMORY = 60 * MEGABYTE


def block(order: str, kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    total = 12 + len(body)
    return struct.pack(order + "II", kind, total) + body + struct.pack(order + "I", total)


def section(order: str) -> bytes:
    return block(order, 0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(order: str, link_type: int, options: bytes = b"") -> bytes:
    return block(order, 1, struct.pack(order + "HHI", link_type, 0, 0) + options)


def resolution(order: str, value: int) -> bytes:
    return struct.pack(order + "HHB3xHH", 9, 1, value, 0, 0)


def enhanced(order: str, number: int, ticks: int, data: bytes, options: bytes = b"") -> bytes:
    head = struct.pack(order + "IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
    return block(order, 6, head + data + bytes(-len(data) % 4) + options)


def rich(order: str, dice: random.Random) -> tuple[bytes, list[tuple[int, int, bytes]]]:
    """Every kind of block that a file may have, over two sections, and the (time, link type, octets) it holds."""
    parts: list[bytes] = []
    frames: list[tuple[int, int, bytes]] = []
    for _ in range(2):
        links, factors = [dice.choice((1, 101)) for _ in range(3)], (1000, 1, 1_000_000)
        parts.append(section(order))
        parts += [interface(order, link, resolution(order, r)) for link, r in zip(links, (6, 9, 3), strict=True)]
        for _ in range(dice.randrange(60)):
            data, number, ticks = dice.randbytes(dice.randrange(100)), dice.randrange(3), dice.randrange(1 << 40)
            comment = struct.pack(order + "HH4sHH", 1, 4, b"note", 0, 0)
            words = (number, 7, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data))
            chance = dice.random()
            if chance < 0.8:
                parts.append(enhanced(order, number, ticks, data, comment if chance < 0.2 else b""))
                frames.append((ticks * factors[number], links[number], data))
            elif chance < 0.9:
                parts.append(block(order, 2, struct.pack(order + "HHIIII", *words) + data))
                frames.append((ticks * factors[number], links[number], data))
            else:
                parts.append(block(order, 3, struct.pack(order + "I", len(data)) + data))
                frames.append((0, links[0], data))
            if dice.random() < 0.05:
                parts.append(block(order, 0xBAD, dice.randbytes(40)))
    return b"".join(parts), frames


def read_both_ways(path: Path) -> tuple[list[Frame], list[str]]:
    """The frames one by one, and held to be the same in columns."""
    with CaptureReader(path) as reader:
        frames = list(reader)
        warnings = reader.warnings
    with CaptureReader(path) as reader:
        again: list[Frame] = []
        for batch in reader.batches():
            if isinstance(batch, Columns):
                again += [frame for frame, _ in batch.frames(batch.data_at.argsort(kind="stable"))]
            else:
                again.append(batch)
        assert (again, reader.warnings) == (frames, warnings)
    return frames, warnings


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 1 << 32), order=st.sampled_from("<>"))
def test_every_kind_of_block_is_read_in_both_byte_orders(
    tmp_path_factory: pytest.TempPathFactory, seed: int, order: str
) -> None:
    content, expected = rich(order, random.Random(seed))
    path = tmp_path_factory.mktemp("rich") / "rich.pcapng"
    path.write_bytes(content)
    frames, warnings = read_both_ways(path)
    assert warnings == []
    assert [(f.time_ns, f.link_type, f.data) for f in frames] == expected


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 1 << 32), changes=st.integers(0, 12), keep=st.floats(0, 1), compressed=st.booleans())
def test_whatever_is_damaged_the_rest_is_read_the_same_both_ways(
    tmp_path_factory: pytest.TempPathFactory, seed: int, changes: int, keep: float, compressed: bool
) -> None:
    dice = random.Random(seed)
    content = bytearray(rich(dice.choice("<>"), dice)[0])
    if compressed:
        content = bytearray(gzip.compress(bytes(content)))
    del content[int(len(content) * keep) :]
    for _ in range(changes if content else 0):
        at = dice.randrange(len(content))
        content[at : at + 4] = dice.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80", dice.randbytes(4)))
    path = tmp_path_factory.mktemp("damaged") / "damaged"
    path.write_bytes(content)
    read_both_ways(path)
    observe(path)


def peak_of_observing(path: Path) -> int:
    tracemalloc.start()
    try:
        observe(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def many(count: int, seed: int = 5) -> bytes:
    """A capture of several megabytes that cannot be compressed much."""
    dice = random.Random(seed)
    return section("<") + interface("<", 1) + b"".join(enhanced("<", 0, n, dice.randbytes(1200)) for n in range(count))


@pytest.mark.parametrize("count", [40, 4000])
def test_of_a_compressed_file_that_is_cut_off_all_frames_before_the_cut_are_read(tmp_path: Path, count: int) -> None:
    path, octets = tmp_path / "cut.gz", gzip.compress(many(count), 1)
    path.write_bytes(octets[: len(octets) // 2])
    frames, warnings = read_both_ways(path)
    assert count * 0.45 < len(frames) < count * 0.55
    assert "cut off" in warnings[0]
    assert f"after frame {len(frames)}" in warnings[0]


@pytest.mark.parametrize("count", [40, 4000])
def test_a_wrong_checksum_behind_compressed_data_costs_no_frame_and_is_said(tmp_path: Path, count: int) -> None:
    path, octets = tmp_path / "crc.gz", gzip.compress(many(count), 1)
    path.write_bytes(octets[:-8] + bytes(4) + octets[-4:])
    frames, warnings = read_both_ways(path)
    assert len(frames) == count
    assert "incorrect data check" in warnings[0]


def test_damage_within_compressed_data_leaves_what_stands_before_it(tmp_path: Path) -> None:
    content = b"".join(struct.pack("<I", number) * 250 for number in range(4000))
    frames = b"".join(enhanced("<", 0, n, content[n * 1000 : n * 1000 + 1000]) for n in range(4000))
    whole = zlib.compressobj(9, zlib.DEFLATED, 31)
    octets = whole.compress(section("<") + interface("<", 1) + frames) + whole.flush(zlib.Z_FULL_FLUSH)
    path = tmp_path / "damaged.gz"
    path.write_bytes(octets + b"\xff" * 100)
    assert len(octets) < 1 << 16, "all of it is in the piece that is damaged"
    found, warnings = read_both_ways(path)
    assert len(found) == 4000
    assert len(warnings) == 1


def test_members_with_filling_between_and_behind_them_are_one_capture(tmp_path: Path) -> None:
    octets, path = many(4000), tmp_path / "members.gz"
    cut = len(octets) // 3
    members = [gzip.compress(piece, 1) for piece in (octets[:cut], b"", octets[cut:])]
    path.write_bytes(bytes(3).join(members) + bytes(1 << 20))
    frames, warnings = read_both_ways(path)
    assert len(frames) == 4000
    assert not warnings
    path.write_bytes(b"".join(members) + b"something else")
    frames, warnings = read_both_ways(path)
    assert len(frames) == 4000
    assert len(warnings) == 1


def test_a_compressed_bomb_takes_no_more_memory_than_any_file(tmp_path: Path) -> None:
    """Half a gigabyte of one packet after the other, in half a megabyte."""
    path = tmp_path / "bomb.gz"
    packets = enhanced("<", 0, 1, bytes(64 << 10)) * 64
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(section("<") + interface("<", 1))
        for _ in range(128):
            file.write(packets)
    assert path.stat().st_size < 4 * MEGABYTE
    assert peak_of_observing(path) < MOST_MEMORY


@pytest.mark.parametrize("total", [0x7FFFFFFC, 0xFFFFFFFC, 16 << 20])
def test_a_block_that_claims_gigabytes_is_never_waited_for(tmp_path: Path, total: int) -> None:
    path = tmp_path / "huge.pcapng"
    path.write_bytes(section("<") + interface("<", 1) + struct.pack("<II", 6, total) + bytes(100))
    assert peak_of_observing(path) < MOST_MEMORY
    assert observe(path).warnings


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    content, expected = rich("<", random.Random(5))
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    file.write_bytes(content)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    found = observe(pipe)
    writer.join()
    assert found == observe(file)
    assert found.frames == len(expected)


def test_a_file_that_shrinks_after_it_was_read_is_an_error_in_words(tmp_path: Path) -> None:
    path = tmp_path / "shrinks.pcap"
    segment = struct.pack("!HHIIBB6x", 40_000, 80, 1, 0, 0x50, 16) + b"x" * 1000
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + bytes(8) + segment
    record = struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 1 << 16, 101) + record)
    (stream,) = observe(path).streams
    assert stream.data == b"x" * 1000
    os.truncate(path, 200)
    with pytest.raises(CaptureChanged, match="has become shorter"):
        _ = stream.data


def test_a_small_capture_is_observed_without_numpy(tmp_path: Path) -> None:
    path = tmp_path / "small.pcapng"
    path.write_bytes(rich("<", random.Random(1))[0])
    script = "import sys; from testbed.observer import observe; observe(sys.argv[1]); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("octets", [0, 100])
def test_the_writer_and_the_reader_of_this_project_agree(tmp_path: Path, octets: int) -> None:
    path = tmp_path / "own.pcapng"
    head = pcapng.build_section_header("x") + pcapng.build_interface("x", 1)
    path.write_bytes(head + b"".join(pcapng.build_packet(0, at, bytes(octets), 1514) for at in range(50)))
    frames, warnings = read_both_ways(path)
    assert warnings == []
    assert [(f.time_ns, len(f.data), f.octets) for f in frames] == [(at, octets, 1514) for at in range(50)]
