"""`python -m tests.fuzz`: many datagrams in several processes, with progress, a summary and a reproducer on failure.

    --datagrams N   how many, 10,000,000 unless told
    --seed TEXT     another run; the same text gives the same episodes
    --jobs N        processes, as many as there are processors unless told
    --reproduce F   run the episode of a reproducer file again, alone
    --live N        instead: attack real tunnels for so many seconds, with real sockets and devices; as root

A process that finishes no episode within two minutes hangs: its episode is named, and the run has failed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from tests.fuzz.engine import SEED, Tally, fuzz, play_episode
from tests.fuzz.live import run_apart
from tests.fuzz.rig import Broken

_HANGS_AFTER_SECONDS = 120.0
_PROGRESS_SECONDS = 10.0


def main() -> int:
    """Exit code 0 if every rule held, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--datagrams", type=int, default=10_000_000)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--reproduce", type=Path)
    parser.add_argument("--live", type=float, metavar="SECONDS")
    parser.add_argument("--reproducer", type=Path, default=Path("build/fuzz-failure.json"), help="where a failure goes")
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    arguments.reproducer.parent.mkdir(parents=True, exist_ok=True)
    if arguments.live is not None:
        return _attack(arguments.live, arguments.seed)
    if arguments.reproduce is not None:
        return _reproduce(arguments.reproduce)
    return _run(arguments.seed, arguments.datagrams, max(1, arguments.jobs), arguments.reproducer)


def _reproduce(path: Path) -> int:
    known = json.loads(path.read_text())
    kind, trace, failure = play_episode(known["seed"], known["number"])
    print(f"episode {known['number']} of seed {known['seed']!r}: {kind}, {trace.what}, {trace.count} datagrams")
    print("it holds now" if failure is None else failure.error)
    return 0 if failure is None else 1


def _attack(seconds: float, seed: str) -> int:
    try:
        done = run_apart(seconds, 0, seed)
    except Broken as error:
        print(f"FAILED: {error}")
        return 1
    parts = ", ".join(f"{kind} {count}" for kind, count in done["attacks"].items())
    tunnels = sum(done["tunnels"].values())
    print(f"{done['thrown']:,} things thrown at {tunnels} tunnels in {done['seconds']:.0f} s: {parts}")
    return 0


class _Worker:
    """One process and where it stands."""

    def __init__(self, seed: str, datagrams: int, first: int, stride: int) -> None:
        self.number: Synchronized[int] = multiprocessing.Value("q", first)
        self.done: Synchronized[int] = multiprocessing.Value("q", 0)
        self.results, theirs = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.Process(
            target=_work, args=(seed, datagrams, first, stride, self.number, self.done, theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        self._seen, self._moved_at = -1, time.monotonic()

    @property
    def hangs(self) -> bool:
        if self.number.value != self._seen:
            self._seen, self._moved_at = self.number.value, time.monotonic()
        return time.monotonic() - self._moved_at > _HANGS_AFTER_SECONDS


def _work(
    seed: str,
    datagrams: int,
    first: int,
    stride: int,
    number: Synchronized[int],
    done: Synchronized[int],
    results: Connection,
) -> None:
    def progress(episode: int, count: int) -> None:
        number.value, done.value = episode, count

    results.send(fuzz(seed, datagrams, first=first, stride=stride, progress=progress))


def _run(seed: str, datagrams: int, jobs: int, reproducer: Path) -> int:
    began = time.monotonic()
    workers = [_Worker(seed, -(-datagrams // jobs), first, jobs) for first in range(jobs)]
    tallies: list[Tally] = []
    running = list(workers)
    told_at = began
    while running:
        ready = wait([worker.results for worker in running], timeout=1.0)
        for worker in [worker for worker in running if worker.results in ready]:
            tallies.append(worker.results.recv())
            running.remove(worker)
        if any(tally.failure for tally in tallies) or any(worker.hangs for worker in running):
            break
        if time.monotonic() - told_at >= _PROGRESS_SECONDS:
            told_at = time.monotonic()
            done = sum(worker.done.value for worker in workers)
            print(f"{done:,} of {datagrams:,} datagrams, {done / (told_at - began):,.0f} a second", flush=True)
    for worker in running:
        worker.process.terminate()
    return _report(seed, tallies, running, time.monotonic() - began, reproducer)


def _report(seed: str, tallies: list[Tally], unfinished: list[_Worker], seconds: float, reproducer: Path) -> int:
    kinds = sum((tally.datagrams for tally in tallies), Counter[str]())
    total, episodes = sum(kinds.values()), sum(tally.episodes for tally in tallies)
    parts = ", ".join(f"{kind} {count:,}" for kind, count in kinds.most_common())
    print(f"{total:,} datagrams in {episodes:,} episodes ({parts}), {seconds:.0f} s, {total / seconds:,.0f} a second")
    failures = [tally.failure for tally in tallies if tally.failure is not None]
    for failure in failures:
        failure.write(reproducer)
        print(
            f"FAILED in episode {failure.number} ({failure.kind}: {failure.what}), see {reproducer}:\n{failure.error}"
        )
    hanging = [worker for worker in unfinished if worker.hangs]
    for worker in hanging:
        print(f"HANGS in episode {worker.number.value} of seed {seed!r}")
    if hanging and not failures:
        content = {"seed": seed, "number": hanging[0].number.value, "error": "no end within two minutes"}
        reproducer.write_text(json.dumps(content) + "\n")
    return 1 if failures or hanging else 0


if __name__ == "__main__":
    sys.exit(main())
