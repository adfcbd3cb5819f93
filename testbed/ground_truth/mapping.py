"""Maps one variant: from its captures and keys to the links between inner and outer packets, or why there are none.

`map_variant` is the whole way; the modules beside it are its steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from testbed.facts import Fact, Kind
from testbed.ground_truth.data_keys import DataOpener, StaticKeyOpener, TlsModeOpener, key_blocks
from testbed.ground_truth.inner import flow_name
from testbed.ground_truth.keylog import exporter_secrets
from testbed.ground_truth.matching import Carrier, Carries, InnerPacket, inner_packets, match, open_all
from testbed.ground_truth.outer import End, outer_packets
from testbed.ground_truth.separable import FlowShape, SealedPacket, flow_shapes
from testbed.result import ActionRecord
from testbed.scenario.values import TunnelSpec
from testbed.verdict.evidence import TapEvidence, VariantEvidence

OPENVPN = frozenset(("vpn", "openvpn"))
MOST_FRAMES = 500_000  # of both captures: beyond that the map would take longer than the run
EARLY_S, LATE_S = 0.001, 0.05  # how far from its action's times a flow's first packet may be


@dataclass(frozen=True, slots=True)
class TunnelSecrets:
    """What a finished run knows of its tunnel's keys. Shape: `keys` by name: static, tls-crypt, tls-crypt-v2-client."""

    keylog: str = field(default="", repr=False)
    keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Link:
    """An inner packet and the packets of the tunnel that carried it.

    Units: `delay` in seconds between the two taps, None where nothing carried it; `overhead` in octets of outer IP
        packets beyond the inner packet's own
    """

    packet: InnerPacket
    up: bool
    flow: str
    action: str
    delay: float | None
    outer_octets: float
    overhead: float


@dataclass(frozen=True, slots=True)
class VariantMap:
    """A variant's links, in the order of the inner packets; `carriers` are all packets of the tunnel."""

    inner_file: str
    outer_file: str
    outer_tap: str
    links: tuple[Link, ...]
    carriers: tuple[Carrier, ...]
    alone: tuple[Carrier, ...]  # opened, but the tun device did not record what they carried
    flows: tuple[FlowShape, ...]


@dataclass(frozen=True, slots=True)
class NotMapped:
    reason: str


def map_variant(evidence: VariantEvidence, secrets: TunnelSecrets, port: int) -> VariantMap | NotMapped:
    """The links of a variant with a tunnel, whose server listens at `port`."""
    tunnel, inner = evidence.tunnel, evidence.client_tun
    outer = next((tap for tap in evidence.taps if tap.before_tunnel_server), None)
    if tunnel is None or evidence.tunnel_endpoint is None:
        return NotMapped("there is no tunnel")
    if outer is None:
        return NotMapped("no tap lies between the client and the VPN server")
    if inner is None:
        return NotMapped("the client's tun device was not recorded")
    packets_in_all = len(outer.frames) + len(inner.frames)
    if packets_in_all > MOST_FRAMES:
        return NotMapped(f"{packets_in_all} packets are more than the {MOST_FRAMES} that are mapped")
    opener = _opener(tunnel, secrets)
    if isinstance(opener, NotMapped):
        return opener
    server = End(ip_address(evidence.tunnel_endpoint).packed, port)
    packets = outer_packets(outer.frames, server, outer.link_type)
    carriers = open_all(packets, opener, headers=tunnel.mode == "tls")
    if not any(carrier.payload for carrier in carriers):
        return NotMapped(_nothing_opened(carriers, outer))
    inside = inner_packets(inner.frames)
    alone = match(carriers, inside)
    links = _links(inside, evidence)
    return VariantMap(inner.file, outer.file, outer.name, links, tuple(carriers), tuple(alone), _shapes(links))


def _opener(tunnel: TunnelSpec, secrets: TunnelSecrets) -> DataOpener | NotMapped:
    strangers = {tunnel.client, tunnel.server} - OPENVPN
    if strangers:
        return NotMapped(f"the tunnel is run by {' and '.join(sorted(strangers))}, whose keys the lab does not have")
    if tunnel.mode == "static-key":
        key = secrets.keys.get("static")
        return StaticKeyOpener(key) if key else NotMapped("the run kept no static key")
    if "vpn" not in (tunnel.client, tunnel.server):
        return NotMapped(
            "both ends are openvpn, which does not give its TLS secrets; with vpn at one end they are known"
        )
    blocks = key_blocks(exporter_secrets(secrets.keylog))
    if not blocks:
        return NotMapped("the key log holds no exporter secret: the tunnel's TLS did not come up, or is older than 1.3")
    return TlsModeOpener(tunnel.cipher, blocks)


def _nothing_opened(carriers: Sequence[Carrier], outer: TapEvidence) -> str:
    sealed = sum(carrier.carries is Carries.UNOPENED for carrier in carriers)
    if not sealed:
        return f"{outer.file} holds no data packet of the tunnel"
    return f"none of the {sealed} data packets in {outer.file} opens with the keys that the run logged"


def _links(inside: Sequence[InnerPacket], evidence: VariantEvidence) -> tuple[Link, ...]:
    directions = _Directions(inside)
    actions = _ActionOfFlow(evidence.actions, evidence.facts)
    return tuple(_link(packet, directions.is_up(packet), actions) for packet in inside)


def _link(packet: InnerPacket, up: bool, actions: _ActionOfFlow) -> Link:
    flow = flow_name(packet.head.flow, up=up)
    octets = sum(carrier.outer.octets for carrier in packet.carriers)
    delay, overhead = None, 0.0
    if packet.carriers:
        times = [carrier.outer.time for carrier in packet.carriers]
        delay = max(times) - packet.time if up else packet.time - min(times)
        overhead = octets - len(packet.packet)
    far = packet.head.destination if up else packet.head.source
    action = actions.of(flow, far, packet.time)
    return Link(packet, up, flow, action, delay, octets, overhead)


class _Directions:
    """Which way an inner packet goes: its carrier knows; of what nothing carried, its address."""

    def __init__(self, inside: Sequence[InnerPacket]) -> None:
        self._client = {
            packet.head.source if packet.carriers[0].outer.to_server else packet.head.destination
            for packet in inside
            if packet.carriers
        }

    def is_up(self, packet: InnerPacket) -> bool:
        if packet.carriers:
            return packet.carriers[0].outer.to_server
        return packet.head.source in self._client or packet.head.destination not in self._client


class _ActionOfFlow:
    """Which action a flow belongs to: the one that was under way when it began, and that called its far end."""

    def __init__(self, actions: Sequence[ActionRecord], facts: Iterable[Fact]) -> None:
        self._actions = actions
        self._called: dict[str, set[str]] = {}
        for fact in facts:
            if fact.kind is Kind.SERVER_ADDRESS:
                self._called.setdefault(fact.action, set()).add(fact.value)
        self._known: dict[str, str] = {}

    def of(self, flow: str, far: bytes, time: float) -> str:
        """The action's id, or an empty text for what no action caused."""
        if flow not in self._known:
            self._known[flow] = self._find(str(ip_address(far)), time)
        return self._known[flow]

    def _find(self, far: str, time: float) -> str:
        running = [a for a in self._actions if a.started_at - EARLY_S <= time <= a.ended_at + LATE_S]
        calling = [a for a in running if far in self._called.get(a.id, ())]
        found = max(calling or running, key=lambda action: action.started_at, default=None)
        return found.id if found else ""


def _shapes(links: Sequence[Link]) -> tuple[FlowShape, ...]:
    sealed = [
        SealedPacket(
            flow=link.flow,
            action=link.action,
            up=link.up,
            frame=carrier.outer.frames[-1],
            time=carrier.outer.time,
            octets=round(carrier.outer.octets),
            inner_octets=len(carrier.payload),
        )
        for link in links
        for carrier in link.packet.carriers
    ]
    return tuple(flow_shapes(sorted(sealed, key=lambda packet: (packet.time, packet.frame))))
