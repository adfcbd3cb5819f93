"""A server of either kind in the shipped lab, with a crowd of clients that does as it is told."""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from testbed.lab.bubble import Bubble
from testbed.lab.build import Lab
from testbed.lab.model import LabRequest
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology
from tests.bench.crowd import SINK
from tests.interop.tunnel_configs import PUSH_SPLIT, Setup
from tests.interop.tunnel_lab import INNER_SERVER, READY, Program, TunnelLab

MOST_CLIENTS = 250
BUFFERS = ("sndbuf 4194304", "rcvbuf 4194304")
PATIENCE = 100.0
_COUNTERS = f"""
table ip crowd {{
    set carried {{ type ipv4_addr; size 1000; flags dynamic; counter; }}
    chain arriving {{
        type filter hook prerouting priority 0;
        iifname "tun0" ip daddr {SINK} update @carried {{ ip saddr }};
    }}
}}
"""


def crowd_setup(keys: Path, **changes: Any) -> Setup:
    rules = (f"max-clients {MOST_CLIENTS}", "connect-freq-initial 10000 1", *BUFFERS)
    return Setup(keys, PUSH_SPLIT, server_only=rules, **changes)


@dataclass(slots=True)
class CrowdLab:
    """One server and its crowd."""

    lab: TunnelLab
    server: Program
    crowd: Program
    orders: IO[str]
    answers: int = 0

    def ask(self, order: str, **words: Any) -> Any:
        """Gives an order and waits for its answer."""
        self.orders.write(json.dumps({"order": order, **words}) + "\n")
        self.orders.flush()
        self.answers += 1
        self.crowd.wait_for("\n", PATIENCE, count=self.answers)
        answer = self.crowd.text().splitlines()[self.answers - 1]
        if not answer.startswith("{"):
            raise RuntimeError(f"the crowd failed: {self.crowd.text()[-2000:]}")
        return json.loads(answer)

    @property
    def cpu_seconds(self) -> float:
        """Of the server, exact to the microsecond: its processor clock (clock_getcpuclockid(3))."""
        return time.clock_gettime(~self.server.process.pid << 3 | 2)

    def count_flooders(self) -> None:
        """From now on the server's kernel counts what each client's flood brings."""
        rules = self.lab.folder / "count.nft"
        rules.write_text(_COUNTERS)
        self.lab.output("vpn", "nft", "-f", str(rules))

    def forget_counts(self) -> None:
        self.lab.output("vpn", "nft", "flush", "set", "ip", "crowd", "carried")

    def counts(self) -> list[int]:
        """Octets of each client that has flooded since."""
        printed = self.lab.output("vpn", "nft", "list", "set", "ip", "crowd", "carried")
        return [int(octets) for octets in re.findall(r"counter packets \d+ bytes (\d+)", printed)]

    @property
    def resident_kilobytes(self) -> int:
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


@contextmanager
def _crowd_lab(lab: TunnelLab, program: str, setup: Setup) -> Iterator[CrowdLab]:
    config, fifo = lab.folder / "crowd.conf", lab.folder / "orders"
    config.write_text(setup.client())
    server = lab.tunnel(program, "vpn", setup.server())
    server.wait_for(READY)
    lab.output("vpn", "ip", "route", "add", "blackhole", f"{SINK}/32")
    lab.output("client", "mkfifo", str(fifo))
    lab.start("vpn", [sys.executable, "-m", "tests.bench.inner_source", str(server.process.pid)], "source").wait_for(
        "serving"
    )
    argv = f"exec {sys.executable} -m tests.bench.crowd {config} {INNER_SERVER} {server.process.pid} < {fifo}"
    crowd = lab.start("client", ["sh", "-c", argv], "crowd")
    with fifo.open("w") as orders:
        yield CrowdLab(lab, server, crowd, orders)


def with_crowd(program: str, setup: Setup, body: Callable[[CrowdLab], Any]) -> Any:
    """Builds a lab, starts the server `program` and a crowd, and returns what `body` found out (JSON)."""

    def run(_conductor: object) -> Any:
        plan = plan_lab(load_topology("client-isp-server"), LabRequest(resolvers={"client": ["192.168.0.1"]}))
        with tempfile.TemporaryDirectory() as name, Lab.build(plan) as lab:
            tunnels = TunnelLab(lab, Path(name))
            try:
                with _crowd_lab(tunnels, program, setup) as crowd:
                    return body(crowd)
            finally:
                tunnels.end()

    with Bubble() as bubble:
        return bubble.run(run)
