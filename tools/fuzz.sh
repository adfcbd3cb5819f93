#!/usr/bin/env bash
# Ten million generated datagrams for the tunnel's parsers and cores, then the parsers under a coverage-guided fuzzer.
#   DATAGRAMS=N  how many (about 18,000 a second on one processor of 2020, so ten million take five minutes on two)
#   SEED=TEXT    another run; the same text gives the same episodes
#   ATHERIS_SECONDS=N  how long the coverage-guided part runs; 0 leaves it out
# A failure is written to build/fuzz-failure.json; run it again with: .venv/bin/python -m tests.fuzz --reproduce build/fuzz-failure.json
set -euo pipefail
. "$(dirname "$0")/common.sh"

tools/venv.sh test
as_owner .venv/bin/python -m tests.fuzz --datagrams "${DATAGRAMS:-10000000}" ${SEED:+--seed "$SEED"}

seconds=${ATHERIS_SECONDS:-60}
[ "$seconds" != 0 ] || exit 0
# Not among the locked dependencies: it has wheels for few versions of Python, and nothing else needs it.
if [ ! -d build/atheris ] && ! as_owner .venv/bin/python -m pip install --quiet --only-binary :all: --target build/atheris atheris; then
    say "The coverage-guided part was left out: no wheel of atheris for $(.venv/bin/python --version), or no answer from the package index"
    exit 0
fi
as_owner env PYTHONPATH=build/atheris .venv/bin/python -m tests.fuzz.atheris_target -max_total_time="$seconds" -max_len=2048 -artifact_prefix=build/
