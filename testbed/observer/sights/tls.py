"""What TLS tells before it is encrypted, over TCP, QUIC and DTLS alike: names, fingerprints, offers and choices.

Whether a ClientHello's ECH extension holds a hidden name or random octets (GREASE) cannot be told from the hello, and
is not guessed. Only where clear DNS in the same capture gave the configuration that the hello names, together with the
public name that it shows in place of its own, the hint says that a name is hidden, and behind which.
"""

from __future__ import annotations

from typing import NamedTuple

from testbed.facts import Kind
from testbed.observer import filters, tls, x509
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState, Side
from testbed.observer.sights.resolvers import sight_resolver
from testbed.observer.sights.text import sight_stream_text
from testbed.observer.streams import Run
from testbed.observer.wire import fingerprints

VERSION_NAMES = {0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2", 0x0304: "TLS 1.3"}
VERSION_NAMES |= {0xFEFF: "DTLS 1.0", 0xFEFD: "DTLS 1.2", 0xFEFC: "DTLS 1.3"}
ECH_RULE = "the ClientHello has the extension; whether it hides a name or is GREASE cannot be told from outside"


class Carrier(NamedTuple):
    """What TLS came over. Shape: `also` is added to filters, to keep those of TCP apart from those of QUIC."""

    kind: Kind
    via: str
    letter: str  # JA4's
    field: str  # Wireshark's protocol, whose fields hold the handshake
    also: str
    instead: str = ""  # a filter for where Wireshark does not show the handshake
    within: str = ""  # the tunnel whose own handshake this is
    rule: str = ""  # of hints: the same in words


OVER_TCP = Carrier(Kind.TLS_NAME, "tls", "t", "tls", " && !quic")
OVER_QUIC = Carrier(Kind.QUIC_NAME, "quic", "q", "tls", " && quic")
OVER_DTLS = Carrier(Kind.TLS_NAME, "dtls", "d", "dtls", "")


def dissect_tls(flow: FlowState, client_runs: list[Run], server_runs: list[Run], findings: Findings) -> None:
    for side, runs in ((flow.client, client_runs), (flow.server, server_runs)):
        for run in runs:
            at = 0 if run.start or tls.looks_like_tls(run.data) else max(tls.find_tls(run.data), 0)
            if at:  # a proxy says first for whom it speaks
                sight_stream_text(side, Run(run.start, run.data[:at]), findings)
            dissect_tls_run(flow, side, Run(run.start + at, run.data[at:]) if at else run, findings)


def dissect_tls_behind(flow: FlowState, findings: Findings) -> bool:
    """TLS that begins behind an agreement in another protocol, as in SMTP, IMAP or SOCKS. Returns whether it does."""
    found = [
        (side, run, tls.find_tls(run.data)) for side in (flow.client, flow.server) for run in side.recorder.runs()[:1]
    ]
    if all(at < 0 for _, _, at in found):
        return False
    flow.application = "tls"
    for side, run, at in found:
        behind = at if at >= 0 else len(run.data)
        sight_stream_text(side, Run(run.start, run.data[:behind]), findings)
        dissect_tls_run(flow, side, Run(run.start + behind, run.data[behind:]), findings)
    return True


def dissect_tls_run(flow: FlowState, side: Side, run: Run, findings: Findings) -> None:
    if not tls.looks_like_tls(run.data):
        return
    handshakes = tls.parse_handshakes(run.data)
    for handshake in handshakes:
        place = Place(*side.recorder.completed(run.start + handshake.end))
        sight_handshake(flow, handshake.type, handshake.body, OVER_TCP, place, findings)
    if not handshakes:
        _sight_unfinished(side, run, findings)


def sight_handshake(
    flow: FlowState, kind: int, body: bytes, carrier: Carrier, place: Place, findings: Findings, **detail: str
) -> None:
    """One handshake message. Shape: `detail` is added to what the sighting of the name says."""
    if kind == tls.CLIENT_HELLO:
        hello = tls.parse_client_hello(body, cookie=carrier.via == "dtls")
        if hello is None:
            findings.warn("a TLS ClientHello makes no sense", place.frame)
        else:
            sight_client_hello(flow, hello, carrier, place, findings, **detail)
    elif kind == tls.SERVER_HELLO:
        chosen = tls.parse_server_hello(body)
        if chosen is not None:
            _hint_server_hello(flow, chosen, carrier, place, findings)
    elif kind == tls.CERTIFICATE and carrier.via != "quic":
        _sight_certificates(body, carrier, place, findings)


def sight_client_hello(
    flow: FlowState, hello: tls.ClientHello, carrier: Carrier, place: Place, findings: Findings, **detail: str
) -> None:
    prints = {"ja3": fingerprints.ja3(hello), "ja4": fingerprints.ja4(hello, carrier.letter)}
    client = flow.client.endpoint.address
    source = filters.source(client) + carrier.also
    ends = filters.between(flow.protocol, flow.client.endpoint, flow.server.endpoint)
    hello_filter = f"{carrier.field}.handshake.type == 1 && {ends}"
    hello_filter = carrier.instead or hello_filter
    display_filter = carrier.instead or f'{carrier.field}.handshake.ja3 == "{prints["ja3"]}" && {source}'
    findings.hint("ja3", prints["ja3"], client, place, display_filter, carrier.rule)
    findings.hint("ja4", prints["ja4"], client, place, hello_filter, carrier.rule)
    if hello.encrypted_client_hello:
        display_filter = f"{carrier.field}.handshake.extension.type == {tls.EXTENSION_ENCRYPTED_CLIENT_HELLO}"
        display_filter = carrier.instead or f"{display_filter} && {source}"
        value, rule = _judge_ech(hello, findings)
        findings.hint("ech", value, client, place, display_filter, rule)
    if not carrier.within:
        sight_resolver(flow, hello, hello_filter, place, findings)
    if hello.server_name:
        name = as_text(hello.server_name)
        field = f"{carrier.field}.handshake.extensions_server_name"
        shown = filters.equals(field, hello.server_name)
        if not hello.server_name.isascii():  # Wireshark shows other octets as something else
            shown = f"{field} contains {filters.quote(filters.longest_text(hello.server_name))}"
        display_filter = carrier.instead or shown + carrier.also
        details: dict[str, str | int | float] = {
            "alpn": ",".join(as_text(protocol) for protocol in hello.alpn),
            "versions": ",".join(f"0x{version:04x}" for version in hello.versions),
            "encrypted_client_hello": int(hello.encrypted_client_hello),
            **prints,
            **detail,
        }
        findings.sight(carrier.kind, name.lower(), place.frame, place.time_ns, display_filter, carrier.via, **details)
        findings.name(name.lower(), carrier.via, place.frame, display_filter)


def _judge_ech(hello: tls.ClientHello, findings: Findings) -> tuple[str, str]:
    """Whether a name is hidden as far as one can know, and how."""
    public_name = as_text(hello.server_name or b"").lower()
    host = findings.ech_offers.get((public_name, hello.ech_config_id))
    if host is None or host == public_name:
        return "present", ECH_RULE
    rule = f"name and configuration {hello.ech_config_id} are those that the HTTPS record of {host} offers for ECH"
    return f"a name is hidden behind {public_name}", rule


def _sight_unfinished(side: Side, run: Run, findings: Findings) -> None:
    """A ClientHello that the capture does not hold to its end: Wireshark shows none of it; the name may be there."""
    body = tls.unfinished_client_hello(run.data)
    hello = tls.parse_client_hello(body, cut_off=True) if body else None
    if hello is None or not hello.server_name:
        return
    at = run.start + run.data.index(hello.server_name)
    frame, (_, time_ns) = side.recorder.carrier(at), side.recorder.completed(at + 1)
    findings.warn("a TLS ClientHello is not in the capture to its end", frame)
    name = as_text(hello.server_name).lower()
    display_filter = f"tcp.payload contains {filters.octets(hello.server_name)}"
    findings.sight(Kind.TLS_NAME, name, frame, time_ns, display_filter, "tls")
    findings.name(name, "tls", frame, display_filter)


def _hint_server_hello(
    flow: FlowState, chosen: tls.ServerHello, carrier: Carrier, place: Place, findings: Findings
) -> None:
    server = str(flow.server.endpoint)
    ends = filters.between(flow.protocol, flow.client.endpoint, flow.server.endpoint)
    ja3s = fingerprints.ja3s(chosen)
    display_filter = carrier.instead or f'{carrier.field}.handshake.ja3s == "{ja3s}" && {ends}'
    findings.hint("ja3s", ja3s, server, place, display_filter, carrier.rule)
    version = VERSION_NAMES.get(chosen.version, f"0x{chosen.version:04x}")
    words = f"{version}, cipher suite 0x{chosen.cipher_suite:04x}"
    if chosen.alpn:
        words += f", {as_text(chosen.alpn)}"
    display_filter = carrier.instead or f"{carrier.field}.handshake.type == 2 && {ends}"
    findings.hint("tls", words, server, place, display_filter, carrier.rule)


def _sight_certificates(body: bytes, carrier: Carrier, place: Place, findings: Findings) -> None:
    """The names in the server's own certificate; the rest of the chain names authorities, not sites."""
    for der in tls.parse_certificates(body)[:1]:
        for found in x509.certificate_names(der):
            name = as_text(found.name).lower()
            display_filter = carrier.instead or filters.equals(found.field, found.name) + f" && {carrier.field}"
            findings.sight(Kind.TLS_CERTIFICATE, name, place.frame, place.time_ns, display_filter, carrier.via)
            via = f"certificate in {carrier.within}" if carrier.within else "certificate"
            findings.name(name, via, place.frame, display_filter)
