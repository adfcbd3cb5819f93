"""`python -m tests.fuzz.live`: attacks on real tunnels, in namespaces of their own; what `--live` of the fuzzer starts.

    --seconds N     how long, 60 unless told
    --rounds N      instead of a time: how many rounds of each kind of tunnel
    --seed TEXT     another run

Each round takes a few attacks of `hostilities`, lets the tunnel take them in, and then asks of it what it did before:
numbered packets through both ends, each once, in the same sessions, with no more descriptors than before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz.engine import SEED
from tests.fuzz.hostilities import OF_TCP, OF_UDP, Strangers
from tests.fuzz.mutation import Mutator
from tests.fuzz.rig import Broken, Tunnel, enter

KINDS = (
    ("udp", "tls-crypt"), ("udp", "none"), ("tcp", "tls-crypt"), ("udp", "tls-crypt-v2"), ("static-udp", "none"),
    ("tcp", "tls-auth"), ("static-tcp", "none"),
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[2]
_ROUNDS = 12  # with one tunnel
_ATTACKS = 4  # in one round, at most


def attack(seed: str, number: int, rounds: int) -> tuple[str, Counter[str], int]:
    """One tunnel and its rounds: what it was, how often each attack came, how many things were thrown."""
    mutator = Mutator(f"live/{seed}/{number}")
    kind, wrapping = KINDS[number % len(KINDS)]
    tunnel = Tunnel(kind, wrapping, clients=1 if kind.startswith("static") else 2)
    strangers = Strangers(tunnel, mutator)
    attacks = OF_TCP if kind.endswith("tcp") else OF_UDP
    done: Counter[str] = Counter()
    name, thrown = f"tunnel {number} of seed {seed!r}: {kind}, {wrapping}", 0
    try:
        tunnel.connect()
        for place in range(rounds):
            for _ in range(1 + mutator.below(_ATTACKS)):
                chosen = mutator.pick(attacks)
                done[chosen.__name__] += 1
                chosen(strangers)
            name = f"tunnel {number} of seed {seed!r}: {kind}, {wrapping}, round {place}: {dict(done)}"
            tunnel.exchange()
            tunnel.check()
            _check_descriptors(len(strangers.connections), len(tunnel.ends))
        thrown = strangers.thrown
    except Exception as error:
        raise Broken(f"{name}\n{traceback.format_exc()}") from error
    finally:
        strangers.close()
        tunnel.close()
    return kind, done, thrown


def _check_descriptors(strangers: int, ends: int) -> None:
    """Nothing piles up: a few for each end, and what strangers hold at the most, on both sides."""
    count = len(os.listdir("/proc/self/fd"))
    if count > 40 + 6 * ends + 2 * strangers + 2 * 40:
        raise Broken(f"{count} descriptors with {strangers} strangers connected")


def run_apart(seconds: float, rounds: int, seed: str) -> dict[str, Any]:
    """The same in fresh namespaces; returns what was done. Errors: Broken, with what the program said."""
    argv = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, "-m"]
    options = ["--seconds", str(seconds), "--rounds", str(rounds), "--seed", seed, "--inside"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*argv, "tests.fuzz.live", *options], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise Broken(done.stdout[-2000:] + done.stderr[-6000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _inside(seconds: float, rounds: int, seed: str) -> dict[str, Any]:
    enter()
    attacks: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    thrown = number = 0
    began = time.monotonic()
    while number < len(KINDS) if rounds else time.monotonic() - began < seconds:
        kind, done, count = attack(seed, number, rounds or _ROUNDS)
        attacks += done
        kinds[kind] += 1
        thrown, number = thrown + count, number + 1
    return {"tunnels": dict(kinds), "attacks": dict(attacks), "thrown": thrown, "seconds": time.monotonic() - began}


def main() -> int:
    """Exit code 0 if every tunnel held, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.live", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seed", default=SEED)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("error")
    try:
        run = _inside if arguments.inside else run_apart
        print(json.dumps(run(arguments.seconds, arguments.rounds, arguments.seed)))
    except Broken as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
