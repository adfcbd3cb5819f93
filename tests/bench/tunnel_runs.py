"""One tunnel between client and vpn of the shipped lab, measured from inside: throughput, small packets, round trips.

Every measurement has a lab of its own and returns plain numbers, so that contestants can take turns. The processor time
is that of the two tunnel processes alone, as the kernel counts it.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.lab.bubble import Bubble
from testbed.lab.build import Lab
from testbed.lab.model import LabPlan, LabRequest
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup
from tests.interop.tunnel_lab import INNER_SERVER, OPENVPN, OURS, SERVER, Program, TunnelLab

_TICKS = os.sysconf("SC_CLK_TCK")
LARGER_BUFFERS = ("sndbuf 4194304", "rcvbuf 4194304", "txqueuelen 1000")


@dataclass(frozen=True, slots=True)
class Contestant:
    """Who is at which end, and with what configuration. Shape: `server` "" for no tunnel at all."""

    server: str
    client: str
    setup: Setup
    gro: bool = True


def ours_and(setup: Setup, **changes: Any) -> Contestant:
    return replace(Contestant(OURS, OURS, setup), **changes)


def openvpn_and(setup: Setup, **changes: Any) -> Contestant:
    return replace(Contestant(OPENVPN, OPENVPN, setup), **changes)


def bench_setup(keys: Path, **changes: Any) -> Setup:
    return Setup(keys, PUSH_SPLIT, **changes)


def throughput(contestant: Contestant, seconds: int, *, reverse: bool = False, streams: int = 1) -> dict[str, float]:
    """TCP through the tunnel. Returns `gbit` (Gbit/s received) and `cpu` (s per GB, both tunnel processes)."""
    words = ["-t", str(seconds), "-C", "cubic", "-P", str(streams), *(["-R"] if reverse else [])]

    def body(lab: TunnelLab, address: str, cpu: Callable[[], float]) -> dict[str, float]:
        _iperf(lab, address, "-n", "4M", "-C", "cubic")  # what happens once only, has happened
        before = cpu()
        received = _iperf(lab, address, *words)["end"]["sum_received"]
        return {
            "gbit": received["bits_per_second"] / 1e9,
            "cpu": (cpu() - before) / (received["bytes"] / 1e9),
        }

    return _measured(contestant, body)


def small_packets(contestant: Contestant, seconds: int, octets: int = 64) -> dict[str, float]:
    """UDP datagrams of `octets` as fast as they can be sent. Returns `kpps`: thousand received per second."""

    def body(lab: TunnelLab, address: str, cpu: Callable[[], float]) -> dict[str, float]:
        done = _iperf(lab, address, "-u", "-b", "0", "-l", str(octets), "-t", str(seconds))["end"]["sum"]
        return {"kpps": (done["packets"] - done["lost_packets"]) / done["seconds"] / 1e3, "lost": done["lost_percent"]}

    return _measured(contestant, body)


def round_trips(contestant: Contestant, count: int) -> dict[str, float]:
    """Ping with an idle tunnel. Returns `median` and `p99` in microseconds."""

    def body(lab: TunnelLab, address: str, cpu: Callable[[], float]) -> dict[str, float]:
        lab.output("client", "ping", "-n", "-c", "5", "-i", "0.01", address)
        printed = lab.output("client", "ping", "-n", "-c", str(count), "-i", "0.002", address, seconds=60)
        times = sorted(float(found) * 1000 for found in re.findall(r"time=([\d.]+) ms", printed))
        return {"median": statistics.median(times), "p99": times[int(len(times) * 0.99)]}

    return _measured(contestant, body)


def _measured(
    contestant: Contestant, body: Callable[[TunnelLab, str, Callable[[], float]], dict[str, float]]
) -> dict[str, float]:
    def run(_conductor: object) -> Any:
        with tempfile.TemporaryDirectory() as name, Lab.build(_plan(contestant)) as lab:
            tunnels = TunnelLab(lab, Path(name))
            try:
                return _in_lab(tunnels, contestant, body)
            finally:
                tunnels.end()

    with Bubble() as bubble:
        found: dict[str, float] = bubble.run(run)
    return found


def _in_lab(
    lab: TunnelLab, contestant: Contestant, body: Callable[[TunnelLab, str, Callable[[], float]], dict[str, float]]
) -> dict[str, float]:
    programs: tuple[Program, ...] = ()
    if contestant.server:
        setup = contestant.setup
        programs = lab.connect(contestant.server, setup.server(), contestant.client, setup.client())
    lab.start("vpn", ["iperf3", "-s", "--forceflush"], "iperf3").wait_for("Server listening")
    return body(lab, INNER_SERVER if programs else SERVER, lambda: sum(map(_cpu_seconds, programs)))


def _plan(contestant: Contestant) -> LabPlan:
    plan = plan_lab(load_topology("client-isp-server"), LabRequest(resolvers={"client": ["192.168.0.1"]}))
    if contestant.gro:
        return plan
    nodes = tuple(
        replace(node, interfaces=tuple(replace(interface, gro=False) for interface in node.interfaces))
        for node in plan.nodes
    )
    return replace(plan, nodes=nodes)


def _iperf(lab: TunnelLab, address: str, *words: str) -> Any:
    return json.loads(lab.output("client", "iperf3", "-c", address, "-J", *words, seconds=40))


def _cpu_seconds(program: Program) -> float:
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
