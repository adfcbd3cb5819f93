"""What must hold between a scenario's actions and the protocols its sites serve: HTTP versions, and resolvers.

A mistake stands where the action asks for what the site does not have; it says which key of the site gives it that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from testbed.scenario import words
from testbed.scenario.errors import Mistake, nearest, one_of, shown
from testbed.scenario.model import FetchOptions, SiteModel, VariantModel
from testbed.scenario.tree import Located

# transport of a lookup -> the key of a site that answers over it
RESOLVES = {"udp": "dns", "tcp": "dns", "dot": "dot", "doh": "doh"}


def check_version(
    verb: str, options: FetchOptions, url: str, place: Located, sites: Mapping[str, SiteModel]
) -> Iterator[Mistake]:
    """The site serves the scheme, and the version of HTTP asked for."""
    host, version = words.url_host(url), options.version
    if version == "3" and verb == "http":
        text = "value 3: HTTP/3 is always encrypted, there is none for http:// URLs; use an action `https`"
        yield place.at("version").mistake(text)
        return
    site, key = sites.get(host), "http3" if version == "3" else verb
    if site is None or getattr(site, key):
        return
    if key == "http3":
        yield place.at("version").mistake(f"value 3: {host} does not serve HTTP/3; give the site `http3: true`")
        return
    other = ", or the action `version: 3`" if verb == "https" and site.http3 else ""
    text = f"value {shown(url)}: {host} does not serve {verb}; give the site `{verb}: true`{other}"
    yield place.at("url").mistake(text)


def check_lookups(model: VariantModel, tree: Located, known: Sequence[str]) -> Iterator[Mistake]:
    """Every resolver that is named answers over the transport it is asked over. Shape: `known` are all sites' names."""
    if model.dns.server is not None:
        yield from _resolver(model.dns.over, model.dns.server, tree.at("dns"), model.sites, known)
    for index, action in enumerate(model.workload):
        if action.dns is None or not {"over", "server"} & action.dns.model_fields_set:
            continue  # the variant's own, told above
        server = action.dns.server if "server" in action.dns.model_fields_set else model.dns.server
        if server is not None:
            place = tree.at("workload", index, "dns")
            yield from _resolver(action.dns.over or model.dns.over, server, place, model.sites, known)


def _resolver(
    over: str, server: str, place: Located, sites: Mapping[str, SiteModel], known: Sequence[str]
) -> Iterator[Mistake]:
    where = place.at("server") if place.child("server") is not None else place.at("over")
    address, name = words.resolver_parts(server)
    if name is not None and name not in known:
        resolvers = [host for host, site in sites.items() if getattr(site, RESOLVES[over])]
        allowed = one_of(resolvers) if resolvers else f"give a site `{RESOLVES[over]}: true` and name it here"
        yield where.mistake(f"value {shown(server)}: no such site; {allowed}{nearest(name, known)}")
        return
    name = name or next((host for host, site in sites.items() if address in site.address), None)
    site = sites.get(name or "")
    if site is None:
        return  # an address of the topology's own, or a site with a mistake of its own
    if address is not None and address not in site.address:
        yield where.mistake(f"value {shown(server)}: {name} has no such address; {one_of(site.address)}")
    key = RESOLVES[over]
    if not getattr(site, key):
        others = [transport for transport, flag in RESOLVES.items() if getattr(site, flag)]
        instead = f", or ask it over {' or '.join(others)}" if others else ""
        yield where.mistake(
            f"value {shown(server)}: {name} does not answer over {over}; give the site `{key}: true`{instead}"
        )
