"""From octets in order to sightings: which protocol a conversation speaks, told from its octets, and what it says.

Datagrams are dissected as they come, a TCP conversation when it is over. What a protocol's message tells is entered by
the modules of `sights`. A datagram costs little once its flow is known: tunnels are let pass, and of QUIC only
the first long headers are opened. What few captures hold is imported when it comes: most are read before that is done.
"""

from __future__ import annotations

from collections.abc import Callable

from testbed.observer import http, tls
from testbed.observer.findings import Findings, Place
from testbed.observer.flows import FlowState, Side
from testbed.observer.sights.dtls import dissect_dtls, looks_like_dtls_handshake
from testbed.observer.sights.http1 import dissect_http, is_http_behind_hole
from testbed.observer.sights.http2 import dissect_http2
from testbed.observer.sights.names import DNS_PORTS, dissect_name_streams, dissect_names
from testbed.observer.sights.openvpn import dissect_openvpn_datagram, dissect_openvpn_streams
from testbed.observer.sights.text import is_text, sight_datagram_text, sight_stream_text
from testbed.observer.sights.tls import dissect_tls, dissect_tls_behind
from testbed.observer.streams import Run
from testbed.observer.tunnels.detect import detect_in_datagram, detect_in_streams
from testbed.observer.wire.http2 import has_preface
from testbed.observer.wire.quic import looks_like_long_header

LONG_HEADER = 0x80
STUN_MAGIC = b"\x21\x12\xa4\x42"


def dissect_datagram(flow: FlowState, side: Side, data: bytes, place: Place, findings: Findings) -> None:
    """One UDP payload."""
    if not data:
        return
    if looks_like_dtls_handshake(data):  # before the tunnels have their say: what is in clear is read all the same
        dissect_dtls(flow, side.is_client, data, place, findings)
    if flow.tunnel is not None:
        if flow.dissector is not None:
            dissect_openvpn_datagram(flow, side.is_client, data, place, findings)
        return
    if flow.dissector is not None and _goes_on_as_quic(flow, side, data, place, findings):
        return
    if _dissect_by_port(flow, data, place, findings) or _dissect_by_shape(flow, side, data, place, findings):
        return
    if detect_in_datagram(flow, side.is_client, data, place, findings):
        return
    if is_text(data):
        sight_datagram_text(data, "udp.payload", "udp", place, findings)


def _dissect_by_port(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    server, client = flow.server.endpoint.port, flow.client.endpoint.port
    via = DNS_PORTS.get(server) or DNS_PORTS.get(client)
    if via is not None and dissect_names(flow, via, data, place, findings):
        return True
    from testbed.observer.sights.hosts import DATAGRAM_PORTS

    dissect = DATAGRAM_PORTS.get(server) or DATAGRAM_PORTS.get(client)
    return dissect is not None and dissect(flow, data, place, findings)


def _dissect_by_shape(flow: FlowState, side: Side, data: bytes, place: Place, findings: Findings) -> bool:
    """Protocols on any port whose first octets give them away."""
    if data[0] & LONG_HEADER and looks_like_long_header(data):
        from testbed.observer.sights.quic import dissect_quic

        dissect_quic(flow, side, data, place, findings)
        return True
    if data[4:8] == STUN_MAGIC:
        from testbed.observer.sights.hosts import dissect_stun, looks_like_stun

        if looks_like_stun(data):
            return dissect_stun(flow, data, place, findings)
    first = flow.client.packets + flow.server.packets == 1
    return first and bool(findings.connections) and _is_migrated(flow, data, place, findings)


def _is_migrated(flow: FlowState, data: bytes, place: Place, findings: Findings) -> bool:
    from testbed.observer.sights.quic import recognise_migrated

    return recognise_migrated(flow, data, place, findings)


def _goes_on_as_quic(flow: FlowState, side: Side, data: bytes, place: Place, findings: Findings) -> bool:
    from testbed.observer.sights.quic import dissect_quic
    from testbed.observer.wire.quic_handshake import QuicHandshake

    if not isinstance(flow.dissector, QuicHandshake):
        return False
    dissect_quic(flow, side, data, place, findings)
    return True


def dissect_tcp(flow: FlowState, findings: Findings) -> None:
    """One finished TCP conversation."""
    client_runs, server_runs = flow.client.recorder.runs(), flow.server.recorder.runs()
    if not client_runs and not server_runs:
        return
    if 53 in (flow.client.endpoint.port, flow.server.endpoint.port):
        if dissect_name_streams(flow, findings):
            return
    elif client_runs and has_preface(client_runs[0].data):
        dissect_http2(flow, client_runs, server_runs, findings)
        return
    elif _any(http.looks_like_request, client_runs) or _any(http.looks_like_response, server_runs):
        _dissect_http(flow, client_runs, server_runs, findings)
        return
    elif _any(tls.looks_like_tls, client_runs) or _any(tls.looks_like_tls, server_runs):
        flow.application = "tls"
        dissect_tls(flow, client_runs, server_runs, findings)
        return
    elif is_http_behind_hole(client_runs, server_runs, flow):
        _dissect_http(flow, client_runs, server_runs, findings)
        return
    elif detect_in_streams(flow, findings):
        dissect_openvpn_streams(flow, findings)
        return
    elif dissect_tls_behind(flow, findings):
        return
    for side in (flow.client, flow.server):
        for run in side.recorder.runs():
            sight_stream_text(side, run, findings)


def _any(looks: Callable[[bytes], bool], runs: list[Run]) -> bool:
    return any(map(looks, [run.data for run in runs]))  # mostly there is one: a generator would take longer


def _dissect_http(flow: FlowState, client_runs: list[Run], server_runs: list[Run], findings: Findings) -> None:
    flow.application = "http"
    dissect_http(flow, client_runs, server_runs, findings)
