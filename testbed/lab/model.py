"""The values of a lab: what is asked for (`LabRequest`), and what will be built (`LabPlan`) down to each sysctl.

All are frozen and hold text and numbers only, so that a plan can be printed, compared with the kernel's answers, sent
between processes and tested without root. `plan.plan_lab` makes a `LabPlan`; `build.Lab.build` makes it real.
Addresses are canonical text; an interface's carry their prefix length ("192.168.0.13/24").
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.lab.impair.model import Impairment

MTU_OCTETS = 1500


class LabPlanError(Exception):
    """A topology or a request that cannot be built; `problems` names every mistake, each in one sentence."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class TapRequest:
    """An observer's place: one interface of `node`.

    `toward` is the neighbour at the link's other end, or the interface's own name; None is the node's interface on
    the shortest way to the client.
    """

    name: str
    node: str
    toward: str | None = None


@dataclass(frozen=True, slots=True)
class LinkRequest:
    """What changes about the link between nodes `a` and `b`, both directions alike, under Mininet's names.

    None leaves the topology's own value. A link that is named here can also be changed while the lab runs.
    Units: `bw` in Mbit/s; `delay` and `jitter` in seconds; `loss`, `duplicate` and `reorder` in percent.
    """

    a: str
    b: str
    bw: float | None = None
    delay: float | None = None
    jitter: float | None = None
    loss: float | None = None
    duplicate: float | None = None
    reorder: float | None = None
    max_queue_size: int | None = None
    mtu_octets: int | None = None


@dataclass(frozen=True, slots=True)
class LabRequest:
    """What a scenario adds to a topology."""

    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)  # node -> further IPv4 and IPv6 addresses
    resolvers: Mapping[str, Sequence[str]] = field(default_factory=dict)  # node -> name servers of its resolv.conf
    taps: Sequence[TapRequest] = ()
    hosts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # node -> {name: address} of its /etc/hosts
    links: Sequence[LinkRequest] = ()
    client: str = "client"  # the node whose privacy is in question
    seed: int = 1  # of the fates of packets on impaired links


@dataclass(frozen=True, slots=True)
class InterfacePlan:
    name: str
    peer: str  # node at the other end
    peer_interface: str
    mac: str
    link_local: str  # the IPv6 address that the kernel derives from `mac`
    addresses: tuple[str, ...]  # with prefix length
    gro: bool
    tapped: bool
    mtu_octets: int = MTU_OCTETS


@dataclass(frozen=True, slots=True)
class RoutePlan:
    family: int  # 4 or 6
    destination: str  # prefix; 0.0.0.0/0 and ::/0 are the defaults
    gateway: str | None
    interface: str


@dataclass(frozen=True, slots=True)
class NatPlan:
    """Packets from `prefixes` that leave by one of `interfaces` get that interface's own address as their source."""

    prefixes: tuple[str, ...]
    interfaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ProtectPlan:
    """Packets to `prefixes` that come in by one of `refused_from` are not forwarded but answered "prohibited"."""

    prefixes: tuple[str, ...]
    refused_from: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodePlan:
    name: str
    forwards: bool
    terminates: bool
    interfaces: tuple[InterfacePlan, ...]
    routes: tuple[RoutePlan, ...]
    sysctls: tuple[tuple[str, str], ...]  # in the order in which they are written
    nat: NatPlan | None = None
    protects: ProtectPlan | None = None
    resolvers: tuple[str, ...] = ()
    hosts: tuple[tuple[str, str], ...] = ()  # (address, name)

    def interface(self, name: str) -> InterfacePlan:
        """Return the interface called `name`. Errors: KeyError."""
        for interface in self.interfaces:
            if interface.name == name:
                return interface
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class LinkPlan:
    """A link. `impairments` are those from node1 to node2 and back; None is a plain cable, without an engine."""

    node1: str
    interface1: str
    node2: str
    interface2: str
    mtu_octets: int = MTU_OCTETS
    impairments: tuple[Impairment, Impairment] | None = None


@dataclass(frozen=True, slots=True)
class TapPlan:
    name: str
    node: str
    interface: str


@dataclass(frozen=True, slots=True)
class LabPlan:
    nodes: tuple[NodePlan, ...]
    links: tuple[LinkPlan, ...]
    taps: tuple[TapPlan, ...] = ()
    seed: int = 1

    def node(self, name: str) -> NodePlan:
        """Return the node called `name`. Errors: KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values, under the names of the fields."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """Return every address, route, rule and sysctl as text for people: what `--dry-run` prints."""
        lines = [line for node in self.nodes for line in _node_lines(self, node)]
        return "\n".join(lines + [line for link in self.links for line in _link_lines(link)]) + "\n"


def _node_lines(plan: LabPlan, node: NodePlan) -> Iterator[str]:
    roles = [word for word, holds in (("forwards", node.forwards), ("terminates", node.terminates)) if holds]
    yield f"node {node.name}" + (f" ({', '.join(roles)})" if roles else "")
    for interface in node.interfaces:
        yield from _interface_lines(plan, node, interface)
    for route in node.routes:
        via = f" via {route.gateway}" if route.gateway else ""
        yield f"  route {route.destination}{via} dev {route.interface}"
    if node.nat:
        for interface_name in node.nat.interfaces:
            for prefix in node.nat.prefixes:
                yield f"  nat masquerade from {prefix} out of {interface_name}"
    if node.protects:
        for interface_name in node.protects.refused_from:
            for prefix in node.protects.prefixes:
                yield f"  refuse to {prefix} in by {interface_name}"
    for resolver in node.resolvers:
        yield f"  resolver {resolver}"
    for address, name in node.hosts:
        yield f"  host {name} {address}"
    for key, value in node.sysctls:
        yield f"  sysctl {key} = {value}"


def _interface_lines(plan: LabPlan, node: NodePlan, interface: InterfacePlan) -> Iterator[str]:
    taps = [tap.name for tap in plan.taps if (tap.node, tap.interface) == (node.name, interface.name)]
    yield (
        f"  interface {interface.name} -> {interface.peer} ({interface.peer_interface})"
        f" mac {interface.mac} mtu {interface.mtu_octets}"
        f" gro {'on' if interface.gro else 'off'} tso off gso off tx-checksum off"
        + (f" tap {', '.join(taps)}" if taps else "")
    )
    for address in interface.addresses:
        yield f"    address {address}"
    yield f"    address {interface.link_local}"


def _link_lines(link: LinkPlan) -> Iterator[str]:
    ways = ((link.node1, link.node2), (link.node2, link.node1))
    for (source, target), impairment in zip(ways, link.impairments or (), strict=False):
        yield f"link {source} to {target}: {impairment.describe()}"
