"""`python -m tests.bench [NAME …] [--out DIR] [--small]`: run the benchmarks, print tables, write JSON.

Names: lab, run, tap, observer, search, dataplane, native; all of them unless some are given. All but it need root.
`--small` is for the smoke test: every part once, with sizes whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from tests.bench.measured import render, to_json

NAMES = ("lab", "run", "tap", "observer", "search", "dataplane", "native", "clients")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="directory of the JSON files")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run at all")
    order = parser.parse_args(arguments)
    unknown = sorted(set(order.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    order.out.mkdir(parents=True, exist_ok=True)
    for name in order.names or NAMES:
        benchmark = import_module(f"tests.bench.bench_{name}")
        tables = benchmark.measure(benchmark.SMALL if order.small else benchmark.Size())
        for table in tables:
            print(render(table), flush=True)
        (order.out / f"{name}.json").write_text(to_json(tables))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
