"""Which server address a client tries next, and how long it waits before.

Remotes come in the order of the file (shuffled once with `remote-random`), all addresses of each name in the resolver's
order, again and again. Names are resolved afresh each time, since a server may have moved.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from vpn.config.model import Remote, RetrySettings
from vpn.driver.errors import HostError
from vpn.driver.log import BRIEF, Log
from vpn.driver.transport import Endpoint, resolve

STEADY_ROUNDS = 5  # rounds through all remotes before pauses grow; openvpn(8), "--connect-retry"


class Remotes:
    """The remotes of one client, and its place among them."""

    def __init__(self, remotes: Sequence[Remote], settings: RetrySettings, log: Log) -> None:
        self._remotes = list(remotes)
        self._log = log
        self._turn = 0
        if settings.random_order:
            random.shuffle(self._remotes)

    def next(self) -> Endpoint | None:
        """The next address; None (and lines in the log) if no name can be resolved now."""
        endpoints: list[Endpoint] = []
        for remote in self._remotes:
            try:
                endpoints += resolve(remote)
            except HostError as error:
                self._log.write(str(error), BRIEF)
        if not endpoints:
            return None
        self._turn += 1
        return endpoints[(self._turn - 1) % len(endpoints)]

    def stay(self) -> None:
        """The next attempt goes to the same address as the last."""
        self._turn = max(0, self._turn - 1)


def retry_pause(settings: RetrySettings, attempts: int, remotes: int) -> int:
    """Seconds before the next attempt: steady at first, then doubled each round, up to the longest."""
    rounds = attempts // max(1, remotes)
    growth = min(max(0, rounds - STEADY_ROUNDS), 16)
    return min(settings.pause << growth, settings.longest_pause)
