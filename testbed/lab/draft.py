"""Reading a Mininet topology into nodes and links with typed values, and every mistake in it into a sentence.

Pure. A `Draft` is what the topology says before routes, sysctls and taps are derived from it (see `plan`). Node and
link options use Mininet's names; ours beside them are listed in `NODE_OPTIONS` and `LINK_OPTIONS`. A mistake never
raises here: it is added to `Draft.problems`, so that a person sees all of them at once.

What it does not do: switches (a link joins two nodes) are refused in words, never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface, ip_network
from typing import Any, Protocol

from testbed.lab.impair.options import OPTIONS, parse_option
from testbed.lab.model import MTU_OCTETS

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

NODE_OPTIONS = (
    "ip",
    "ip6",
    "defaultRoute",
    "routes",
    "forwards",
    "terminates",
    "nat",
    "protects",
    "resolver",
    "nameserver",
    "cls",
)
END_OPTIONS = ("ip", "ip6", "mac", *OPTIONS)
LINK_OPTIONS = ("params1", "params2", "intfName1", "intfName2", "addr1", "addr2", "mtu", *OPTIONS)
_BOOKKEEPING = ("node1", "node2", "port1", "port2")  # what Mininet itself adds to a link's options
_MAX_INTERFACE_NAME = 15  # IFNAMSIZ less its final zero
_NODE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*\Z")
_MAC = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\Z")


class Topology(Protocol):
    """What a plan needs of a `mininet.topo.Topo`."""

    def nodes(self, sort: bool = ...) -> Any: ...
    def nodeInfo(self, name: str) -> dict[str, Any]: ...
    def isSwitch(self, n: str) -> bool: ...
    def links(self, sort: bool = ..., withKeys: bool = ..., withInfo: bool = ...) -> Any: ...


@dataclass(slots=True)
class EndDraft:
    """One end of a link."""

    node: str
    name: str
    port: int
    peer: str
    peer_name: str
    addresses: list[Interface]
    mac: str | None
    mtu_octets: int
    impairments: dict[str, float] = field(default_factory=dict)  # of what this end sends; empty for a plain cable


@dataclass(slots=True)
class NodeDraft:
    name: str
    forwards: bool
    terminates: bool
    routes: list[tuple[Network, str]]  # prefix, gateway as text
    nat: tuple[Network, ...]
    protects: tuple[Network, ...]
    interfaces: list[EndDraft] = field(default_factory=list)


@dataclass(slots=True)
class Draft:
    nodes: dict[str, NodeDraft] = field(default_factory=dict)
    links: list[tuple[EndDraft, EndDraft]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def problem(self, where: str, what: str) -> None:
        self.problems.append(f"{where}: {what}")


def read_topology(topo: Topology) -> Draft:
    """Return what `topo` says, with every mistake in `Draft.problems`."""
    draft = Draft()
    for name in topo.nodes(sort=False):
        if topo.isSwitch(name):
            draft.problem(f"node {name}", "switches are not supported; a link joins two hosts or routers")
        else:
            draft.nodes[name] = _read_node(draft, name, topo.nodeInfo(name))
    for name1, name2, info in topo.links(withInfo=True):
        if name1 in draft.nodes and name2 in draft.nodes:
            _read_link(draft, name1, name2, info)
    for node in draft.nodes.values():
        node.interfaces.sort(key=lambda end: end.port)
        _apply_node_addresses(draft, node, topo.nodeInfo(node.name))
    return draft


def parse_network(draft: Draft, where: str, text: object) -> Network | None:
    """Return the prefix that `text` spells; otherwise note the mistake and return None."""
    try:
        return ip_network(str(text))
    except ValueError as error:
        draft.problem(where, f"{text!s} is not a prefix: {error}")
        return None


def parse_interface(draft: Draft, where: str, text: object) -> Interface | None:
    """Return the address with prefix length that `text` spells; otherwise note the mistake and return None."""
    try:
        if "/" not in str(text):
            draft.problem(where, f"{text!s} has no prefix length, such as {text!s}/24")
            return None
        return ip_interface(str(text))
    except ValueError as error:
        draft.problem(where, f"{text!s} is not an address: {error}")
        return None


def _read_node(draft: Draft, name: str, options: Mapping[str, Any]) -> NodeDraft:
    where = f"node {name}"
    if not _NODE_NAME.match(name):
        draft.problem(where, "a node's name is a letter, then letters, digits, - and _")
    _refuse_unknown(draft, where, options, NODE_OPTIONS)
    forwards = bool(options.get("forwards", False))
    return NodeDraft(
        name=name,
        forwards=forwards,
        terminates=bool(options.get("terminates", not forwards)),
        routes=list(_routes(draft, where, options)),
        nat=tuple(_networks(draft, f"{where}, nat", options.get("nat", ()))),
        protects=tuple(_networks(draft, f"{where}, protects", options.get("protects", ()))),
    )


def _networks(draft: Draft, where: str, texts: Any) -> Iterator[Network]:
    for text in [texts] if isinstance(texts, str) else texts:
        if (network := parse_network(draft, where, text)) is not None:
            yield network


def _routes(draft: Draft, where: str, options: Mapping[str, Any]) -> Iterator[tuple[Network, str]]:
    default = options.get("defaultRoute")
    if default:
        words = str(default).split()
        if len(words) >= 2 and words[0] == "via":
            yield ip_network("::/0" if ":" in words[1] else "0.0.0.0/0"), words[1]
        else:
            draft.problem(f"{where}, defaultRoute", f"{default!s} is not of the form 'via ADDRESS'")
    for prefix, gateway in dict(options.get("routes", {})).items():
        if (network := parse_network(draft, f"{where}, routes", prefix)) is not None:
            yield network, str(gateway)


def _read_link(draft: Draft, name1: str, name2: str, info: Mapping[str, Any]) -> None:
    where = f"link {name1} - {name2}"
    if name1 == name2:
        draft.problem(where, "a node cannot be linked to itself")
        return
    _refuse_unknown(draft, where, info, (*LINK_OPTIONS, *_BOOKKEEPING))
    common = _read_impairments(draft, where, info)
    # Mininet stores a link under its sorted names, but node1 and node2 as they were given; params1 belongs to node1.
    node1, node2 = info["node1"], info["node2"]
    names = tuple(
        str(info.get(f"intfName{end}") or f"{node}-eth{info[f'port{end}']}") for end, node in ((1, node1), (2, node2))
    )
    end1 = _read_end(draft, where, info, 1, node1, node2, names)
    end2 = _read_end(draft, where, info, 2, node2, node1, names)
    for number, end in ((1, end1), (2, end2)):
        own = _read_impairments(draft, f"{where}, {end.node}", info.get(f"params{number}") or {})
        end.impairments = {key: value for key, value in {**common, **own}.items() if value}
    draft.links.append((end1, end2))
    for end in (end1, end2):
        if any(other.name == end.name for other in draft.nodes[end.node].interfaces):
            draft.problem(where, f"node {end.node} has two interfaces called {end.name}")
        draft.nodes[end.node].interfaces.append(end)


def _read_end(
    draft: Draft, where: str, info: Mapping[str, Any], number: int, node: str, peer: str, names: tuple[str, ...]
) -> EndDraft:
    options = info.get(f"params{number}") or {}
    place = f"{where}, {node}"
    _refuse_unknown(draft, place, options, END_OPTIONS)
    name = names[number - 1]
    if len(name) > _MAX_INTERFACE_NAME or "/" in name or not name:
        draft.problem(place, f"interface name {name!r} is not of 1 to {_MAX_INTERFACE_NAME} characters")
    mac = options.get("mac") or info.get(f"addr{number}")
    if mac is not None and not _MAC.match(str(mac).lower()):
        draft.problem(place, f"{mac!s} is not a MAC address")
        mac = None
    addresses = [
        address
        for key in ("ip", "ip6")
        for text in _as_list(options.get(key))
        if (address := parse_interface(draft, place, text)) is not None
    ]
    mtu = info.get("mtu", MTU_OCTETS)
    if not isinstance(mtu, int) or not 1280 <= mtu <= 65535:
        draft.problem(where, f"mtu is {mtu!r}; allowed are 1280 to 65535 octets (IPv6 needs 1280)")
        mtu = MTU_OCTETS
    return EndDraft(
        node, name, int(info[f"port{number}"]), peer, names[2 - number], addresses, mac and str(mac).lower(), mtu
    )


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _apply_node_addresses(draft: Draft, node: NodeDraft, options: Mapping[str, Any]) -> None:
    """Mininet's rule: a node's own `ip` is its first interface's, unless the link gave that interface another."""
    for key in ("ip", "ip6"):
        for text in _as_list(options.get(key)):
            address = parse_interface(draft, f"node {node.name}", text)
            if address is None:
                continue
            if not node.interfaces:
                draft.problem(f"node {node.name}", f"has the address {text!s} but no link")
            elif any(address in end.addresses for end in node.interfaces):
                continue
            elif any(own.version == address.version for own in node.interfaces[0].addresses):
                draft.problem(f"node {node.name}", f"{key} is {text!s}, but its first link gives it another address")
            else:
                node.interfaces[0].addresses.append(address)


def _read_impairments(draft: Draft, where: str, options: Mapping[str, Any]) -> dict[str, float]:
    """Return the options among `options` that make a link worse than a cable, as numbers (see `impair.options`)."""
    found = {}
    for key in OPTIONS:
        value = options.get(key)
        if value is None:
            continue
        try:
            found[key] = parse_option(key, value)
        except ValueError as error:
            draft.problem(where, f"{key} is {value!r}; {error}")
    return found


def _refuse_unknown(draft: Draft, where: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in options:
        if key not in known:
            close = get_close_matches(str(key), known, 1)
            draft.problem(where, f"unknown option {key!s}" + (f"; did you mean {close[0]}?" if close else ""))
