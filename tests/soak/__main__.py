"""`python -m tests.soak SECONDS`: all pairs of programs side by side, a line each; exit code 1 if one fails."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.interop.tunnel_configs import make_keys
from tests.soak.bulk import bulk_soak
from tests.soak.soak import Outcome, Plan, soak
from tests.soak.test_soak import MOST_GROWTH_KIB, PAIRS


def main() -> int:
    """Needs root. The programs' logs stay in a temporary directory if something fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="tunnels over a bad link, for a long time"
    )
    parser.add_argument("seconds", type=float, help="for all pairs of programs, side by side")
    parser.add_argument("--pair", metavar="SERVER:CLIENT", help="this pair alone")
    parser.add_argument("--bulk", metavar="OCTETS", type=int, default=0, help="then move so much through our pair")
    options = parser.parse_args()
    if options.pair:
        server, _, client = options.pair.partition(":")
        return _one_pair(server, client, options.seconds)
    module = [sys.executable, "-m", "tests.soak", str(options.seconds)]
    pairs = [subprocess.Popen([*module, "--pair", f"{server}:{client}"]) for server, client in PAIRS]
    worst = max(pair.wait() for pair in pairs)
    return max(worst, _bulk(options.bulk)) if options.bulk else worst


def _bulk(octets: int) -> int:
    folder = Path(tempfile.mkdtemp(prefix="vpn-bulk-"))
    print(f"our pair, {octets:,} octets …, logs in {folder}", flush=True)
    try:
        outcome = bulk_soak(make_keys(folder / "keys"), folder, octets)
    except Exception as error:  # told in a line, as for the pairs
        print(f"FAILED bulk: {error}", flush=True)
        return 1
    print(f"{'good' if outcome.good else 'FAILED'}: bulk: {outcome.summary()}", flush=True)
    return 0 if outcome.good else 1


def _one_pair(server: str, client: str, seconds: float) -> int:
    folder = Path(tempfile.mkdtemp(prefix="vpn-soak-"))
    name = f"{client} client to {server} server"
    print(f"{name}: {seconds:g} seconds …, logs in {folder}", flush=True)
    try:
        outcome = soak(make_keys(folder / "keys"), folder, server, client, Plan(seconds, *_pace(seconds)))
    except Exception as error:  # whatever ends a pair is told in a line
        print(f"FAILED {name}: {error}", flush=True)
        return 1
    wrong = _wrong(outcome)
    told = "".join(f"; {text}" for text in wrong)
    print(f"{'FAILED' if wrong else 'good'}: {name}: {outcome.summary()}{told}", flush=True)
    return 1 if wrong else 0


def _pace(seconds: float) -> tuple[int, float]:
    """Renegotiation every 20 s and a move every 45 s, more often in a run too short for several of them."""
    return (20, 45.0) if seconds >= 180 else (max(3, int(seconds / 6)), max(4.0, seconds / 4))


def _wrong(outcome: Outcome) -> list[str]:
    rules = {
        "octets were lost": bool(outcome.problems),
        "the client started anew": outcome.restarts > 0,
        "a move was not followed": outcome.floats < outcome.moves,
        "no renegotiation": outcome.renegotiations < 1,
        "memory grows": max(outcome.growth_kib.values()) >= MOST_GROWTH_KIB,
    }
    return [text for text, holds in rules.items() if holds] + outcome.problems


if __name__ == "__main__":
    sys.exit(main())
