"""Who stops a run before its end finds one line, the right exit code, and nothing that looks like a result."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.scenarios.running import environment, heed_interrupts, run_testbed

LONG = """title: Long
sites:
  www.example.com: {address: 93.184.216.34, node: web, http: true}
workload: [run: {argv: [sleep, "60"], timeout: 90s}]
"""
PATIENCE_S = 60


@contextmanager
def running(cwd: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose client is at its only action, which would take a minute."""
    (cwd / "long.yaml").write_text(LONG)
    with subprocess.Popen(
        [sys.executable, "-m", "testbed", "run", "long.yaml", *words],
        cwd=cwd,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as process:
        try:
            assert process.stderr is not None
            while "ran sleep 60" not in (line := process.stderr.readline()):
                assert line, "it ended by itself"
            yield process
        finally:
            process.kill()


def descendants(pid: int) -> set[int]:
    """The process's children and theirs, by their numbers on this host."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found |= {child} | descendants(child)
    return found


def wait_for_the_end_of(pids: set[int]) -> None:
    """Wait until none of them runs; pidfds become readable then, whoever's children they are."""
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], PATIENCE_S)[0], f"process {pid} runs still"
        finally:
            os.close(descriptor)


@pytest.mark.root
@pytest.mark.parametrize(
    ("numbers", "code", "words"),
    [
        ([signal.SIGTERM], 143, "testbed: terminated: removed the unfinished run "),
        ([signal.SIGHUP], 129, "testbed: the terminal was closed: removed the unfinished run "),
        ([signal.SIGINT, signal.SIGINT, signal.SIGTERM], 130, "testbed: removed the unfinished run "),
    ],
)
def test_a_stopped_run_says_so_in_one_line_and_leaves_nothing(
    numbers: list[signal.Signals], code: int, words: str, tmp_path: Path
) -> None:
    with running(tmp_path) as process:
        assert process.stderr is not None
        lab = descendants(process.pid)
        assert len(lab) > 3
        for number in numbers:
            process.send_signal(number)
        told = process.stderr.read()
        assert process.wait(PATIENCE_S) == code
    (last,) = [line for line in told.splitlines() if line.startswith("testbed:")]
    assert last.startswith(words)
    assert "Traceback" not in told
    assert list((tmp_path / "runs").iterdir()) == []
    wait_for_the_end_of(lab)


@pytest.mark.root
def test_what_a_killed_run_leaves_is_no_result_to_anybody(tmp_path: Path) -> None:
    with running(tmp_path, "--out", "out") as process:
        lab = descendants(process.pid)
        assert run_testbed("show", "out", cwd=tmp_path).stderr == (
            "testbed: out: the run that writes it has not ended yet\n"
        )
        process.kill()
        wait_for_the_end_of(lab)
    assert (tmp_path / "out/only/isp.pcapng").is_file()
    assert "no result" in (tmp_path / "out/UNFINISHED.txt").read_text()
    shown = run_testbed("show", "out", cwd=tmp_path)
    assert (shown.code, shown.stderr) == (2, "testbed: out: holds a run that did not come to its end, so no result\n")
    again = run_testbed("run", "long.yaml", cwd=tmp_path, out=Path("out"))
    assert again.code == 2
    assert again.stderr.endswith("so no result; remove it, or name a new or an empty directory with --out\n")


@pytest.mark.root
def test_a_result_is_kept_when_the_lab_held_after_it_is_terminated(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(LONG)
    with subprocess.Popen(
        [sys.executable, "-m", "testbed", "run", "what-a-vpn-hides", "--variant", "without", "--keep", "--out", "out"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while "is held" not in (line := process.stderr.readline()):
            assert line, "it ended by itself"
        process.send_signal(signal.SIGTERM)
        assert (process.stderr.read(), process.wait(PATIENCE_S)) == ("testbed: terminated\n", 143)
    assert (tmp_path / "out/report.html").is_file()
    assert not (tmp_path / "out/UNFINISHED.txt").exists()


def test_a_ctrl_c_while_the_command_line_is_loaded_is_one_line() -> None:
    """Sent by the import machinery itself when it is asked for a module, so at the same place on every machine."""
    script = """
import os, signal, sys
wanted = sys.argv[1]
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == wanted:
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupting())
from testbed.__main__ import main
sys.argv[1:] = ["list"]
main()
"""
    for module in ("testbed.cli", "typer", "testbed.exits", "testbed.scenario.shipped"):
        ran = subprocess.run(
            [sys.executable, "-c", script, module], env=environment(), capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (130, ""), module
        assert re.fullmatch(r"(testbed: interrupted\n)?", ran.stderr), module


def test_an_interruption_is_heeded_before_any_import_of_a_module_written_in_python() -> None:
    """Only Python's own start stays: what it prints when it is interrupted is not ours to choose."""
    loaded = "import sys; before = set(sys.modules); import testbed.__main__; print(sorted(set(sys.modules) - before))"
    ran = subprocess.run([sys.executable, "-c", loaded], env=environment(), capture_output=True, text=True, check=True)
    assert ran.stdout == "['__future__', 'testbed', 'testbed.__main__']\n"
