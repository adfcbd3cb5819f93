"""The parsers under atheris, which looks at what code an input reaches: `python -m tests.fuzz.atheris_target`.

The first octet picks the parser, the rest is its input. Arguments go to libFuzzer (`-max_total_time=60`). atheris is no
dependency of the project: `make fuzz` installs it beside the environment if there is a wheel for this Python.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

CORPUS = Path("build/fuzz-corpus")


def main() -> None:
    """Runs until libFuzzer ends the process; a finding is written to the working directory as crash-…"""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["vpn"]):
        from tests.fuzz.corpus import recorded_datagrams
        from tests.fuzz.parsers import all_targets
    targets = all_targets()

    def feed(untrusted: bytes) -> None:
        if untrusted:
            targets[untrusted[0] % len(targets)].feed(untrusted[1:])

    # kept: libFuzzer adds what it finds interesting, and goes on from there next time
    CORPUS.mkdir(parents=True, exist_ok=True)
    for number, target in enumerate(targets):
        for which, seed in enumerate(target.corpus or recorded_datagrams()[::40]):
            (CORPUS / f"{number}-{which}").write_bytes(bytes((number,)) + seed)
    atheris.Setup([*sys.argv, str(CORPUS)], feed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
