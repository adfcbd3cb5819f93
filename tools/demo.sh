#!/usr/bin/env bash
# Run the main scenario and say where its HTML report is.
set -euo pipefail
. "$(dirname "$0")/common.sh"

leave_nothing_of_root
status=0
.venv/bin/testbed run what-a-vpn-hides || status=$?
if [ "$status" = 3 ] && [ "$(id -u)" != 0 ]; then
    say "This host gives an ordinary user no network of its own. Fix: sudo make demo"
fi
exit "$status"
