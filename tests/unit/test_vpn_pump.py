"""The event loop with deadlines and socket options at the ends of what may be asked for."""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.unit.test_dataplane_udp import SETTINGS, Watched
from vpn.driver.pump import Pump, Signals
from vpn.driver.udp import UdpLink


class Patient:
    """A core that has nothing to do for a long time."""

    has_events = False

    def __init__(self, seconds: float) -> None:
        self._due = time.monotonic() + seconds

    def next_timeout(self) -> float:
        return self._due

    def packets_to_deliver(self) -> list[bytes]:
        return []


@pytest.mark.parametrize("days", [1, 25, 400, 3650])
def test_a_deadline_in_years_is_waited_for_as_any_other(days: int) -> None:
    signals = Signals((signal.SIGUSR2,))
    pump = Pump(signals)
    pump.core = cast("Any", Patient(days * 86400.0))
    os.kill(os.getpid(), signal.SIGUSR2)
    assert pump.turn(time.monotonic() + days * 86400.0) == [signal.SIGUSR2]
    pump.close()
    signals.close()


@pytest.mark.root
@pytest.mark.parametrize("mark", [1, 1 << 31, (1 << 32) - 1])
def test_a_mark_of_all_32_bits_is_set(mark: int) -> None:
    watched = Watched()
    link = UdpLink(replace(SETTINGS, mark=mark), socket.AF_INET, None, watched)
    with socket.socket(fileno=os.dup(watched.descriptors[0])) as own:
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_MARK) & 0xFFFFFFFF == mark
    link.close()
