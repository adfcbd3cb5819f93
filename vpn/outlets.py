"""What a core has for its driver: datagrams, packets, events. Three queues, emptied by whoever takes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vpn.dataplane.train import Outgoing
from vpn.events import Event
from vpn.settings import Address

if TYPE_CHECKING:
    from vpn.dataplane.workbench import Rows


class Outlets:
    __slots__ = ("_datagrams", "_events", "_packets")

    def __init__(self) -> None:
        self._datagrams: list[tuple[Outgoing, Address]] = []
        self._packets: list[bytes | Rows] = []
        self._events: deque[Event] = deque()

    def send(self, datagrams: Iterable[Outgoing], address: Address) -> None:
        self._datagrams += [(datagram, address) for datagram in datagrams]

    def deliver(self, packets: Iterable[bytes | Rows]) -> None:
        self._packets += packets

    def tell(self, event: Event) -> None:
        self._events.append(event)

    def take_datagrams(self) -> list[tuple[Outgoing, Address]]:
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def take_packets(self) -> list[bytes | Rows]:
        packets, self._packets = self._packets, []
        return packets

    @property
    def has_events(self) -> bool:
        return bool(self._events)

    def take_event(self) -> Event | None:
        return self._events.popleft() if self._events else None
