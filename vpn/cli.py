"""The tunnel's command line: `python -m vpn run CONFIG [--option value …]` and `python -m vpn pki …`.

Only here do errors become exit codes: 0 clean end, 1 the program could not do what was asked, 2 wrong usage. Each
command's parts are imported when it runs, since their import time is most of the way to the first packet.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

USAGE = """\
usage: python -m vpn run CONFIG [--option value ...]    run a tunnel from an OpenVPN configuration file
       python -m vpn run --config CONFIG [...]          the same, as openvpn spells it
       python -m vpn check CONFIG [--option value ...]  read the configuration, report every mistake, and stop
       python -m vpn restore [--journal-dir DIR]        undo what killed clients left on this host
       python -m vpn pki COMMAND DIR [...]              keys and certificates (python -m vpn pki --help)
"""


def main(argv: Sequence[str]) -> int:
    """Runs one command; returns the process's exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if argv else 2
    command, rest = argv[0], argv[1:]
    if command == "pki":
        from vpn.pki.commands import run_pki

        return run_pki(rest)
    if command == "run":
        from vpn.driver.run import run_tunnel

        return run_tunnel(rest)
    if command == "check":
        from vpn.driver.run import check_configuration

        return check_configuration(rest)
    if command == "restore":
        from vpn.driver.restore import restore_command

        return restore_command(rest)
    print(f"vpn: unknown command {command!r}\n{USAGE}", file=sys.stderr, end="")
    return 2
