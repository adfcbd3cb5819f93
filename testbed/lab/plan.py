"""From a topology and a scenario's wishes to a frozen plan: every address, route, rule and sysctl of the lab.

Pure: no clock, no randomness, no kernel. `draft` reads the topology; here the request is added, what follows from it
is derived (MAC addresses, host routes on shortest ways, where a tap sits, where GRO is on), and the whole is checked.
The same topology and request give the same plan, octet by octet.

Sources: DESIGN "The lab" 4 to 7; kernel Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, ip_address, ip_interface, ip_network

from testbed.lab.draft import Draft, EndDraft, Interface, Network, NodeDraft, Topology, read_topology
from testbed.lab.links import Impairments, impair_links
from testbed.lab.model import (
    MTU_OCTETS,
    InterfacePlan,
    LabPlan,
    LabPlanError,
    LabRequest,
    LinkPlan,
    LinkRequest,
    NatPlan,
    NodePlan,
    ProtectPlan,
    RoutePlan,
    TapPlan,
    TapRequest,
)
from testbed.lab.sysctls import node_sysctls

__all__ = [
    "MTU_OCTETS",
    "InterfacePlan",
    "LabPlan",
    "LabPlanError",
    "LabRequest",
    "LinkPlan",
    "LinkRequest",
    "NatPlan",
    "NodePlan",
    "ProtectPlan",
    "RoutePlan",
    "TapPlan",
    "TapRequest",
    "plan_lab",
]

Address = IPv4Address | IPv6Address


def plan_lab(topo: Topology, request: LabRequest | None = None) -> LabPlan:
    """Return the plan of the lab that `topo` and `request` describe.

    Errors: LabPlanError, which names every mistake of both.
    """
    request = request or LabRequest()
    draft = read_topology(topo)
    _check_links(draft)
    impairments = impair_links(draft, request)
    routes: dict[str, list[RoutePlan]] = {name: [] for name in draft.nodes}
    _add_site_addresses(draft, request, routes)
    _check_addresses(draft)
    for node in draft.nodes.values():
        routes[node.name][:0] = _static_routes(draft, node)
    taps = _place_taps(draft, request)
    _check_names(draft, request)
    if draft.problems:
        raise LabPlanError(draft.problems)
    return _freeze(draft, request, routes, taps, impairments)


def _check_links(draft: Draft) -> None:
    networks: dict[Network, str] = {}
    for end1, end2 in draft.links:
        where = f"link {end1.node} - {end2.node}"
        nets = {address.network for address in end1.addresses}
        if nets != {address.network for address in end2.addresses}:
            draft.problem(where, "its two ends are not in the same networks")
        for network in nets:
            for other, owner in networks.items():
                if network.version == other.version and network.overlaps(other):
                    draft.problem(where, f"{network} overlaps {other} of {owner}")
            networks[network] = where


def _add_site_addresses(draft: Draft, request: LabRequest, routes: dict[str, list[RoutePlan]]) -> None:
    for name, texts in request.addresses.items():
        node = draft.nodes.get(name)
        if node is None:
            draft.problem(f"address of {name}", f"no node is called {name}; there are {', '.join(draft.nodes)}")
            continue
        for text in texts:
            try:
                address = ip_address(text)
            except ValueError as error:
                draft.problem(f"node {name}", f"{text} is not an address: {error}")
                continue
            _add_site_address(draft, node, address, routes)


def _add_site_address(draft: Draft, node: NodeDraft, address: Address, routes: dict[str, list[RoutePlan]]) -> None:
    where = f"node {node.name}"
    if any(address == own.ip for end in node.interfaces for own in end.addresses):
        return  # a site may live at the node's own address
    if not node.interfaces:
        draft.problem(where, f"cannot have the address {address}: it has no link")
        return
    for end in node.interfaces:
        for own in end.addresses:
            if address in own.network:
                end.addresses.append(ip_interface(f"{address}/{own.network.prefixlen}"))
                return
    for end1, end2 in draft.links:
        for own in end1.addresses:
            if address in own.network:
                draft.problem(where, f"{address} belongs to {own.network}, the link {end1.node} - {end2.node}")
                return
    node.interfaces[0].addresses.append(ip_interface(address))
    for route in _routes_toward(draft, node, address):
        routes[route[0]].append(route[1])


def _routes_toward(draft: Draft, owner: NodeDraft, address: Address) -> Iterator[tuple[str, RoutePlan]]:
    """Yield, for each forwarding node, its host route to `address` over the first link of its shortest way."""
    next_end = _shortest_ways(draft, owner.name)
    for node in draft.nodes.values():
        end = next_end.get(node.name)
        if not node.forwards or end is None:
            continue
        gateway = _end_address(draft, end.peer, end.peer_name, address.version)
        if gateway is None:
            draft.problem(f"node {owner.name}", f"{address}: {node.name} has no IPv{address.version} way there")
            continue
        yield node.name, RoutePlan(address.version, str(ip_network(address)), str(gateway), end.name)


def _shortest_ways(draft: Draft, target: str) -> dict[str, EndDraft]:
    """Return, per node, its own end of the first link on a shortest way to `target` through forwarding nodes."""
    first: dict[str, EndDraft] = {}
    queue = deque([target])
    while queue:
        here = queue.popleft()
        if here != target and not draft.nodes[here].forwards:
            continue
        for end in draft.nodes[here].interfaces:
            if end.peer != target and end.peer not in first:
                first[end.peer] = next(i for i in draft.nodes[end.peer].interfaces if i.name == end.peer_name)
                queue.append(end.peer)
    return first


def _end_address(draft: Draft, node: str, interface: str, version: int) -> Address | None:
    end = next(end for end in draft.nodes[node].interfaces if end.name == interface)
    return next((own.ip for own in end.addresses if own.version == version), None)


def _check_addresses(draft: Draft) -> None:
    owners: dict[Address, str] = {}
    macs: dict[str, str] = {}
    for node in draft.nodes.values():
        for end in node.interfaces:
            where = f"{node.name} ({end.name})"
            if end.mac and end.mac in macs:
                draft.problem(where, f"{end.mac} is also the MAC address of {macs[end.mac]}")
            macs.setdefault(end.mac or "", where)
            for own in end.addresses:
                if own.ip in owners:
                    draft.problem(where, f"{own.ip} is also the address of {owners[own.ip]}")
                owners.setdefault(own.ip, where)
                _check_address(draft, where, own)


def _check_address(draft: Draft, where: str, own: Interface) -> None:
    if own.ip.is_multicast or own.ip.is_unspecified or own.ip.is_loopback:
        draft.problem(where, f"{own.ip} is not an address that a host can have")
    elif (
        isinstance(own, IPv4Interface)
        and own.network.prefixlen < 31
        and own.ip in (own.network.network_address, own.network.broadcast_address)
    ):
        draft.problem(where, f"{own.ip} is the network or broadcast address of {own.network}")


def _static_routes(draft: Draft, node: NodeDraft) -> Iterator[RoutePlan]:
    seen: set[Network] = set()
    for prefix, text in node.routes:
        where = f"node {node.name}, route {prefix}"
        try:
            gateway = ip_address(text)
        except ValueError as error:
            draft.problem(where, f"{text} is not an address: {error}")
            continue
        end = next((end for end in node.interfaces if any(gateway in own.network for own in end.addresses)), None)
        if gateway.version != prefix.version:
            draft.problem(where, f"the gateway {gateway} is of the other address family")
        elif end is None:
            draft.problem(where, f"the gateway {gateway} is on none of the node's links")
        elif prefix in seen:
            draft.problem(where, "there are two routes to this prefix")
        else:
            yield RoutePlan(prefix.version, str(prefix), str(gateway), end.name)
        seen.add(prefix)


def _place_taps(draft: Draft, request: LabRequest) -> list[TapPlan]:
    taps: list[TapPlan] = []
    for tap in request.taps:
        where = f"tap {tap.name}"
        node = draft.nodes.get(tap.node)
        if node is None:
            draft.problem(where, f"no node is called {tap.node}; there are {', '.join(draft.nodes)}")
            continue
        end = _tap_end(draft, request, node, tap.toward)
        if end is None:
            ends = ", ".join(f"{end.peer} ({end.name})" for end in node.interfaces)
            draft.problem(where, f"{tap.node} has no interface toward {tap.toward or request.client}; it has {ends}")
            continue
        if any(other.name == tap.name for other in taps):
            draft.problem(where, "there are two taps of this name")
        taps.append(TapPlan(tap.name, tap.node, end.name))
    return taps


def _tap_end(draft: Draft, request: LabRequest, node: NodeDraft, toward: str | None) -> EndDraft | None:
    if toward is not None:
        return next((end for end in node.interfaces if toward in (end.name, end.peer)), None)
    if node.name == request.client:
        return node.interfaces[0] if node.interfaces else None
    if request.client not in draft.nodes:
        return None
    return _shortest_ways(draft, request.client).get(node.name)


def _check_names(draft: Draft, request: LabRequest) -> None:
    for title, mapping in (("resolver", request.resolvers), ("hosts", request.hosts)):
        for name in mapping:
            if name not in draft.nodes:
                draft.problem(f"{title} of {name}", f"no node is called {name}; there are {', '.join(draft.nodes)}")
    texts = [(name, text) for name, addresses in request.resolvers.items() for text in addresses]
    texts += [(name, text) for name, entries in request.hosts.items() for text in entries.values()]
    for name, text in texts:
        try:
            ip_address(text)
        except ValueError as error:
            draft.problem(f"node {name}", f"{text} is not an address: {error}")


def _freeze(
    draft: Draft,
    request: LabRequest,
    routes: Mapping[str, list[RoutePlan]],
    taps: list[TapPlan],
    impairments: list[Impairments],
) -> LabPlan:
    tapped = {(tap.node, tap.interface) for tap in taps}
    macs = _mac_addresses(draft)
    nodes = tuple(
        NodePlan(
            name=node.name,
            forwards=node.forwards,
            terminates=node.terminates,
            interfaces=tuple(_freeze_interface(node, end, macs, tapped) for end in node.interfaces),
            routes=tuple(routes[node.name]),
            sysctls=node_sysctls(node.forwards),
            nat=_nat(node),
            protects=_protection(node),
            resolvers=tuple(str(ip_address(text)) for text in request.resolvers.get(node.name, ())),
            hosts=_hosts(node, request),
        )
        for node in draft.nodes.values()
    )
    links = tuple(
        LinkPlan(end1.node, end1.name, end2.node, end2.name, end1.mtu_octets, impaired)
        for (end1, end2), impaired in zip(draft.links, impairments, strict=True)
    )
    return LabPlan(nodes, links, tuple(taps), request.seed)


def _mac_addresses(draft: Draft) -> dict[tuple[str, str], str]:
    """Return locally administered addresses: 02:00, the link's number, the end's number."""
    macs = {}
    for number, ends in enumerate(draft.links, start=1):
        for which, end in enumerate(ends, start=1):
            own = f"02:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}:{which:02x}"
            macs[end.node, end.name] = end.mac or own
    return macs


def _freeze_interface(
    node: NodeDraft, end: EndDraft, macs: Mapping[tuple[str, str], str], tapped: set[tuple[str, str]]
) -> InterfacePlan:
    mac = macs[end.node, end.name]
    is_tapped = (node.name, end.name) in tapped
    return InterfacePlan(
        name=end.name,
        peer=end.peer,
        peer_interface=end.peer_name,
        mac=mac,
        link_local=_link_local(mac),
        addresses=tuple(str(address) for address in end.addresses),
        gro=node.terminates and not is_tapped,
        tapped=is_tapped,
        mtu_octets=end.mtu_octets,
    )


def _link_local(mac: str) -> str:
    """Return the address that the kernel derives from a MAC address (modified EUI-64, RFC 4291 appendix A)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return f"{IPv6Address(bytes.fromhex('fe80000000000000') + identifier)}/64"


def _nat(node: NodeDraft) -> NatPlan | None:
    if not node.nat:
        return None
    return NatPlan(tuple(str(prefix) for prefix in node.nat), tuple(end.name for end in node.interfaces))


def _protection(node: NodeDraft) -> ProtectPlan | None:
    if not node.protects:
        return None
    outside = [end.name for end in node.interfaces if not _lies_within(end, node.protects)]
    return ProtectPlan(tuple(str(prefix) for prefix in node.protects), tuple(outside))


def _lies_within(end: EndDraft, prefixes: tuple[Network, ...]) -> bool:
    return all(any(own.ip in prefix for prefix in prefixes) for own in end.addresses)


def _hosts(node: NodeDraft, request: LabRequest) -> tuple[tuple[str, str], ...]:
    own = [(str(address.ip), node.name) for end in node.interfaces[:1] for address in end.addresses[:1]]
    asked = [(str(ip_address(text)), name) for name, text in request.hosts.get(node.name, {}).items()]
    return tuple(own + asked)
