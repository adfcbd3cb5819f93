"""The captures of a tunnel's devices, one after the other, as one file."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from testbed.capture import pcapng
from testbed.capture.merge import read_tape_frames
from testbed.capture.reader import CaptureReader
from testbed.control_tap import DeviceWatch, append, summed


def capture(packets: list[bytes], dropped: int) -> bytes:
    blocks = [pcapng.build_section_header("test"), pcapng.build_interface("client:tun0", pcapng.LINKTYPE_RAW)]
    blocks += [pcapng.build_packet(0, 10**9 + number, data, len(data)) for number, data in enumerate(packets)]
    return b"".join([*blocks, pcapng.build_statistics(0, 1, 2, len(packets) + dropped, dropped)])


def test_a_later_capture_stands_behind_the_first_and_every_reader_goes_on_counting(tmp_path: Path) -> None:
    (tmp_path / "first.pcapng").write_bytes(capture([b"Eone", b"Etwo"], 1))
    (tmp_path / "later.pcapng").write_bytes(capture([b"Ethree"], 2))
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        append(directory, "first.pcapng", "later.pcapng")
    finally:
        os.close(directory)
    assert [path.name for path in tmp_path.iterdir()] == ["first.pcapng"]
    with CaptureReader(tmp_path / "first.pcapng") as reader:
        frames = [(frame.number, frame.data) for frame in reader]
        assert (reader.dropped, reader.warnings) == (3, [])
    assert frames == [(1, b"Eone"), (2, b"Etwo"), (3, b"Ethree")]
    taped = read_tape_frames((tmp_path / "first.pcapng").read_bytes())
    assert [(frame.number, frame.data) for frame in taped] == frames


def test_what_the_taps_counted_is_added_up() -> None:
    assert summed({"packets": 2, "octets": 8, "dropped": 1}, {"packets": 1, "octets": 6, "dropped": 2}) == {
        "packets": 3,
        "octets": 14,
        "dropped": 3,
    }


def test_a_device_that_stays_and_one_that_is_not_there_are_no_new_ones() -> None:
    node: Any = SimpleNamespace(socket=socket.socket)
    for device in ("lo", "no-such-device"):
        watch = DeviceWatch(node, device)
        assert [watch.is_new(), watch.is_new()] == [False, False]
        watch.close()
