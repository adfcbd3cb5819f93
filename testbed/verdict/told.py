"""What a program did that no action told of, read from the captures: facts for `run:` without a canary.

The workload knows what `dns`, `http` and `ping` do; what a program does it knows only if a canary is among its
arguments. So what the client's own tun device recorded while the program ran, or a tap before the VPN server did, is
made into facts of that action: names looked up, pages opened, addresses called. They are judged like any others: seen
where an observer read them, hidden where the control tap proves that they were sent and the observer's capture does not
hold them. What only a tap saw needs no control: it is seen there.

A page's fact searches for its path, where that is long enough to be told from chance; else it can be seen, never
proven hidden.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from testbed.facts import Fact, Kind, Sighting
from testbed.result import ActionRecord
from testbed.verdict.capture import ADDRESS_KINDS, NAME_KINDS
from testbed.verdict.evidence import TapEvidence, VariantEvidence

TOLD_KINDS = frozenset(
    {Kind.DNS_NAME, Kind.DNS_ANSWER, Kind.HTTP_HOST, Kind.HTTP_URL, Kind.TLS_NAME, Kind.QUIC_NAME, Kind.SERVER_ADDRESS}
)
SHORTEST_PATH = 6  # a slash and five characters more: 48 bits
LATEST_PACKET_S = 0.05  # a program's last packet may pass a tap a little after the program has ended


def with_told(evidence: VariantEvidence) -> VariantEvidence:
    """The evidence with the facts that captures tell of its programs, besides those that its actions told."""
    programs = [action for action in evidence.actions if action.verb == "run"]
    if not programs:
        return evidence
    known = {_key(fact.kind, fact.value) for fact in evidence.facts}
    known |= {_key(Kind.SERVER_ADDRESS, address) for address in _not_theirs(evidence)}
    facts: dict[tuple[Kind, str], Fact] = {}
    for tap in _taps_of_the_client(evidence):
        for sighting in tap.sightings:
            key = _key(sighting.kind, sighting.value)
            action = _action_at(sighting.time, programs)
            if sighting.kind in TOLD_KINDS and action is not None and key not in known:
                facts.setdefault(key, _fact(sighting, action))
    return replace(evidence, facts=(*evidence.facts, *facts.values())) if facts else evidence


def _taps_of_the_client(evidence: VariantEvidence) -> Iterator[TapEvidence]:
    if evidence.client_tun is not None:
        yield evidence.client_tun
    yield from (tap for tap in evidence.taps if tap.before_tunnel_server)


def _not_theirs(evidence: VariantEvidence) -> Iterator[str]:
    """Addresses that are no server of a program's: the VPN server's, and the client's own."""
    if evidence.tunnel_endpoint:
        yield evidence.tunnel_endpoint
    yield from (fact.value for fact in evidence.facts if fact.kind is Kind.CLIENT_ADDRESS)


def _key(kind: Kind, value: str) -> tuple[Kind, str]:
    return kind, value.casefold().rstrip(".") if kind in NAME_KINDS else value


def _action_at(time: float, programs: Iterable[ActionRecord]) -> ActionRecord | None:
    """The program that was running; the last one begun, where several were."""
    running = [action for action in programs if action.started_at <= time <= action.ended_at + LATEST_PACKET_S]
    return max(running, key=lambda action: action.started_at, default=None)


def _fact(sighting: Sighting, action: ActionRecord) -> Fact:
    kind, value = sighting.kind, sighting.value
    if kind in ADDRESS_KINDS:
        return Fact(kind, value, action.id)
    if kind is Kind.HTTP_URL:
        host, path = _parts(value)
        return Fact(kind, value, action.id, host, (path,) if len(path) >= SHORTEST_PATH else ())
    name = value.lower().rstrip(".")
    return Fact(kind, name, action.id, name, (name,))


def _parts(untrusted: str) -> tuple[str | None, str]:
    """Host, and path with query, of a URL as it was read; no host and no path where it is none."""
    try:
        parts = urlsplit(untrusted)
        return parts.hostname, f"{parts.path}?{parts.query}" if parts.query else parts.path
    except ValueError:
        return None, ""
