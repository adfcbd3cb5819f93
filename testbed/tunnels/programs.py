"""The VPN programs a scenario may name: how each is called and how it says that it is up. Pure.

Both read the same configuration text (`openvpn_config`). A program that is not installed is found out before anything
is built (`missing_program`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

READY = "Initialization Sequence Completed"
READY_WITH_ERRORS = "Initialization Sequence Completed With Errors"
_RESOLV_CONF_SCRIPT = Path(__file__).with_name("resolv-conf.sh")


@dataclass(frozen=True, slots=True)
class Program:
    """One VPN program.

    `client_extra` are words its client needs besides the configuration: our client writes the pushed resolvers
    itself, openvpn leaves that to a script.
    """

    name: str
    argv: tuple[str, ...]
    client_extra: tuple[str, ...] = ()
    keylog_option: str | None = None

    def command(self, config: str, *, client: bool, keylog: str | None) -> list[str]:
        """The argument list that starts this program with the configuration file `config`."""
        words = [*self.argv, config]
        if client:
            words += self.client_extra
        if keylog and self.keylog_option:
            words += [self.keylog_option, keylog]
        return words


PROGRAMS: Mapping[str, Program] = {
    "vpn": Program("vpn", (sys.executable, "-m", "vpn", "run"), keylog_option="--tls-keylog"),
    "openvpn": Program(
        "openvpn",
        ("openvpn", "--config"),
        client_extra=("--script-security", "2", "--up", str(_RESOLV_CONF_SCRIPT)),
    ),
}


def missing_program(name: str) -> str | None:
    """The command that installs a program that is not here, or None if it is here."""
    program = PROGRAMS[name]
    path = "/usr/sbin:/sbin:/usr/local/sbin"
    if shutil.which(program.argv[0]) or shutil.which(program.argv[0], path=path):
        return None
    return f"sudo apt-get install {program.argv[0]}"
