"""A server with many clients, ours beside openvpn's: what a packet costs with their number, whom a flood makes wait.

One process speaks for all clients (`crowd.py`), so that the machine's processors are the server's and the sender's.
What a packet costs is the server's own processor time over packets that were all carried; each round finds the server
with a backlog in which the clients' datagrams alternate: one at a time, the worst case, or forty, as a bulk sender's.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.crowd import INNER_OCTETS
from tests.bench.crowd_runs import CrowdLab, crowd_setup, with_crowd
from tests.bench.measured import Row, Table
from tests.interop.tunnel_configs import make_keys
from tests.interop.tunnel_lab import OPENVPN, OURS

PROGRAMS = {OPENVPN: "openvpn", OURS: "ours"}
KINDS = {
    "up-1": "to the server, the clients' packets in turns",
    "up-40": "to the server, forty of a client in turns",
    "down-1": "to the clients, one each in turns",
    "down-40": "to the clients, forty each in turns",
}
FLOODERS, LIGHT = 4, 2
Found = dict[str, dict[str, float]]  # by table, then by row


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 3
    steps: Sequence[int] = (1, 2, 10, 50, 200)
    packets: int = 24000
    seconds: float = 1.5
    joining: int = 20
    rate_mbit: int = 4000


SMALL = Size(rounds=1, steps=(1, 2), packets=480, seconds=0.3, joining=1, rate_mbit=200)


def measure(size: Size) -> list[Table]:
    values: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        keys = make_keys(Path(folder) / "keys")
        for _ in range(size.rounds):
            for program, name in PROGRAMS.items():
                found: Found = with_crowd(program, crowd_setup(keys), lambda crowd: _one_server(crowd, size))
                for title, rows in found.items():
                    for row, value in rows.items():
                        values.setdefault(title, {}).setdefault(f"{name}, {row}", []).append(value)
    return [Table(title, tuple(_rows(title, rows))) for title, rows in values.items()]


def _rows(title: str, rows: dict[str, list[float]]) -> list[Row]:
    """Each of ours with the ratio to the same of openvpn's."""
    unit = title.rpartition(": ")[2]
    found = []
    for name, values in rows.items():
        base = name.replace(f"{PROGRAMS[OURS]}, ", f"{PROGRAMS[OPENVPN]}, ", 1)
        middle = statistics.median(rows[base]) if base in rows else 0.0
        ratio = statistics.median(values) / middle if base != name and middle else None
        found.append(Row(name, unit, tuple(values), "" if ratio is None else base, ratio))
    return found


def _one_server(crowd: CrowdLab, size: Size) -> Found:
    return {**_costs(crowd, size), **_floods(crowd, size)}


# -- what a packet and a client cost ----------------------------------------------------------------------------------


def _costs(crowd: CrowdLab, size: Size) -> Found:
    found: Found = {
        f"CPU of the server, packets of {INNER_OCTETS} octets {title}: µs each": {} for title in KINDS.values()
    }
    resident = {}
    for clients in size.steps:
        crowd.ask("connect", clients=clients)
        crowd.ask("up", packets=2400, burst=40)  # what is loaded with the first large batch has been
        for (kind, _), rows in zip(KINDS.items(), found.values(), strict=True):
            way, _, burst = kind.partition("-")
            crowd.ask(way, packets=960, burst=int(burst))
            before = crowd.cpu_seconds
            carried = crowd.ask(way, packets=size.packets, burst=int(burst))
            if carried["packets"] < carried.get("asked", 0):
                raise RuntimeError(f"packets were lost: {carried}")
            rows[f"{clients} clients"] = (crowd.cpu_seconds - before) / carried["packets"] * 1e6
        resident[clients] = crowd.resident_kilobytes
    least, most = min(size.steps[1:]), max(size.steps)
    if most > least:
        grown = (resident[most] - resident[least]) / (most - least)
        found["Memory of the server: kB per client"] = {f"from {least} to {most} clients": grown}
    return found


# -- whom a flood makes wait ------------------------------------------------------------------------------------------


def _floods(crowd: CrowdLab, size: Size) -> Found:
    crowd.ask("connect", clients=max(*size.steps, FLOODERS + LIGHT))
    crowd.count_flooders()
    idle, one = {"heavy": 0, "burst": 1}, {"heavy": 1, "burst": 40}
    common: dict[str, Any] = {"seconds": size.seconds, "light": LIGHT}
    quiet = crowd.ask("flood", **common, **idle)
    crowd.ask("flood", **common, **one)
    up = crowd.ask("flood", **common, **one)
    joins = {
        "idle": crowd.ask("flood", **common, **idle, join=size.joining),
        "one client sends all it can": crowd.ask("flood", **common, **one, join=size.joining),
    }
    renewals = {
        "idle": crowd.ask("flood", **common, **idle, renegotiate=True),
        "one client sends all it can": crowd.ask("flood", **common, **one, renegotiate=True),
    }
    crowd.forget_counts()
    crowd.ask("flood", **common, heavy=FLOODERS, burst=40)
    shares = crowd.counts()
    down = _while_flooded(crowd, size)
    pings = {"idle": quiet, "one client sends all it can": up, "much more comes for one than it is given": down}
    return {
        "Another client's ping, median: ms": {name: _ms(run["round_trips"], 0.5) for name, run in pings.items()},
        "Another client's ping, 99 of 100: ms": {name: _ms(run["round_trips"], 0.99) for name, run in pings.items()},
        "Another client's ping, lost: %": {
            name: 100 * (1 - run["answered"] / run["asked"]) for name, run in pings.items()
        },
        "A new client's handshake: ms": {name: _ms(run["joined"], 0.5) for name, run in joins.items()},
        "A renegotiation: ms": {name: run["renewed_after"] * 1e3 for name, run in renewals.items()},
        "Jain's index of what four get that send all they can: of 1": {"four clients": _jain(shares)},
    }


def _while_flooded(crowd: CrowdLab, size: Size) -> Any:
    """Pings of the last clients while the first one is sent more than any of the servers carries."""
    address = crowd.ask("addresses")["addresses"][0]
    argv = [sys.executable, "-m", "tests.bench.inner_source", str(size.seconds + 1), str(size.rate_mbit), address]
    flood = crowd.lab.start("vpn", argv, "flood")
    flood.wait_for("sending")
    run = crowd.ask("flood", seconds=size.seconds, light=LIGHT, heavy=0, burst=1)
    flood.wait()
    return run


def _ms(seconds: Sequence[float], part: float) -> float:
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e3


def _jain(shares: Sequence[float]) -> float:
    return sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares))
