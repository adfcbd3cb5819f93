"""Our data path beside openvpn's, both at both ends of a tunnel through the shipped lab, in turns.

Every value is of a lab and a tunnel of its own. What counts are the ratios to the first row of each table: the same
kernel, the same links, the same minute. CPU seconds are those of both tunnel processes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.measured import Row, Table, compared
from tests.bench.tunnel_runs import (
    LARGER_BUFFERS,
    Contestant,
    bench_setup,
    openvpn_and,
    ours_and,
    round_trips,
    small_packets,
    throughput,
)
from tests.interop.tunnel_configs import make_keys
from tests.interop.tunnel_lab import OPENVPN, OURS

Measure = Callable[[Contestant], dict[str, float]]
LARGE_MTU = ("tun-mtu 48000", "mssfix 0")


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 3
    seconds: int = 4
    pings: int = 2000
    variants: bool = True


SMALL = Size(rounds=1, seconds=1, pings=20, variants=False)


def measure(size: Size) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        keys = make_keys(Path(folder) / "keys")
        return [*_main(keys, size), *_variants(keys, size)] if size.variants else _least(keys, size)


def _least(keys: Path, size: Size) -> list[Table]:
    two = {"openvpn": openvpn_and(bench_setup(keys)), "ours": ours_and(bench_setup(keys))}
    return _tables("TCP, AES-256-GCM over UDP", two, lambda c: throughput(c, size.seconds), size)


def _main(keys: Path, size: Size) -> list[Table]:
    setup = bench_setup(keys)
    everybody = {
        "openvpn": openvpn_and(setup),
        "openvpn, larger buffers": openvpn_and(bench_setup(keys, both=LARGER_BUFFERS)),
        "ours": ours_and(setup),
        "ours at the server, openvpn at the client": Contestant(OURS, OPENVPN, setup),
        "openvpn at the server, ours at the client": Contestant(OPENVPN, OURS, setup),
        "no tunnel": Contestant("", "", setup),
    }
    two = {name: everybody[name] for name in ("openvpn", "ours")}
    return [
        *_tables("TCP, AES-256-GCM over UDP, client to server", everybody, lambda c: throughput(c, size.seconds), size),
        *_tables("The same, server to client", two, lambda c: throughput(c, size.seconds, reverse=True), size),
        *_tables("The same, four streams", two, lambda c: throughput(c, size.seconds, streams=4), size),
        *_tables("UDP, 64 octets", two, lambda c: small_packets(c, size.seconds), size),
        *_tables("Round trip, idle", two, lambda c: round_trips(c, size.pings), size),
    ]


def _variants(keys: Path, size: Size) -> list[Table]:
    chacha = bench_setup(keys, cipher="CHACHA20-POLY1305")
    over_tcp, large = bench_setup(keys, proto="tcp"), bench_setup(keys, both=LARGE_MTU)
    plain = bench_setup(keys)
    pairs = {
        "CHACHA20-POLY1305": (openvpn_and(chacha), ours_and(chacha)),
        "Over TCP": (openvpn_and(over_tcp), ours_and(over_tcp)),
        "tun-mtu 48000": (openvpn_and(large), ours_and(large)),
        "No GRO at the end hosts": (openvpn_and(plain, gro=False), ours_and(plain, gro=False)),
    }
    return [
        table
        for title, (openvpn, ours) in pairs.items()
        for table in _tables(
            f"TCP: {title}", {"openvpn": openvpn, "ours": ours}, lambda c: throughput(c, size.seconds), size
        )
    ]


_UNITS = {
    "gbit": "Gbit/s",
    "cpu": "CPU s per GB",
    "kpps": "thousand packets/s",
    "median": "µs, median",
    "p99": "µs, 99 of 100",
}


def _tables(title: str, contestants: Mapping[str, Contestant], once: Measure, size: Size) -> list[Table]:
    """One table per kind of value, from the same runs; contestants take turns."""
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(size.rounds):
        for name, contestant in contestants.items():
            for kind, value in once(contestant).items():
                found.setdefault(kind, {}).setdefault(name, []).append(value)
    tables = []
    for kind, unit in _UNITS.items():
        measured = {name: values for name, values in found.get(kind, {}).items() if any(values)}
        if len(measured) > 1:
            rows: list[Row] = compared(measured, unit, "openvpn", {})
            tables.append(Table(f"{title}: {unit}", tuple(rows)))
    return tables
