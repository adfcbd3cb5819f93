"""Resolvers over TLS and HTTPS, judged by dig, curl and openssl."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dnslib
import pytest

from testbed.services.request import Site
from tests.lab.services_net import AUTHORITY, RESOLVER, SHOP, WWW, Net, default_request, services_net, serving

pytestmark = pytest.mark.root

NAME = "dns.isp.example"
FORWARDS = {".": AUTHORITY}
OWN = Site(NAME, "isp", RESOLVER, http=False, https=False, dot=True, doh=True, forwards=FORWARDS)
# A site that is a resolver beside its pages, over plain DNS as well.
BOTH = Site("dns.example.net", "web", ("93.184.216.35",), dns=True, doh=True, forwards=FORWARDS)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Net]:
    with services_net(tmp_path_factory.mktemp("resolvers")) as net:
        request = default_request(net)
        sites = (replace(WWW, https=True), OWN, BOTH)
        assert SHOP.addresses == BOTH.addresses, "its node has this address already"
        with serving(net, replace(request, sites=sites)):
            yield net


def queries(net: Net, site: str, name: str) -> list[dict[str, Any]]:
    return [line for line in net.log(site) if line.get("dns", {}).get("name") == name]


def dig(net: Net, server: str, *arguments: str) -> str:
    trust = f"+tls-ca={net.ca}"
    return net.dig(f"@{server}", trust, f"+tls-hostname={NAME}", "+noall", "+answer", *arguments)


@pytest.mark.parametrize("server", RESOLVER)
@pytest.mark.parametrize(("flag", "protocol"), [("+tls", "DNS/TLS"), ("+https", "HTTP/2"), ("+https-get", "HTTP/2")])
def test_dig_gets_its_answer_over_tls_and_https(net: Net, server: str, flag: str, protocol: str) -> None:
    name = f"{protocol[-1]}{flag[1:]}{len(server)}.www.example.com".lower()
    answer = dig(net, server, flag, name, "A")
    assert "93.184.216.34" in answer, answer
    (line,) = queries(net, NAME, name)
    assert (line["protocol"], line["tls"], line["tls_version"]) == (protocol, True, "TLSv1.3")
    assert line["source"][0] == ("2001:db8:1::13" if ":" in server else "192.168.0.13")
    assert line["local"] == [server, 853 if flag == "+tls" else 443]
    assert line["dns"]["answers"] == ["A 93.184.216.34"]
    if flag != "+tls":
        assert line["method"] == ("GET" if flag == "+https-get" else "POST")


def test_dig_refuses_a_resolver_whose_certificate_holds_another_name(net: Net) -> None:
    right = ("+tls", f"+tls-ca={net.ca}", "+short", "www.example.com")
    assert "93.184.216.34" in net.dig(f"@{RESOLVER[0]}", f"+tls-hostname={NAME}", *right)
    assert "93.184.216.34" not in net.dig(f"@{RESOLVER[0]}", "+tls-hostname=dns.other.example", *right)
    assert "93.184.216.34" in net.dig(f"@{RESOLVER[0]}", f"+tls-hostname={RESOLVER[0]}", *right), "or its address"


@pytest.mark.parametrize("flag", ["+tls", "+https"])
def test_a_padded_question_gets_a_padded_answer_and_only_under_tls(net: Net, flag: str) -> None:
    trust = (f"+tls-ca={net.ca}", f"+tls-hostname={NAME}")
    sizes = set()
    for name in ("a.www.example.com", f"{'a' * 40}.www.example.com"):
        answer = net.dig(f"@{RESOLVER[0]}", *trust, flag, "+padding=128", name)
        assert "; PAD" in answer, answer
        sizes.add(answer.split("MSG SIZE")[1])
        assert "; PAD" not in net.dig(f"@{RESOLVER[0]}", *trust, flag, name)
        assert "; PAD" not in net.dig(f"@{RESOLVER[0]}", "+padding=128", name)
    assert sizes == {"  rcvd: 468\n\n"}


def test_what_is_too_long_for_a_datagram_comes_whole(net: Net) -> None:
    assert dig(net, RESOLVER[0], "+tls", "long.test", "TXT").count("all work and no play") > 90
    assert dig(net, RESOLVER[0], "+https", "long.test", "TXT").count("all work and no play") > 90


def test_a_name_that_does_not_exist_is_denied_over_https_too(net: Net) -> None:
    trust = (f"+tls-ca={net.ca}", f"+tls-hostname={NAME}", "+https")
    assert "status: NXDOMAIN" in net.dig(f"@{RESOLVER[0]}", *trust, "nobody.example.com")


def test_curl_opens_a_page_whose_name_it_looks_up_over_https(net: Net) -> None:
    resolve = ("--resolve", f"{NAME}:443:{RESOLVER[0]}", "--doh-url", f"https://{NAME}/dns-query")
    name = "curl.www.example.com"
    done = net.curl(*resolve, f"https://{name}/")
    assert done.returncode == 0, done.stderr
    asked = queries(net, NAME, name)
    assert {line["dns"]["type"] for line in asked} == {"A", "AAAA"}
    assert {(line["method"], line["protocol"], line["sni"]) for line in asked} == {("POST", "HTTP/2", NAME)}
    assert net.log("www.example.com")[-1]["host"] == name
    assert not [line for line in net.log("dns-isp") if line.get("name") == name], "nothing was asked in clear"


def test_openssl_finds_the_protocol_of_dns_over_tls(net: Net) -> None:
    where = ("-connect", f"{RESOLVER[0]}:853", "-servername", NAME, "-CAfile", str(net.ca), "-alpn", "dot")
    done = net.run(["openssl", "s_client", *where], input="")
    assert "ALPN protocol: dot" in done.stdout
    assert "Verify return code: 0 (ok)" in done.stdout


def fetch(net: Net, *arguments: str) -> tuple[str, dict[str, str]]:
    """Status and headers of a request to the resolver's path."""
    place = ("--resolve", f"{NAME}:443:{RESOLVER[0]}", "-D", "-", "-o", str(net.directory / "message"))
    lines = net.curl(*place, *arguments).stdout.splitlines()
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return lines[0].split()[1], headers


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_get_and_post_are_answered_as_rfc_8484_says(net: Net, version: str) -> None:
    packed = bytes(dnslib.DNSRecord.question("rfc8484.www.example.com").pack())
    parameter = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    (net.directory / "question").write_bytes(packed)
    post = ("-H", "Content-Type: application/dns-message", "--data-binary", f"@{net.directory}/question")
    for request in ((f"https://{NAME}/dns-query?dns={parameter}",), (*post, f"https://{NAME}/dns-query")):
        status, headers = fetch(net, version, *request)
        assert (status, headers["content-type"]) == ("200", "application/dns-message")
        assert headers["cache-control"] == "max-age=60", "the records' lifetime"
        answer = dnslib.DNSRecord.parse((net.directory / "message").read_bytes())
        assert str(answer.rr[0].rdata) == "93.184.216.34"


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ((f"https://{NAME}/dns-query",), "400"),
        ((f"https://{NAME}/dns-query?dns=!!!!",), "400"),
        (("-d", "x", f"https://{NAME}/dns-query"), "415"),
        (("-X", "DELETE", f"https://{NAME}/dns-query"), "405"),
        ((f"https://{NAME}/index.html",), "404"),
    ],
)
def test_what_is_no_query_is_refused(net: Net, arguments: tuple[str, ...], status: str) -> None:
    assert fetch(net, *arguments)[0] == status


def test_a_site_may_be_a_resolver_beside_its_pages(net: Net) -> None:
    assert (
        "<h1>dns.example.net</h1>"
        in net.curl("--resolve", "dns.example.net:443:93.184.216.35", "https://dns.example.net/").stdout
    )
    for flag, protocol in (("+notcp", "DNS/UDP"), ("+tcp", "DNS/TCP")):
        name = f"{flag[1:]}.www.example.com"
        assert net.dig("@93.184.216.35", flag, "+short", name) == "93.184.216.34\n"
        (line,) = queries(net, "dns.example.net", name)
        assert (line["protocol"], line["tls"], line["sni"]) == (protocol, False, None)
    refused = net.run(["dig", "+time=1", "+tries=1", "+tls", "@93.184.216.35", "www.example.com"])
    assert "connection refused" in refused.stdout, "no dot: true"
