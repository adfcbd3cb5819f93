"""The lessons that ship, on packets captured just now: each step has one right answer; a class is graded by the run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.lesson.text import LETTERS
from testbed.scenario.shipped import list_scenarios
from tests.scenarios.truth import assert_tshark_agrees
from tests.unit.test_report_html import unnamed_tables

ROOT = Path(__file__).resolve().parents[2]
LESSONS = [entry.name.partition("/")[2] for entry in list_scenarios() if entry.name.startswith("lessons/")]
pytestmark = [pytest.mark.root]


def lesson(*words: str, folder: Path, typed: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "testbed", "lesson", *words],
        cwd=folder,
        input=typed,
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
    )


def test_the_list_has_the_lessons_in_the_order_of_the_article(tmp_path: Path) -> None:
    done = lesson(folder=tmp_path)
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == LESSONS == sorted(LESSONS)
    assert len(names) >= 16


@pytest.mark.parametrize("name", LESSONS)
def test_every_step_has_one_right_answer_and_shows_what_it_names(name: str, tmp_path: Path) -> None:
    done = lesson(name, "--out", "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "run/result.json").read_text())
    page = (tmp_path / "run/lesson.html").read_text()
    assert "<h2" in page
    assert unnamed_tables(page) == []
    assert result["ok"], [entry["reason"] for entry in result["expectations"] if not entry["holds"]]
    right = re.findall(r"\n-  It is ([a-z])\)", done.stdout)  # nobody answers: standard input is empty
    assert len(right) >= 3
    assert len(set(right)) > 1, "who always says the same letter must not be right throughout"
    assert f"0 of {len(right)} predicted." in done.stdout
    assert "(no such packet" not in done.stdout
    assert "    (none)" not in done.stdout
    assert "\x1b" not in done.stdout  # a pipe gets no colour
    assert_tshark_agrees(tmp_path / "run")


def test_a_pupil_who_predicts_is_told_and_counted(tmp_path: Path) -> None:
    done = lesson("01-dns", "--out", "run", folder=tmp_path, typed="c\nz\nb\na\na\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("✓  Right:") == 3
    assert "✗  You said a; it is b) A packet to the VPN server" in done.stdout
    assert "3 of 4 predicted." in done.stdout


def test_a_class_is_graded_by_what_was_captured(tmp_path: Path) -> None:
    (tmp_path / "class.csv").write_text("name,1,2,3,4\nAda,c,b,a,b\nBob <b>,a,,b,b\n")
    done = lesson("01-dns", "--grade", "class.csv", "--out", "run", "--json", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    grades = json.loads(done.stdout)
    assert [(pupil["name"], pupil["points"]) for pupil in grades["pupils"]] == [("Ada", 4), ("Bob <b>", 1)]
    assert "".join(step["right"] for step in grades["steps"]) == "cbab"
    assert [step["solved_by"] for step in grades["steps"]] == [1, 1, 1, 2]


def test_the_sheet_has_every_question_and_no_answer_and_runs_nothing(tmp_path: Path) -> None:
    done = lesson("08-openvpn-session", "--sheet", folder=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count(f"  {LETTERS[1]}) ") == 5
    assert "Right" not in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["01-dsn"], 2, "did you mean"),
        ([str(ROOT / "scenarios/what-a-vpn-hides.yaml")], 2, "no steps to go through"),
        (["01-dns", "--grade", "nobody.csv"], 2, "nobody.csv: No such file"),
    ],
)
def test_what_cannot_be_taught_is_said_plainly(words: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = lesson(*words, folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_answers_end_with_2_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "class.csv").write_text("name,1,2,3,4\nAda,c,b,a,x\n")
    done = lesson("01-dns", "--grade", "class.csv", folder=tmp_path)
    assert done.returncode == 2
    assert "class.csv:2: step 4: 'x' is no answer" in done.stderr
    assert not (tmp_path / "runs").exists()
