"""Facts, observers and variants to the exposure matrix, leaks and expectations.

    for every fact:      seen      a dissector or the search found it
                         unproven  the capture is not whole, or there is no way to search, or no control fired
                         hidden    none of these

A control is where the same search must find such a fact: the same tap in a variant without a tunnel; else the client's
tun device, for what a tunnel hides; else the server's own log, for what TLS hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address

from testbed.facts import Fact, Kind
from testbed.result import Exposure, FactRef, Verdict
from testbed.scenario.values import SESSION_ACTION, TUNNEL_ACTION, Expectation
from testbed.verdict.capture import NAME_KINDS, NEVER_HIDDEN, Capture, Found, is_address
from testbed.verdict.evidence import Judgement, SiteLog, VariantEvidence
from testbed.verdict.expectations import judge_expectations
from testbed.verdict.leaks import find_leaks
from testbed.verdict.measures import Bench
from testbed.verdict.needles import TRANSFORMS
from testbed.verdict.server import LogReader
from testbed.verdict.told import with_told

ASKED_FOR = frozenset({Kind.DNS_NAME, Kind.HTTP_HOST, Kind.HTTP_URL, Kind.TLS_NAME, Kind.QUIC_NAME})
LONGEST_VALUE = 80
PROTOCOLS = {"vpn": "OpenVPN", "openvpn": "OpenVPN", "wireguard": "WireGuard"}


def judge(evidence: Iterable[VariantEvidence], expectations: Iterable[Expectation] = ()) -> Judgement:
    """The verdict on every fact for every observer, and on the expectations of the variants that ran."""
    variants = {one.variant: _Variant(one) for one in map(with_told, evidence)}
    facts = [fact for one in variants.values() for fact in one.facts]
    for one in variants.values():
        for capture in one.every_capture:  # one pass for all texts: a control is asked for other variants' facts too
            capture.prepare(facts)
    exposures = {name: tuple(_exposures(one, variants)) for name, one in variants.items()}
    leaks = {name: find_leaks(one.evidence, exposures[name]) for name, one in variants.items()}
    benches = {name: Bench(one.evidence, one.captures, leaks[name]) for name, one in variants.items()}
    return Judgement(
        exposures=exposures,
        leaks=leaks,
        correlations={name: one.evidence.correlations for name, one in variants.items()},
        expectations=judge_expectations(expectations, benches, exposures),
        warnings=tuple(_warnings(variants.values())),
    )


class _Variant:
    """A variant's evidence, ready to be searched."""

    def __init__(self, evidence: VariantEvidence) -> None:
        self.evidence = evidence
        self.name = evidence.variant
        self.facts = (*evidence.facts, *ambient_facts(evidence))
        names = [fact.value for fact in self.facts if fact.kind in NAME_KINDS]
        self.captures = {tap.name: Capture(tap, names) for tap in evidence.taps}
        self.client_tun = Capture(evidence.client_tun, names) if evidence.client_tun else None
        self.logs = {log.site: LogReader(log, evidence.facts) for log in evidence.logs}

    @property
    def every_capture(self) -> tuple[Capture, ...]:
        return (*self.captures.values(), *((self.client_tun,) if self.client_tun else ()))

    def counterparts(self, fact: Fact) -> tuple[Fact, ...]:
        """The facts of this variant that are what `fact` is in another: canaries differ from variant to variant."""
        same = [f for f in self.facts if f.kind is fact.kind and f.site == fact.site]
        exact = [f for f in same if f.action == fact.action and _alike(f, fact)]
        return tuple(exact or [f for f in same if _alike(f, fact)])


def ambient_facts(evidence: VariantEvidence) -> tuple[Fact, ...]:
    """What a variant shows without any single action: its volume and timing, and its tunnel."""
    facts = []
    kinds = {fact.kind for fact in evidence.facts}
    if Kind.VOLUME not in kinds:
        facts.append(Fact(Kind.VOLUME, "how much is sent and received", SESSION_ACTION))
    if Kind.TIMING not in kinds:
        facts.append(Fact(Kind.TIMING, "when and in which bursts", SESSION_ACTION))
    if evidence.tunnel and evidence.tunnel_endpoint:
        protocol = PROTOCOLS.get(evidence.tunnel.client, "tunnel")
        facts.append(Fact(Kind.TUNNEL, f"{protocol} to {evidence.tunnel_endpoint}", TUNNEL_ACTION))
        facts.append(Fact(Kind.SERVER_ADDRESS, evidence.tunnel_endpoint, TUNNEL_ACTION))
        facts += _outer_ends(evidence)
    return tuple(facts)


def _outer_ends(evidence: VariantEvidence) -> Iterator[Fact]:
    """The client's own address that the tunnel's packets carry, where no action has made a fact of it."""
    known = {fact.value for fact in evidence.facts if fact.kind is Kind.CLIENT_ADDRESS}
    outside = ip_address(str(evidence.tunnel_endpoint)).version
    for address in map(ip_address, evidence.client_addresses):
        if address.version == outside and not address.is_link_local and str(address) not in known:
            yield Fact(Kind.CLIENT_ADDRESS, str(address), TUNNEL_ACTION)


def _alike(one: Fact, other: Fact) -> bool:
    """Whether the two say the same apart from their canaries: addresses must be of one family, headers of one name."""
    if is_address(one) and is_address(other):
        return (":" in one.value) == (":" in other.value)
    if one.kind is Kind.HTTP_HEADER:
        return one.value.partition(":")[0].casefold() == other.value.partition(":")[0].casefold()
    if one.kind is Kind.HTTP_URL:
        return one.value.partition(":")[0] == other.value.partition(":")[0]
    return True


def _exposures(variant: _Variant, variants: Mapping[str, _Variant]) -> Iterator[Exposure]:
    for capture in variant.captures.values():
        for fact in variant.facts:
            yield _at_tap(fact, capture, variant, variants)
    for reader in variant.logs.values():
        for fact in reader.facts:
            yield reader.judge(fact, _log_control(fact, reader.log, variant, variants))


def _at_tap(fact: Fact, capture: Capture, variant: _Variant, variants: Mapping[str, _Variant]) -> Exposure:
    ref = FactRef(fact.kind.value, fact.value, fact.action, fact.site)
    observer = capture.tap.name
    found = capture.find(fact)
    if found:
        return Exposure(observer, ref, Verdict.SEEN, found.evidence, found.how, found.read_as)
    missing = _missing(fact, capture)
    if missing:
        return Exposure(observer, ref, Verdict.UNPROVEN, (), missing)
    unsure = _unsure(fact, variant)
    control = _control(fact, capture, variant, {} if unsure else variants)
    if unsure and not control:
        return Exposure(observer, ref, Verdict.UNPROVEN, (), unsure)
    if not control:
        reason = "no control: the same search finds it nowhere else, so finding nothing here proves nothing"
        return Exposure(observer, ref, Verdict.UNPROVEN, (), reason)
    what = "" if is_address(fact) else f" for {_quoted(fact.needles)}"
    longer = capture.apart_from(fact)
    apart = f", apart from where it is part of {_quoted(longer)}" if longer else ""
    how = f"{what} ({', '.join(TRANSFORMS)}){apart}"
    reason = f"not found by the dissectors, nor in {capture.searched(fact)}{how}; control: {control}"
    return Exposure(observer, ref, Verdict.HIDDEN, (), reason)


def _unsure(fact: Fact, variant: _Variant) -> str:
    """Why a program may never have sent what it was given; empty for every other action, whose facts have happened.

    The control of another variant proves the search, but not that this variant's program came to send anything.
    """
    for action in variant.evidence.actions:
        if action.id == fact.action and action.verb == "run":
            if action.ok:
                return f"nothing shows that {action.id} sent this at all: inside a tunnel it was not found either"
            why = action.error or action.detail or "it did not say why"
            return f"{action.id} failed ({why}), so whether it sent this at all is not known"
    return ""


def _missing(fact: Fact, capture: Capture) -> str:
    """Why this fact cannot be called hidden here, whatever a control says; empty if it can."""
    if fact.kind in NEVER_HIDDEN:
        return f"{fact.kind.value} is never hidden; that no packet showed it means the tap recorded none"
    if fact.kind is Kind.TUNNEL:
        return "no rule recognised the tunnel, which does not prove that none could"
    if not is_address(fact) and not any(fact.needles):
        return "there is nothing to search for: the fact has no canary and is no address"
    return capture.doubt()


def _control(fact: Fact, capture: Capture, variant: _Variant, variants: Mapping[str, _Variant]) -> str:
    """Where the same search found such a fact, in words; empty if nowhere."""
    for other in variants.values():
        if other.evidence.tunnel is not None or other is variant or capture.tap.name not in other.captures:
            continue
        twin = other.captures[capture.tap.name]
        for counterpart in (fact, *other.counterparts(fact)):
            if found := _fires(counterpart, twin):
                return f"the same search finds it without a tunnel ({_place(found)})"
    if variant.client_tun and (found := _fires(fact, variant.client_tun)):
        return f"the same search finds it inside the tunnel, at the client's tun device ({_place(found)})"
    for reader in variant.logs.values():
        if fact in reader.facts and (found_lines := reader.find(fact)):
            return f"the site's own log has it ({found_lines[0].file} line {found_lines[0].frame})"
    return ""


def _fires(fact: Fact, capture: Capture) -> Found | None:
    """The fact in a control's capture. A text must be found by the text search itself: that is what is being tested."""
    if is_address(fact):
        return capture.find(fact)
    if not any(capture.search.find(wanted) for wanted in capture.wanted(fact)):
        return None
    return capture.find(fact)


def _log_control(fact: Fact, log: SiteLog, variant: _Variant, variants: Mapping[str, _Variant]) -> str:
    for other in variants.values():
        reader = other.logs.get(log.site)
        if reader is None or other is variant:
            continue
        for counterpart in other.counterparts(fact):
            if evidence := reader.find(counterpart):
                return f"{evidence[0].file} line {evidence[0].frame} has it"
    return ""


def _place(found: Found) -> str:
    first = found.evidence[0]
    return f"{first.file} frame {first.frame}"


def _quoted(needles: Iterable[str]) -> str:
    return ", ".join(f'"{needle}"' for needle in needles if needle)


def _warnings(variants: Iterable[_Variant]) -> Iterator[str]:
    for variant in variants:
        for action in variant.evidence.actions:
            if not action.ok:
                yield f"{variant.name}: {action.id} failed: {action.error or action.detail}"
        controls = (variant.evidence.client_tun,) if variant.evidence.client_tun else ()
        for tap in (*variant.evidence.taps, *controls):
            if tap.dropped:
                yield f"{variant.name}: the tap {tap.name} lost {tap.dropped} packets"
        if variant.evidence.tunnel is None:
            yield from _false_tunnels(variant)
        else:
            yield from _unjudged(variant)


def _false_tunnels(variant: _Variant) -> Iterator[str]:
    for tap in variant.evidence.taps:
        for sighting in tap.sightings:
            if sighting.kind is Kind.TUNNEL:
                frame = sighting.frames[0] if sighting.frames else 0
                yield f"{variant.name}: {tap.name} took frame {frame} for a tunnel, but there is none"


def _unjudged(variant: _Variant) -> Iterator[str]:
    """What was read before the VPN server although no action told of it: no cell and no expectation speaks of that."""
    values = {fact.value.casefold().rstrip(".") for fact in variant.facts}
    needles = {needle.casefold() for fact in variant.facts for needle in fact.needles if needle != fact.value}
    for tap in variant.evidence.taps:
        told: dict[str, str] = {}
        for sighting in tap.sightings if tap.before_tunnel_server else ():
            value = sighting.value.casefold().rstrip(".")
            if sighting.kind in ASKED_FOR and value not in values and not any(needle in value for needle in needles):
                frame = sighting.frames[0] if sighting.frames else 0
                told.setdefault(value, f"{sighting.kind.value} {sighting.value[:LONGEST_VALUE]} in frame {frame}")
        if told:
            first, more = next(iter(told.values())), f" and {len(told) - 1} more" if len(told) > 1 else ""
            yield f"{variant.name}: {tap.name} read {first}{more}, which no action told of: not judged"
