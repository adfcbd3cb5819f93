"""Child processes that speak JSON lines: heard out, stopped, and quoted when they fail."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from testbed.children import Child, ChildFailed


def start(program: str, text: str = "") -> Child:
    error_fd = os.memfd_create("stderr")
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=error_fd
    )
    return Child("sample", process, error_fd, text)


def finish(child: Child) -> None:
    child.process.kill()
    child.process.wait()
    assert child.process.stdout is not None
    child.process.stdout.close()


def test_a_child_hears_what_it_is_told_and_then_the_end() -> None:
    child = start("import json, sys; print(json.dumps({'heard': sys.stdin.read()}))", "hello")
    assert child.read_line(10.0) == {"heard": "hello"}
    finish(child)


def test_lines_arrive_one_by_one_until_the_end() -> None:
    child = start("print('{\"n\": 1}', flush=True); print('{\"n\": 2}')")
    assert [line["n"] for line in child.lines(10.0)] == [1, 2]
    child.wait()
    finish(child)


def test_stopping_returns_the_last_words() -> None:
    child = start(
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: (os.write(1, b'{\"packets\": 7}\\n'), sys.exit(0)))\n"
        "print('{\"ready\": true}', flush=True)\n"
        "signal.pause()\n"
    )
    assert child.read_line(10.0) == {"ready": True}
    assert child.stop() == {"packets": 7}
    finish(child)


def test_a_failure_quotes_what_the_child_said_last() -> None:
    child = start("import sys; sys.stderr.write('no such interface\\n'); sys.exit(3)")
    assert list(child.lines(10.0)) == []
    with pytest.raises(ChildFailed, match=r"sample process ended with code 3[\s\S]*no such interface"):
        child.wait()
    finish(child)


def test_silence_is_a_failure() -> None:
    child = start("import signal; signal.pause()")
    with pytest.raises(ChildFailed, match="said nothing"):
        child.read_line(0.1)
    finish(child)


@pytest.mark.parametrize("line", ["not json", "[1, 2]", "3"])
def test_a_line_that_is_no_object_is_a_failure(line: str) -> None:
    child = start(f"print({line!r})")
    with pytest.raises(ChildFailed, match="no JSON object"):
        child.read_line(10.0)
    finish(child)
