"""What a tunnel promised to hide and did not.

A tunnel that is asked to take everything promises everything, the names looked up included: a resolver reached beside
it is the best known of all leaks. It is asked so by `routes: all`, and also where nobody set its routes (`[]`) or where
only one family's default leads into it: what then goes outside is what the user did not mean to. Packets that no action
accounts for leak as well: whatever leaves for an address other than the VPN server's, the link's own housekeeping
apart. A tunnel that takes some prefixes promises what an action does that reaches an address in them,
and the name of a site if nobody reached it outside them; names and answers of the DNS only where its own resolver is
used. That the client exists, that it uses a tunnel, and how much and
when, no tunnel promises to hide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address
from typing import Any

from testbed.facts import Fact, Kind
from testbed.result import Evidence, Exposure, FactRef, Verdict
from testbed.scenario.values import SESSION_ACTION, TUNNEL_ACTION, TunnelSpec
from testbed.verdict.capture import NAME_KINDS
from testbed.verdict.evidence import TapEvidence, VariantEvidence
from testbed.verdict.headers import ETHERNET, ICMPV6, transport

NEVER_PROMISED = frozenset({Kind.CLIENT_ADDRESS, Kind.TUNNEL, Kind.VOLUME, Kind.TIMING})
DNS_KINDS = frozenset({Kind.DNS_NAME, Kind.DNS_ANSWER})
NEIGHBOUR_TYPES = range(133, 138)  # of ICMPv6: routers and neighbours looking for each other
FRAMES_PER_STRAY = 20


def find_leaks(variant: VariantEvidence, exposures: tuple[Exposure, ...]) -> tuple[dict[str, Any], ...]:
    """Each promised fact that somebody before the VPN server saw: {observer, kind, value, action, site, evidence}."""
    if variant.tunnel is None:
        return ()
    before = {tap.name for tap in variant.taps if tap.before_tunnel_server}
    rows = [
        row
        for row in exposures
        if row.observer in before and row.verdict is Verdict.SEEN and _promised(row, variant, variant.tunnel)
    ]
    told = {(e.file, e.frame) for row in rows for e in row.evidence}
    return (*(_leak(row) for row in rows), *_strays(variant, told))


def _leak(row: Exposure) -> dict[str, Any]:
    return {
        "observer": row.observer,
        "kind": row.fact.kind,
        "value": row.fact.value,
        "action": row.fact.action,
        "site": row.fact.site,
        "reason": row.reason,
        "evidence": [asdict(evidence) for evidence in row.evidence],
    }


def asks_for_all(tunnel: TunnelSpec) -> bool:
    """Whether the user means everything to go through the tunnel."""
    if isinstance(tunnel.routes, str) or not tunnel.routes:
        return True
    four = collapse_addresses(IPv4Network(route) for route in tunnel.routes if ":" not in route)
    six = collapse_addresses(IPv6Network(route) for route in tunnel.routes if ":" in route)
    return any(network.prefixlen == 0 for network in four) or any(network.prefixlen == 0 for network in six)


def _strays(variant: VariantEvidence, told: set[tuple[str, int]]) -> Iterator[dict[str, Any]]:
    """What left the client beside the tunnel and is no fact of an action, one leak for each address called."""
    if variant.tunnel is None or not asks_for_all(variant.tunnel):
        return
    facts = {fact.value for fact in variant.facts}
    for tap in variant.taps if variant.client_addresses else ():
        for address, frames in _called(tap, variant).items():
            if address in facts or any((tap.file, number) in told for number, _ in frames):
                continue
            field = "ipv6.dst" if ":" in address else "ip.dst"
            evidence = [Evidence(tap.file, number, time, f"{field} == {address}") for number, time in frames]
            ref = FactRef(Kind.SERVER_ADDRESS.value, address, SESSION_ACTION)
            reason = f"packets to {address} left outside the tunnel, and no action accounts for them"
            yield _leak(Exposure(tap.name, ref, Verdict.SEEN, tuple(evidence), reason))


def _called(tap: TapEvidence, variant: VariantEvidence) -> dict[str, list[tuple[int, float]]]:
    """The addresses the client sent to directly, each with its first frames: number and time."""
    own = {ip_address(address).packed for address in variant.client_addresses}
    server = ip_address(variant.tunnel_endpoint).packed if variant.tunnel_endpoint else b""
    known: dict[bytes, str] = {}  # addresses' octets as they stand in a frame -> destination, empty if it is no stray
    called: dict[str, list[tuple[int, float]]] = {}
    for frame in tap.frames if tap.before_tunnel_server and tap.link_type == ETHERNET else ():
        key = _ends(frame.data)
        address = known.get(key)
        if address is None:
            address = known[key] = _stray(frame.data, own, server)
        if address and len(frames := called.setdefault(address, [])) < FRAMES_PER_STRAY:
            frames.append((frame.number, frame.time))
    return called


def _ends(data: bytes) -> bytes:
    """What tells conversations apart: addresses with, for ICMPv6, its type."""
    if data[12:14] == b"\x86\xdd":
        return data[20:21] + data[22:54] + (data[54:55] if data[20] == ICMPV6 else b"")
    return data[12:14] + data[26:34]


def _stray(data: bytes, own: set[bytes], server: bytes) -> str:
    packet = transport(data)
    if packet is None or packet.source not in own or packet.destination in own or packet.destination == server:
        return ""
    if packet.protocol == ICMPV6 and packet.start < packet.end and data[packet.start] in NEIGHBOUR_TYPES:
        return ""
    address = ip_address(packet.destination)
    broadcast = packet.destination[-1] == 255 and address.version == 4
    housekeeping = address.is_multicast or address.is_link_local or address.is_unspecified or broadcast
    return "" if housekeeping else str(address)


def _promised(row: Exposure, variant: VariantEvidence, tunnel: TunnelSpec) -> bool:
    kind = Kind(row.fact.kind)
    if kind in NEVER_PROMISED or row.fact.action == TUNNEL_ACTION:
        return False
    if asks_for_all(tunnel):
        return True
    if kind in DNS_KINDS and tunnel.dns != "tunnel":
        return False
    if kind in (Kind.SERVER_ADDRESS, Kind.DNS_ANSWER):
        return carries(tunnel, row.fact.value)
    reached = [fact for fact in variant.facts if fact.kind is Kind.SERVER_ADDRESS and _concerns(fact, row.fact)]
    return bool(reached) and all(carries(tunnel, fact.value) for fact in reached)


def _concerns(fact: Fact, about: FactRef) -> bool:
    """Whether the address was reached for what `about` tells.

    A name is given away by any visit to its site, everything else by its own action alone.
    """
    return fact.site == about.site if Kind(about.kind) in NAME_KINDS else fact.action == about.action


def carries(tunnel: TunnelSpec, address: str) -> bool:
    """Whether the tunnel's routes cover the address; False for an answer that is no address."""
    try:
        return tunnel.carries(address)
    except ValueError:
        return False
