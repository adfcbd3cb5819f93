#!/usr/bin/env bash
# All tests in all layers, after everything they need is there. Arguments go to pytest.
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ "$(id -u)" = 0 ] || fail "The tests build network namespaces and start servers as root. Fix: sudo make test (or make check, the part that needs no privilege)"
tools/venv.sh test
tools/peers.sh
as_owner make lint types
leave_nothing_of_root
through_sudo && set -- -p no:cacheprovider "$@"
# Most tests wait for programs, links and timers: one more at a time than there are cores.
.venv/bin/python -m pytest -n "$(($(nproc) + 1))" --dist worksteal "$@"
