"""Grading a class: answers from a CSV file, who was right where, and which question was hard. Pure.

name,1,2,3          a header, then a line per pupil: a name, and a letter per step (empty: not answered)
Ada,a,c,b

Semicolons serve as well: spreadsheets write them where the comma is the decimal point.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
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
    text = text.removeprefix("\ufeff")
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text), delimiter=";" if ";" in head and "," not in head else ",")
    rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    expected = ["name", *(str(number + 1) for number in range(len(steps)))]
    if not rows or [cell.strip().lower() for cell in rows[0][1]] != expected:
        found = f", not {visible(','.join(rows[0][1]))[:60]}" if rows else "; the file is empty"
        raise BadAnswers(f"{source}:1: the first line must be {','.join(expected)}{found}")
    if not rows[1:]:
        raise BadAnswers(f"{source}: there is nobody to grade; a line per pupil, such as Ada{',a' * len(steps)}")
    mistakes: list[str] = []
    pupils = [_pupil(row, f"{source}:{line}", steps, mistakes) for line, row in rows[1:]]
    if mistakes:
        raise BadAnswers("\n".join(mistakes))
    return tuple(pupils)


def _pupil(row: list[str], place: str, steps: Sequence[Step], mistakes: list[str]) -> Pupil:
    """A line's pupil; what is wrong in it goes to `mistakes`."""
    if len(row) != len(steps) + 1:
        mistakes.append(f"{place}: {len(row) - 1} answers, but the lesson has {len(steps)} steps")
        return Pupil(row[0].strip(), ())
    answers: list[int | None] = []
    for number, (cell, step) in enumerate(zip(row[1:], steps, strict=True), start=1):
        try:
            answers.append(parse_answer(cell, len(step.choices)))
        except BadAnswers as error:
            mistakes.append(f"{place}: step {number}: {error}")
    return Pupil(row[0].strip(), tuple(answers))


def parse_answer(text: str, choices: int) -> int | None:
    """A letter's index; None for nothing. Errors: BadAnswers."""
    letter = text.strip().lower().rstrip(")")
    if not letter:
        return None
    allowed = LETTERS[:choices]
    if len(letter) != 1 or letter not in allowed:
        raise BadAnswers(f"{visible(text.strip())!r} is no answer; give one of {', '.join(allowed)}")
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
        lines.append(
            f"  {number + 1:>2}  {LETTERS[grades.right[number]]}  {share:<10} {title}{_missed(grades, number)}"
        )
    return "\n".join(lines) + "\n"


def _missed(grades: Grades, step: int) -> str:
    """`; instead b 3, c 1`: what those chose who were wrong, the most tempting first."""
    chosen = Counter(pupil.answers[step] for pupil in grades.pupils if pupil.answers[step] != grades.right[step])
    told = ", ".join(f"{LETTERS[index]} {count}" for index, count in chosen.most_common() if index is not None)
    return f"; instead {told}" if told else ""


def _mark(answer: int | None, right: int) -> str:
    if answer is None:
        return " -"
    return " ✓" if answer == right else f" {LETTERS[answer]}"
