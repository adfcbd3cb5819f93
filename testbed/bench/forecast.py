"""How long a benchmark run takes yet: what was expected of each round, mended by what the rounds so far took. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class Forecast:
    """Units: seconds. Shape: `expected` and `longest` are those of one round of each contender."""

    expected: Mapping[str, float]
    longest: Mapping[str, float]
    rounds: int
    taken: dict[str, list[float]] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)

    def note(self, name: str, seconds: float, *, again: bool) -> None:
        """A round of `name` took so long; `again` says whether there will be others."""
        self.taken.setdefault(name, []).append(seconds)
        if not again:
            self.given_up.add(name)

    def next_one(self, name: str) -> float:
        """What the next round of `name` is expected to take."""
        if name in self.taken:
            return max(self.taken[name])
        measured = sum(sum(taken) for taken in self.taken.values())
        expected = sum(self.expected[entry] * len(taken) for entry, taken in self.taken.items())
        return self.expected[name] * (measured / expected if expected else 1.0)

    def remaining(self) -> float:
        return sum(self.next_one(name) * self._rounds_to_come(name) for name in self.expected)

    def longest_at_all(self) -> float:
        """After which time the run has ended, whatever happens."""
        return self.rounds * sum(self.longest.values())

    def done(self) -> int:
        """How many rounds of single contenders are over, those that were given up included."""
        return sum(self.rounds - self._rounds_to_come(name) for name in self.expected)

    def _rounds_to_come(self, name: str) -> int:
        return 0 if name in self.given_up else self.rounds - len(self.taken.get(name, ()))


def in_words(seconds: float) -> str:
    """A time for people: no more exact than a forecast is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes, rest = divmod(round(seconds / 10) * 10, 60)
    return f"{minutes} min" + (f" {rest} s" if rest else "")
