"""The three pairs of roles every row is shown in, and echoes of which none may be lost."""

from __future__ import annotations

import pytest

from tests.interop.echoes import Echoes
from tests.interop.tunnel_lab import OPENVPN, OURS, SERVER, Program, TunnelLab

# Which program is the server, which the client: ours against openvpn in both roles, and ours against ours.
PAIRS = [(OPENVPN, OURS), (OURS, OPENVPN), (OURS, OURS)]
PAIR_NAMES = [f"{client}-client-{server}-server" for server, client in PAIRS]
pairs = pytest.mark.parametrize(("server_program", "client_program"), PAIRS, ids=PAIR_NAMES)

# What tells of a new key, and how often that was said of the first one.
_NEW_KEY = {OURS: ("new session key in use", 0), OPENVPN: ("Control Channel: TLSv1.", 1)}


def ping(
    lab: TunnelLab,
    *addresses: str,
    node: str = "client",
    count: int = 3,
    octets: int = 56,
    pattern: bytes = b"echo",
    under_way: int = 1,
    pause: float = 0.0,
    source: str = "",
) -> None:
    """Echo requests of which every one is answered once. Errors: AssertionError."""
    for address in addresses:
        echoes = Echoes(lab.lab.node(node), address, count, octets, pattern, under_way, pause=pause, source=source)
        answers = echoes.exchange()
        assert answers == dict.fromkeys(range(count), 1), f"{address}: {answers}\n{lab.last_words()}"


def is_answered(lab: TunnelLab, address: str, node: str = "client", source: str = "", patience: float = 0.5) -> bool:
    """Whether one echo request is answered in time; for those that shall not be."""
    return bool(Echoes(lab.lab.node(node), address, 1, source=source, patience=patience).exchange())


def beside(text: str, number: int) -> str:
    """The same configuration with a device, a port and networks of its own: several tunnels in one lab."""
    text = text.replace("dev tun0", f"dev tun{number}").replace("port 1194", f"port {1194 + number}")
    text = text.replace(f"{SERVER} 1194", f"{SERVER} {1194 + number}").replace("10.8.0.", f"10.8.{number}.")
    return text.replace("2001:db8:8::", f"2001:db8:8:{number}::")


def wait_for_new_key(end: Program, name: str, number: int) -> None:
    """Until this end tells of its key `number`, the first being 0."""
    line, before = _NEW_KEY[name]
    end.wait_for(line, count=number + before)


def has_new_key(end: Program, name: str, number: int) -> bool:
    """Whether this end has told of it."""
    line, before = _NEW_KEY[name]
    return end.process.poll() is not None or end.text().count(line) >= number + before
