"""The tap in real namespaces: nothing missing, nothing twice, drops counted, an end in every way it can end.

Judges: the kernel's interface counters, tcpdump on the same interface, tshark and capinfos on the file.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.capture import pcapng, tap
from testbed.capture.reader import CaptureReader, Frame
from tests.lab.two_nodes import run_apart

EXPERIMENTS = Path(__file__).with_name("tap_experiments.py")
WAYS = ("", "_busy")  # one packet after the other, and blocks in place
UDP_TO_DISCARD = struct.pack("!H", 9)


def experiment(name: str, directory: Path) -> Any:
    return run_apart(EXPERIMENTS, name, directory)


def frames_of(path: Path) -> list[Frame]:
    with CaptureReader(path) as reader:
        frames = list(reader)
        assert reader.warnings == []
        return frames


def flood_numbers(frames: list[Frame]) -> list[int]:
    """The numbers in the flood's datagrams (frames of 14 + 20 + 8 + 1200 octets), in order of the file."""
    return [
        int.from_bytes(frame.data[42:46], "big")
        for frame in frames
        if frame.octets == 1242 and frame.data[36:38] == UDP_TO_DISCARD
    ]


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_packets_that_came_before_the_process_was_there_are_all_in_the_file_once_and_in_order(
    tmp_path: Path, way: str
) -> None:
    report = experiment("from_the_first_packet" + way, tmp_path)
    frames = frames_of(tmp_path / "server:client.pcapng")
    assert flood_numbers(frames) == list(range(300))
    assert report["stats"]["packets"] == len(frames)
    assert report["stats"]["octets"] == sum(frame.octets for frame in frames)
    assert report["stats"]["dropped"] == report["stats"]["unfinished_checksums"] == 0


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_wireshark_reads_the_file_with_name_nanoseconds_and_directions_and_without_a_complaint(
    tmp_path: Path, way: str
) -> None:
    experiment("from_the_first_packet" + way, tmp_path)
    path = str(tmp_path / "server:client.pcapng")
    info = subprocess.run(["capinfos", path], capture_output=True, text=True, check=True)
    assert "Name = server:client" in info.stdout
    assert "nanoseconds (9)" in info.stdout
    fields = ["-T", "fields", "-e", "ip.src", "-e", "frame.packet_flags_direction"]
    argv = ["tshark", "-n", "-r", path, "-Y", "udp.dstport == 9 && !icmp || icmp.type == 3", *fields]
    rows = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert [line for line in rows.stderr.splitlines() if "Running as user" not in line] == []
    inbound, outbound = "0x00000001", "0x00000002"
    seen = {tuple(line.split("\t")) for line in rows.stdout.splitlines()}
    quoted = "93.184.216.34,192.168.0.13"  # an ICMP error holds the header that it answers
    assert seen == {("192.168.0.13", inbound), (quoted, outbound)}


@pytest.mark.root
def test_recording_goes_on_after_the_link_was_down(tmp_path: Path) -> None:
    experiment("link_goes_down_and_up", tmp_path)
    assert flood_numbers(frames_of(tmp_path / "server:client.pcapng")) == [*range(10), *range(10)]


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_tcpdump_saw_the_same_packets_and_octets(tmp_path: Path, way: str) -> None:
    report = experiment("beside_tcpdump" + way, tmp_path)
    ours = [f for f in frames_of(tmp_path / "server:client.pcapng") if f.data[12:14] == b"\x08\x00"]
    theirs = [f for f in frames_of(tmp_path / "tcpdump.pcap") if f.data[12:14] == b"\x08\x00"]
    assert report["stats"]["dropped"] == 0
    assert len(ours) == len(theirs) > 20_000
    assert sum(f.octets for f in ours) == sum(f.octets for f in theirs) > 30_000_000
    assert sorted(f.data for f in ours) == sorted(f.data for f in theirs)
    assert max(f.octets for f in ours) <= 1514


@pytest.mark.root
def test_a_tiny_ring_drops_and_says_how_many(tmp_path: Path) -> None:
    report = experiment("tiny_ring", tmp_path)
    frames = frames_of(tmp_path / "server:client.pcapng")
    stats = report["stats"]
    assert stats["packets"] == len(frames)
    assert stats["dropped"] > 4000
    assert stats["frozen"] > 0
    # A neighbour or multicast frame may come between the two readings.
    assert abs(stats["packets"] + stats["dropped"] - report["received"]) <= 3
    with CaptureReader(tmp_path / "server:client.pcapng") as reader:
        assert len(list(reader)) == len(frames)
        assert reader.dropped == stats["dropped"]


@pytest.mark.root
def test_a_snap_length_cuts_the_packets_and_keeps_their_true_length(tmp_path: Path) -> None:
    experiment("snap_length", tmp_path)
    frames = frames_of(tmp_path / "server:client.pcapng")
    assert flood_numbers(frames) == list(range(50))
    assert {len(f.data) for f in frames if f.octets == 1242} == {96}


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_a_tun_device_is_recorded_as_raw_ip(tmp_path: Path, way: str) -> None:
    experiment("tun_device" + way, tmp_path)
    frames = [f for f in frames_of(tmp_path / "client:tun0.pcapng") if f.data[0] == 0x45]
    assert {f.link_type for f in frames} == {pcapng.LINKTYPE_RAW}
    assert [int.from_bytes(f.data[28:32], "big") for f in frames] == list(range(5))


@pytest.mark.root
def test_a_tunnels_device_that_has_gone_before_its_tap_is_there_leaves_a_whole_file(tmp_path: Path) -> None:
    assert experiment("device_gone", tmp_path)["dropped"] == 0
    with CaptureReader(tmp_path / "client:tun0.pcapng") as reader:
        assert list(reader) == []
        assert [interface.link_type for interface in reader.interfaces] == [pcapng.LINKTYPE_RAW]


@pytest.mark.root
def test_on_loopback_every_packet_is_there_once(tmp_path: Path) -> None:
    experiment("loopback", tmp_path)
    assert flood_numbers(frames_of(tmp_path / "client:lo.pcapng")) == list(range(5))


@pytest.mark.root
def test_the_tap_ends_with_its_parent_and_its_file_is_whole(tmp_path: Path) -> None:
    assert experiment("parent_dies", tmp_path) == {"ended": True}
    assert flood_numbers(frames_of(tmp_path / "server:client.pcapng")) == list(range(20))


@pytest.mark.root
def test_an_interface_of_a_strange_kind_and_one_that_is_not_there_are_refused_in_words(tmp_path: Path) -> None:
    assert "cannot tap tun0: its link type" in experiment("strange_link", tmp_path)["refused"]
    assert "nowhere0: No such device" in experiment("no_such_interface", tmp_path)["refused"]


@pytest.mark.parametrize("ring_octets", [1, 8192, 16384, 100_000, 1 << 20, tap.DEFAULT_RING_OCTETS, 64 << 20])
def test_every_ring_has_whole_pages_and_at_least_two_blocks(ring_octets: int) -> None:
    block_octets, block_count = tap.ring_shape(ring_octets)
    assert block_octets % 4096 == 0
    assert block_count >= 2
    assert block_octets * block_count <= max(ring_octets, 8192)
    assert block_octets * block_count >= ring_octets * 0.75


def test_the_process_imports_only_what_recording_needs() -> None:
    def modules(statement: str) -> set[str]:
        code = f"{statement}; import sys; print(*sys.modules)"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    root = Path(__file__).parents[2]
    loaded = modules(f"import sys; sys.path.insert(0, {str(root)!r}); import testbed.capture.__main__") - modules(
        "pass"
    )
    assert "testbed.capture.tap" in loaded
    assert not {"dataclasses", "typing", "pathlib", "json", "argparse", "ctypes", "re", "inspect"} & loaded
