#!/usr/bin/env bash
# Tunnels over a bad link for ten minutes, side by side: ours to ours, openvpn to ours, ours to openvpn.
#   SOAK_SECONDS=N  how long (make soak SECONDS=N)
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ "$(id -u)" = 0 ] || fail "The soak builds network namespaces. Fix: sudo make soak"
tools/venv.sh test
tools/peers.sh
leave_nothing_of_root
.venv/bin/python -m tests.soak "${SOAK_SECONDS:-600}"
