"""Whole runs: the host is the same before, during and after, whoever is killed, however many run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.lab_host import run_on_own_host

pytestmark = [pytest.mark.root, pytest.mark.slow]
CHECKS = Path(__file__).with_name("run_checks.py")
NOBODY = 65534


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the checks put their directories, which every user can reach: all are removed in the end."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o1777)
        monkeypatch.setenv("TMPDIR", made)
        yield folder
        assert [path.name for path in folder.iterdir() if path.name.startswith("testbed-check-")] == []


def check(name: str, *arguments: str, as_user: int | None = None) -> Any:
    return run_on_own_host(name, *arguments, as_user=as_user, checks=CHECKS)


def test_the_host_is_the_same_before_during_and_after_and_its_sockets_hear_nothing() -> None:
    seen = check("unchanged_host")
    assert seen["code"] == 0
    assert seen["during"] == []
    assert seen["after"] == []
    assert seen["heard"] == 0


@pytest.mark.parametrize(
    ("role", "codes"),
    [
        ("front", {-9, 0}),
        ("maker", {0, 4}),
        ("init", {0, 4}),
        ("conductor", {0, 4}),
        ("tap", {0, 4}),
        ("services", {0, 1, 4}),
        ("workload", {0, 4}),
        ("keys", {0, 4}),
        ("vpn-server", {0, 1, 4}),
        ("vpn-client", {0, 1, 4}),
    ],
)
def test_kill_9_at_any_moment_ends_the_run_in_words_and_leaves_nothing(role: str, codes: set[int]) -> None:
    seen = check("killed", role, "3", "1")
    assert set(seen["codes"]) <= codes, seen
    assert set(seen["codes"]) != {0}, "nothing was killed in time"
    assert seen["left"] == []
    assert seen["tracebacks"] == []


def test_twenty_runs_in_parallel_hold_their_expectations() -> None:
    seen = check("in_parallel", "20")
    assert seen["codes"] == [0] * 20, seen["bad"]
    assert seen["left"] == []


def test_two_hundred_runs_in_a_row_leave_nothing() -> None:
    seen = check("in_a_row", "200")
    assert seen["ok"] == 200
    assert seen["left"] == []
    assert seen["descriptors"][0] == seen["descriptors"][1]


def test_a_run_inside_another_labs_shell_works() -> None:
    seen = check("nested")
    assert seen["inner"] == 0, seen["said"]
    assert seen["outer"] == 0


def test_an_ordinary_user_runs_a_scenario_with_a_tunnel() -> None:
    seen = check("as_this_user", as_user=NOBODY)
    assert seen["uid"] == NOBODY
    assert seen["code"] == 0, seen["said"]


def test_ctrl_c_is_exit_code_130_and_leaves_nothing() -> None:
    seen = check("interrupted")
    assert seen["code"] == 130, seen["said"]
    assert "Traceback" not in seen["said"]
    assert seen["left"] == []
