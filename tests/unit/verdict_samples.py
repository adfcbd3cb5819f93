"""Evidence made by hand, for the tests of the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from testbed.facts import Fact, Kind, Sighting
from testbed.result import ActionRecord
from testbed.scenario import TunnelSpec
from testbed.verdict import SiteLog, TapEvidence, VariantEvidence

CLIENT, RESOLVER, SITE, SECOND, VPN = "192.168.0.13", "192.168.0.1", "93.184.216.34", "203.0.113.80", "198.51.100.10"
TUNNEL = TunnelSpec("vpn", "vpn", "tls", "udp", "AES-256-GCM", "tls-crypt", "all", "tunnel")


@dataclass(frozen=True)
class Frame:
    number: int
    time: float
    data: bytes
    wire_octets: int


@dataclass(frozen=True)
class Stream:
    label: str
    data: bytes
    segments: Sequence[tuple[int, int]]


def frames_of(*octets: bytes) -> tuple[Frame, ...]:
    return tuple(Frame(number, 100.0 + number, data, len(data)) for number, data in enumerate(octets, 1))


def packet(destination: str, payload: bytes = b"", source: str = CLIENT) -> bytes:
    """An Ethernet frame with an IPv4 header that has only its addresses right."""
    header = b"\x45" + bytes(11) + ip_address(source).packed + ip_address(destination).packed
    return bytes(12) + b"\x08\x00" + header + payload


def sighting(kind: Kind, value: str, *frames: int, text: str = "") -> Sighting:
    return Sighting(kind, value, frames or (1,), 101.0, text or f"{kind} == {value}")


def tap(
    name: str,
    *sightings: Sighting,
    frames: Sequence[Frame] = (),
    streams: Sequence[Stream] = (),
    variant: str = "with",
    packets: int | None = None,
    dropped: int = 0,
    damage: str = "",
    before_tunnel_server: bool = True,
) -> TapEvidence:
    return TapEvidence(
        name=name,
        file=f"{variant}/{name}.pcapng",
        packets=len(frames) if packets is None else packets,
        dropped=dropped,
        sightings=sightings,
        frames=frames,
        streams=streams,
        damage=damage,
        before_tunnel_server=before_tunnel_server,
    )


def variant(
    name: str,
    facts: Sequence[Fact],
    *taps: TapEvidence,
    tunnel: TunnelSpec | None = TUNNEL,
    client_tun: TapEvidence | None = None,
    logs: Sequence[SiteLog] = (),
    actions: Sequence[ActionRecord] = (),
) -> VariantEvidence:
    endpoint = VPN if tunnel else None
    return VariantEvidence(name, tunnel, endpoint, tuple(facts), tuple(actions), taps, client_tun, tuple(logs))


def url_fact(token: str, action: str = "2-http", scheme: str = "http") -> Fact:
    return Fact(Kind.HTTP_URL, f"{scheme}://www.example.com/?visit={token}", action, "www.example.com", (token,))
