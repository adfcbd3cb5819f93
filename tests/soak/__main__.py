"""`python -m tests.soak SECONDS`: each pair of programs for so long, a line each; exit code 1 if one fails."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.interop.tunnel_configs import make_keys
from tests.soak.soak import Outcome, Plan, soak
from tests.soak.test_soak import MOST_GROWTH_KIB, PAIRS


def main() -> int:
    """Needs root. The programs' logs stay in a temporary directory if something fails."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="tunnels over a bad link, for a long time"
    )
    parser.add_argument("seconds", type=float, help="for each pair of programs")
    seconds = parser.parse_args().seconds
    folder = Path(tempfile.mkdtemp(prefix="vpn-soak-"))
    keys = make_keys(folder / "keys")
    failed = False
    for server, client in PAIRS:
        name = f"{client} client to {server} server"
        print(f"{name}: {seconds:g} seconds …", flush=True)
        own = folder / f"{client}-to-{server}"
        own.mkdir()
        try:
            outcome = soak(keys, own, server, client, Plan(seconds, *_pace(seconds)))
        except Exception as error:  # whatever ends one pair is told, and the next one runs
            print(f"FAILED {name}: {error}")
            failed = True
            continue
        wrong = _wrong(outcome)
        failed |= bool(wrong)
        print(f"{'FAILED' if wrong else 'good'}: {name}: {outcome.summary()}{''.join(f'; {text}' for text in wrong)}")
    print(f"logs: {folder}")
    return 1 if failed else 0


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
