"""What a tunnel promised to hide and did not.

A tunnel that takes all routes promises everything, the names looked up included: a resolver reached beside it is the
best known of all leaks. One that takes some prefixes promises what an action does that reaches an address in them,
and the name of a site if nobody reached it outside them; names and answers of the DNS only where its own resolver is
used. That the client exists, that it uses a tunnel, and how much and
when, no tunnel promises to hide.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from testbed.facts import Fact, Kind
from testbed.result import Exposure, FactRef, Verdict
from testbed.scenario.values import TUNNEL_ACTION, TunnelSpec
from testbed.verdict.capture import NAME_KINDS
from testbed.verdict.evidence import VariantEvidence

NEVER_PROMISED = frozenset({Kind.CLIENT_ADDRESS, Kind.TUNNEL, Kind.VOLUME, Kind.TIMING})
DNS_KINDS = frozenset({Kind.DNS_NAME, Kind.DNS_ANSWER})


def find_leaks(variant: VariantEvidence, exposures: tuple[Exposure, ...]) -> tuple[dict[str, Any], ...]:
    """Each promised fact that somebody before the VPN server saw: {observer, kind, value, action, site, evidence}."""
    if variant.tunnel is None:
        return ()
    before = {tap.name for tap in variant.taps if tap.before_tunnel_server}
    return tuple(
        {
            "observer": row.observer,
            "kind": row.fact.kind,
            "value": row.fact.value,
            "action": row.fact.action,
            "site": row.fact.site,
            "reason": row.reason,
            "evidence": [asdict(evidence) for evidence in row.evidence],
        }
        for row in exposures
        if row.observer in before and row.verdict is Verdict.SEEN and _promised(row, variant, variant.tunnel)
    )


def _promised(row: Exposure, variant: VariantEvidence, tunnel: TunnelSpec) -> bool:
    kind = Kind(row.fact.kind)
    if kind in NEVER_PROMISED or row.fact.action == TUNNEL_ACTION:
        return False
    if isinstance(tunnel.routes, str):
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
