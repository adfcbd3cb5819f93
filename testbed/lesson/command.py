"""What stands behind `testbed lesson`: runs the lesson's scenario, then teaches, grades, or prints the questions."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import run as running
from testbed.lesson.answers import right_choice
from testbed.lesson.exhibits import Exhibits
from testbed.lesson.grade import Grades, grades_text, read_answers
from testbed.lesson.teach import teach
from testbed.lesson.text import question
from testbed.scenario.errors import Mistake, ScenarioErrors, nearest
from testbed.scenario.lesson_values import Step
from testbed.scenario.shipped import list_scenarios

FOLDER = "lessons"
_WIDEST = 100


@dataclass(frozen=True, slots=True)
class Lesson:
    """A lesson whose scenario has been run. Shape: `right` has the index of each step's right choice."""

    title: str
    steps: tuple[Step, ...]
    right: tuple[int, ...]
    exhibits: Exhibits


def listing() -> str:
    """The lessons that ship, in their order."""
    lessons = [entry for entry in list_scenarios() if entry.name.startswith(f"{FOLDER}/")]
    width = max((len(entry.name) for entry in lessons), default=0) - len(FOLDER)
    return "".join(f"{entry.name.partition('/')[2]:<{width}} {entry.title}\n" for entry in lessons)


def prepare_lesson(name: str) -> running.Prepared:
    """The lesson's scenario, checked and planned; `name` may leave out the folder. Errors: ScenarioErrors."""
    shipped = {entry.name for entry in list_scenarios()}
    prepared = running.prepare(f"{FOLDER}/{name}" if f"{FOLDER}/{name}" in shipped else name, [], [], None)
    if not prepared.scenario.lesson:
        lessons = [entry.partition("/")[2] for entry in sorted(shipped) if entry.startswith(f"{FOLDER}/")]
        message = f"has no `lesson`: no steps to go through; lessons that ship: {', '.join(lessons)}"
        raise ScenarioErrors([Mistake(prepared.scenario.file, 0, 0, "lesson", message + nearest(name, lessons))])
    return prepared


@contextmanager
def carried_out(prepared: running.Prepared, out: Path | None, *, quiet: bool) -> Iterator[Lesson]:
    """Run the scenario and find the right answers. Errors: as `run.carried_out`; LessonBroken."""
    with running.carried_out(prepared, running.Order(out=out, quiet=quiet)) as finished:
        exhibits = Exhibits(finished.result, finished.directory)
        steps = prepared.scenario.lesson
        yield Lesson(prepared.scenario.title, steps, tuple(right_choice(step, exhibits) for step in steps), exhibits)


def questions(prepared: running.Prepared) -> str:
    """The sheet to hand out: every question, no answer."""
    steps = prepared.scenario.lesson
    lines = [prepared.scenario.title, "", f"name,{','.join(str(number + 1) for number in range(len(steps)))}", ""]
    for number, step in enumerate(steps):
        lines += question(step, number + 1, len(steps), _WIDEST)
    return "\n".join(lines) + "\n"


def graded(lesson: Lesson, text: str, source: str, *, as_json: bool) -> str:
    """The class's grades. Errors: BadAnswers."""
    grades = Grades(read_answers(text, source, lesson.steps), lesson.right, tuple(step.title for step in lesson.steps))
    return json.dumps(grades.to_dict(), indent=2, ensure_ascii=False) + "\n" if as_json else grades_text(grades)


def taught(lesson: Lesson) -> int:
    """The lesson with whoever sits at the terminal; returns the points."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    sys.stdout.write(f"{lesson.title}\n\n")
    points = teach(lesson.steps, lesson.right, lesson.exhibits, sys.stdin, sys.stdout, width)
    sys.stdout.write(f"The captures and the report: {lesson.exhibits.directory}\n")
    return points
