"""The three pairs of roles every row is shown in, and a ping that must lose nothing."""

from __future__ import annotations

import pytest

from tests.interop.tunnel_lab import OPENVPN, OURS, TunnelLab

# Which program is the server, which the client: ours against openvpn in both roles, and ours against ours.
PAIRS = [(OPENVPN, OURS), (OURS, OPENVPN), (OURS, OURS)]
PAIR_NAMES = [f"{client}-client-{server}-server" for server, client in PAIRS]
pairs = pytest.mark.parametrize(("server_program", "client_program"), PAIRS, ids=PAIR_NAMES)


def ping(lab: TunnelLab, address: str, node: str = "client", *options: str, count: int = 3) -> None:
    """Echo requests of which every one is answered. Errors: AssertionError."""
    words = ("ping", "-n", "-c", str(count), "-i", "0.02", "-W", "5", *options, address)
    answer = lab.output(node, *words, seconds=60)
    assert " 0% packet loss" in answer, answer
