"""Encrypted DNS, recognised: the content stays closed, but that it is DNS, and with whom, shows.

Five rules, from sound to weak; the hint says which it was:

    the client offers the protocol `dot` or `doq`                (RFC 7858, RFC 9250: says so itself)
    port 853                                                     (registered for nothing else)
    the name is that of a public resolver, listed here           (such hosts serve nothing else)
    port 443 of an address that resolves in clear DNS as well    (a web server on the same address is taken for one)
    port 443 of a host whose first label is dns, doh, resolver   (a site about DNS is taken for one)

A resolver of another name on port 443 looks like any web site, and stays unrecognised.

Source: RFC 7858, RFC 8484, RFC 9250; the resolvers' own documentation
"""

from __future__ import annotations

import re

from testbed.observer import tls
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState

DNS_OVER_TLS_PORT, HTTPS_PORT = 853, 443
TELLING_NAME = re.compile(r"(?:dns|doh|resolver)\d{0,2}\.")
NAMES = {"dot": "DNS over TLS", "doh": "DNS over HTTPS", "doq": "DNS over QUIC"}
PUBLIC_RESOLVERS = frozenset(
    (
        "1dot1dot1dot1.cloudflare-dns.com",
        "chrome.cloudflare-dns.com",
        "cloudflare-dns.com",
        "dns.adguard-dns.com",
        "dns.adguard.com",
        "dns.cloudflare.com",
        "dns.google",
        "dns.google.com",
        "dns.mullvad.net",
        "dns.nextdns.io",
        "dns.quad9.net",
        "dns10.quad9.net",
        "dns11.quad9.net",
        "dns9.quad9.net",
        "dns64.dns.google",
        "dns0.eu",
        "doh.cleanbrowsing.org",
        "doh.dns.sb",
        "doh.familyshield.opendns.com",
        "doh.opendns.com",
        "doh.umbrella.com",
        "family.cloudflare-dns.com",
        "freedns.controld.com",
        "mozilla.cloudflare-dns.com",
        "one.one.one.one",
        "security.cloudflare-dns.com",
        "unfiltered.adguard-dns.com",
    )
)


def sight_resolver(
    flow: FlowState, hello: tls.ClientHello, hello_filter: str, place: Place, findings: Findings
) -> None:
    """Name the conversation if its hello, which `hello_filter` finds, shows it to be encrypted DNS."""
    protocol, rule = _recognise(flow, hello, findings)
    if protocol:
        flow.application = protocol
        findings.hint("encrypted-dns", NAMES[protocol], str(flow.server.endpoint), place, hello_filter, rule)


def _recognise(flow: FlowState, hello: tls.ClientHello, findings: Findings) -> tuple[str, str]:
    datagrams = flow.protocol == "udp"
    for offered in (b"dot", b"doq"):
        if offered in hello.alpn:
            return offered.decode(), f"the client offers the protocol {offered.decode()}"
    if flow.server.endpoint.port == DNS_OVER_TLS_PORT:
        return "doq" if datagrams else "dot", f"port {DNS_OVER_TLS_PORT}"
    name = as_text(hello.server_name or b"").lower()
    if name in PUBLIC_RESOLVERS:
        return "doh", f"{name} is a public resolver"
    if flow.server.endpoint.address in findings.resolvers and flow.server.endpoint.port == HTTPS_PORT:
        return "doh", "port 443 of an address that resolves names in clear DNS in the same capture"
    telling = TELLING_NAME.match(name) if flow.server.endpoint.port == HTTPS_PORT else None
    return ("doh", f"the name begins with {telling.group()}") if telling else ("", "")
