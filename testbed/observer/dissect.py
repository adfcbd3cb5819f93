"""From octets in order to sightings: which protocol a conversation speaks, told from its octets, and what it says.

A frame number is where Wireshark shows the field: for a message that came in several segments, the frame that
completed it. A message the capture does not hold to its end has no such frame; it is sighted by its octets instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from testbed.facts import Kind
from testbed.observer import filters, http, tls, x509
from testbed.observer.findings import Findings, Place, as_text
from testbed.observer.flows import FlowState, Side
from testbed.observer.sights.names import DNS_PORTS, dissect_name_streams, dissect_names
from testbed.observer.sights.text import SHORTEST_TEXT_OCTETS, is_text, sight_datagram_text, sight_stream_text
from testbed.observer.streams import Run
from testbed.observer.tunnels.detect import detect_in_datagram, detect_in_streams


def dissect_datagram(flow: FlowState, side: Side, data: bytes, place: Place, findings: Findings) -> None:
    """One UDP payload."""
    if not data:
        return
    via = DNS_PORTS.get(flow.server.endpoint.port) or DNS_PORTS.get(flow.client.endpoint.port)
    if via is not None and dissect_names(flow, via, data, place, findings):
        return
    if detect_in_datagram(flow, side.is_client, data, place, findings):
        return
    if is_text(data):
        sight_datagram_text(data, "udp.payload", "udp", place, findings)


def dissect_tcp(flow: FlowState, findings: Findings) -> None:
    """One finished TCP conversation."""
    client_runs, server_runs = flow.client.recorder.runs(), flow.server.recorder.runs()
    if not client_runs and not server_runs:
        return
    if 53 in (flow.client.endpoint.port, flow.server.endpoint.port):
        if dissect_name_streams(flow, findings):
            return
    elif any(http.looks_like_request(run.data) for run in client_runs) or any(
        http.looks_like_response(run.data) for run in server_runs
    ):
        flow.application = "http"
        _dissect_http(flow, client_runs, server_runs, findings)
        return
    elif any(tls.looks_like_tls(run.data) for run in (*client_runs, *server_runs)):
        flow.application = "tls"
        _dissect_tls(flow, findings)
        return
    elif detect_in_streams(flow, findings):
        return
    for side in (flow.client, flow.server):
        for run in side.recorder.runs():
            sight_stream_text(side, run, findings)


def _dissect_http(flow: FlowState, client_runs: list[Run], server_runs: list[Run], findings: Findings) -> None:
    limit = findings.limits.decoded_octets
    requests: list[http.HttpMessage] = []
    for run in client_runs:
        found = http.parse_requests(run.data, limit)
        requests += found
        _sight_messages(flow, flow.client, run, found, findings)
    for run in server_runs:
        _sight_messages(flow, flow.server, run, http.parse_responses(run.data, requests, limit), findings)


def _sight_messages(
    flow: FlowState, side: Side, run: Run, messages: list[http.HttpMessage], findings: Findings
) -> None:
    for message in messages:
        _sight_message(flow, side, run, message, findings)
    rest_at = messages[-1].end if messages else 0
    if rest_at < len(run.data):
        sight_stream_text(side, Run(run.start + rest_at, run.data[rest_at:]), findings)


def _sight_message(flow: FlowState, side: Side, run: Run, message: http.HttpMessage, findings: Findings) -> None:
    frame, time_ns = side.recorder.completed(run.start + message.end)
    complete = message.complete
    if message.until_close and side.reassembly is not None:
        complete = bool(side.reassembly.fin_frame)
        frame, time_ns = (side.reassembly.fin_frame, side.reassembly.fin_time_ns) if complete else (frame, time_ns)
    elsewhere: Callable[[bytes], str] | None = None
    if not complete:  # Wireshark never shows its fields: find it by its octets, where they begin
        findings.warn("an HTTP message is not in the capture to its end", frame)
        frame = side.recorder.carrier(run.start + message.start)
        first = run.data[message.start : message.start + filters.LONGEST_NEEDLE_OCTETS].split(b"\n", 1)[0]

        def elsewhere(_: bytes) -> str:
            return f"tcp.payload contains {filters.octets(first)}"

    sight = HttpSighter(Place(frame, time_ns), findings, elsewhere)
    sight.message(message)
    if message.altered and message.body:
        flow.decoded.append((side, message.body, frame))


class HttpSighter(NamedTuple):
    """Enters one message's parts. Shape: `elsewhere` replaces every filter where Wireshark shows no HTTP fields."""

    place: Place
    findings: Findings
    elsewhere: Callable[[bytes], str] | None

    def message(self, message: http.HttpMessage) -> None:
        if not message.status:
            self._request(message)
        for header in message.headers:
            self._sight(Kind.HTTP_HEADER, as_text(header.line), self._header_filter(message, header))
        if message.body:
            self._sight(Kind.HTTP_BODY, as_text(message.body), self._body_filter(message))

    def _sight(self, kind: Kind, value: str, display_filter: str) -> None:
        if self.elsewhere is not None:
            display_filter = self.elsewhere(b"")
        self.findings.sight(kind, value, self.place.frame, self.place.time_ns, display_filter, "http")

    def _request(self, message: http.HttpMessage) -> None:
        host = message.header(b"host") or b""
        if host:
            name = _without_port(as_text(host)).lower()
            self._sight(Kind.HTTP_HOST, name, _text_filter("http.host", host))
            self.findings.name(name, "http", self.place.frame)
        if message.target.startswith(b"/") and host:
            url = b"http://" + host + message.target
            self._sight(Kind.HTTP_URL, as_text(url), _text_filter("http.request.full_uri", url))
        elif b"://" in message.target:
            self._sight(Kind.HTTP_URL, as_text(message.target), _text_filter("http.request.uri", message.target))
        else:
            value = f"http://{as_text(host)}{as_text(message.target)}"
            self._sight(Kind.HTTP_URL, value, _text_filter("http.request.uri", message.target))

    def _header_filter(self, message: http.HttpMessage, header: http.Header) -> str:
        field = "http.response.line" if message.status else "http.request.line"
        return filters.equals(field, header.line + b"\r\n") if header.line.isascii() else _octet_filter(header.line)

    def _body_filter(self, message: http.HttpMessage) -> str:
        needle = filters.longest_text(message.body)
        if len(needle) < SHORTEST_TEXT_OCTETS and not message.altered:
            return _octet_filter(message.body)
        return f"http.file_data contains {filters.quote(needle)}"


def _text_filter(field: str, value: bytes) -> str:
    return filters.equals(field, value) if value.isascii() else _octet_filter(value)


def _octet_filter(value: bytes) -> str:
    """Wireshark shows octets that are not ASCII as something else: search the message's octets instead."""
    return f"http contains {filters.octets(value)}"


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].split("]", 1)[0]
    return host.rsplit(":", 1)[0] if host.count(":") == 1 else host


def _dissect_tls(flow: FlowState, findings: Findings) -> None:
    for side in (flow.client, flow.server):
        for run in side.recorder.runs():
            if not tls.looks_like_tls(run.data):
                continue
            for handshake in tls.parse_handshakes(run.data):
                place = Place(*side.recorder.completed(run.start + handshake.end))
                if handshake.type == tls.CLIENT_HELLO:
                    _sight_client_hello(handshake.body, place, findings)
                elif handshake.type == tls.CERTIFICATE:
                    _sight_certificates(handshake.body, place, findings)


def _sight_client_hello(body: bytes, place: Place, findings: Findings) -> None:
    hello = tls.parse_client_hello(body)
    if hello is None:
        findings.warn("a TLS ClientHello makes no sense", place.frame)
    elif hello.server_name:
        name = as_text(hello.server_name)
        display_filter = filters.equals("tls.handshake.extensions_server_name", hello.server_name)
        detail: dict[str, str | int | float] = {
            "alpn": ",".join(as_text(protocol) for protocol in hello.alpn),
            "versions": ",".join(f"0x{version:04x}" for version in hello.versions),
            "encrypted_client_hello": int(hello.encrypted_client_hello),
        }
        findings.sight(Kind.TLS_NAME, name.lower(), place.frame, place.time_ns, display_filter, "tls", **detail)
        findings.name(name.lower(), "tls", place.frame)


def _sight_certificates(body: bytes, place: Place, findings: Findings) -> None:
    """The names in the server's own certificate; the rest of the chain names authorities, not sites."""
    for der in tls.parse_certificates(body)[:1]:
        for found in x509.certificate_names(der):
            name = as_text(found.name).lower()
            display_filter = filters.equals(found.field, found.name)
            findings.sight(Kind.TLS_CERTIFICATE, name, place.frame, place.time_ns, display_filter, "tls")
            findings.name(name, "certificate", place.frame)
