"""Which routes a client sets: pushed and local options, and the host's present routes, in; kernel routes out. Pure.

The route to the VPN server always stays outside of the tunnel: whenever a route of the tunnel would cover the server, a
host route over the old path comes first. (openvpn does this for redirect-gateway and IPv6 only; a split route that
covers the server would cut its own connection there.)

    redirect-gateway def1       0.0.0.0/1 and 128.0.0.0/1: more specific than the default route, which stays
    redirect-gateway            the default route itself is replaced, and put back at the end
    … ipv6                      ::/3, 2000::/4, 3000::/4, fc00::/7: all unicast addresses, link-local excepted

With `policy-routing` (our own option, with `mark`) the main table stays as it is. All routes go into a table of their
own, defaults as defaults, and three rules per IP version, in this order, say when it counts:

    not fwmark M lookup T suppress_prefixlength 0       the tunnel's routes but its default one
    lookup main suppress_prefixlength 0                 the host's routes but its default one: local networks
    not fwmark M lookup T                               the tunnel's default route

The outer socket carries the mark, so the tunnel's own packets never enter it, and no host route to the server is
needed: other programs reach the server's address through the tunnel.

Sources: openvpn-protocol.md section 8.1; openvpn(8), "--redirect-gateway" and "--route"
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from vpn.push import PushedOptions, Route

IpAddress: TypeAlias = IPv4Address | IPv6Address
IpNetwork: TypeAlias = IPv4Network | IPv6Network

DEFAULT4 = IPv4Network("0.0.0.0/0")
DEFAULT6 = IPv6Network("::/0")
HALVES4 = (IPv4Network("0.0.0.0/1"), IPv4Network("128.0.0.0/1"))
PROTOCOL_STATIC = 4
TABLE_MAIN = 254
RULE_PRIORITIES = (32761, 32762, 32763)  # right before the main table's own rule, 32766
UNICAST6 = tuple(IPv6Network(text) for text in ("::/3", "2000::/4", "3000::/4", "fc00::/7"))


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """A route as the kernel holds it. Shape: no gateway means on link; `unreachable` has neither gateway nor device."""

    network: IpNetwork
    device: int  # interface index
    gateway: IpAddress | None = None
    metric: int | None = None
    source: IpAddress | None = None
    unreachable: bool = False
    protocol: int = PROTOCOL_STATIC  # who set it (rtnetlink(7)); a route put back keeps its own
    table: int = TABLE_MAIN
    as_found: bytes = field(default=b"", repr=False, compare=False)  # the kernel's own message about it

    def __str__(self) -> str:
        via = f" via {self.gateway}" if self.gateway else ""
        metric = f" metric {self.metric}" if self.metric else ""
        table = f" table {self.table}" if self.table != TABLE_MAIN else ""
        return f"{'unreachable ' if self.unreachable else ''}{self.network}{via}{metric}{table}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A routing rule: look into `table`, for packets without `unless_mark`, passing default routes by if so told."""

    version: int
    priority: int
    table: int
    unless_mark: int | None = None
    without_default: bool = False

    def __str__(self) -> str:
        condition = "" if self.unless_mark is None else f"not fwmark {self.unless_mark:#x} "
        suppress = " suppress_prefixlength 0" if self.without_default else ""
        return f"{self.priority}: {condition}lookup {self.table}{suppress} (IPv{self.version})"


@dataclass(frozen=True, slots=True)
class Policy:
    """`policy-routing`: the tunnel's own table, and the mark of the packets that never look into it."""

    table: int
    mark: int


@dataclass(frozen=True, slots=True)
class Underlay:
    """The host's ways outside of the tunnel, asked for before anything is changed.

    `to_server` is None if the server is this host itself. `local_networks` are those of the interface the default route
    uses; `resolvers` those of resolv.conf.
    """

    to_server: KernelRoute | None
    default4: KernelRoute | None = None
    default6: KernelRoute | None = None
    local_networks: tuple[IpNetwork, ...] = ()
    resolvers: tuple[IpAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Routes to add, in order; default routes to take away before; what could not be planned, as lines for the log."""

    add: tuple[KernelRoute, ...]
    remove: tuple[KernelRoute, ...] = ()
    notes: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()


def plan_routes(
    options: PushedOptions, server: IpAddress | None, underlay: Underlay, device: int, policy: Policy | None = None
) -> RoutePlan:
    """What to change for these options.

    Shape: `server` is the outer address (None: not known), `device` the tun's interface index
    """
    planner = _Planner(options, server, underlay, device, apart=policy is not None)
    tunnel = [*planner.split_routes(), *planner.redirect_routes()]
    if policy is not None:
        routes = dict.fromkeys(replace(route, table=policy.table) for route in (*planner.bypass_routes(), *tunnel))
        return RoutePlan(tuple(routes), (), tuple(planner.notes), tuple(_plan_rules(policy, routes)))
    bypass = [*planner.server_route(tunnel), *planner.bypass_routes()]
    unique = tuple(dict.fromkeys([*bypass, *tunnel]))
    return RoutePlan(unique, tuple(planner.replaced_defaults()), tuple(planner.notes))


def _plan_rules(policy: Policy, routes: Iterable[KernelRoute]) -> Iterator[Rule]:
    """Rules for the IP versions that have routes. A reader may follow them in the order the kernel does."""
    specific, local, default = RULE_PRIORITIES
    for version in sorted({route.network.version for route in routes}):
        yield Rule(version, specific, policy.table, policy.mark, without_default=True)
        yield Rule(version, local, TABLE_MAIN, without_default=True)
        yield Rule(version, default, policy.table, policy.mark)


def host_route(address: IpAddress, path: KernelRoute) -> KernelRoute:
    """A route to this one address over the same gateway and device as `path`."""
    return KernelRoute(ip_network(address), path.device, path.gateway)


class _Planner:
    """The parts of one plan. `notes` grows while the parts are made."""

    def __init__(
        self, options: PushedOptions, server: IpAddress | None, underlay: Underlay, device: int, *, apart: bool
    ) -> None:
        self._apart = apart  # in a table of its own, where a default route is in nobody's way
        self._options = options
        self._server = server
        self._underlay = underlay
        self._device = device
        redirect = options.redirect_gateway
        self._flags = redirect.flags if redirect else frozenset()
        self._redirects = redirect is not None and not redirect.private
        self.notes: list[str] = []

    def split_routes(self) -> Iterator[KernelRoute]:
        """`route` and `route-ipv6`."""
        for route in self._options.routes:
            planned = self._split_route(route)
            if planned is not None:
                yield planned

    def _split_route(self, route: Route) -> KernelRoute | None:
        metric = route.metric if route.metric is not None else self._options.route_metric
        if route.gateway == "net_gateway":
            is_ipv4 = isinstance(route.network, IPv4Network)
            path = self._underlay.default4 if is_ipv4 else self._underlay.default6
            if path is None:
                self.notes.append(f"route {route.network}: there is no net_gateway; not set")
                return None
            return KernelRoute(route.network, path.device, path.gateway, metric)
        if route.gateway == "remote_host" and self._server is not None:
            return KernelRoute(route.network, self._device, self._server, metric)
        named = route.gateway not in ("", "vpn_gateway", "remote_host")
        gateway = ip_address(route.gateway) if named else None
        return self._tunnel_route(route.network, metric, gateway)

    def _tunnel_route(self, network: IpNetwork, metric: int | None, gateway: IpAddress | None = None) -> KernelRoute:
        """IPv4 routes name the VPN's gateway as openvpn's do; for IPv6 a tun device alone says everything.

        With `block-ipv6` what would go into the tunnel is unreachable instead (openvpn takes such packets from the
        device and answers them itself; programs see the same error, here without the detour).
        """
        if self._options.block_ipv6 and network.version == 6:
            return KernelRoute(network, 0, unreachable=True)
        if gateway is None and isinstance(network, IPv4Network):
            gateway = self._options.route_gateway or self._options.ifconfig_peer
        return KernelRoute(network, self._device, gateway, metric)

    def redirect_routes(self) -> Iterator[KernelRoute]:
        metric = self._options.route_metric
        if self._redirects and "!ipv4" not in self._flags:
            for network in HALVES4 if "def1" in self._flags and not self._apart else (DEFAULT4,):
                yield self._tunnel_route(network, metric)
        if self._redirects and "ipv6" in self._flags:
            for network6 in (DEFAULT6,) if self._apart else UNICAST6:
                yield self._tunnel_route(network6, metric)
        if "block-local" in self._flags:
            for local in self._underlay.local_networks:
                if local.prefixlen < local.max_prefixlen:
                    yield from (self._tunnel_route(half, metric) for half in local.subnets())

    def server_route(self, tunnel: list[KernelRoute]) -> Iterator[KernelRoute]:
        """The host route to the server, if the tunnel's routes would take its packets.

        As in openvpn, redirect-private is enough for IPv4: its user means to add routes that may cover the server.
        """
        path, server = self._underlay.to_server, self._server
        if server is None:
            return
        covered = any(
            route.network.version == server.version and server in route.network
            for route in tunnel
            if route.device == self._device or route.unreachable
        )
        redirected = self._options.redirect_gateway is not None and "!ipv4" not in self._flags and server.version == 4
        if not (covered or redirected) or "local" in self._flags:
            return
        if path is None:
            self.notes.append("the server is this host itself; no route to it is needed")
        elif path.gateway is None and "autolocal" in self._flags:
            self.notes.append("ROUTE remote_host is LOCAL")
        else:
            yield host_route(server, path)

    def bypass_routes(self) -> Iterator[KernelRoute]:
        """Ways around the tunnel for present resolvers, and for the gateway itself where its network is blocked."""
        if "bypass-dns" in self._flags:
            for resolver in self._underlay.resolvers:
                path = self._underlay.default4 if resolver.version == 4 else self._underlay.default6
                local = any(resolver in network for network in self._underlay.local_networks)
                if path is not None and not resolver.is_loopback and not local:
                    yield host_route(resolver, path)
        if "block-local" in self._flags:
            for path in (self._underlay.default4, self._underlay.default6):
                if path is not None and path.gateway is not None and not path.gateway.is_link_local:
                    yield host_route(path.gateway, path)
        if "bypass-dhcp" in self._flags:
            self.notes.append("redirect-gateway: bypass-dhcp has no meaning on Linux, where leases need no route")

    def replaced_defaults(self) -> Iterator[KernelRoute]:
        replaces = self._redirects and "def1" not in self._flags and "!ipv4" not in self._flags
        if replaces and self._underlay.default4 is not None:
            yield self._underlay.default4
