#!/usr/bin/env bash
# Tunnels over a bad link for ten minutes, side by side: ours to ours, openvpn to ours, ours to openvpn.
# Then ten gigabytes through our own pair, whose hashes must agree.
#   SOAK_SECONDS=N  how long (make soak SECONDS=N)
#   SOAK_OCTETS=N   how much (make soak OCTETS=N)
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ "$(id -u)" = 0 ] || fail "The soak builds network namespaces. Fix: $(through_root "make soak")"
tools/venv.sh test
tools/peers.sh
leave_nothing_of_root
.venv/bin/python -m tests.soak "${SOAK_SECONDS:-600}" --bulk "${SOAK_OCTETS:-10000000000}"
