"""What a benchmark measures and what came of it: pure values, medians and ratios.

One round measures every contender once, in turn, so that whatever else the machine does meets all of them. What counts
is therefore the ratio of two medians of one run; figures of two runs say little of each other.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

SCHEMA = "vpn-testbed/bench/1"
BASELINE = "none"


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is measured. Shape: `higher` says which end is good."""

    key: str
    title: str
    unit: str
    group: str
    higher: bool


MEASURES = (
    Measure("tcp_up_1", "1 stream up", "Gbit/s", "tcp", True),
    Measure("tcp_down_1", "1 stream down", "Gbit/s", "tcp", True),
    Measure("tcp_up_4", "4 streams up", "Gbit/s", "tcp", True),
    Measure("tcp_down_4", "4 streams down", "Gbit/s", "tcp", True),
    Measure("cpu_client", "CPU client", "s/GB", "cost", False),
    Measure("cpu_server", "CPU server", "s/GB", "cost", False),
    Measure("cpu_both", "CPU both", "s/GB", "cost", False),
    Measure("memory_client", "memory client", "MiB", "cost", False),
    Measure("memory_server", "memory server", "MiB", "cost", False),
    Measure("start", "start to first answer", "ms", "cost", False),
    Measure("packets", "none of them lost", "thousand/s", "packets", True),
    Measure("packets_flooded", "arrived of a flood", "thousand/s", "packets", True),
    Measure("rtt_median", "at once again", "µs", "trips", False),
    Measure("rtt_p99", "at once again: 99 of 100", "µs", "trips", False),
    Measure("rtt_paced_median", "every 10 ms", "µs", "trips", False),
    Measure("rtt_paced_p99", "every 10 ms: 99 of 100", "µs", "trips", False),
    Measure("rtt_load_median", "beside a stream up", "µs", "trips", False),
    Measure("rtt_load_p99", "beside it: 99 of 100", "µs", "trips", False),
    Measure("rtt_load_lost", "beside it: lost", "%", "trips", False),
    Measure("rtt_load_rate", "the stream itself", "Gbit/s", "trips", True),
    Measure("loss_0_1", "0.1 % loss", "Gbit/s", "links", True),
    Measure("loss_1", "1 % loss", "Gbit/s", "links", True),
    Measure("delay_20", "20 ms delay", "Gbit/s", "links", True),
    Measure("tcp_up_no_gro", "1 stream up, no GRO", "Gbit/s", "no-gro", True),
    Measure("tcp_down_no_gro", "1 stream down, no GRO", "Gbit/s", "no-gro", True),
)
GROUP_OF = {measure.key: measure.group for measure in MEASURES}
GROUPS = {
    "tcp": "TCP through the tunnel",
    "cost": "What it costs: processor time of each end for a gigabyte of one stream, and its most memory",
    "packets": "Packets of 64 octets",
    "trips": "Round trips of 64 octets: the median, and what 99 of 100 do not exceed",
    "links": "TCP over a line that loses or delays, 1 stream up (our engine carries every frame of it)",
    "no-gro": "TCP where the receiving network cards join no frames (GRO off at both ends)",
}


@dataclass(frozen=True, slots=True)
class Cell:
    """What one contender came to in one measure. Shape: `values` in order of the rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Everything a run measured. Shape: `cells[contender][measure key]`; what failed in a round is in `problems`.

    `rivals` names with whom each contender is compared, besides no tunnel; whoever has no figures counts as absent.
    """

    contenders: tuple[str, ...]
    titles: Mapping[str, str]
    cells: Mapping[str, Mapping[str, Cell]]
    machine: Mapping[str, Any]
    rounds: int
    seconds: int
    rivals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()  # "tinc: not installed; sudo apt-get install tinc"
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def cell(self, contender: str, key: str) -> Cell | None:
        return self.cells.get(contender, {}).get(key)

    def ratio(self, contender: str, key: str, base: str = BASELINE) -> float | None:
        """The contender's median over the base's; None where either is missing or the base is zero."""
        own, other = self.cell(contender, key), self.cell(base, key)
        if own is None or other is None or not other.median:
            return None
        return own.median / other.median

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Who is compared with whom: a contender and one of its rivals that both have figures."""
        for name in self.contenders:
            for rival in self.rivals.get(name, ()):
                if rival in self.contenders and rival != name:
                    yield name, rival

    def measured(self, group: str) -> Iterator[Measure]:
        """The measures of a group that at least one contender has."""
        for measure in MEASURES:
            if measure.group == group and any(self.cell(name, measure.key) for name in self.contenders):
                yield measure

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON values."""
        return {
            "schema": SCHEMA,
            "machine": dict(self.machine),
            "rounds": self.rounds,
            "seconds": self.seconds,
            "missing": list(self.missing),
            "problems": list(self.problems),
            "notes": list(self.notes),
            "contenders": {
                name: {
                    "title": self.titles[name],
                    "measures": {
                        measure.key: self._cell_to_dict(name, measure)
                        for measure in MEASURES
                        if self.cell(name, measure.key)
                    },
                }
                for name in self.contenders
            },
            "ratios": self._ratios_to_dict(),
        }

    def _ratios_to_dict(self) -> dict[str, dict[str, dict[str, float]]]:
        """contender -> rival -> measure -> the contender's median over the rival's."""
        told: dict[str, dict[str, dict[str, float]]] = {}
        for name, rival in self.pairs():
            ratios = {measure.key: self.ratio(name, measure.key, rival) for measure in MEASURES}
            told.setdefault(name, {})[rival] = {key: ratio for key, ratio in ratios.items() if ratio is not None}
        return told

    def _cell_to_dict(self, contender: str, measure: Measure) -> dict[str, Any]:
        cell = self.cells[contender][measure.key]
        return {
            "title": f"{measure.title}, {measure.unit}",
            "median": cell.median,
            "min": cell.least,
            "max": cell.most,
            "values": list(cell.values),
            "ratio": self.ratio(contender, measure.key),
        }


@dataclass(slots=True)
class Samples:
    """Collects what each round measured."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, contender: str, measured: Mapping[str, float]) -> None:
        for key, value in measured.items():
            self.values.setdefault(contender, {}).setdefault(key, []).append(value)

    def cells(self) -> dict[str, dict[str, Cell]]:
        return {
            contender: {key: Cell(tuple(values)) for key, values in measured.items()}
            for contender, measured in self.values.items()
        }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed. Errors: ValueError if there are none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]
