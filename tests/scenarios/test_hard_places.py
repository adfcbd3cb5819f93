"""Pipes, closed streams, full disks, odd files and odd names: the right exit code, one clear line, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.running import environment, heed_interrupts, run_testbed

TINY = """title: Tiny
sites:
  www.example.com: {address: 93.184.216.34, node: web, http: true}
workload: [{dns: www.example.com}]
"""


def in_shell(script: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a bash script in which `testbed` is this program."""
    words = f'testbed() {{ "{sys.executable}" -m testbed "$@"; }}; set -o pipefail; {script}'
    return subprocess.run(
        ["bash", "-c", words],
        cwd=cwd,
        env={**environment(), **more},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_pipe_without_writer_is_no_scenario_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    ran = run_testbed("check", "pipe", cwd=tmp_path)
    assert (ran.code, ran.stderr) == (2, "testbed: pipe:1:1: the file is empty; a scenario starts with `title: …`\n")


def test_a_pipe_with_a_writer_is_read(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    ran = in_shell("testbed check <(sleep 0.2; cat tiny.yaml)", tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_a_name_that_no_file_can_have_is_one_error(tmp_path: Path) -> None:
    ran = run_testbed("check", "x" * 5000, cwd=tmp_path)
    assert ran.code == 2
    assert "no such file" in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_what_steers_a_terminal_is_spelled_out_in_errors(tmp_path: Path) -> None:
    ran = run_testbed("check", "a\x1b[31m\u202eb", cwd=tmp_path)
    assert ran.code == 2
    assert "a\\x1b[31m\\u202eb: no such file" in ran.stderr


def test_a_seed_below_zero_is_refused_on_the_command_line_as_in_the_file(tmp_path: Path) -> None:
    assert run_testbed("run", "what-a-vpn-hides", "--dry-run", "--seed", "-1", cwd=tmp_path).code == 2
    assert run_testbed("run", "what-a-vpn-hides", "--dry-run", "--seed", str(2**63), cwd=tmp_path).code == 2


def test_a_file_that_is_no_capture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("GET / HTTP/1.1\n")
    (tmp_path / "empty.pcapng").write_text("")
    (tmp_path / "folder").mkdir()
    why = {"notes.txt": "neither pcapng nor pcap", "empty.pcapng": "the file is empty", "folder": "is a directory"}
    for name, told in why.items():
        ran = run_testbed("observe", name, cwd=tmp_path)
        assert (ran.code, ran.stdout) == (2, "")
        assert f"{name}: {told}" in ran.stderr


@pytest.mark.parametrize("octets", [b"\xff\xfe", b"{", b"[]"])
def test_a_result_that_cannot_be_read_names_its_file(octets: bytes, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_bytes(octets)
    ran = run_testbed("show", tmp_path, cwd=tmp_path)
    assert ran.code == 2
    assert ran.stderr.startswith(f"testbed: {tmp_path}/result.json: ")
    assert "Traceback" not in ran.stderr


def test_a_reader_that_leaves_early_changes_no_exit_code(tmp_path: Path) -> None:
    ran = in_shell("testbed run what-a-vpn-hides --dry-run | head -1; echo ${PIPESTATUS[0]}", tmp_path)
    assert (ran.stdout, ran.stderr) == ("variant without\n0\n", "")


def test_a_full_disk_under_the_output_is_one_line(tmp_path: Path) -> None:
    ran = in_shell("testbed schema > /dev/full", tmp_path)
    assert (ran.returncode, ran.stderr) == (4, "testbed: cannot go on: No space left on device\n")


@pytest.mark.root
def test_a_run_whose_reader_leaves_early_keeps_its_verdict(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY + "expect: [{variant: only, observer: isp, sees: [dns-name]}]\n")
    ran = in_shell("testbed run tiny.yaml --out out | true; echo ${PIPESTATUS[0]}", tmp_path)
    assert ran.stdout == "0\n"
    assert "Traceback" not in ran.stderr
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.root
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_run_works_where_standard_streams_are_closed(closed: str, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    ran = in_shell(f"testbed run tiny.yaml --out out {closed}", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "out" / "only" / "isp.pcapng").stat().st_size > 0


@pytest.mark.root
def test_a_place_where_no_report_can_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    for place in ("missing/junit.xml", "."):
        ran = run_testbed("run", "tiny.yaml", "--junit", place, cwd=tmp_path)
        assert ran.code == 2
        assert "Traceback" not in ran.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


@pytest.mark.root
def test_a_report_that_does_not_fit_the_disk_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    ran = run_testbed("run", "tiny.yaml", "--junit", "/dev/full", cwd=tmp_path, out=tmp_path / "out")
    assert ran.code == 4
    assert ran.stderr.splitlines()[-1] == "testbed: cannot go on: No space left on device"


@pytest.mark.root
def test_a_lab_that_fails_on_a_full_disk_says_that_it_is_full(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "disk").mkdir()
    mounted = 'mount -t tmpfs -o size=4k none disk && exec "$0" -m testbed run tiny.yaml --out disk/out'
    ran = in_shell(f"unshare -m sh -c '{mounted}' {sys.executable}", tmp_path)
    assert ran.returncode == 4, ran.stderr
    assert "Traceback" not in ran.stderr
    assert "disk/out, whose file system is full" in ran.stderr or "No space left on device" in ran.stderr


@pytest.mark.root
def test_descriptors_beyond_the_limit_of_now_do_not_keep_a_lab_from_its_work(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    ran = in_shell("exec 200</dev/null; ulimit -n 150; testbed run tiny.yaml --out out", tmp_path)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.root
def test_everything_a_sudo_run_makes_belongs_to_the_invoking_user(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    ran = in_shell(
        "testbed run tiny.yaml --out new/deep/out --junit junit.xml", tmp_path, SUDO_UID="12345", SUDO_GID="12346"
    )
    assert ran.returncode == 0, ran.stderr
    made = [path for path in tmp_path.rglob("*") if path.name != "tiny.yaml"]
    assert len(made) > 10
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(12345, 12346)}


@pytest.mark.parametrize("uid", ["", "abc", "-1", "99999999999", "4294967295"])
def test_a_sudo_uid_that_is_none_is_not_believed(uid: str, tmp_path: Path) -> None:
    from testbed.rundir import Owner

    assert not Owner.of_this_process({"SUDO_UID": uid, "SUDO_GID": "zzz"}).hand_over


@pytest.mark.root
def test_an_interrupted_run_says_so_and_leaves_nothing_half_built(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    with subprocess.Popen(
        [sys.executable, "-m", "testbed", "run", "tiny.yaml"],
        cwd=tmp_path,
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as process:
        assert process.stderr is not None
        assert "building the lab" in process.stderr.readline()
        assert len(list((tmp_path / "runs").iterdir())) == 1
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130
    assert told.splitlines()[-1].startswith("testbed: removed the unfinished run runs/")
    assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--grade", "class.csv"), "say which lesson"),
        (("01-dns", "--json"), "give --grade FILE too"),
        (("01-dns", "--sheet", "--json"), "leave out --grade and --json"),
    ],
)
def test_options_of_a_lesson_that_would_do_nothing_are_refused(
    words: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    ran = run_testbed("lesson", *words, cwd=tmp_path)
    assert ran.code == 2
    assert told in ran.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_lesson_is_found_by_its_number(tmp_path: Path) -> None:
    by_number, by_name = (run_testbed("lesson", name, "--sheet", cwd=tmp_path) for name in ("4", "04-ip"))
    assert (by_number.code, by_number.stdout) == (0, by_name.stdout)


def test_a_place_where_a_bench_cannot_write_is_told_before_it(tmp_path: Path) -> None:
    ran = run_testbed("bench", "none", "--out", "/proc/bench", cwd=tmp_path)
    assert (ran.code, ran.stderr.count("\n")) == (2, 1)
    assert "cannot make the directory /proc/bench" in ran.stderr
