"""Which of a step's choices is right: what the run showed decides, never the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from testbed.lesson.exhibits import Exhibits, Packet
from testbed.result import Exposure, Verdict
from testbed.scenario.lesson_values import OTHERWISE, Condition, Step

_COMPARISON = re.compile(r"(>=|<=|==|>|<)?\s*(\d+)\Z")
_COMPARE: Mapping[str, Callable[[int, int], bool]] = {
    ">=": int.__ge__,
    "<=": int.__le__,
    ">": int.__gt__,
    "<": int.__lt__,
    "==": int.__eq__,
}


class LessonBroken(Exception):
    """This run gives a step no right answer, or several: the lesson does not hold here. Says which step and why."""


def right_choice(step: Step, exhibits: Exhibits) -> int:
    """The index of the one right choice. Errors: LessonBroken."""
    held = [
        number
        for number, choice in enumerate(step.choices)
        if isinstance(choice.right, Condition) and holds(choice.right, step, exhibits)
    ]
    if not held:
        held = [number for number, choice in enumerate(step.choices) if choice.right == OTHERWISE]
    if len(held) != 1:
        said = ", ".join(f"{step.choices[number].says!r}" for number in held) or "none"
        raise LessonBroken(f"step {step.title!r}: one answer must be right by what was captured; right here: {said}")
    return held[0]


def holds(condition: Condition, step: Step, exhibits: Exhibits) -> bool:
    """Whether the run fulfils the condition. Errors: LessonBroken if there is nothing to look at."""
    return _FORMS[condition.form](condition, step, exhibits)


def _seen(condition: Condition, _step: Step, exhibits: Exhibits) -> bool:
    return any(row.verdict is Verdict.SEEN for row in _rows(condition, exhibits))


def _hidden(condition: Condition, _step: Step, exhibits: Exhibits) -> bool:
    rows = _rows(condition, exhibits)
    return bool(rows) and all(row.verdict is Verdict.HIDDEN for row in rows)


def _rows(condition: Condition, exhibits: Exhibits) -> list[Exposure]:
    return [
        row
        for row in exhibits.result.variants[condition.variant].exposure
        if (row.observer, row.fact.kind) == (condition.observer, condition.value)
        and condition.action in (None, row.fact.action)
        and condition.site in (None, row.fact.site)
    ]


def _field(condition: Condition, step: Step, exhibits: Exhibits) -> bool:
    wanted_layer, _, wanted_field = condition.value.rpartition("/")
    values = [
        value
        for layer in _shown_packet(step, exhibits).view.layers
        for label, value in layer.fields
        if (layer.name, label) == (wanted_layer, wanted_field)
    ]
    if condition.has is not None:
        return any(condition.has in value for value in values)
    return condition.equals in values


def _layer(condition: Condition, step: Step, exhibits: Exhibits) -> bool:
    return any(layer.name == condition.value for layer in _shown_packet(step, exhibits).view.layers)


def _shown_packet(step: Step, exhibits: Exhibits) -> Packet:
    for show in step.shows:
        if show.what == "packet":
            packet = exhibits.packet(show)
            if packet is not None:
                return packet
            break
    raise LessonBroken(f"step {step.title!r}: no packet of this run is the one that it would show")


def _egress(condition: Condition, _step: Step, exhibits: Exhibits) -> bool:
    ways = exhibits.result.variants[condition.variant].egress
    return any(way["interface"] == condition.value for way in ways if way["site"] == condition.site)


def _packets(condition: Condition, step: Step, exhibits: Exhibits) -> bool:
    match = _COMPARISON.match(condition.value.strip())
    if match is None:
        raise LessonBroken(f"step {step.title!r}: packets: {condition.value!r} is no count, such as '>= 3' or '0'")
    return _COMPARE[match[1] or "=="](sum(1 for _ in exhibits.packets(condition)), int(match[2]))


def _larger(condition: Condition, _step: Step, exhibits: Exhibits) -> bool:
    return _octets(condition.value, condition, exhibits) > _octets(condition.than, condition, exhibits)


def _octets(variant: str, condition: Condition, exhibits: Exhibits) -> int:
    return sum(tap.octets for tap in exhibits.result.variants[variant].taps if tap.name == condition.observer)


_FORMS: Mapping[str, Callable[[Condition, Step, Exhibits], bool]] = {
    "seen": _seen,
    "hidden": _hidden,
    "field": _field,
    "layer": _layer,
    "egress": _egress,
    "packets": _packets,
    "larger": _larger,
}
