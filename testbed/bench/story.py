"""One round of one contender, inside its bubble: which steps there are, and what figures each gives.

A step that fails is told of and the next one comes; a round ends early when an end of the tunnel has ended, and when
its time is over (`bound`). What had been measured until then counts.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import FrameType
from typing import Any

from testbed.bench.model import percentile
from testbed.bench.rates import highest_clean_rate
from testbed.bench.stage import GIGA, ContenderFailed, Round, Stage
from testbed.lab.build import Lab
from testbed.lab.impair.model import Impairment
from testbed.lab.model import LabPlan, LabRequest, LinkRequest
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology

TRIPS = 1000
PINGS, PINGS_UNDER_LOAD, PING_INTERVAL = 200, 300, 0.01
LOAD_FILLS_SECONDS = 0.5
PROBE_SECONDS = 0.4
FLOOD_RATE = 2_000_000.0
BAD_LINKS = {
    "loss_0_1": Impairment(loss=0.001),
    "loss_1": Impairment(loss=0.01),
    "delay_20": Impairment(delay_s=0.010, queue_packets=100_000),  # each way: 20 ms there and back
}
# What a story takes on a machine that does nothing else, beside its TCP measurements: from runs of all contenders.
SECONDS_BEFORE_TCP, SECONDS_WITH_TCP = 1.0, 0.5
SECONDS_OF = {"packets": 8.0, "trips": 7.0}
PATIENCE = 4  # a story may take so many times as long, and half a minute


class OutOfTime(Exception):
    """A story took longer than it may."""


@dataclass(slots=True)
class Told:
    """What a story came to. Shape: `fatal` if it makes no sense to measure this contender again."""

    figures: dict[str, float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    fatal: bool = False

    @contextmanager
    def step(self, name: str, stage: Stage) -> Iterator[None]:
        """What fails in here is a problem of this step alone, unless an end of the tunnel is gone."""
        try:
            yield
        except (ContenderFailed, TimeoutError) as error:
            if not stage.ended():
                self.problems.append(f"{name}: {error}")
        if gone := stage.ended():
            raise ContenderFailed(f"{name}: {gone}")

    def to_dict(self) -> dict[str, Any]:
        return {"figures": self.figures, "problems": self.problems, "fatal": self.fatal}


Story = Callable[[Round, Told], None]


def stories(groups: tuple[str, ...]) -> list[Story]:
    """What has to be played to measure these groups; each needs a lab of its own."""
    wanted = set(groups)
    found: list[Story] = [_good_line] if wanted & {"tcp", "cost", "packets", "trips"} else []
    found += [_bad_links] if "links" in wanted else []
    return found + ([_without_gro] if "no-gro" in wanted else [])


def played(story: Story, order: Round, bound: float, _conductor: object) -> dict[str, Any]:
    """What came of a story (`Told`), as a value: a contender's failure must not end the others."""
    told = Told()
    signal.signal(signal.SIGALRM, partial(_out_of_time, bound))
    signal.setitimer(signal.ITIMER_REAL, bound)
    try:
        story(order, told)
    except (ContenderFailed, OutOfTime, TimeoutError) as error:
        told.problems.append(str(error))
        told.fatal = True
    signal.setitimer(signal.ITIMER_REAL, 0)
    return told.to_dict()


def _out_of_time(bound: float, _number: int, _frame: FrameType | None) -> None:
    raise OutOfTime(f"not done after {bound:.0f} s")


def expected_seconds(story: Story, order: Round) -> float:
    """How long a story takes where nothing is in its way."""
    groups, other = set(order.groups), 0.0
    if story is _good_line:
        runs = 4 if "tcp" in groups else 2 if "cost" in groups else 0
        other = sum(seconds for group, seconds in SECONDS_OF.items() if group in groups)
    else:
        runs = len(BAD_LINKS) if story is _bad_links else 2
    return SECONDS_BEFORE_TCP + order.contender.settle + runs * (order.seconds + SECONDS_WITH_TCP) + other


def longest_seconds(story: Story, order: Round) -> float:
    """When a story is given up."""
    return PATIENCE * expected_seconds(story, order) + 30.0


def _good_line(order: Round, told: Told) -> None:
    with Lab.build(plan_lab(load_topology("line"))) as lab:
        stage = Stage(lab, order)
        told.figures |= stage.start()
        if "tcp" in order.groups or "cost" in order.groups:
            _one_stream_and_cost(stage, told)
        if "tcp" in order.groups:
            _throughput(stage, told, "_4", streams=4)
        for name, usage in stage.usage().items():
            told.figures[f"memory_{name}"] = usage.memory_mib
        if "packets" in order.groups:
            _small_packets(stage, told)
        if "trips" in order.groups:
            _round_trips(stage, order, told)


def _bad_links(order: Round, told: Told) -> None:
    """The same line, carried by the engine."""
    request = LabRequest(links=(LinkRequest("client", "isp"),))
    with Lab.build(plan_lab(load_topology("line"), request)) as lab:
        stage = Stage(lab, order)
        stage.start()
        for key, impairment in BAD_LINKS.items():
            with told.step(key, stage):
                lab.set_link("client", "isp", None, impairment)
                told.figures[key] = stage.tcp(streams=1, down=False).bit_s / GIGA


def _without_gro(order: Round, told: Told) -> None:
    """The same line between network cards that hand over every frame as it came."""
    with Lab.build(_no_gro(plan_lab(load_topology("line")))) as lab:
        stage = Stage(lab, order)
        stage.start()
        _throughput(stage, told, "_no_gro", streams=1)


def _no_gro(plan: LabPlan) -> LabPlan:
    nodes = [
        replace(node, interfaces=tuple(replace(interface, gro=False) for interface in node.interfaces))
        for node in plan.nodes
    ]
    return replace(plan, nodes=tuple(nodes))


def _throughput(stage: Stage, told: Told, suffix: str, *, streams: int) -> int:
    """Both directions, one after the other; how many octets the receivers got."""
    octets = 0
    for way, down in (("up", False), ("down", True)):
        with told.step(f"tcp_{way}{suffix}", stage):
            received = stage.tcp(streams=streams, down=down)
            told.figures[f"tcp_{way}{suffix}"] = received.bit_s / GIGA
            octets += received.octets
    return octets


def _one_stream_and_cost(stage: Stage, told: Told) -> None:
    before = stage.usage()
    octets = _throughput(stage, told, "_1", streams=1)
    used = {name: usage.cpu_seconds - before[name].cpu_seconds for name, usage in stage.usage().items()}
    if used and octets and {"tcp_up_1", "tcp_down_1"} <= set(told.figures):
        told.figures |= {f"cpu_{name}": seconds / (octets / GIGA) for name, seconds in used.items()}
        told.figures["cpu_both"] = sum(used.values()) / (octets / GIGA)


def _small_packets(stage: Stage, told: Told) -> None:
    with told.step("packets", stage):
        flooded = stage.send(FLOOD_RATE, PROBE_SECONDS)
        told.figures["packets_flooded"] = flooded.delivered / 1e3
        told.figures["packets"] = highest_clean_rate(lambda rate: stage.send(rate, PROBE_SECONDS), flooded) / 1e3


def _round_trips(stage: Stage, order: Round, told: Told) -> None:
    with told.step("rtt", stage):
        told.figures |= _trips_figures("rtt", stage.trips(TRIPS))
    with told.step("rtt_paced", stage):
        told.figures |= _trips_figures("rtt_paced", stage.pings(PINGS, PING_INTERVAL))
    with told.step("rtt_load", stage):
        lasts = LOAD_FILLS_SECONDS + PINGS_UNDER_LOAD * PING_INTERVAL + 0.5
        with stage.stream(streams=1, down=False, seconds=round(lasts + 0.5)) as stream:
            time.sleep(LOAD_FILLS_SECONDS)  # until the stream has filled what there is to fill
            pings = stage.pings(PINGS_UNDER_LOAD, PING_INTERVAL)
            rate = stream.received(lasts + order.seconds + 30.0).bit_s
        told.figures |= _trips_figures("rtt_load", pings)
        told.figures["rtt_load_lost"] = 100 * (1 - len(pings) / PINGS_UNDER_LOAD)
        told.figures["rtt_load_rate"] = rate / GIGA


def _trips_figures(key: str, microseconds: list[float]) -> dict[str, float]:
    return {f"{key}_median": percentile(microseconds, 0.5), f"{key}_p99": percentile(microseconds, 0.99)}
