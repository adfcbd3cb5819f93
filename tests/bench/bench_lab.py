"""How long a lab takes to build and to drop: beside Mininet, and as it grows.

Mininet is the distribution's own, run by the system's Python on a machine of its own (fresh namespaces), with hosts
only and no controller: client - router - server with the same two links. Its imports are not counted, nor are ours.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from mininet.topo import Topo

from testbed.lab.bubble import Bubble, Conductor
from testbed.lab.build import Lab
from testbed.lab.plan import LabPlan, plan_lab
from testbed.lab.topology import load_topology
from tests.bench.measured import Contestant, Row, Table, compared, interleaved, program_output

MININET = Path(__file__).with_name("mininet_lab.py")
APART = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c")
OWN_MACHINE = 'mount -t tmpfs tmpfs /run && mount -t sysfs sysfs /sys && ip link set lo up && exec "$@"'


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 5
    builds_per_round: int = 10
    chains: tuple[int, ...] = (10, 100, 300, 1000)


SMALL = Size(rounds=1, builds_per_round=1, chains=(4,))


class ClientRouterServer(Topo):  # type: ignore[misc]  # mininet has no types
    def build(self) -> None:
        self.addHost("client", ip="10.0.1.2/24", defaultRoute="via 10.0.1.1")
        self.addHost("router", ip="10.0.1.1/24", forwards=True)
        self.addHost("server", ip="10.0.2.2/24", defaultRoute="via 10.0.2.1")
        self.addLink("client", "router", params1={"ip": "10.0.1.2/24"}, params2={"ip": "10.0.1.1/24"})
        self.addLink("router", "server", params1={"ip": "10.0.2.1/24"}, params2={"ip": "10.0.2.2/24"})


class Chain(Topo):  # type: ignore[misc]
    """`count` nodes in a row, dual stack."""

    def build(self, count: int = 2) -> None:
        for number in range(count):
            self.addHost(f"n{number}", ip=None, forwards=True)
        for number in range(count - 1):
            high, low = divmod(number, 250)
            prefixes = f"10.{high}.{low}", f"2001:db8:{number:x}::"
            left, right = ({"ip": f"{prefixes[0]}.{end}/24", "ip6": f"{prefixes[1]}{end}/64"} for end in (1, 2))
            self.addLink(f"n{number}", f"n{number + 1}", params1=left, params2=right)


def measure(size: Size) -> list[Table]:
    return [_beside_mininet(size), _growth(size)]


def _beside_mininet(size: Size) -> Table:
    small = plan_lab(ClientRouterServer())
    shipped = plan_lab(load_topology("client-isp-server"))
    contestants = {
        "Mininet, client–router–server": lambda: _mininet_ms(size.builds_per_round),
        "testbed, client–router–server": lambda: _lab_ms(small, size.builds_per_round),
        "testbed, the same, with its bubble": lambda: _bubble_ms(small),
        "testbed, shipped topology (6 nodes, NAT)": lambda: _lab_ms(shipped, size.builds_per_round),
    }
    measured = interleaved(contestants, size.rounds)
    notes = {name: f"median of {size.builds_per_round} builds a round" for name in contestants if "bubble" not in name}
    rows = compared(measured, "ms", "Mininet, client–router–server", notes)
    return Table("A lab built and dropped", tuple(rows))


def _growth(size: Size) -> Table:
    rounds = min(size.rounds, 3)
    plans = {count: plan_lab(Chain(count=count)) for count in size.chains}
    measured = interleaved({str(count): _per_node(plan) for count, plan in plans.items()}, rounds)
    rows = [
        Row(f"chain of {count} nodes", "ms per node", tuple(values), note=f"{len(plans[int(count)].links)} links")
        for count, values in measured.items()
    ]
    return Table("Growth: built and dropped, per node", tuple(rows))


def _per_node(plan: LabPlan) -> Contestant:
    return lambda: _lab_ms(plan, 1) / len(plan.nodes)


def _lab_ms(plan: LabPlan, builds: int) -> float:
    """Milliseconds of one build and drop, inside a bubble that is there already."""

    def inside(_conductor: Conductor) -> float:
        times = []
        for _ in range(builds):
            started_at = time.perf_counter()
            Lab.build(plan).close()
            times.append(time.perf_counter() - started_at)
        return statistics.median(times) * 1000

    with Bubble() as bubble:
        return float(bubble.run(inside))


def _bubble_ms(plan: LabPlan) -> float:
    started_at = time.perf_counter()
    with Bubble() as bubble:
        bubble.run(lambda _conductor: Lab.build(plan).close())
    return (time.perf_counter() - started_at) * 1000


def _mininet_ms(builds: int) -> float:
    argv = ("/usr/bin/python3", str(MININET), str(builds))
    environment = {"PATH": os.environ["PATH"], "HOME": "/root"}
    printed = program_output(*APART, OWN_MACHINE, "sh", *argv, env=environment)
    seconds: list[float] = json.loads(printed.splitlines()[-1])
    return statistics.median(seconds) * 1000
