"""What stands behind `testbed lesson`: runs the lesson's scenario, then teaches, grades, or prints the questions."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import run as running
from testbed.lesson.answers import right_choice
from testbed.lesson.exhibits import Exhibits
from testbed.lesson.grade import BadAnswers, Grades, Pupil, grades_text, read_answers
from testbed.lesson.page import lesson_page
from testbed.lesson.teach import teach
from testbed.lesson.text import question
from testbed.rundir import Owner, write_report
from testbed.scenario.errors import Mistake, ScenarioErrors, nearest
from testbed.scenario.lesson_values import Step
from testbed.scenario.shipped import ShippedScenario, list_scenarios

FOLDER = "lessons"
_WIDEST = 100


@dataclass(frozen=True, slots=True)
class Lesson:
    """A lesson whose scenario has been run. Shape: `right` has the index of each step's right choice."""

    title: str
    steps: tuple[Step, ...]
    right: tuple[int, ...]
    exhibits: Exhibits


def listing(*, as_json: bool = False) -> str:
    """The lessons that ship, in their order."""
    lessons = _shipped()
    if as_json:
        entries = [{"name": entry.name.partition("/")[2], "title": entry.title} for entry in lessons]
        return json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    width = max((len(entry.name) for entry in lessons), default=0) - len(FOLDER)
    return "".join(f"{entry.name.partition('/')[2]:<{width}} {entry.title}\n" for entry in lessons)


def _shipped() -> list[ShippedScenario]:
    return [entry for entry in list_scenarios() if entry.name.startswith(f"{FOLDER}/")]


def prepare_lesson(name: str) -> running.Prepared:
    """The lesson's scenario, checked and planned; its number or topic will do if it ships. Errors: ScenarioErrors."""
    lessons = [entry.name.removeprefix(f"{FOLDER}/") for entry in _shipped()]
    known = f"lessons that ship: {', '.join(lessons)}"
    if name.isascii() and name.isdecimal() and not os.path.exists(name):
        name = next((lesson for lesson in lessons if int(lesson.partition("-")[0]) == int(name)), name)
    topics = {lesson.partition("-")[2]: lesson for lesson in lessons}
    if not os.path.exists(name):
        name = topics.get(name, name)
    if name not in lessons and not os.path.exists(name) and "/" not in name:
        message = (
            f"no such file, and no lesson of that name ships{nearest(name, lessons) or nearest(name, topics)}; {known}"
        )
        raise ScenarioErrors([Mistake(name, 0, 0, "", message)])
    prepared = running.prepare(f"{FOLDER}/{name}" if name in lessons else name, [], [], None)
    if not prepared.scenario.lesson:
        message = f"no steps to go through; {known}"
        raise ScenarioErrors([Mistake(prepared.scenario.file, 0, 0, "lesson", message)])
    return prepared


@contextmanager
def carried_out(prepared: running.Prepared, out: Path | None, *, quiet: bool) -> Iterator[Lesson]:
    """Run the scenario and find the right answers. Errors: as `run.carried_out`; LessonBroken."""
    with running.carried_out(prepared, running.Order(out=out, quiet=quiet)) as finished:
        exhibits = Exhibits(finished.result, finished.directory)
        steps = prepared.scenario.lesson
        right = tuple(right_choice(step, exhibits) for step in steps)
        page = lesson_page(prepared.scenario.title, steps, right, exhibits)
        write_report(finished.directory / "lesson.html", page, Owner.of_this_process(dict(os.environ)))
        yield Lesson(prepared.scenario.title, steps, right, exhibits)


def questions(prepared: running.Prepared) -> str:
    """The sheet to hand out: every question, no answer."""
    steps = prepared.scenario.lesson
    lines = [prepared.scenario.title, "", f"name,{','.join(str(number + 1) for number in range(len(steps)))}", ""]
    for number, step in enumerate(steps):
        lines += question(step, number + 1, len(steps), _WIDEST)
    return "\n".join(lines) + "\n"


def class_answers(path: Path, prepared: running.Prepared) -> tuple[Pupil, ...]:
    """A class's answers from its file, before anything is built. Errors: BadAnswers."""
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise BadAnswers(f"{path}: {reason}; give a CSV file such as `--sheet` describes") from None
    return read_answers(text, str(path), prepared.scenario.lesson)


def graded(lesson: Lesson, pupils: tuple[Pupil, ...], *, as_json: bool) -> str:
    """The class's grades."""
    grades = Grades(pupils, lesson.right, tuple(step.title for step in lesson.steps))
    return json.dumps(grades.to_dict(), indent=2, ensure_ascii=False) + "\n" if as_json else grades_text(grades)


def taught(lesson: Lesson) -> int:
    """The lesson with whoever sits at the terminal; returns the points."""
    width = min(_WIDEST, shutil.get_terminal_size((_WIDEST, 24)).columns)
    sys.stdout.write(f"{lesson.title}\n\n")
    points = teach(lesson.steps, lesson.right, lesson.exhibits, sys.stdin, sys.stdout, width)
    sys.stdout.write(f"The same for a projector: {lesson.exhibits.directory / 'lesson.html'}\n")
    return points
