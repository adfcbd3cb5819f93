"""The services' request: what it says survives the way through JSON, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from testbed.services.request import Authority, RequestError, Resolver, ServicesRequest, Site
from testbed.services.zones import zones_of_sites

SITES = (
    Site("www.example.com", "web", ("192.0.2.1", "2001:db8::1"), https=False, http3=True),
    Site("dns.example.net", "web", ("192.0.2.2",), dot=True, doh=True, forwards={".": ("192.0.2.53",)}, freebind=True),
)
REQUEST = ServicesRequest(
    nodes={"web": 5, "isp": 6},
    log_directory=7,
    ca_certificate="/tmp/ca.pem",
    sites=SITES,
    authorities=(Authority("web", ("192.0.2.53",), zones_of_sites(SITES, ("192.0.2.53",), root=True)),),
    resolvers=(Resolver("isp", ("192.168.0.1",), {".": ("192.0.2.53",)}, freebind=True),),
)


def test_a_request_survives_json() -> None:
    assert ServicesRequest.from_json(REQUEST.to_json()) == REQUEST


def broken(*path: str | int, value: Any) -> str:
    tree = json.loads(REQUEST.to_json())
    place = tree
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return json.dumps(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "request: not JSON"),
        ("[]", "request: must be an object"),
        (broken("nodes", "web", value="5"), "request.nodes.web: must be a descriptor number"),
        (broken("extra", value=1), "request.extra: unknown key"),
        (broken("sites", 0, "name", value="../etc/passwd"), "request.sites[0].name: '../etc/passwd' is not a name"),
        (broken("sites", 0, "name", value=".hidden"), "request.sites[0].name: '.hidden' is not a name"),
        (broken("sites", 0, "addresses", value=[]), "request.sites[0].addresses: needs at least one address"),
        (broken("sites", 0, "addresses", value=["300.1.1.1"]), "request.sites[0].addresses: '300.1.1.1'"),
        (broken("sites", 0, "http", value=1), "request.sites[0].http: must be bool"),
        (broken("sites", 0, "http3", value="yes"), "request.sites[0].http3: must be bool"),
        (broken("sites", 0, "doh", value=None), "request.sites[0].doh: must be bool"),
        (broken("sites", 0, "forwards", value={".": ["a"]}), "request.sites[0].forwards..: 'a' does not appear"),
        (broken("sites", 0, "forwards", value={".": []}), "request.sites[0].forwards..: needs at least one address"),
        (broken("sites", 0, "node", value="moon"), "request.sites[0].node: 'moon' is not in request.nodes"),
        (broken("resolvers", 0, "port", value=1), "request.resolvers[0].port: unknown key"),
        (broken("authorities", 0, "zones", 0, "records", 0, "ttl", value=True), "records[0].ttl: must be int"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        ServicesRequest.from_json(text)
    assert message in str(caught.value)
