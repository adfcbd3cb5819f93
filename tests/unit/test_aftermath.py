"""What a run writes once it is over: limits, and files that hold nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from testbed.aftermath import MOST_OCTETS, MOST_PACKETS, Afterwards, read_text, why_not_merged, write_captures
from testbed.result import RunResult, TapRecord, VariantResult
from testbed.rundir import Owner, RunDirectory


def result(packets: int = 1, octets: int = 60, taps: int = 1) -> RunResult:
    records = tuple(
        TapRecord(f"isp{n}", "isp", "isp-eth0", f"only/isp{n}.pcapng", packets, octets, 0) for n in range(taps)
    )
    variant = VariantResult("only", None, (), (), (), (), records, (), (), {})
    return RunResult({}, 1, True, {"only": variant}, (), {})


def afterwards(done: RunResult) -> Afterwards:
    return Afterwards(done, {}, {}, {}, {}, frozenset())


def test_a_run_too_large_for_merged_captures_says_so_and_writes_none(tmp_path: Path) -> None:
    directory = RunDirectory.create("x", Owner.of_this_process({}), tmp_path / "out")
    try:
        for large in (result(packets=MOST_PACKETS + 1), result(octets=MOST_OCTETS // 2 + 1, taps=2)):
            assert "too many for merged captures" in why_not_merged(large)
            assert write_captures(directory, afterwards(large)) == ()
        assert list((tmp_path / "out").iterdir()) == []
        assert why_not_merged(result(packets=MOST_PACKETS, octets=MOST_OCTETS)) == ""
        no_taps = replace(result(), variants={})
        assert write_captures(directory, afterwards(no_taps)) == ()
    finally:
        directory.close()


def test_a_key_log_that_is_not_there_is_empty_and_a_link_is_not_followed(tmp_path: Path) -> None:
    directory = RunDirectory.create("x", Owner.of_this_process({}), tmp_path / "out")
    try:
        assert read_text(directory, "keys.log") == ""
        (tmp_path / "secret").write_text("somebody else's")
        (tmp_path / "out" / "keys.log").symlink_to(tmp_path / "secret")
        try:
            text = read_text(directory, "keys.log")
        except OSError:
            text = ""
        assert text == ""
    finally:
        directory.close()
