"""From a variant and its topology to what must be built and served: addresses, name servers, resolvers, taps. Pure.

The topology says which node resolves names for the client (`resolver`), which run authoritative servers (`nameserver`)
and which is the VPN server (the one that translates what comes out of the tunnel, `nat`); the scenario says which sites
there are. Public names stand in one zone on the first node whose name server everybody can reach; private ones on the
node that serves them, known to the resolver behind the VPN alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from typing import Any, Protocol

from testbed.lab.model import LabPlanError, LabRequest, LinkRequest, TapRequest
from testbed.scenario.values import LinkOptions, Site, Variant
from testbed.services import request as services
from testbed.services.zones import zones_of_sites

CLIENT = "client"
ENCRYPTED = ("dot", "doh")  # ways to ask for names


class Topology(Protocol):
    """What this module needs of a `mininet.topo.Topo`."""

    def nodes(self, sort: bool = ...) -> Any: ...
    def nodeInfo(self, name: str) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Roles:
    """Who does what in a topology. Shape: name servers are (node, addresses)."""

    resolver_node: str
    resolver_addresses: tuple[str, ...]
    nameservers: dict[str, tuple[str, ...]]
    vpn_node: str
    vpn_address: str  # where clients connect to
    tunnel_prefixes: tuple[IPv4Network | IPv6Network, ...]
    private_prefixes: tuple[IPv4Network | IPv6Network, ...]  # what the VPN server lets nobody but its clients reach

    @property
    def public_nameserver(self) -> str:
        """The first node with a name server that everybody can reach."""
        for node, addresses in self.nameservers.items():
            if not any(ip_address(address) in prefix for address in addresses for prefix in self.private_prefixes):
                return node
        raise LabPlanError(["public names need a node with nameserver=(addresses outside the private prefixes)"])

    @property
    def tunnel_resolver_addresses(self) -> tuple[str, ...]:
        """The VPN server's own addresses inside the tunnel: the first of each prefix."""
        return tuple(str(prefix[1]) for prefix in self.tunnel_prefixes)


def roles_of(topo: Topology) -> Roles:
    """The roles the topology's node options name. Errors: LabPlanError where one is missing."""
    info: Mapping[str, dict[str, Any]] = {name: topo.nodeInfo(name) for name in topo.nodes()}
    resolvers = [name for name, options in info.items() if options.get("resolver")]
    servers = [name for name, options in info.items() if options.get("nat")]
    nameservers = {name: tuple(options["nameserver"]) for name, options in info.items() if options.get("nameserver")}
    problems = [
        *([] if CLIENT in info else [f"the topology has no node named {CLIENT!r}"]),
        *(
            []
            if len(resolvers) == 1
            else ["exactly one node must have the option resolver=(addresses of the ISP's resolver)"]
        ),
        *(
            []
            if len(servers) == 1
            else ["exactly one node, the VPN server, must have the option nat=(tunnel prefixes)"]
        ),
        *([] if nameservers else ["a node must have the option nameserver=(addresses of the authoritative server)"]),
    ]
    if problems:
        raise LabPlanError(problems)
    resolver, server = resolvers[0], servers[0]
    return Roles(
        resolver_node=resolver,
        resolver_addresses=tuple(info[resolver]["resolver"]),
        nameservers=nameservers,
        vpn_node=server,
        vpn_address=str(ip_interface(info[server]["ip"]).ip),
        tunnel_prefixes=tuple(ip_network(prefix) for prefix in info[server]["nat"]),
        private_prefixes=tuple(ip_network(prefix) for prefix in info[server].get("protects", ())),
    )


def lab_request(variant: Variant, roles: Roles, seed: int = 1) -> LabRequest:
    """What the variant adds to its topology. `seed` decides the fates of packets on impaired links."""
    addresses: dict[str, list[str]] = {}
    for site in variant.sites.values():
        addresses.setdefault(site.node, []).extend(site.addresses)
    for node, own in roles.nameservers.items():
        addresses.setdefault(node, []).extend(own)
    return LabRequest(
        addresses={node: tuple(dict.fromkeys(own)) for node, own in addresses.items()},
        resolvers={CLIENT: roles.resolver_addresses},
        taps=[TapRequest(tap.name, tap.node, tap.interface) for tap in variant.taps],
        links=[*(_link_request(link) for link in variant.links), *_changeable(variant)],
        client=CLIENT,
        seed=seed,
    )


def _changeable(variant: Variant) -> Iterable[LinkRequest]:
    """The links that events change: each is planned as one that can be changed while the lab runs."""
    for ends in dict.fromkeys((event.link.a, event.link.b) for event in variant.events if event.link):
        yield LinkRequest(*ends)


def _link_request(link: LinkOptions) -> LinkRequest:
    return LinkRequest(
        a=link.a,
        b=link.b,
        bw=link.bw,
        delay=link.delay,
        jitter=link.jitter,
        loss=link.loss,
        duplicate=link.duplicate,
        reorder=link.reorder,
        max_queue_size=link.max_queue_packets,
        mtu_octets=link.mtu_octets,
    )


def services_request(
    variant: Variant, roles: Roles, *, nodes: Mapping[str, int], log_directory: int, ca_certificate: str
) -> services.ServicesRequest:
    """What the services process is asked to serve in this variant."""
    public = [site for site in variant.sites.values() if not site.private]
    private = [site for site in variant.sites.values() if site.private]
    resolvers = tuple(_resolvers(private, roles, with_tunnel=variant.tunnel is not None))
    encrypted = [site for site in map(_encrypted, resolvers) if site.name not in variant.sites]
    return services.ServicesRequest(
        nodes=nodes,
        log_directory=log_directory,
        ca_certificate=ca_certificate,
        sites=(*_served((site for site in variant.sites.values() if site.served), private, roles), *encrypted),
        authorities=tuple(_authorities(public, private, encrypted, roles)),
        resolvers=resolvers,
    )


def lookup_warning(variant: Variant, roles: Roles) -> str:
    """What a person must know who reads that encrypted lookups are hidden; empty if nothing."""
    outside = variant.tunnel is None or variant.tunnel.dns == "isp"
    own = [action.id for action in variant.workload if action.over in ENCRYPTED and action.server is None]
    if not own or not outside:
        return ""
    log = f"{resolver_name(roles.resolver_node)}.jsonl"
    return (
        f"{own[0]} asks the ISP's own resolver for names: encrypted on the wire, read by the resolver (logs/{log}); "
        "name another `server` to hide them from the ISP itself"
    )


def resolver_name(node: str) -> str:
    """The name under which a resolver of the topology answers over TLS and HTTPS."""
    return f"dns.{node.lower()}.example"


def _encrypted(resolver: services.Resolver) -> services.Site:
    """The same resolver over TLS and HTTPS, under a name of its own; a certificate holds its addresses too."""
    return services.Site(
        name=resolver_name(resolver.node),
        node=resolver.node,
        addresses=resolver.addresses,
        http=False,
        https=False,
        dot=True,
        doh=True,
        forwards=resolver.forwards,
        freebind=resolver.freebind,
    )


def _authorities(
    public: Sequence[Site], private: Sequence[Site], resolvers: Sequence[services.Site], roles: Roles
) -> Iterable[services.Authority]:
    node = roles.public_nameserver
    addresses = roles.nameservers[node]
    known = (*_served(public, private, roles), *resolvers)
    yield services.Authority(node, addresses, zones_of_sites(known, addresses, root=True))
    for other in sorted({site.node for site in private}):
        addresses = _private_nameserver(roles, other)
        served = _served((site for site in private if site.node == other), private, roles)
        yield services.Authority(other, addresses, zones_of_sites(served, addresses, root=False))


def _resolvers(private: Sequence[Site], roles: Roles, *, with_tunnel: bool) -> Iterable[services.Resolver]:
    root = roles.nameservers[roles.public_nameserver]
    yield services.Resolver(roles.resolver_node, roles.resolver_addresses, {".": root})
    if with_tunnel:
        forwards = {".": root, **_private_forwards(private, roles)}
        yield services.Resolver(roles.vpn_node, roles.tunnel_resolver_addresses, forwards, freebind=True)


def _private_forwards(private: Sequence[Site], roles: Roles) -> dict[str, tuple[str, ...]]:
    return {site.name: _private_nameserver(roles, site.node) for site in private}


def _private_nameserver(roles: Roles, node: str) -> tuple[str, ...]:
    if node not in roles.nameservers:
        raise LabPlanError([f"node {node} serves a private site, so it needs the option nameserver=(addresses)"])
    return roles.nameservers[node]


def _served(sites: Iterable[Site], private: Sequence[Site], roles: Roles) -> tuple[services.Site, ...]:
    return tuple(_as_service(site, private, roles) for site in sites)


def _as_service(site: Site, private: Sequence[Site], roles: Roles) -> services.Site:
    """Shape: a resolver that is a site asks the public name servers, a private one the private ones as well."""
    forwards: dict[str, tuple[str, ...]] = {}
    if site.resolves:
        forwards = {".": roles.nameservers[roles.public_nameserver]}
        forwards |= _private_forwards(private, roles) if site.private else {}
    return services.Site(
        name=site.name,
        node=site.node,
        addresses=site.addresses,
        http=site.http,
        https=site.https,
        http3=site.http3,
        dns=site.dns,
        dot=site.dot,
        doh=site.doh,
        forwards=forwards,
    )
