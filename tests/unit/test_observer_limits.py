"""What the observer keeps is bounded over all conversations; octets that the file has cost next to nothing."""

from __future__ import annotations

import gc
import random
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.capture import pcapng
from testbed.observer import Limits, observe
from testbed.observer.streams import SEGMENT_COST_OCTETS, Budget, Reassembly, Recorder
from tests.unit.test_observer_quick_in_columns import capture, ethernet, udp
from tests.unit.test_observer_quick_path import tcp

SYN, ACK = 2, 16


def download(segments: int, octets: int, version: int = 4) -> list[bytes]:
    frames = [ethernet(tcp(version, 1, 999, SYN | ACK))]
    dice = random.Random(1)
    return frames + [ethernet(tcp(version, 1, 1000 + octets * n, ACK, dice.randbytes(octets))) for n in range(segments)]


def test_segments_behind_the_holes_of_all_conversations_share_one_budget() -> None:
    budget = Budget(1 << 30, waiting_octets=10_000)
    streams = [Reassembly(Recorder(1 << 20, budget), 1 << 20) for _ in range(50)]
    for number, stream in enumerate(streams):
        stream.syn(0)
        stream.add(100, bytes(1000), number, number)
    waiting = sum(len(segment.data) + SEGMENT_COST_OCTETS for stream in streams for segment in stream.waiting or ())
    assert waiting <= 10_000
    assert budget.waiting_octets == 10_000 - waiting
    given_up = [stream for stream in streams if stream.recorder.gaps == [0]]
    assert given_up
    assert all(stream.recorder.size == 1000 for stream in given_up)


@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize(("spare", "kept"), [(-1, 39), (0, 40), (1, 40)])
def test_a_stream_may_be_as_long_as_its_limit_and_no_longer(
    tmp_path: Path, in_columns: bool, spare: int, kept: int
) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture(3, download(40, 100)))
    found = observe(path, limits=Limits(stream_octets=4000 + spare), in_columns=in_columns)
    (stream,) = found.streams
    assert len(stream.data) == kept * 100
    assert stream.truncated == (kept < 40)
    assert found.damaged == (kept < 40)


@pytest.mark.parametrize("in_columns", [False, True])
def test_octets_that_the_file_keeps_do_not_use_up_what_all_streams_may_keep(tmp_path: Path, in_columns: bool) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture(3, download(1000, 1400)))
    limits = Limits(total_stream_octets=50_000)
    (stream,) = observe(path, limits=limits, in_columns=in_columns).streams
    assert (len(stream.data), stream.truncated) == (1_400_000, False)


@pytest.mark.parametrize("in_columns", [False, True])
def test_many_pieces_do_and_the_rest_is_cut_off_and_said(tmp_path: Path, in_columns: bool) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture(3, download(1000, 2)))
    found = observe(path, limits=Limits(total_stream_octets=4000), in_columns=in_columns)
    (stream,) = found.streams
    assert (len(stream.data), stream.truncated, found.complete) == (200, True, False)


def open_files() -> list[str]:
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the listing itself
            found.append(str(descriptor.readlink()))
    return found


@pytest.mark.parametrize("in_columns", [False, True])
def test_the_file_stays_open_as_long_as_somebody_may_ask_for_streams_and_no_longer(
    tmp_path: Path, in_columns: bool
) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture(3, download(40, 100)))
    gc.disable()  # nobody has to search for what is no longer wanted
    try:
        found = observe(path, in_columns=in_columns)
        assert open_files().count(str(path)) == 1
        del found
        assert open_files().count(str(path)) == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("text", [False, True])
def test_of_a_long_download_all_octets_are_handed_out_and_readable_text_is_shown(tmp_path: Path, text: bool) -> None:
    """Its dissection may stop where nothing more can be told; what is searched does not."""
    octets = b"a line that people read\n" * 100_000 if text else random.Random(2).randbytes(2_400_000)
    frames = [ethernet(tcp(4, 1, 999, SYN | ACK))]
    frames += [ethernet(tcp(4, 1, 1000 + at, ACK, octets[at : at + 1400])) for at in range(0, len(octets), 1400)]
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture(3, frames))
    found = observe(path)
    assert [stream.data for stream in found.streams] == [octets]
    shown = [sighting.value for sighting in found.sightings if sighting.kind == "payload"]
    assert shown == ([octets[: 1 << 20].decode()] if text else [])


@pytest.mark.parametrize("in_columns", [False, True])
def test_packets_that_were_cut_are_counted_and_make_the_answer_incomplete_but_not_damaged(
    tmp_path: Path, in_columns: bool
) -> None:
    blocks = [pcapng.build_section_header("x"), pcapng.build_interface("x", pcapng.LINKTYPE_ETHERNET)]
    frame = bytes(12) + b"\x08\x06" + bytes(46)
    blocks += [pcapng.build_packet(0, n, frame[:kept], 60) for n, kept in enumerate((60, 14, 60, 20))]
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"".join(blocks))
    observation = observe(path, in_columns=in_columns)
    assert observation.warnings == ("2 packets are cut: the capture has not all of their octets",)
    assert (observation.octets, observation.captured_octets) == (240, 154)
    assert (observation.complete, observation.damaged) == (False, False)
    path.write_bytes(b"".join((*blocks[:3], blocks[4])))
    assert observe(path, in_columns=in_columns).complete


@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize(("limit", "cut"), [(2_399_999, True), (2_400_000, False)])
def test_the_limit_of_a_stream_holds_and_is_said_where_its_octets_are_passed_over(
    tmp_path: Path, in_columns: bool, limit: int, cut: bool
) -> None:
    """Nobody asks for streams, and beyond two megabytes nothing of this one can be read: it is only counted."""
    path = tmp_path / "x.pcapng"
    path.write_bytes(capture(3, download(2000, 1200)))
    for keep_streams in (False, True):
        found = observe(path, limits=Limits(stream_octets=limit), in_columns=in_columns, keep_streams=keep_streams)
        assert found.damaged == cut


@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize(("limit", "cut"), [(3999, True), (4000, False)])
def test_the_limit_of_a_conversation_of_datagrams_is_said_though_nobody_asks_for_them(
    tmp_path: Path, in_columns: bool, limit: int, cut: bool
) -> None:
    path = tmp_path / "x.pcapng"
    dice = random.Random(4)
    path.write_bytes(capture(3, [ethernet(udp(0, (5000, 6000), b"\xff" + dice.randbytes(99))) for _ in range(40)]))
    for keep_streams, awake in ((False, 4096), (True, 4096), (False, 1)):
        limits = Limits(stream_octets=limit, awake_flows=awake)
        found = observe(path, limits=limits, in_columns=in_columns, keep_streams=keep_streams)
        assert found.damaged == cut
