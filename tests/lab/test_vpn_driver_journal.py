"""The journal of changes: what a dead process left is undone once, what a living or foreign one did is left alone."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from vpn.driver.journal import FileContent, Journal, stale_journals, this_place
from vpn.driver.netlink import Request
from vpn.driver.restore import restore_stale

ROUTE = Request("delete the route 10.0.0.0/8", 25, 0, b"\x02\x08")
DEAD_PROGRAM = """
import os, sys
from pathlib import Path
from vpn.driver.journal import FileContent, Journal
journal = Journal(Path(sys.argv[1]))
target = Path(sys.argv[2])
journal.note([FileContent(target, target.read_bytes(), b"ours\\n")])
target.write_bytes(b"ours\\n")
print("changed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "journals"


def changer(directory: Path, target: Path) -> subprocess.Popen[bytes]:
    """A process that changed `target` and wrote so into its journal."""
    argv = [sys.executable, "-c", DEAD_PROGRAM, str(directory), str(target)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"changed\n"
    return process


def test_only_the_journal_of_a_process_that_is_gone_is_undone(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "resolv.conf"
    target.write_bytes(b"before\n")
    lines: list[str] = []
    with changer(directory, target) as process:
        assert restore_stale(directory, lines.append)
        assert (lines, target.read_bytes()) == ([], b"ours\n")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert restore_stale(directory, lines.append)
    assert target.read_bytes() == b"before\n"
    assert lines[0] == f"process {process.pid} ended without undoing its changes; undoing 1 of them"
    assert list(directory.iterdir()) == []


def test_a_journal_is_for_its_owner_alone_and_goes_with_the_last_change(directory: Path, tmp_path: Path) -> None:
    journal = Journal(directory)
    first = journal.note([ROUTE, ROUTE])
    second = journal.note([FileContent(tmp_path / "x", None, b"y")])
    (path,) = directory.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    journal.strike(first)
    assert path.exists()
    journal.strike(second)
    assert not path.exists()
    journal.close()


def written(directory: Path, *lines: object, name: str = "1.journal", mode: int = 0o600) -> Path:
    directory.mkdir(mode=0o700, exist_ok=True)
    path = directory / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path.chmod(mode)
    return path


def head(**changes: str) -> dict[str, object]:
    place = this_place()
    return {"boot": place.boot, "network": place.network, "pid": 1} | changes


def test_what_was_done_is_passed_by_and_the_rest_comes_latest_first(directory: Path) -> None:
    entries = [{"n": n, "what": f"undo {n}", "kind": 25, "flags": 0, "body": "00"} for n in (1, 2, 3)]
    written(directory, head(), *entries, {"done": [2]})
    (found,) = stale_journals(directory)
    assert [entry.operation for entry in found.undo if isinstance(entry, Request)] == ["undo 3", "undo 1"]
    found.close(remove=False)


def test_a_line_that_the_kill_cut_off_is_passed_by(directory: Path) -> None:
    path = written(directory, head())
    with path.open("a") as file:
        file.write('{"n": 1, "what": "del')
    (found,) = stale_journals(directory)
    assert found.undo == []
    found.close(remove=False)


def test_changes_of_another_network_namespace_are_left_to_it(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "resolv.conf"
    target.write_bytes(b"ours\n")
    line = {"n": 1, "file": str(target), "before": None, "written": "b3Vycwo="}
    path = written(directory, head(network="net:[1]"), line)
    assert restore_stale(directory, pytest.fail)
    assert path.exists()
    assert target.exists()


def test_after_a_restart_of_the_host_files_come_back_and_the_kernel_is_not_touched(
    directory: Path, tmp_path: Path
) -> None:
    target = tmp_path / "resolv.conf"
    target.write_bytes(b"ours\n")
    lines: list[str] = []
    line = {"n": 1, "file": str(target), "before": "YmVmb3JlCg==", "written": "b3Vycwo="}
    route = {"n": 2, "what": "add a default route", "kind": 24, "flags": 0x600, "body": "00" * 12}
    path = written(directory, head(boot="another"), line, route)
    assert restore_stale(directory, lines.append)
    assert target.read_bytes() == b"before\n"
    assert not any("default route" in line for line in lines)
    assert not path.exists()


@pytest.mark.parametrize("content", [b"", b"ou", b"ours\n"])
def test_a_file_comes_back_also_if_the_kill_came_in_the_middle_of_writing_it(
    content: bytes, directory: Path, tmp_path: Path
) -> None:
    target = tmp_path / "resolv.conf"
    target.write_bytes(content)
    written(directory, head(), {"n": 1, "file": str(target), "before": None, "written": "b3Vycwo="})
    assert restore_stale(directory, lambda line: None)
    assert not target.exists()


@pytest.mark.parametrize("text", ["no json\n", "[]\n", '{"pid": 1}\n', "{}\n[1]\n"])
def test_a_file_that_is_no_journal_is_left_alone(text: str, directory: Path) -> None:
    path = written(directory)
    path.write_text(text)
    assert restore_stale(directory, pytest.fail)
    assert path.read_text() == text


def test_a_journal_that_others_could_write_is_not_believed(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "resolv.conf"
    target.write_bytes(b"ours\n")
    line = {"n": 1, "file": str(target), "before": None, "written": "b3Vycwo="}
    written(directory, head(), line, mode=0o666)
    real = written(tmp_path / "elsewhere", head(), line)
    (directory / "2.journal").symlink_to(real)
    os.mkfifo(directory / "3.journal", 0o600)
    assert restore_stale(directory, pytest.fail)
    assert target.exists()
