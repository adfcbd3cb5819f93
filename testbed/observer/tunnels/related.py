"""What only several conversations of the same hosts together tell, once the capture is over.

    AnyConnect, OpenConnect   a TLS connection to a server, and while it lasts DTLS from the same client to the same
                              address and port: the VPN signs in over the one and carries packets in the other
    DTLS alone                much data both ways and no STUN, which calls have: a hint, no more
    tinc                      datagrams between the two ends of a meta connection, on its port

Source: openconnect.gitlab.io, "The Cisco AnyConnect protocol"; tinc manual
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from testbed.observer.findings import Place
from testbed.observer.flows import MOST_DATAGRAMS, FlowState
from testbed.observer.model import Certainty
from testbed.observer.tunnels.dtls import Dtls, read_dtls
from testbed.observer.tunnels.recognised import Recognised
from testbed.observer.tunnels.segments import Segment, segments

MUCH_DATA = 50  # datagrams each way
LARGE_OCTETS, LEAST_LARGE = 1_000, 20  # a tunnel carries whole packets, a sensor or a chat does not
DTLS_COST = (
    "no published figure; a web page and DTLS without STUN to one port of one host would look alike. None among the "
    "benign captures of docs/tunnel-detection.md"
)
_Connection = tuple[str, str, int]  # client, server, the server's port
ALONE_COST = "no published figure: any protocol over DTLS (sensors, games) with much data both ways looks alike"
TINC_COST = "none known: the port and both ends are those of a connection that said it is tinc's"


@dataclass(slots=True)
class Related:
    """What is remembered of all conversations, so that the few in question can be held against it."""

    needs_tls: bool  # whether any conversation is DTLS
    tinc: set[tuple[frozenset[str], int]] = field(default_factory=set)
    tls: dict[_Connection, list[tuple[int, int]]] = field(default_factory=dict)

    def note(self, flow: FlowState) -> None:
        """A conversation that is over; what is of no use later is not remembered."""
        if flow.application == "tinc":
            self.tinc.add((_hosts(flow), flow.server.endpoint.port))
        elif self.needs_tls and flow.protocol == "tcp" and flow.application == "tls":
            self.tls.setdefault(_connection(flow), []).append((flow.started_ns, flow.ended_ns))

    def is_in_question(self, flow: FlowState) -> bool:
        if flow.protocol != "udp" or flow.tunnel is not None:
            return False
        return flow.application == "dtls" or self._is_tinc(flow)

    def judge(self, flow: FlowState) -> tuple[Recognised, Place] | None:
        """Whether others show it to be a tunnel, and the packet that made it so."""
        if self._is_tinc(flow):
            rule = "datagrams between the two ends of a tinc meta connection, on its port"
            return Recognised("tinc", rule, TINC_COST, Certainty.LIKELY), Place(flow.first_frame, flow.started_ns)
        return _dtls(flow, self.tls)

    def _is_tinc(self, flow: FlowState) -> bool:
        ports = (flow.client.endpoint.port, flow.server.endpoint.port) if self.tinc else ()
        return any((_hosts(flow), port) in self.tinc for port in ports)


def _hosts(flow: FlowState) -> frozenset[str]:
    return frozenset((flow.client.endpoint.address, flow.server.endpoint.address))


def _connection(flow: FlowState) -> _Connection:
    return flow.client.endpoint.address, flow.server.endpoint.address, flow.server.endpoint.port


def _dtls(flow: FlowState, tls: dict[_Connection, list[tuple[int, int]]]) -> tuple[Recognised, Place] | None:
    datagrams = segments(flow, MOST_DATAGRAMS)
    for side in (flow.client, flow.server):
        side.recorder.release()
    found = read_dtls((datagram.from_client, datagram.data) for datagram in datagrams)
    if found is None:
        return None
    if found.is_call:
        return None
    at = datagrams[found.certain_at].place
    if any(began < flow.started_ns <= ended for began, ended in tls.get(_connection(flow), ())):
        rule = "DTLS to the address and port of a TLS connection that the same client holds, as AnyConnect does"
        return Recognised("anyconnect-like", rule, DTLS_COST, Certainty.LIKELY), at
    return _dtls_alone(found, datagrams)


def _dtls_alone(found: Dtls, datagrams: Sequence[Segment]) -> tuple[Recognised, Place] | None:
    large = sum(len(datagram.data) >= LARGE_OCTETS for datagram in datagrams)
    if min(found.data_sent, found.data_received) < MUCH_DATA or large < LEAST_LARGE:
        return None
    rule = f"DTLS with at least {MUCH_DATA} datagrams of data each way, {large} of them large, and no STUN"
    return Recognised("dtls", rule, ALONE_COST, Certainty.POSSIBLE), datagrams[-1].place
