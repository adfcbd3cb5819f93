"""A path with a small MTU, to one of many addresses: what it costs, and that it costs the others nothing."""

from __future__ import annotations

import socket
import subprocess
from typing import Any

import pytest

from testbed.lab.bubble import Bubble, Conductor
from tests.unit.test_dataplane_udp import SETTINGS, Watched
from vpn.driver.udp import UdpLink
from vpn.settings import Address

pytestmark = pytest.mark.root

WIDE, NARROW = "127.0.0.3", "127.0.0.2"
COUNT, OCTETS = 10, 1400
_UDP_GRO = 104


def test_a_narrow_path_takes_datagrams_singly_and_leaves_the_others_their_trains() -> None:
    with Bubble() as bubble:
        calls = bubble.run(_send_to_both)
    assert calls == {"narrow": [OCTETS] * COUNT, "wide": [COUNT * OCTETS], "narrow again": [COUNT * OCTETS]}


def _send_to_both(_conductor: Conductor) -> Any:
    """The octets that came with each call of the receivers."""
    path = ("ip", "route", "replace", "local", f"{NARROW}/32", "dev", "lo", "table", "local", "proto", "kernel")
    _run("ip", "link", "set", "lo", "up")
    _run(*path, "mtu", "1000")
    link = UdpLink(SETTINGS, socket.AF_INET, ("127.0.0.1", 0), Watched())
    narrow, wide = _receiver(NARROW), _receiver(WIDE)
    found = {"narrow": _calls(link, narrow), "wide": _calls(link, wide)}
    _run(*path, "mtu", "65536")
    for _ in range(5000):  # no path stays narrow for ever
        link.send([(bytes(OCTETS), narrow.getsockname())] * 2)
        octets = 0
        while octets < 2 * OCTETS:
            octets += len(narrow.recv(65536))
    return {**found, "narrow again": _calls(link, narrow)}


def _calls(link: UdpLink, receiver: socket.socket) -> list[int]:
    address: Address = receiver.getsockname()
    link.send([(bytes(OCTETS), address)] * COUNT)
    calls: list[int] = []
    while sum(calls) < COUNT * OCTETS:
        calls.append(len(receiver.recv(65536)))
    return calls


def _receiver(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.IPPROTO_UDP, _UDP_GRO, 1)
    made.bind((host, 0))
    made.settimeout(20.0)
    return made


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)
