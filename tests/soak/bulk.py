"""Ten gigabytes through the batch data path, over a link that loses and reorders, while keys change: hashes must agree.

Half of it goes up over the inner IPv4, half comes down over the inner IPv6, in eight connections at once. The memory of
both ends is looked at before and after.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.lab.bubble import Bubble
from testbed.lab.build import Lab
from testbed.lab.model import LabRequest, LinkRequest
from testbed.lab.plan import plan_lab
from testbed.lab.topology import load_topology
from tests.interop.tunnel_configs import Setup
from tests.interop.tunnel_lab import INNER_SERVER, INNER_SERVER6, OURS, TunnelLab

_LINK = LinkRequest("isp", "transit", delay=0.001, loss=1.0, reorder=2.0)
_BULK = str(Path(__file__).resolve().parents[1] / "interop" / "bulk.py")
_STREAMS = 8
_SLOWEST_OCTETS_PER_SECOND = 500_000
_RENEGOTIATE_EVERY_S = 20


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """Units: octets in both directions together; seconds; KiB of the larger growth of the two ends."""

    octets: int
    equal: int
    streams: int
    renegotiations: int
    seconds: float
    growth_kib: int

    @property
    def good(self) -> bool:
        return self.equal == self.streams and self.renegotiations >= 1

    def summary(self) -> str:
        return (
            f"{self.octets:,} octets in {self.seconds:.0f} s, {self.equal} of {self.streams} hashes equal, "
            f"{self.renegotiations} renegotiations, memory growth {self.growth_kib} KiB"
        )


def bulk_soak(keys: Path, folder: Path, octets: int) -> BulkOutcome:
    """Run it in a lab of its own. Errors: LabFailed if a program ends, or nothing moves any more."""

    def run(_conductor: object) -> Any:
        request = LabRequest(links=(_LINK,), resolvers={"client": ["192.168.0.1"]})
        with Lab.build(plan_lab(load_topology("client-isp-server"), request)) as lab:
            tunnels = TunnelLab(lab, folder)
            try:
                return asdict(_carry(tunnels, keys, octets))
            finally:
                tunnels.end()

    with Bubble() as bubble:
        return BulkOutcome(**bubble.run(run))


def _carry(lab: TunnelLab, keys: Path, octets: int) -> BulkOutcome:
    setup = Setup(
        keys, push=(), server_only=(f"reneg-sec {_RENEGOTIATE_EVERY_S}", "verb 4"), client_only=("reneg-sec 0",)
    )
    server, client = lab.connect(OURS, setup.server(), OURS, setup.client())
    lab.start("vpn", ["python3", _BULK, "serve"], "bulk").wait_for("serving")
    _move(lab, "send", INNER_SERVER, 1_000_000)  # so that what a first batch lays out is no growth
    ends = (server.process.pid, client.process.pid)
    before, began = [_resident_kib(pid) for pid in ends], time.monotonic()
    equal = _move(lab, "send", INNER_SERVER, octets // 2) + _move(lab, "fetch", INNER_SERVER6, octets // 2)
    return BulkOutcome(
        octets=octets // 2 * 2,
        equal=equal,
        streams=2 * _STREAMS,
        renegotiations=server.text().count("new session key in use"),
        seconds=time.monotonic() - began,
        growth_kib=max(_resident_kib(pid) - kib for pid, kib in zip(ends, before, strict=True)),
    )


def _move(lab: TunnelLab, way: str, address: str, octets: int) -> int:
    """How many of the connections brought the same octets."""
    patience = 60 + octets / _SLOWEST_OCTETS_PER_SECOND
    printed = lab.output("client", "python3", _BULK, way, address, str(octets), str(_STREAMS), seconds=patience)
    return int(json.loads(printed.splitlines()[-1])["equal"])


def _resident_kib(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4
