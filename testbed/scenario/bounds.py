"""Comparisons as an expectation writes them: `>= 2`, `<= 20 kB`, `>= 2s`, `none`, `never`.

    bound       an operator (>= <= > < == !=; left out it is ==) and a number with the unit of what is measured
    none        of leaks: exactly 0
    never       of something that may not happen at all: what did not happen is later than any time

`Bound` is the value; `count`, `octets`, `seconds` and the others read one from what stands in the file, or raise
`ValueError` with a sentence that says what is allowed.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from testbed.scenario import words

NEVER = math.inf
_COMPARISON = re.compile(r"\s*(>=|<=|==|!=|=|>|<)?\s*(\S.*?)\s*")
_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}
_SIZE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)")
_SIZE_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True, slots=True)
class Bound:
    """A comparison. Shape: `written` is its canonical text, which reads back to the same bound."""

    operator: str
    number: float
    written: str

    def holds(self, measured: float) -> bool:
        """Whether a measured number satisfies it; what never happened is measured as infinite."""
        return _OPERATORS[self.operator](measured, self.number)

    def __str__(self) -> str:
        return self.written


@dataclass(frozen=True, slots=True)
class OneOf:
    """A set of addresses of which each that was measured must be one."""

    addresses: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(self.addresses)


def count(value: object) -> Bound:
    """A bound on how many: `>= 2`."""
    return _bound(value, _whole, 'a comparison such as ">= 2", or a whole number')


def leaks(value: object) -> Bound:
    """A bound on the number of leaks: `none`, `>= 1`."""
    if value == "none":
        return Bound("==", 0, "none")
    return _bound(value, _whole, 'none, or a comparison such as ">= 1"')


def packet(value: object) -> Bound:
    """A bound on a packet's number, counted from 1: `>= 100`, `never`."""
    return _or_never(value, _whole, 'a comparison such as ">= 100", or never')


def seconds(value: object) -> Bound:
    """A bound on a time: `>= 2s`, `never`."""
    return _or_never(value, words.duration, 'a comparison such as ">= 2s", or never')


def octets(value: object) -> Bound:
    """A bound on a size: `<= 20 kB`, `> 1 MiB`, `<= 60`."""
    return _bound(value, _size, 'a comparison such as "<= 20 kB"; units are B, kB, MB, GB, KiB, MiB, GiB')


def _or_never(value: object, number: Callable[[str], float], allowed: str) -> Bound:
    if value == "never":
        return Bound("==", NEVER, "never")
    return _bound(value, number, allowed)


def _bound(value: object, number: Callable[[str], float], allowed: str) -> Bound:
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    found = _COMPARISON.fullmatch(str(value)) if plain or isinstance(value, str) else None
    if found is None:
        raise ValueError(f"must be {allowed}")
    sign = {None: "==", "=": "=="}.get(found[1], found[1])
    try:
        return Bound(sign, float(number(found[2])), f"{sign} {found[2]}")
    except ValueError:
        raise ValueError(f"must be {allowed}") from None


def _whole(text: str) -> float:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError("not a whole number")
    return int(text)


def _size(text: str) -> float:
    found = _SIZE.fullmatch(text)
    unit = _SIZE_UNITS.get(found[2].casefold()) if found else None
    if found is None or unit is None:
        raise ValueError("not a size")
    return float(found[1]) * unit
