"""Octets per second of the verdict's search for every text in every form, beside a pass per form and a plain copy.

Two buffers: random octets, which is what a tunnel's capture mostly holds, and text like HTTP's, in which words of the
needles are common. The needles are the canaries of a run and a few host names. The copy is what memory itself gives
one thread of Python; the pass per form is what the search would be with `bytes.find` alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from testbed.verdict import scan
from testbed.verdict.needles import Pattern, patterns
from tests.bench.measured import Contestant, Table, compared, interleaved

NAMES = ("www.example.com", "www.example.org", "intranet.example.com")
HTTP = b"GET /index.html HTTP/1.1\r\nHost: www.example.net\r\nUser-Agent: some/1.0\r\nAccept: */*\r\n\r\n<p>words</p>\n"
NOTES = {
    "one pass for all": "as the verdict searches",
    "a pass per form": "bytes.find for each, a part of the buffer",
    "copy": "memory itself",
}


@dataclass(frozen=True, slots=True)
class Size:
    rounds: int = 5
    octets: int = 100_000_000
    needles: int = 40
    found_one_by_one: int = 10  # the slow way gets that part of the buffer


SMALL = Size(rounds=1, octets=2_000_000, needles=3, found_one_by_one=2)


def measure(size: Size) -> list[Table]:
    draw = random.Random(1)
    canaries = [draw.randbytes(16).hex() for _ in range(size.needles)]
    wanted = [pattern for text in (*canaries, *NAMES) for pattern in patterns(text)]
    kinds = {"random octets": draw.randbytes(size.octets), "text like HTTP": HTTP * (size.octets // len(HTTP))}
    return [_table(name, buffer, wanted, size) for name, buffer in kinds.items()]


def _table(name: str, buffer: bytes, wanted: list[Pattern], size: Size) -> Table:
    part = buffer[: len(buffer) // size.found_one_by_one]
    numbered = list(enumerate(wanted))
    contestants: dict[str, Contestant] = {
        "one pass for all": _rate(buffer, lambda: scan.by_words(buffer, numbered, _take, 100)),
        "a pass per form": _rate(part, lambda: _form_by_form(part, numbered)),
        "copy": _rate(buffer, lambda: bytearray(buffer)),
    }
    rows = compared(interleaved(contestants, size.rounds), "MB/s", "a pass per form", NOTES)
    return Table(f"search: {len(wanted)} forms in {len(buffer) / 1e6:.0f} MB of {name}", tuple(rows))


def _form_by_form(buffer: bytes, numbered: list[tuple[int, Pattern]]) -> None:
    folded = buffer.lower()
    scan.one_by_one(buffer, lambda: folded, numbered, _take, 100)


def _take(_: int, __: int) -> bool:
    return True


def _rate(buffer: bytes, work: Callable[[], object]) -> Contestant:
    def run() -> float:
        started = time.perf_counter()
        work()
        return len(buffer) / 1e6 / (time.perf_counter() - started)

    return run
