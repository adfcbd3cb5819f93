"""What is wrong with a scenario file: every mistake with its place, its value and what would be right.

One line per mistake, so that an editor can jump to it: `file:line:column: key.path: value …: what is allowed`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing to correct. Shape: `line` and `column` are 1-based; 0 if the mistake is in no file (`--set`)."""

    source: str
    line: int
    column: int
    path: str  # key path as written, such as variants.with.tunnel.cipher; empty for the file as a whole
    message: str

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}:{self.column}" if self.line else self.source
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ScenarioErrors(Exception):
    """All mistakes of a scenario, in the order of the file."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(sorted(set(mistakes)))
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))


def nearest(word: object, candidates: Iterable[str]) -> str:
    """`; did you mean X?` for the candidate closest in spelling, or nothing if none is close."""
    known = {candidate.casefold(): candidate for candidate in candidates}
    matches = get_close_matches(str(word).casefold(), known, n=1, cutoff=0.6)
    return f"; did you mean {known[matches[0]]}?" if matches else ""


def one_of(candidates: Iterable[str]) -> str:
    listed = list(candidates)
    return f"allowed: {', '.join(listed)}" if listed else "there are none"


def shown(value: object, limit: int = 80) -> str:
    """A value as a person wrote it, cut to fit a line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = value if isinstance(value, str) else repr(value)
    text = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return (text if len(text) <= limit else f"{text[:limit]}…") or '""'
