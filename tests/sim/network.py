"""Virtual time and a seeded link between cores: loss, duplication, reordering, delay; nothing sleeps.

A `World` moves datagrams between cores by a heap of arrivals and calls `advance` exactly when a core asks for it.
Runs with one seed are equal to the last octet, apart from what TLS draws for itself.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tests.sim.pki import UNIX_TIME
from vpn.dataplane.train import Outgoing
from vpn.drops import Drops
from vpn.events import Event
from vpn.settings import Address

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows


class Core(Protocol):
    drops: Drops

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None: ...
    def advance(self, now: float, unix_time: int) -> None: ...
    def next_timeout(self) -> float | None: ...
    def datagrams_to_send(self) -> list[tuple[Outgoing, Address]]: ...
    def packets_to_deliver(self) -> list[bytes | Rows]: ...
    def next_event(self) -> Event | None: ...


def datagrams(core: Core) -> list[tuple[bytes, Address]]:
    """What a core has to send, and where to."""
    sent = core.datagrams_to_send()
    return list(zip(singles(datagram for datagram, _ in sent), [address for _, address in sent], strict=True))


def singles(several: Iterable[object]) -> list[bytes]:
    """Packets one by one, as they are where nothing takes many at once."""
    found = list(several)
    assert all(isinstance(one, bytes) for one in found)
    return [one for one in found if isinstance(one, bytes)]


@dataclass(frozen=True, slots=True)
class Weather:
    """Probabilities between 0 and 1; seconds."""

    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    delay: float = 0.01


@dataclass(slots=True)
class Node:
    core: Core
    address: Address
    delivered: list[bytes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class World:
    def __init__(self, seed: int = 1, weather: Weather | None = None) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        self.weather = weather or Weather()
        self.nodes: dict[Address, Node] = {}
        self.wire: list[tuple[float, Address, Address, bytes]] = []  # everything that was sent
        self.tap: Callable[[bytes, Address, Address], bytes | None] = lambda datagram, _from, _to: datagram
        self._arrivals: list[tuple[float, int, Address, Address, bytes]] = []
        self._order = itertools.count()

    @property
    def unix_time(self) -> int:
        return UNIX_TIME + int(self.now)

    def random_bytes(self, octets: int) -> bytes:
        return self.random.randbytes(octets)

    def add(self, core: Core, address: Address) -> Node:
        self.nodes[address] = node = Node(core, address)
        return node

    def move(self, node: Node, address: Address) -> None:
        del self.nodes[node.address]
        node.address = address
        self.nodes[address] = node

    def inject(self, datagram: bytes, source: Address, target: Address) -> None:
        heapq.heappush(self._arrivals, (self.now, next(self._order), source, target, datagram))

    def collect(self, node: Node) -> None:
        """Take what a core has, put its datagrams on their way."""
        for datagram, target in datagrams(node.core):
            self.wire.append((self.now, node.address, target, datagram))
            changed = self.tap(datagram, node.address, target)
            if changed is not None:
                self._send(changed, node.address, target)
        node.delivered += singles(node.core.packets_to_deliver())
        while (event := node.core.next_event()) is not None:
            node.events.append(event)

    def _send(self, datagram: bytes, source: Address, target: Address) -> None:
        weather, draw = self.weather, self.random.random
        copies = 0 if draw() < weather.loss else 1 + (draw() < weather.duplication)
        for _ in range(copies):
            extra = self.random.uniform(0, 10 * weather.delay) if draw() < weather.reordering else 0.0
            arrival = self.now + weather.delay + extra
            heapq.heappush(self._arrivals, (arrival, next(self._order), source, target, datagram))

    def run(self, until: Callable[[], bool] | None = None, seconds: float = 120.0) -> bool:
        """Let time pass until the condition holds (True) or the time is over (False, or no condition: True)."""
        end = self.now + seconds
        while True:
            for node in list(self.nodes.values()):
                self.collect(node)
            if until is not None and until():
                return True
            upcoming = self._next_moment()
            if upcoming is None or upcoming > end:
                self.now = end
                return until is None
            self.now = max(self.now, upcoming)
            self._pass()

    def _next_moment(self) -> float | None:
        timeouts = [node.core.next_timeout() for node in self.nodes.values()]
        moments = [at for at in timeouts if at is not None]
        moments += [self._arrivals[0][0]] if self._arrivals else []
        return min(moments, default=None)

    def _pass(self) -> None:
        while self._arrivals and self._arrivals[0][0] <= self.now:
            _, _, source, target, datagram = heapq.heappop(self._arrivals)
            node = self.nodes.get(target)
            if node is not None:
                node.core.receive_datagrams([datagram], source, self.now, self.unix_time)
        for node in self.nodes.values():
            due = node.core.next_timeout()
            if due is not None and due <= self.now:
                node.core.advance(self.now, self.unix_time)
