"""Grading a class: answers from a CSV file, who was right where, and which question was hard. Pure.

name,1,2,3          a header, then a line per pupil: a name, and a letter per step (empty: not answered)
Ada,a,c,b
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from testbed.lesson.text import LETTERS
from testbed.report.text import visible
from testbed.scenario.lesson_values import Step


class BadAnswers(ValueError):
    """A file of answers that cannot be graded; says the line and what it should be."""


@dataclass(frozen=True, slots=True)
class Pupil:
    """Shape: `answers` has a choice's index per step, None where there is no answer."""

    name: str
    answers: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Grades:
    """Shape: `right` has the right choice's index per step."""

    pupils: tuple[Pupil, ...]
    right: tuple[int, ...]
    titles: tuple[str, ...]

    def points(self, pupil: Pupil) -> int:
        return sum(answer == right for answer, right in zip(pupil.answers, self.right, strict=True))

    def solved(self, step: int) -> int:
        """How many pupils were right in this step."""
        return sum(pupil.answers[step] == self.right[step] for pupil in self.pupils)

    def to_dict(self) -> dict[str, Any]:
        return {
            "steps": [
                {"title": title, "right": LETTERS[right], "solved_by": self.solved(number)}
                for number, (title, right) in enumerate(zip(self.titles, self.right, strict=True))
            ],
            "pupils": [
                {
                    "name": pupil.name,
                    "points": self.points(pupil),
                    "answers": ["" if answer is None else LETTERS[answer] for answer in pupil.answers],
                }
                for pupil in self.pupils
            ],
        }


def read_answers(text: str, source: str, steps: Sequence[Step]) -> tuple[Pupil, ...]:
    """The pupils' answers. Errors: BadAnswers."""
    rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"))) if any(cell.strip() for cell in row)]
    expected = ["name", *(str(number + 1) for number in range(len(steps)))]
    if not rows or [cell.strip().lower() for cell in rows[0]] != expected:
        raise BadAnswers(f"{source}:1: the first line must be {','.join(expected)}")
    if not rows[1:]:
        raise BadAnswers(f"{source}: there is nobody to grade; a line per pupil, such as Ada{',a' * len(steps)}")
    return tuple(_pupil(row, f"{source}:{number}", steps) for number, row in enumerate(rows[1:], start=2))


def _pupil(row: list[str], place: str, steps: Sequence[Step]) -> Pupil:
    if len(row) != len(steps) + 1:
        raise BadAnswers(f"{place}: {len(row) - 1} answers, but the lesson has {len(steps)} steps")
    answers = [
        parse_answer(cell, len(step.choices), f"{place}: step {number}")
        for number, (cell, step) in enumerate(zip(row[1:], steps, strict=True), start=1)
    ]
    return Pupil(row[0].strip(), tuple(answers))


def parse_answer(text: str, choices: int, place: str) -> int | None:
    """A letter's index; None for nothing. Errors: BadAnswers."""
    letter = text.strip().lower().rstrip(")")
    if not letter:
        return None
    allowed = LETTERS[:choices]
    if len(letter) != 1 or letter not in allowed:
        raise BadAnswers(f"{place}: {visible(text.strip())!r} is no answer; give one of {', '.join(allowed)}")
    return allowed.index(letter)


def grades_text(grades: Grades) -> str:
    """A table: a line per pupil, then how many solved each step."""
    width = max([len("name"), *(len(visible(pupil.name)) for pupil in grades.pupils)])
    steps = range(len(grades.right))
    lines = [f"{'name':<{width}}  points  {' '.join(f'{number + 1:>2}' for number in steps)}"]
    for pupil in sorted(grades.pupils, key=grades.points, reverse=True):
        marks = " ".join(_mark(pupil.answers[number], grades.right[number]) for number in steps)
        lines.append(f"{visible(pupil.name):<{width}}  {grades.points(pupil):>2} / {len(grades.right):<2} {marks}")
    lines += ["", "right answers"]
    for number, title in enumerate(grades.titles):
        share = f"{grades.solved(number)} of {len(grades.pupils)}"
        lines.append(f"  {number + 1:>2}  {LETTERS[grades.right[number]]}  {share:<10} {title}")
    return "\n".join(lines) + "\n"


def _mark(answer: int | None, right: int) -> str:
    if answer is None:
        return " -"
    return " ✓" if answer == right else f" {LETTERS[answer]}"
