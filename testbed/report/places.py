"""Who is at which address, and how the lab's nodes hang together: what drawings need to name and to place things.

From the result alone: the topology that the run wrote down, the sites that the client's kernel was asked about. A
result without a topology (an older one, a sample) is drawn as the shipped one is: client - ISP - transit - {web, VPN -
private}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.report.own_addresses import client_addresses, is_private
from testbed.result import RunResult, VariantResult

CLIENT = "client"
MOST_NODES = 40
_SHIPPED = (("client", "isp"), ("isp", "transit"), ("transit", "web"), ("transit", "vpn"), ("vpn", "private"))


@dataclass(frozen=True, slots=True)
class Graph:
    """The lab's nodes and links. Shape: `node_of` maps addresses; `peer_of` maps (node, interface) to a neighbour."""

    nodes: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    node_of: Mapping[str, str] = field(default_factory=dict)
    peer_of: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def neighbours(self, node: str) -> list[str]:
        return [b if a == node else a for a, b in self.links if node in (a, b)]

    def way(self, start: str, end: str) -> tuple[str, ...]:
        """The nodes of a shortest way, both ends included; empty if there is none."""
        before: dict[str, str | None] = {start: None}
        queue = deque([start])
        while queue and end not in before:
            node = queue.popleft()
            for other in self.neighbours(node):
                if other not in before:
                    before[other] = node
                    queue.append(other)
        found: list[str] = []
        at: str | None = end if end in before and start in self.nodes else None
        while at is not None:
            found.append(at)
            at = before[at]
        return tuple(reversed(found))


def graph_of(result: RunResult) -> Graph:
    """The topology that the run wrote down, or the shipped one. Total: odd shapes give what can be read of them."""
    written = result.scenario.get("topology")
    nodes = written if isinstance(written, dict) else {}
    links: dict[frozenset[str], tuple[str, str]] = {}
    node_of: dict[str, str] = {}
    peer_of: dict[tuple[str, str], str] = {}
    for node, interfaces in list(nodes.items())[:MOST_NODES]:
        for name, end in interfaces.items() if isinstance(interfaces, dict) else ():
            peer = str(end.get("peer")) if isinstance(end, dict) else ""
            if peer in nodes and peer != node:
                links.setdefault(frozenset((str(node), peer)), (str(node), peer))
                peer_of[str(node), str(name)] = peer
            node_of |= {str(address): str(node) for address in _listed(end)}
    if not links:
        shipped = tuple(dict.fromkeys(node for link in _SHIPPED for node in link))
        return Graph(shipped, _SHIPPED, _shipped_addresses(result), {})
    return Graph(tuple(map(str, list(nodes)[:MOST_NODES])), tuple(links.values()), node_of, peer_of)


def _listed(end: Any) -> Sequence[Any]:
    addresses = end.get("addresses") if isinstance(end, dict) else ()
    return addresses if isinstance(addresses, (list, tuple)) else ()


def _shipped_addresses(result: RunResult) -> dict[str, str]:
    """Where sites are when nobody wrote it down: private addresses behind the VPN server, all others on the web."""
    rows = [row for variant in result.variants.values() for row in variant.egress]
    return {str(row.get("address")): "private" if is_private(str(row.get("address"))) else "web" for row in rows}


@dataclass(frozen=True, slots=True)
class Places:
    """Names for the addresses of one variant's packets."""

    clients: frozenset[str]
    sites: Mapping[str, str]
    nodes: Mapping[str, str]
    tunnel_server: str
    inside_server: frozenset[str]

    def name(self, address: str) -> str:
        """Who is there: `you`, a site's name, a node's; empty if nobody knows."""
        if address in self.clients:
            return "you"
        if address in self.sites:
            return self.sites[address]
        if address == self.tunnel_server:
            return "VPN server"
        if address in self.inside_server:
            return "VPN server, inside"
        return _node_in_words(self.nodes[address]) if address in self.nodes else ""


def places_of(variant: VariantResult, graph: Graph) -> Places:
    tunnel = variant.tunnel or {}
    inside = {str(row.get("gateway")) for row in variant.egress if str(row.get("interface")) == tunnel.get("interface")}
    return Places(
        clients=client_addresses(variant),
        sites={str(row.get("address")): str(row.get("site")) for row in variant.egress},
        nodes=graph.node_of,
        tunnel_server=str(tunnel.get("server_address", "")),
        inside_server=frozenset(inside - {"None"}),
    )


def _node_in_words(node: str) -> str:
    return {"isp": "your ISP", "vpn": "VPN server", "web": "web", "client": "you"}.get(node, node)


def targets(variant: VariantResult) -> frozenset[str]:
    """Sites that an action meant, whether it succeeded or not."""
    sites = {str(row.get("site")) for row in variant.egress}
    return frozenset(site for site in sites if any(site in action.target for action in variant.actions))


def reached(variant: VariantResult, sites: Iterable[str]) -> frozenset[str]:
    """Those of the sites that an action reached."""
    return frozenset(site for site in sites if any(act.ok and site in act.target for act in variant.actions))
