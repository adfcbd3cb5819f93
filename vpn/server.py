"""A server: many clients behind one transport and one tunnel interface, sans I/O.

Routes packets from the tunnel interface to clients by destination, checks the source of what comes out of a client,
hands out addresses, and answers first packets without keeping state. Same shape as `vpn.client.ClientCore`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vpn.events import Event
from vpn.settings import Address, ClientOverrides, ServerSettings


class ServerCore:
    """All clients of one server. Units: as in `ClientCore`."""

    def __init__(self, settings: ServerSettings, *, random_bytes: Callable[[int], bytes]) -> None:
        raise NotImplementedError

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
        """Everything to put on the wire, in order; empties the queue."""
        raise NotImplementedError

    def packets_to_deliver(self) -> list[bytes]:
        """IP packets for the tunnel interface, in order; empties the queue."""
        raise NotImplementedError

    def next_event(self) -> Event | None:
        """The oldest event not yet taken."""

    def transport_lost(self, address: Address, now: float, detail: str) -> None:
        """TCP: the connection from `address` broke."""

    def admit(self, peer: int, overrides: ClientOverrides, now: float, unix_time: int) -> None:
        """Answer AdmissionRequested: let the client in."""

    def refuse(self, peer: int, reason: str, now: float) -> None:
        """Answer AdmissionRequested: send AUTH_FAILED with `reason` (shown to the client; may be empty)."""

    def disconnect(self, peer: int, now: float, *, restart: bool = False) -> None:
        """End one client: HALT, or RESTART so that it comes again."""

    def close(self, now: float) -> None:
        """End all clients, telling them as `explicit_exit_notify` says."""
