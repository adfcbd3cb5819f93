"""One pupil at a terminal: a question, a prediction, the packet, the reason; and the points at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from testbed.lesson.exhibits import Exhibits
from testbed.lesson.grade import BadAnswers, parse_answer
from testbed.lesson.text import LETTERS, exhibit, outcome, paragraphs, question
from testbed.scenario.lesson_values import Step

_BOLD, _PLAIN = "\x1b[1m", "\x1b[0m"


def teach(
    steps: Sequence[Step], right: Sequence[int], exhibits: Exhibits, source: IO[str], out: IO[str], width: int
) -> int:
    """Walk through the steps; returns the points. The end of `source` leaves the rest unanswered, but shows it."""
    points, listening = 0, True
    strong = (_BOLD, _PLAIN) if out.isatty() else ("", "")
    for number, step in enumerate(steps):
        lines = list(question(step, number + 1, len(steps), width))
        out.write(f"{strong[0]}{lines[0]}{strong[1]}\n" + "".join(f"{line}\n" for line in lines[1:]))
        answer = _predicted(step, source, out) if listening else None
        listening = listening and answer is not None
        points += answer == right[number]
        for show in step.shows:
            out.write("".join(f"{line}\n" for line in exhibit(show, exhibits)) + "\n")
        out.write(f"{strong[0]}{outcome(step, right[number], answer)}{strong[1]}\n\n")
        if answer not in (None, right[number]) and (but := step.choices[answer].but):
            out.write("".join(f"{line}\n" for line in paragraphs(f"{LETTERS[answer]}) {but}", width)))
        out.write("".join(f"{line}\n" for line in paragraphs(step.explain, width)))
        if listening and number + 1 < len(steps) and out.isatty():
            out.write("Enter goes on. ")
            out.flush()
            listening = bool(source.readline())
            out.write("\n")
    out.write(f"{points} of {len(steps)} predicted.\n")
    return points


def _predicted(step: Step, source: IO[str], out: IO[str]) -> int | None:
    """The pupil's choice; None at the end of the input."""
    while True:
        out.write(f"Your prediction ({', '.join(LETTERS[: len(step.choices)])}): ")
        out.flush()
        line = source.readline()
        out.write("" if out.isatty() and line else "\n")
        if not line:
            return None
        try:
            answer = parse_answer(line, len(step.choices))
        except BadAnswers as error:
            out.write(f"{error}\n")
            answer = None
        if answer is not None:
            return answer
