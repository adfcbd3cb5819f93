#!/usr/bin/env bash
# All tests in all layers, after everything they need is there. Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ "$(id -u)" = 0 ] || fail "The tests build network namespaces and start servers as root. Fix: $(through_root "make test") (or make check, the part that needs no privilege)"
tools/venv.sh test
tools/peers.sh
as_owner make lint types
leave_nothing_of_root
cache=.pytest_cache
through_sudo && cache=$scratch/cache # root's files stay out of somebody's working tree
pytest() { .venv/bin/python -m pytest -o cache_dir="$cache" "$@"; }

# Most tests wait for programs, links and timers: one more at a time than there are cores.
status=0
pytest -n "$(($(nproc) + 1))" --dist worksteal "$@" || status=$?
[ "$status" = 1 ] && [[ " $* " != *" --cov"* ]] || exit "$status"

# What failed beside other tests is tried once more, alone: a machine that was too busy is no defect, and what fails
# again is one. Both outcomes are printed.
say "Once more, alone, what failed beside other tests (each of these deserves a look even if it passes now):"
pytest --last-failed --last-failed-no-failures none "$@"
