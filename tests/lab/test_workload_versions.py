"""The workload over HTTP/2 and HTTP/3 and with encrypted lookups: what it does, and that each fact really happened."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from testbed.services.request import Site
from tests.lab.services_net import AUTHORITY, RESOLVER, WWW, Net, default_request, services_net, serving

pytestmark = pytest.mark.root

FORWARDS = {".": AUTHORITY}
OWN = Site("dns.isp.example", "isp", RESOLVER, http=False, https=False, dot=True, doh=True, forwards=FORWARDS)
PUBLIC = Site("dns.example.com", "web", ("93.184.216.35",), False, False, False, True, True, True, FORWARDS)
SITES = {"www.example.com": list(WWW.addresses), "dns.example.com": list(PUBLIC.addresses)}
CLEAR_LOOKUP = {"dns-name", "dns-answer"}
PAGE = {"client-address", "server-address", "http-url", "http-header", "http-body"}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with services_net(tmp_path_factory.mktemp("workload-versions")) as net:
        sites = (replace(WWW, http3=True), OWN, PUBLIC)
        with serving(net, replace(default_request(net), sites=sites)):
            yield net


@contextmanager
def known(net: Net, name: str, address: str) -> Iterator[None]:
    """The client's hosts file has the name meanwhile."""
    hosts = net.directory / "hosts"
    before = hosts.read_text()
    hosts.write_text(f"{before}{address} {name}\n")
    try:
        yield
    finally:
        hosts.write_text(before)


def perform(net: Net, **action: Any) -> dict[str, Any]:
    lines = net.workload(
        {
            "variant": "without",
            "secret": "ab" * 16,
            "actions": [action],
            "sites": SITES,
            "ca_certificate": str(net.ca),
            "keylog": str(net.directory / f"{action['id']}.keys"),
        }
    )
    (line,) = [line for line in lines if line["event"] == "end"]
    return line


def values(line: dict[str, Any], kind: str) -> list[str]:
    return [fact["value"] for fact in line["facts"] if fact["kind"] == kind]


def kinds(line: dict[str, Any]) -> set[str]:
    return {fact["kind"] for fact in line["facts"]}


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize(("verb", "version"), [("http", "2"), ("https", "2"), ("https", "3")])
def test_a_page_is_opened_over_every_version_and_the_site_s_log_agrees(
    net: Net, verb: str, version: str, family: str
) -> None:
    line = perform(
        net,
        id=f"1-{verb}-{version}-{family}",
        verb=verb,
        target=f"{verb}://www.example.com/account",
        version=version,
        family=family,
        method="POST",
        headers=[["X-Note", "to {canary}"]],
        body="a={canary}",
    )
    assert line["record"]["ok"], line
    assert line["record"]["detail"].endswith(f"over HTTP/{version}")
    name_kind = {("http", "2"): "http-host", ("https", "2"): "tls-name", ("https", "3"): "quic-name"}[verb, version]
    assert kinds(line) == PAGE | CLEAR_LOOKUP | {name_kind}
    assert values(line, name_kind) == ["www.example.com"]
    (url,) = values(line, "http-url")
    record = next(entry for entry in net.log("www.example.com") if entry["url"] == url)
    assert record["protocol"] == f"HTTP/{version}"
    assert record["sni"] == (None if verb == "http" else "www.example.com")
    assert set(values(line, "http-header")) <= {": ".join(header) for header in record["headers"]}
    assert {value.partition(":")[0] for value in values(line, "http-header")} == {"x-note", "cookie"}
    assert values(line, "http-body") == [record["body"]]
    assert values(line, "client-address") == [record["source"][0]]
    assert values(line, "server-address") == [record["local"][0]]
    tokens = [
        needle
        for fact in line["facts"]
        if fact["kind"] in ("http-url", "http-header", "http-body")
        for needle in fact["needles"]
    ]
    assert len(tokens) == len(set(tokens)) == 4
    assert all(len(token) == 32 and int(token, 16) for token in tokens)


@pytest.mark.parametrize("version", ["2", "3"])
def test_large_bodies_pass_and_a_status_of_400_is_a_failure(net: Net, version: str) -> None:
    long = {"method": "PUT", "body": "0123456789" * 30_000}
    line = perform(net, id=f"1-up{version}", verb="https", target="https://www.example.com/up", version=version, **long)
    assert line["record"]["ok"], line
    (url,) = values(line, "http-url")
    record = next(entry for entry in net.log("www.example.com") if entry["url"] == url)
    assert record["body_octets"] == 300_000 + len("&note=") + 32
    target = "https://www.example.com/bytes/300000?x"
    line = perform(net, id=f"1-down{version}", verb="https", target=target, version=version)
    assert line["record"]["detail"].startswith("200, 300000 octets")
    line = perform(net, id=f"1-no{version}", verb="https", target=target, version=version, method="DELETE")
    assert (line["record"]["ok"], line["record"]["error"][:3]) == (False, "405")


def test_the_secrets_of_quic_are_logged_for_the_owner_alone(net: Net) -> None:
    line = perform(net, id="1-keys", verb="https", target="https://www.example.com/", version="3")
    assert line["record"]["ok"], line
    keylog = net.directory / "1-keys.keys"
    labels = {entry.split()[0] for entry in keylog.read_text().splitlines()}
    assert {"CLIENT_HANDSHAKE_TRAFFIC_SECRET", "CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= labels
    assert stat.S_IMODE(keylog.stat().st_mode) == 0o600


def test_a_site_without_http3_is_said_to_have_nobody_there(net: Net) -> None:
    line = perform(net, id="1-https", verb="https", target="https://93.184.216.53/", version="3")
    assert line["record"]["error"] == "93.184.216.53: 93.184.216.53: nobody listens there (connection refused)"
    assert kinds(line) == {"client-address", "server-address"}, "a packet went there, and no name was in it"


def test_a_server_that_the_lab_did_not_certify_is_not_believed_over_quic(net: Net) -> None:
    with known(net, "www.other.example", WWW.addresses[0]):
        line = perform(net, id="1-https", verb="https", target="https://www.other.example/", version="3")
    assert not line["record"]["ok"]
    assert "www.other.example" in line["record"]["error"]
    assert values(line, "quic-name") == ["www.other.example"], "the name was on the wire all the same"
    assert "http-url" not in kinds(line), "and the request was not"


@pytest.mark.parametrize(
    ("over", "protocol", "port"),
    [("udp", "DNS/UDP", 53), ("tcp", "DNS/TCP", 53), ("dot", "DNS/TLS", 853), ("doh", "HTTP/2", 443)],
)
def test_a_resolver_of_one_s_own_is_asked_over_every_transport(net: Net, over: str, protocol: str, port: int) -> None:
    server = "93.184.216.35#dns.example.com"
    line = perform(net, id=f"1-{over}", verb="dns", target="{canary}.www.example.com", over=over, server=server)
    assert line["record"]["ok"], line
    assert line["record"]["detail"].startswith("93.184.216.34, 2001:db8:4::34 from dns.example.com")
    (name,) = values(line, "dns-name")
    asked = [entry for entry in net.log("dns.example.com") if entry["dns"]["name"] == name]
    assert [entry["dns"]["type"] for entry in asked] == ["A", "AAAA"]
    assert {(entry["protocol"], entry["local"][1]) for entry in asked} == {(protocol, port)}
    encrypted = over in ("dot", "doh")
    assert {entry["sni"] for entry in asked} == {"dns.example.com" if encrypted else None}
    wanted = CLEAR_LOOKUP | {"client-address", "server-address"} | ({"tls-name"} if encrypted else set())
    assert kinds(line) == wanted
    assert values(line, "server-address") == ["93.184.216.35"]
    if encrypted:
        assert {entry["dns"]["octets"] for entry in asked} == {468}, "padded, as RFC 8467 has it"
        assert {entry.get("body_octets", 128) for entry in asked} == {128}
        assert len({tuple(entry["source"]) for entry in asked}) == 1, "one connection for all questions"
        assert values(line, "tls-name") == ["dns.example.com"]


@pytest.mark.parametrize("over", ["dot", "doh"])
def test_the_node_s_own_resolver_is_known_by_its_address_and_no_name_is_said(net: Net, over: str) -> None:
    line = perform(net, id=f"1-{over}", verb="dns", target="{canary}.www.example.com", over=over)
    assert line["record"]["ok"], line
    assert line["record"]["detail"].endswith(f"from 192.168.0.1 over {over}")
    assert kinds(line) == CLEAR_LOOKUP | {"client-address"}
    (name,) = values(line, "dns-name")
    assert [entry["sni"] for entry in net.log(OWN.name) if entry["dns"]["name"] == name] == [None, None]


def test_a_resolver_known_by_name_is_looked_up_in_clear_first(net: Net) -> None:
    with known(net, "dns.example.com", "93.184.216.35"):
        silent = perform(net, id="1-dns", verb="dns", target="www.example.com", over="doh", server="dns.example.com")
    assert silent["record"]["ok"], silent
    assert values(silent, "dns-name") == ["www.example.com"], "the hosts file is no lookup"
    lookup = perform(net, id="2-dns", verb="dns", target="www.example.com", over="doh", server="dns.other.example")
    assert lookup["record"]["error"] == "dns.other.example: no such name"
    assert values(lookup, "dns-name") == ["dns.other.example"], "and what was never asked is no fact"


def test_a_page_s_name_is_looked_up_as_the_action_says(net: Net) -> None:
    server = "93.184.216.35#dns.example.com"
    target = "https://{canary}.www.example.com/"
    line = perform(net, id="1-https", verb="https", target=target, over="doh", server=server, version="3")
    assert line["record"]["ok"], line
    (name,) = values(line, "dns-name")
    assert [entry["dns"]["type"] for entry in net.log("dns.example.com") if entry["dns"]["name"] == name] == [
        "AAAA",
        "A",
    ]
    assert not [entry for entry in net.log("dns-isp") if entry.get("name") == name]
    assert values(line, "tls-name") == ["dns.example.com"]
    assert values(line, "quic-name") == [name]
    assert values(line, "server-address") == ["93.184.216.35", "2001:db8:4::34"]


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("93.184.216.35#www.example.com", "name server www.example.com: TLS: "),
        ("93.184.216.34#www.example.com", "93.184.216.34: nobody listens there (connection refused)"),
    ],
)
def test_a_resolver_that_is_not_who_it_should_be_is_not_asked(net: Net, server: str, reason: str) -> None:
    line = perform(net, id="1-dns", verb="dns", target="www.example.com", over="dot", server=server)
    assert line["record"]["error"].startswith(reason), line
    assert not {"dns-name", "dns-answer"} & kinds(line)


def test_a_site_that_speaks_no_dns_says_so_over_https(net: Net) -> None:
    server = "93.184.216.34#www.example.com"
    line = perform(net, id="1-dns", verb="dns", target="www.example.com", over="doh", server=server)
    assert "status 200, no DNS answer" in line["record"]["error"]
    assert values(line, "dns-name") == ["www.example.com"], "it was told the name"
