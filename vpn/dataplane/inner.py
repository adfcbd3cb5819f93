"""Addresses of inner packets, and which client has which: the server's routing between interface and clients.

Exact virtual addresses are found in one dictionary look-up; networks behind clients (iroute) by longest prefix.
Addresses are compared as their octets on the wire. Pure.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Generic, TypeVar

Owner = TypeVar("Owner")


def destination(packet: bytes) -> bytes | None:
    """The destination address's octets; None if this is not an IP packet."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return packet[16:20]
    return packet[24:40] if version == 6 and len(packet) >= 40 else None


def source(packet: bytes) -> bytes | None:
    """The source address's octets; None if this is not an IP packet."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        return packet[12:16]
    return packet[8:24] if version == 6 and len(packet) >= 40 else None


class InnerRoutes(Generic[Owner]):
    """Which owner has an address. An owner is added once and removed whole."""

    __slots__ = ("_hosts", "_networks")

    def __init__(self) -> None:
        self._hosts: dict[bytes, Owner] = {}
        self._networks: list[tuple[int, int, int, Owner]] = []  # (octets, shift, prefix), longest prefix first

    def add_host(self, address: IPv4Address | IPv6Address, owner: Owner) -> None:
        self._hosts[address.packed] = owner

    def add_network(self, network: IPv4Network | IPv6Network, owner: Owner) -> None:
        shift = network.max_prefixlen - network.prefixlen
        entry = (network.max_prefixlen // 8, shift, int(network.network_address) >> shift, owner)
        self._networks.append(entry)
        self._networks.sort(key=lambda known: (known[0], known[1]))

    def remove(self, owner: Owner) -> None:
        self._hosts = {address: known for address, known in self._hosts.items() if known is not owner}
        self._networks = [entry for entry in self._networks if entry[3] is not owner]

    def find(self, address: bytes) -> Owner | None:
        owner = self._hosts.get(address)
        if owner is not None or not self._networks:
            return owner
        number, octets = int.from_bytes(address, "big"), len(address)
        for size, shift, prefix, known in self._networks:
            if size == octets and number >> shift == prefix:
                return known
        return None
