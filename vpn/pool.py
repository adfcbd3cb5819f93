"""Virtual addresses of a server's clients: who gets which, in each topology, and what to push for it.

    subnet  one address each, the server's own is the first          10.8.0.2, .3, …
    p2p     the same, with the server's address as the peer's
    net30   a /30 each: the client's is its third address            10.8.0.6, .10, …
    IPv6    one address each, from the network's ::1000 on; of one with 65,536 addresses or fewer from its ::2 on

A client that comes back gets its old address again while it is free. Pure.
Source: openvpn(8), --server and --ifconfig-pool; openvpn-protocol.md section 8.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from vpn.settings import ClientOverrides, Pool, Topology

_IPV6_OFFSET, _SMALL_IPV6_OFFSET = 0x1000, 2
_SMALL_IPV6_PREFIX = 112


class PoolExhausted(Exception):
    """No address is free."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One client's addresses. `index` is its place in the pool; None if both addresses were given by the overrides."""

    index: int | None
    ipv4: IPv4Address | None
    ipv6: IPv6Address | None


class AddressPool:
    def __init__(self, pool: Pool, limit: int) -> None:
        self._pool = pool
        self._limit = min(limit, _capacity(pool))
        self._used: dict[int, str] = {}
        self._last: dict[str, int] = {}  # who had which place; as long as the pool
        self._reserved: set[IPv4Address | IPv6Address] = set()

    @property
    def server_ipv4(self) -> IPv4Address | None:
        return None if self._pool.ipv4 is None else self._pool.ipv4.network_address + 1

    @property
    def server_ipv6(self) -> IPv6Address | None:
        return None if self._pool.ipv6 is None else self._pool.ipv6.network_address + 1

    def lease(self, who: str, overrides: ClientOverrides) -> Lease:
        """Addresses for a client. Errors: PoolExhausted; also if an address given by the overrides is taken."""
        given = {address for address in (overrides.ifconfig, overrides.ifconfig_ipv6) if address is not None}
        if given & self._reserved or any(self._addresses(index) & given for index in self._used):
            raise PoolExhausted(f"a fixed address of {who or 'this client'} is in use")
        need_ipv4 = self._pool.ipv4 is not None and overrides.ifconfig is None
        need_ipv6 = self._pool.ipv6 is not None and overrides.ifconfig_ipv6 is None
        index = self._take(who) if need_ipv4 or need_ipv6 else None
        self._reserved |= given
        ipv4 = self._ipv4(index) if need_ipv4 and index is not None else overrides.ifconfig
        ipv6 = self._ipv6(index) if need_ipv6 and index is not None else overrides.ifconfig_ipv6
        return Lease(index, ipv4, ipv6)

    def release(self, lease: Lease) -> None:
        self._reserved -= {address for address in (lease.ipv4, lease.ipv6) if address is not None}
        if lease.index is not None:
            self._used.pop(lease.index, None)

    def push_options(self, lease: Lease, *, whole_network: bool) -> list[str]:
        """What tells a client its addresses. `whole_network`: net30 clients reach each other (client-to-client)."""
        options = []
        pool, server, server_ipv6 = self._pool, self.server_ipv4, self.server_ipv6
        if pool.ipv6 is not None:
            options.append("tun-ipv6")
        if pool.ipv4 is not None and server is not None:
            if pool.topology is Topology.SUBNET:
                options.append(f"route-gateway {server}")
            elif whole_network:
                options.append(f"route {pool.ipv4.network_address} {pool.ipv4.netmask}")
            elif pool.topology is Topology.NET30:
                options.append(f"route {server}")
        options.append(f"topology {pool.topology}")
        if pool.ipv6 is not None and lease.ipv6 is not None:
            options.append(f"ifconfig-ipv6 {lease.ipv6}/{pool.ipv6.prefixlen} {server_ipv6}")
        if pool.ipv4 is not None and lease.ipv4 is not None:
            options.append(f"ifconfig {lease.ipv4} {self._second_argument(lease.ipv4)}")
        return options

    def _second_argument(self, client: IPv4Address) -> IPv4Address | None:
        if self._pool.topology is Topology.SUBNET:
            return None if self._pool.ipv4 is None else self._pool.ipv4.netmask
        return client - 1 if self._pool.topology is Topology.NET30 else self.server_ipv4

    def _take(self, who: str) -> int:
        for index in self._candidates(who):
            if index not in self._used and not self._addresses(index) & self._reserved:
                self._used[index] = who
                if who:
                    self._last.pop(who, None)
                    self._last[who] = index
                    while len(self._last) > self._limit:
                        del self._last[next(iter(self._last))]
                return index
        raise PoolExhausted("all addresses of the pool are in use")

    def _candidates(self, who: str) -> Iterator[int]:
        """Its old place, then places nobody has had lately, then any."""
        if who and who in self._last:
            yield self._last[who]
        remembered = set(self._last.values())
        yield from (index for index in range(self._limit) if index not in remembered)
        yield from range(self._limit)

    def _addresses(self, index: int) -> set[IPv4Address | IPv6Address]:
        return {address for address in (self._ipv4(index), self._ipv6(index)) if address is not None}

    def _ipv4(self, index: int) -> IPv4Address | None:
        if self._pool.ipv4 is None:
            return None
        first = self._pool.ipv4.network_address
        return first + 4 * index + 6 if self._pool.topology is Topology.NET30 else first + index + 2

    def _ipv6(self, index: int) -> IPv6Address | None:
        if self._pool.ipv6 is None:
            return None
        return self._pool.ipv6.network_address + (_first_ipv6(self._pool.ipv6) + index)


def _first_ipv6(network: IPv6Network) -> int:
    return _IPV6_OFFSET if network.prefixlen < _SMALL_IPV6_PREFIX else _SMALL_IPV6_OFFSET


def _capacity(pool: Pool) -> int:
    sizes = []
    if pool.ipv4 is not None:
        octets = pool.ipv4.num_addresses
        sizes.append(octets // 4 - 1 if pool.topology is Topology.NET30 else octets - 3)
    if pool.ipv6 is not None:
        sizes.append(pool.ipv6.num_addresses - _first_ipv6(pool.ipv6))
    return max(0, min(sizes, default=1 << 24))
