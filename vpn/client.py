"""A client: one association with one server, sans I/O.

The driver gives it what arrives and the time, and takes what it wants sent, delivered, told and when to be called
again. Random octets come from the callable given at construction; the core reads no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vpn.events import Event
from vpn.settings import Address, ClientSettings


class ClientCore:
    """One connection attempt and the session that follows; after `Closed` make a new one.

    Units: `now` in monotonic seconds, `unix_time` in whole Unix seconds.
    """

    def __init__(self, settings: ClientSettings, server: Address, *, random_bytes: Callable[[int], bytes]) -> None:
        raise NotImplementedError

    def start(self, now: float, unix_time: int) -> None:
        """Send the first packet."""

    def receive_datagram(self, untrusted: bytes, address: Address, now: float, unix_time: int) -> None:
        """Take one datagram (UDP) or one de-framed packet (TCP) from the transport."""

    def receive_datagrams(self, untrusted: Sequence[bytes], address: Address, now: float, unix_time: int) -> None:
        """The same for a batch from one address."""

    def receive_packet(self, packet: bytes, now: float) -> None:
        """Take one IP packet from the tunnel interface."""

    def receive_packets(self, packets: Sequence[bytes], now: float) -> None:
        """The same for a batch."""

    def advance(self, now: float, unix_time: int) -> None:
        """Do what is due; call when `next_timeout()` has come."""

    def next_timeout(self) -> float | None:
        """When `advance` must be called next, in the time of `now`."""

    def datagrams_to_send(self) -> list[tuple[bytes, Address]]:
        """Everything to put on the wire, in order; empties the queue. TCP: frame each with `vpn.wire.stream`."""
        raise NotImplementedError

    def packets_to_deliver(self) -> list[bytes]:
        """IP packets for the tunnel interface, in order; empties the queue."""
        raise NotImplementedError

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""

    def transport_lost(self, now: float, detail: str) -> None:
        """TCP: the connection broke."""

    def request_renegotiation(self, now: float) -> None:
        """Start a soft reset now, if the session is established."""

    def close(self, now: float) -> None:
        """Leave cleanly: tell the server, then be Closed. Send what `datagrams_to_send` returns afterwards."""
