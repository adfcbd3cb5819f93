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

from testbed.scenario.values import TunnelSpec
from testbed.tunnels.wireguard import PACKAGES as WIREGUARD_PACKAGES

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


_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# program -> Debian's and Ubuntu's package, where the names differ
_PACKAGES = {"wg": "wireguard-tools", "ip": "iproute2", "tincd": "tinc", "nft": "nftables", "ping": "iputils-ping"}


def find_program(name: str) -> str | None:
    """Its path, also where an ordinary user's PATH does not look."""
    return shutil.which(name) or shutil.which(name, path=_SBIN)


def needed_programs(tunnel: TunnelSpec) -> list[str]:
    """The programs of the host that a tunnel is run by."""
    if tunnel.command is not None:
        folder = Path(tunnel.command.folder)
        named = (tunnel.command.argv.client[0], tunnel.command.argv.server[0])
        return sorted({str(folder / name) if "/" in name else name for name in named})
    if tunnel.client == "wireguard":
        return sorted(WIREGUARD_PACKAGES)
    return sorted({PROGRAMS[end].argv[0] for end in (tunnel.client, tunnel.server)})


def missing_program(name: str) -> str | None:
    """What to do about a program that is not here, or None if it is here. Shape: a name, or a path."""
    if find_program(name):
        return None
    if "/" in name:
        return f"build it, or correct the path; there is no program at {name}"
    return f"sudo apt-get install {_PACKAGES.get(name, name)}"
