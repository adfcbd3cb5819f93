"""A scenario written out again with everything resolved: the `scenario.yaml` of a run directory.

What all variants share stands at the top, the rest in each variant in full; the text loads to the same variants.
"""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from testbed.scenario.bounds import OneOf
from testbed.scenario.faults import dump_event
from testbed.scenario.values import (
    Action,
    Command,
    Expectation,
    LinkOptions,
    Scenario,
    Selector,
    Site,
    TapSpec,
    TunnelSpec,
    Variant,
)


def dump_scenario(scenario: Scenario) -> str:
    """YAML text of the scenario as it runs."""
    bodies = {name: _variant(variant) for name, variant in scenario.variants.items()}
    first = next(iter(bodies.values()))
    shared = {key for key in first if all(body[key] == first[key] for body in bodies.values())}
    titles = {name: variant.title for name, variant in scenario.variants.items()}
    document: dict[str, Any] = {"title": scenario.title}
    if scenario.description:
        document["description"] = scenario.description
    document["seed"] = scenario.seed
    document |= {key: first[key] for key in first if key in shared}
    document["variants"] = {
        name: {"title": titles[name]} | {key: body[key] for key in body if key not in shared}
        for name, body in bodies.items()
    }
    document["expect"] = [_expectation(expectation) for expectation in scenario.expectations]
    text = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False
    yaml.allow_unicode = True
    yaml.width = 110
    yaml.dump(document, text)
    return text.getvalue()


def _variant(variant: Variant) -> dict[str, Any]:
    topology: Any = {"name": variant.topology.name}
    if variant.topology.params:
        topology["params"] = dict(variant.topology.params)
    return {
        "topology": topology,
        "sites": {name: _site(site) for name, site in variant.sites.items()},
        "tunnel": _tunnel(variant.tunnel) if variant.tunnel else None,
        "workload": [{action.verb: _action(action)} for action in variant.workload],
        "taps": [_tap(tap) for tap in variant.taps],
        "links": {f"{link.a}-{link.b}": _link(link) for link in variant.links},
        "events": [dump_event(event) for event in variant.events],
        "dns": {"over": variant.dns.over, "server": variant.dns.server},
    }


def _site(site: Site) -> dict[str, Any]:
    flags = {key: True for key in ("http", "https", "http3", "dns", "dot", "doh", "private") if getattr(site, key)}
    return {"address": list(site.addresses), "node": site.node, **flags}


def _tunnel(tunnel: TunnelSpec) -> dict[str, Any]:
    body: dict[str, Any] = {"program": {"client": tunnel.client, "server": tunnel.server}}
    if tunnel.command is not None:
        body["command"] = _command(tunnel.command, tunnel.device)
    elif tunnel.client != "wireguard":
        body |= {key: getattr(tunnel, key) for key in ("mode", "transport", "cipher", "control")}
        body["options"] = {"client": list(tunnel.options.client), "server": list(tunnel.options.server)}
    routes = tunnel.routes if isinstance(tunnel.routes, str) else list(tunnel.routes)
    return body | {"routes": routes, "dns": tunnel.dns}


def _command(command: Command, device: str) -> dict[str, Any]:
    files: dict[str, dict[str, str]] = {"client": {}, "server": {}}
    for end, name, text in command.files:
        files[end][name] = text
    body: dict[str, Any] = {"client": list(command.argv.client), "server": list(command.argv.server), "files": files}
    ready = {end: said[0] for end in ("client", "server") if (said := command.ready.of(end))}
    return body | {"ready": ready, "device": device} | ({"address": command.address} if command.address else {})


def _action(action: Action) -> dict[str, Any]:
    options: dict[str, Any] = {"timeout": action.timeout} | ({} if action.at is None else {"at": action.at})
    if action.verb == "dns":
        return {
            "name": action.target,
            "types": list(action.types),
            "over": action.over,
            "server": action.server,
            **options,
        }
    if action.verb == "run":
        return {"argv": list(action.argv), **options}
    options["family"] = action.family
    if action.verb == "ping":
        return {"host": action.target, "count": action.count, "interval": action.interval, **options}
    fetch: dict[str, Any] = {"url": action.target, "method": action.method, "version": action.version, **options}
    if action.headers:
        fetch["headers"] = dict(action.headers)
    return fetch if action.body is None else fetch | {"body": action.body}


def _tap(tap: TapSpec) -> dict[str, Any]:
    options = {key: getattr(tap, key) for key in ("interface", "ring_octets", "snap_octets")}
    return {"name": tap.name, "node": tap.node} | {key: value for key, value in options.items() if value is not None}


def _link(link: LinkOptions) -> dict[str, Any]:
    options = {key: getattr(link, key) for key in ("bw", "delay", "jitter", "loss", "duplicate", "reorder")}
    options |= {"mtu": link.mtu_octets, "max_queue_size": link.max_queue_packets}
    return {key: value for key, value in options.items() if value is not None}


def _expectation(expectation: Expectation) -> dict[str, Any]:
    head = {"variant": expectation.variant, "observer": expectation.observer}
    about = expectation.selector
    if isinstance(about, Selector):
        return head | {expectation.relation: [_selector(about)]}
    return head | {expectation.relation: list(about.addresses) if isinstance(about, OneOf) else about.written}


def _selector(selector: Selector) -> Any:
    narrowed = {key: value for key in ("site", "action", "value") if (value := getattr(selector, key)) is not None}
    if selector.count is not None:
        narrowed["count"] = selector.count.written
    return {"kind": selector.kind, **narrowed} if narrowed else selector.kind
