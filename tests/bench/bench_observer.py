"""Packets per second of the observer beside tshark's, on one capture made by real programs, and the same answers.

tshark prints, per frame, the fields from which our questions are answered: addresses, streams, DNS names, HTTP hosts
and URLs, server names. Both are timed as processes, start included, in CPU seconds and in wall time. Answers are
compared once: names, hosts, URLs, server names and the number of TCP and UDP conversations.

The observer is compiled beforehand, as an installed program is and as tshark is: a checkout with
PYTHONDONTWRITEBYTECODE, as tests have it, would compile all of it each time it starts.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.measured import Contestant, Table, compared, interleaved, program_output
from tests.lab.two_nodes import ROOT, run_apart

LOAD = Path(__file__).with_name("observed_load.py")
FIELDS = {
    "dns-name": "dns.qry.name",
    "http-host": "http.host",
    "http-url": "http.request.full_uri",
    "tls-name": "tls.handshake.extensions_server_name",
    "tcp": "tcp.stream",
    "udp": "udp.stream",
}
OBSERVE = """
import gc, json, os, resource, sys
from collections import Counter
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # this and the next as the command line does
from testbed.observer import observe
found = observe(sys.argv[1], keep_streams=False)
gc.freeze()
answers = {kind: sorted({s.value for s in found.sightings.of(kind)})
           for kind in ("dns-name", "http-host", "http-url", "tls-name")}
protocols = Counter(flow.protocol for flow in found.flows)
print(json.dumps({"frames": found.frames, "octets": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                  **answers, **{protocol: protocols[protocol] for protocol in ("tcp", "udp")}}))
"""
OURS, THEIRS = "testbed's observer", "tshark"


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 3
    packets: tuple[int, ...] = (200_000, 2_000_000)


SMALL = Size(rounds=1, packets=(600,))


def measure(size: Size) -> list[Table]:
    return [table for packets in size.packets for table in _on_one_capture(packets, size.rounds)]


def _on_one_capture(packets: int, rounds: int) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        (directory / "packets").write_text(str(packets))
        recorded = run_apart(LOAD, "load", directory)
        return on_file(directory / "load.pcap", recorded["octets"], rounds)


def on_file(capture: Path, octets: int, rounds: int) -> list[Table]:
    """Both programs over one capture, in turns."""
    with tempfile.TemporaryDirectory(prefix="bytecode-") as compiled:
        ours = json.loads(program_output(*_observe(capture), cwd=ROOT, env=_environment(compiled)))
        _require_same_answers(ours, _answers_of_tshark(capture))
        wall: dict[str, list[float]] = {}
        cpu = interleaved(
            {
                THEIRS: _timed(_tshark(capture), ours["frames"], wall.setdefault(THEIRS, []), compiled),
                OURS: _timed(_observe(capture), ours["frames"], wall.setdefault(OURS, []), compiled),
            },
            rounds,
        )
    what = f"{ours['frames']:,} packets, {octets / 1e6:.0f} MB, {ours['tcp']:,} TCP connections"
    notes = {OURS: f"{ours['octets'] / 1e6:.0f} MB of memory at most; same names, hosts, URLs, server names, flows"}
    return [
        Table(f"Observer, {what}: per CPU second", tuple(compared(cpu, "packets/s", THEIRS, notes))),
        Table(f"Observer, {what}: per second on the clock", tuple(compared(wall, "packets/s", THEIRS, {}))),
    ]


def _observe(capture: Path) -> list[str]:
    return [sys.executable, "-c", OBSERVE, str(capture)]


def _tshark(capture: Path) -> list[str]:
    fields = ("frame.number", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", *FIELDS.values())
    return ["tshark", "-r", str(capture), "-T", "fields", *(word for field in fields for word in ("-e", field))]


def _environment(compiled: str) -> dict[str, str]:
    """Shape: `compiled` is a directory for what Python compiles"""
    mine = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**mine, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": compiled}


def _timed(argv: Sequence[str], frames: int, wall: list[float], compiled: str) -> Contestant:
    def once() -> float:
        before, started_at = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        program_output(*argv, cwd=ROOT, env=_environment(compiled))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall.append(frames / (time.perf_counter() - started_at))
        return frames / (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    return once


def _answers_of_tshark(capture: Path) -> dict[str, Any]:
    columns: dict[str, set[str]] = {name: set() for name in FIELDS}
    argv = ["tshark", "-r", str(capture), "-T", "fields", *(w for field in FIELDS.values() for w in ("-e", field))]
    for line in program_output(*argv).splitlines():
        for name, value in zip(FIELDS, line.split("\t"), strict=True):
            columns[name].update(filter(None, value.split(",")))
    counted = {name: len(columns.pop(name)) for name in ("tcp", "udp")}
    return {**{name: sorted(values) for name, values in columns.items()}, **counted}


def _require_same_answers(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Errors: RuntimeError naming the first question with two answers."""
    for question, answer in theirs.items():
        if ours[question] != answer:
            raise RuntimeError(f"{question}: the observer says {ours[question]!r:.300}, tshark {answer!r:.300}")
