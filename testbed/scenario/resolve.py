"""A checked model to frozen values: defaults filled in, bare names spelled out, relative files made absolute."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from testbed.scenario.bounds import Bound, OneOf
from testbed.scenario.check import action_id
from testbed.scenario.faults import resolve_event
from testbed.scenario.model import (
    ActionModel,
    CommandModel,
    DnsOptions,
    ExpectModel,
    FetchOptions,
    LinkModel,
    TunnelModel,
    VariantModel,
)
from testbed.scenario.tree import Located
from testbed.scenario.values import (
    ALL_ROUTES,
    MEASURES,
    Action,
    Command,
    Expectation,
    LinkOptions,
    Lookup,
    PerEnd,
    Relation,
    Selector,
    Site,
    TapSpec,
    TopologyRef,
    TunnelSpec,
    Variant,
)
from testbed.scenario.words import url_host

WIREGUARD_DEVICE = "wg0"
# mode -> (cipher, control) where the file names none
MODE_DEFAULTS = {"tls": ("AES-256-GCM", "tls-crypt"), "static-key": ("AES-256-CBC", "none")}


def resolve_variant(name: str, model: VariantModel, directory: Path) -> Variant:
    """The variant's values. Shape: `directory` is where relative topology files are looked for."""
    sites = {
        host: Site(
            host,
            site.node,
            tuple(site.address),
            site.http,
            site.https,
            site.http3,
            site.private,
            site.dns,
            site.dot,
            site.doh,
        )
        for host, site in model.sites.items()
    }
    lookup = Lookup(model.dns.over, model.dns.server)
    return Variant(
        name=name,
        title=model.title or name,
        topology=resolve_topology(model, directory),
        sites=sites,
        tunnel=_tunnel(model.tunnel, directory) if model.tunnel is not None else None,
        workload=tuple(_action(index, item, sites, lookup) for index, item in enumerate(model.workload)),
        taps=tuple(TapSpec(t.name, t.node, t.interface, t.ring_octets, t.snap_octets) for t in model.taps),
        links=tuple(_link(ends, link) for ends, link in model.links.items()),
        events=tuple(resolve_event(event) for event in model.events),
        dns=lookup,
    )


def resolve_topology(model: VariantModel, directory: Path) -> TopologyRef:
    file, colon, class_name = model.topology.name.rpartition(":")
    name = f"{(directory / file).resolve()}:{class_name}" if colon else model.topology.name
    return TopologyRef(name, dict(model.topology.params))


def _tunnel(model: TunnelModel, directory: Path) -> TunnelSpec:
    routes: Literal["all"] | tuple[str, ...] = ALL_ROUTES if model.routes == [ALL_ROUTES] else tuple(model.routes)
    program = model.program.client
    ends: dict[str, Any] = {"client": program, "server": model.program.server, "routes": routes, "dns": model.dns}
    if program == "wireguard":
        fixed: dict[str, Any] = {"mode": program, "transport": "udp", "cipher": "CHACHA20-POLY1305", "control": "none"}
        return TunnelSpec(**ends, **fixed, device=WIREGUARD_DEVICE)
    if program == "command" and model.command is not None:
        unknown: dict[str, Any] = {"mode": program, "transport": "", "cipher": "", "control": ""}
        return TunnelSpec(**ends, **unknown, device=model.command.device, command=_command(model.command, directory))
    cipher, control = MODE_DEFAULTS[model.mode]
    return TunnelSpec(
        **ends,
        mode=model.mode,
        transport=model.transport,
        cipher=model.cipher or cipher,
        control=model.control or control,
        options=PerEnd(tuple(model.options.client), tuple(model.options.server)),
    )


def _command(model: CommandModel, directory: Path) -> Command:
    files = {"client": model.files.client, "server": model.files.server}
    return Command(
        argv=PerEnd(tuple(model.client), tuple(model.server)),
        files=tuple((end, name, text) for end, named in files.items() for name, text in named.items()),
        ready=PerEnd(*((said,) if said else () for said in (model.ready.client, model.ready.server))),
        address=model.address,
        folder=str(directory.resolve()),
    )


def _action(index: int, item: ActionModel, sites: dict[str, Site], lookup: Lookup) -> Action:
    verb = next(verb for verb in ActionModel.model_fields if getattr(item, verb) is not None)
    options = getattr(item, verb)
    common: dict[str, Any] = {"id": action_id(index, verb), "verb": verb, "timeout": options.timeout, "at": options.at}
    if item.dns is not None:
        site, asked = _site_of(item.dns.name, sites), lookup_of(item.dns, lookup)
        common |= {"over": asked.over, "server": asked.server}
        return Action(**common, target=item.dns.name, site=site, types=tuple(item.dns.types))
    if item.run is None:
        common |= {"over": lookup.over, "server": lookup.server}
    if item.ping is not None:
        ping = item.ping
        common |= {"family": ping.family, "count": ping.count, "interval": ping.interval}
        return Action(**common, target=ping.host, site=_site_of(ping.host, sites))
    if item.run is not None:
        return Action(**common, target=shlex.join(item.run.argv), argv=tuple(item.run.argv))
    return _fetch(common, options, options.url, sites)


def _fetch(common: dict[str, Any], options: FetchOptions, url: str, sites: dict[str, Site]) -> Action:
    return Action(
        **common,
        target=url,
        site=_site_of(url_host(url), sites),
        family=options.family,
        method=options.method,
        version=options.version,
        headers=tuple(options.headers.items()),
        body=options.body,
    )


def lookup_of(options: DnsOptions, default: Lookup) -> Lookup:
    """How a `dns` action asks: what it does not say is the variant's; `server: null` is the node's own resolver."""
    server = options.server if "server" in options.model_fields_set else default.server
    return Lookup(options.over or default.over, server)


def _site_of(host: str, sites: dict[str, Site]) -> str | None:
    """The site that a name or an address belongs to; a name below a site's name belongs to the site."""
    for name, site in sites.items():
        if host == name or host in site.addresses:
            return name
    return next((name for name in sites if host.endswith(f".{name}")), None)


def _link(ends: str, model: LinkModel) -> LinkOptions:
    a, _, b = ends.partition("-")
    return LinkOptions(
        a=a,
        b=b,
        bw=model.bw,
        delay=model.delay,
        jitter=model.jitter,
        loss=model.loss,
        duplicate=model.duplicate,
        reorder=model.reorder,
        mtu_octets=model.mtu,
        max_queue_packets=model.max_queue_size,
    )


def resolve_expectations(expect: Iterable[ExpectModel], tree: Located) -> tuple[Expectation, ...]:
    """One `Expectation` per selector, in the order of the file."""
    found: list[Expectation] = []
    for index, item in enumerate(expect):
        relations: Sequence[tuple[Literal["sees", "hides"], Any]] = (("sees", item.sees), ("hides", item.hides))
        for relation, selectors in relations:
            for place, model in enumerate(selectors):
                selector = Selector(model.kind, model.site, model.action, model.value, model.count)
                line = tree.at("expect", index, relation, place).line
                found.append(Expectation(item.variant, item.observer, relation, selector, line))
        for name, about in _measures(item):
            line = tree.at("expect", index, name).line
            found.append(Expectation(item.variant, item.observer, name, about, line))
    return tuple(found)


def _measures(item: ExpectModel) -> Iterator[tuple[Relation, Bound | OneOf]]:
    for name in MEASURES:
        bound = getattr(item, name)
        if bound is not None:
            yield name, bound
    if item.client_address is not None:
        yield "client-address", OneOf(tuple(item.client_address))
