"""What must hold between the keys of a scenario: combinations that exist, names that are defined, addresses used once.

Every function yields mistakes at the place that wrote the value. They are given the variant's model (what is right of
it) and its whole tree, so that one mistake does not bring others with it: a site that is wrong is still a known name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network

from testbed.facts import Kind
from testbed.scenario import words
from testbed.scenario.errors import Mistake, nearest, one_of, shown
from testbed.scenario.faults import check_events
from testbed.scenario.model import ActionModel, ExpectModel, FetchOptions, SiteModel, TunnelModel, VariantModel
from testbed.scenario.protocols import check_lookups, check_version
from testbed.scenario.tree import Located, join_path
from testbed.scenario.values import CLIENT_TUN, MEASURES, SERVER_OBSERVER, SESSION_ACTION, TUNNEL_ACTION

NEVER_HIDDEN = (Kind.VOLUME, Kind.TIMING)
CALLERS = "client-address"  # also a kind of fact: here, which addresses called a server
SAYS = ("sees", "hides", *MEASURES, CALLERS)
OF_A_TUNNEL = ("leaks", "first_leak_after", "tunnel_detected_at_packet", "overhead")
LONGEST_S = 3600.0  # what an action may wait or take
BODY_METHODS = ("POST", "PUT", "PATCH", "DELETE")
SERVICES = ("http", "https", "http3", "dns", "dot", "doh")  # what a site may serve; any of them keeps a log


@dataclass(frozen=True, slots=True)
class TopologyShape:
    """What `check` needs to know of a topology: its nodes and, where known, whose each address is."""

    nodes: frozenset[str]
    addresses: Mapping[str, str] = field(default_factory=dict)  # address -> node


@dataclass(frozen=True, slots=True)
class Known:
    """The names that a variant defines, wrong ones included, for expectations to refer to."""

    sites: tuple[str, ...]
    served: tuple[str, ...]  # sites that keep a log
    taps: tuple[str, ...]
    actions: tuple[str, ...]
    tunnel: bool = True

    @classmethod
    def of(cls, tree: Located) -> Known:
        plain = tree.plain()
        sites = plain.get("sites") if isinstance(plain.get("sites"), dict) else {}
        served = tuple(n for n, s in sites.items() if not isinstance(s, dict) or any(map(s.get, SERVICES)))
        workload = plain.get("workload") if isinstance(plain.get("workload"), list) else []
        actions = [action_id(index, next(iter(item), "")) for index, item in enumerate(workload) if _pairs(item)]
        taps = plain.get("taps") if isinstance(plain.get("taps"), list) else ["isp"]
        names = [str(tap.get("name", "")) if isinstance(tap, dict) else str(tap) for tap in taps]
        every = (*actions, TUNNEL_ACTION, SESSION_ACTION)
        return cls(tuple(sites), served, tuple(names), every, plain.get("tunnel") is not None)

    @classmethod
    def of_any(cls, variants: Iterable[Known]) -> Known:
        """What at least one of the variants defines: for an expectation that does not say which it means."""
        every = list(variants)
        sites, served, taps, actions = (
            tuple(dict.fromkeys(name for known in every for name in getattr(known, kind)))
            for kind in ("sites", "served", "taps", "actions")
        )
        return cls(sites, served, taps, actions, any(known.tunnel for known in every))


def _pairs(value: object) -> bool:
    return isinstance(value, dict) and bool(value)


def action_id(index: int, verb: str) -> str:
    return f"{index + 1}-{verb}"


def check_variant(
    model: VariantModel, tree: Located, known: Known, topology: TopologyShape | None
) -> Iterator[Mistake]:
    """Every mistake of a variant that its shape alone does not show."""
    yield from _sites(model.sites, tree, topology)
    if model.tunnel is not None:
        yield from _tunnel(model.tunnel, tree.at("tunnel"))
        yield from _routes(model.tunnel.routes, tree.at("tunnel", "routes"))
    for index, action in enumerate(model.workload):
        yield from _action(action, tree.at("workload", index), model.sites, known)
    yield from check_lookups(model, tree, known.sites)
    nodes = topology.nodes if topology is not None else None
    yield from check_events(model.events, tree.at("events"), tunnel=model.tunnel is not None, nodes=nodes)
    yield from _taps(model, tree, topology)


def _node(name: str, place: Located, topology: TopologyShape | None) -> Iterator[Mistake]:
    if topology is not None and name not in topology.nodes:
        nodes = sorted(topology.nodes)
        yield place.mistake(
            f"value {shown(name)}: the topology has no such node; {one_of(nodes)}{nearest(name, nodes)}"
        )


def check_lost_sites(tree: Located, model: VariantModel, topology: TopologyShape | None) -> Iterator[Mistake]:
    """Wrong nodes of sites that have no other value, as their address is wrong. Shape: the variant's whole tree."""
    sites = tree.child("sites")
    for name, site in sites.value.items() if sites is not None and isinstance(sites.value, dict) else ():
        node = site.child("node")
        if name not in model.sites and node is not None and isinstance(node.value, str):
            yield from _node(node.value, node, topology)


def _sites(sites: dict[str, SiteModel], tree: Located, topology: TopologyShape | None) -> Iterator[Mistake]:
    owners: dict[str, str] = {}
    for name, site in sites.items():
        place = tree.at("sites", name)
        try:
            words.host_name(name)
        except ValueError as error:
            yield place.key_mistake(f"site {shown(name)}: {error}")
        yield from _node(site.node, place.at("node"), topology)
        for index, address in enumerate(site.address):
            where = place.at("address", index)
            if (owner := owners.setdefault(address, name)) != name:
                yield where.mistake(f"value {address}: site {owner} has this address already; give each its own")
            elif index != site.address.index(address):
                yield where.mistake(f"value {address}: stands twice")
            elif topology and (node := topology.addresses.get(address, site.node)) != site.node:
                yield where.mistake(f"value {address}: node {node} has this address, but the site is at {site.node}")


def _tunnel(tunnel: TunnelModel, place: Located) -> Iterator[Mistake]:
    ends = (tunnel.program.client, tunnel.program.server)
    for alone in ("wireguard", "command"):
        if alone in ends and ends[0] != ends[1]:
            yield place.at("program").mistake(f"{alone} at one end needs {alone} at the other; both speak one protocol")
    written = tunnel.model_fields_set
    if "wireguard" in ends:
        for key in ("mode", "transport", "cipher", "control"):
            if key in written:
                yield place.at(key).key_mistake("wireguard has its own, fixed; leave the key out")
    yield from _own_command(tunnel, place)
    if {"wireguard", "command"} & set(ends):
        if tunnel.options.client or tunnel.options.server:
            text = "are lines of OpenVPN's configuration; only vpn and openvpn read them"
            yield place.at("options").key_mistake(text)
        return
    if tunnel.mode == "static-key":
        where = f"mode static-key (line {place.at('mode').line})"
        if tunnel.cipher not in (None, "AES-256-CBC"):
            text = (
                f"value {tunnel.cipher}: cannot be used with {where}: OpenVPN has no AEAD there; allowed: AES-256-CBC"
            )
            yield place.at("cipher").mistake(text)
        if tunnel.control not in (None, "none"):
            text = f"value {tunnel.control}: cannot be used with {where}: it has no control channel; allowed: none"
            yield place.at("control").mistake(text)


def _own_command(tunnel: TunnelModel, place: Located) -> Iterator[Mistake]:
    """A command goes with `program: command`, which has nothing of OpenVPN's keys."""
    if tunnel.program.client != "command":
        if tunnel.command is not None:
            yield place.at("command").key_mistake("says how to start a VPN of your own; it needs `program: command`")
        return
    if tunnel.command is None:
        if place.child("command") is None:  # a wrong one has been told already
            message = "missing; how both ends are started: `command: {client: …, server: …}`"
            where = place.at("program")
            yield Mistake(where.source, where.line, where.column, join_path(place.path, "command"), message)
        return
    for key in ("mode", "transport", "cipher", "control"):
        if key in tunnel.model_fields_set:
            yield place.at(key).key_mistake("is the affair of the command; leave the key out")
    for end, files in (("client", tunnel.command.files.client), ("server", tunnel.command.files.server)):
        for name in files:
            try:
                words.file_name(name)
            except ValueError as error:
                yield place.at("command", "files", end, name).key_mistake(f"file {shown(name)}: {error}")


def _routes(routes: list[str], place: Located) -> Iterator[Mistake]:
    for index, route in enumerate(routes):
        where = place.at(index)
        if route == "all":
            if len(routes) > 1:
                yield where.mistake("all stands alone: `routes: all`, or a list of prefixes")
            continue
        covering = [other for other in routes[:index] + routes[index + 1 :] if _covers(other, route)]
        if covering and not (covering[0] == route and routes.index(route) == index):
            yield where.mistake(f"value {route}: {covering[0]} covers it already; leave it out")


def _covers(outer: str, inner: str) -> bool:
    if outer == "all":
        return False
    wide, narrow = ip_network(outer), ip_network(inner)
    return wide.version == narrow.version and narrow.subnet_of(wide)  # type: ignore[arg-type]


def check_actions(tree: Located) -> Iterator[Mistake]:
    """There is a workload, and every item names one verb. Shape: the variant's whole tree, with what is wrong in it."""
    workload = tree.child("workload")
    if workload is None or workload.value in (None, []):
        message = "missing; a variant in which the client does nothing shows nothing"
        yield Mistake(tree.source, tree.line, tree.column, join_path(tree.path, "workload"), message)
        return
    for item in workload.value if isinstance(workload.value, list) else []:
        if isinstance(item.value, dict) and len(item.value) != 1:
            found = f"this has {', '.join(item.value)}" if item.value else "this has none"
            yield item.mistake(f"an action has exactly one of {', '.join(ActionModel.model_fields)}; {found}")


def _action(action: ActionModel, place: Located, sites: dict[str, SiteModel], known: Known) -> Iterator[Mistake]:
    for verb in ActionModel.model_fields:
        options = getattr(action, verb)
        for key in ("at", "timeout"):
            if options is not None and (getattr(options, key) or 0.0) > LONGEST_S:
                yield place.at(verb, key).mistake("must be an hour at the most")
    if action.dns is not None:
        where = place.at("dns", "name")
        if not any(action.dns.name == site or action.dns.name.endswith(f".{site}") for site in known.sites):
            yield where.mistake(_no_such_site(action.dns.name, known))
    for verb, options in (("http", action.http), ("https", action.https)):
        if options is not None:
            yield from _fetch(options, options.url, place.at(verb), sites, known)
            yield from check_version(verb, options, options.url, place.at(verb), sites)
    if action.ping is not None:
        where = place.at("ping", "host")
        yield from _host(action.ping.host, action.ping.family, where, sites, known)


def _no_such_site(name: str, known: Known) -> str:
    return f"value {shown(name)}: no such site; {one_of(known.sites)}{nearest(name, known.sites)}"


def _host(host: str, family: str, place: Located, sites: dict[str, SiteModel], known: Known) -> Iterator[Mistake]:
    if words.is_address(host):
        if family not in ("any", _family(host)):
            yield place.mistake(f"value {host}: is an {_family(host)} address, but family is {family}")
    elif host not in known.sites:
        yield place.mistake(_no_such_site(host, known))
    elif host in sites and family not in ("any", *map(_family, sites[host].address)):
        yield place.mistake(f"value {host}: the site has no {family} address")


def _family(address: str) -> str:
    return "ipv6" if ":" in address else "ipv4"


def _fetch(
    options: FetchOptions, url: str, place: Located, sites: dict[str, SiteModel], known: Known
) -> Iterator[Mistake]:
    yield from _host(words.url_host(url), options.family, place.at("url"), sites, known)
    if options.body is not None and options.method not in BODY_METHODS:
        text = f"a {options.method} request has no body; give it `method: POST`"
        yield place.at("body").key_mistake(text)
    for name, value in options.headers.items():
        header = place.at("headers", name)
        try:
            words.header_name(name)
            words.header_value(value)
        except ValueError as error:
            yield header.mistake(f"value {shown(value)}: {error}")
        if name.casefold() in ("host", "content-length", "connection", "transfer-encoding"):
            yield header.key_mistake("this header is made from the request itself; leave it out")


def _taps(model: VariantModel, tree: Located, topology: TopologyShape | None) -> Iterator[Mistake]:
    seen: set[str] = set()
    for index, tap in enumerate(model.taps):
        place = tree.at("taps", index)
        if tap.name in seen:
            yield place.at("name").mistake(f"value {tap.name}: another tap has this name")
        seen.add(tap.name)
        if tap.name == CLIENT_TUN:
            yield place.at("name").mistake(f"value {tap.name}: the name is taken by the control tap of every tunnel")
        yield from _node(tap.node, place.at("node"), topology)


def check_expectations(
    expect: Iterable[ExpectModel], tree: Located, variants: Mapping[str, Known], told: Collection[Mistake] = ()
) -> Iterator[Mistake]:
    """Every expectation speaks of a variant, an observer and facts that there can be.

    Shape: `told` are the mistakes that its shape has shown; what was wrong there is no longer in the tree
    """
    for index, item in enumerate(expect):
        place = tree.at("expect", index)
        wrong = any(mistake.path.startswith(f"{place.path}.{key}") for mistake in told for key in SAYS)
        if not wrong and not any(place.child(key) for key in SAYS):
            text = "says neither what the observer sees nor what is hidden from it; add sees: or hides:"
            yield place.mistake(f"{text}, or one of {', '.join(SAYS[2:])}")
        if item.variant not in variants:
            text = f"value {shown(item.variant)}: no such variant; {one_of(variants)}{nearest(item.variant, variants)}"
            yield place.at("variant").mistake(text)
        known = variants.get(item.variant) or Known.of_any(variants.values())
        observers = (*known.taps, *(f"{SERVER_OBSERVER}{site}" for site in known.served))
        if item.observer not in observers:
            text = f"no such observer; {one_of(observers)}{nearest(item.observer, observers)}"
            yield place.at("observer").mistake(f"value {shown(item.observer)}: {text}")
        yield from _selectors(item, place, known)
        yield from _measures(item, place, known)


def _measures(item: ExpectModel, place: Located, known: Known) -> Iterator[Mistake]:
    """What is measured at a tap is not asked of a server, and the reverse; of a tunnel only where there is one."""
    at_server = item.observer.startswith(SERVER_OBSERVER)
    for key in SAYS[2:]:
        if place.child(key) is None:
            continue
        where = place.at(key)
        if at_server != (key == CALLERS):
            yield where.key_mistake(
                f"only a server's log knows who called; give it `observer: {SERVER_OBSERVER}<site>`"
                if key == CALLERS
                else f"is measured at a tap; allowed are {', '.join(known.taps)}"
            )
        elif key in OF_A_TUNNEL and not known.tunnel:
            yield where.key_mistake(f"variant {item.variant} has no tunnel, so there is nothing to measure")


def _selectors(item: ExpectModel, place: Located, known: Known) -> Iterator[Mistake]:
    for relation, selectors in (("sees", item.sees), ("hides", item.hides)):
        for index, selector in enumerate(selectors):
            where = place.at(relation, index)
            if relation == "hides" and selector.kind in NEVER_HIDDEN:
                yield where.mistake(f"value {selector.kind}: is never hidden; whoever forwards packets can count them")
            if selector.site is not None and selector.site not in known.sites:
                yield where.at("site").mistake(_no_such_site(selector.site, known))
            if selector.action is not None and selector.action not in known.actions:
                text = f"no such action; {one_of(known.actions)}{nearest(selector.action, known.actions)}"
                yield where.at("action").mistake(f"value {shown(selector.action)}: {text}")
