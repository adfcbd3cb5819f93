"""Expectations against the matrix: what holds, what does not, and why, in words for people.

`sees` holds if at least one selected fact is seen, `hides` if every one is hidden; with a `count`, if there are as
many. An expectation that selects nothing never holds: what was not done cannot be hidden. Nor does `hides` where an
action failed before it did what it would have shown. What is measured is judged in `measures`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from testbed.facts import Kind
from testbed.result import ActionRecord, ExpectationResult, Exposure, Verdict
from testbed.scenario.bounds import Bound
from testbed.scenario.values import TUNNEL_ACTION, Expectation, Selector
from testbed.verdict.capture import ADDRESS_KINDS, NAME_KINDS
from testbed.verdict.evidence import VariantEvidence
from testbed.verdict.explain import Explainer, sentence
from testbed.verdict.measures import Bench, judge_measure

ENDS = frozenset({Kind.CLIENT_ADDRESS, Kind.SERVER_ADDRESS})
CANARY = "{canary}"  # in an argument of a program: what it is to send
# What an action of each verb shows whenever it succeeds.
SHOWS = {
    "dns": frozenset({Kind.DNS_NAME, Kind.DNS_ANSWER}),
    "http": ENDS | {Kind.HTTP_HOST, Kind.HTTP_URL, Kind.HTTP_HEADER},
    "https": ENDS | {Kind.TLS_NAME, Kind.HTTP_URL, Kind.HTTP_HEADER},
    "ping": ENDS | {Kind.PAYLOAD},
}


def judge_expectations(
    expectations: Iterable[Expectation],
    benches: Mapping[str, Bench],
    exposures: Mapping[str, Sequence[Exposure]],
) -> tuple[ExpectationResult, ...]:
    """One result per expectation of a variant that ran, in the order given. Shape: both mappings are by variant."""
    return tuple(
        _judge(expectation, expectation.selector, benches[expectation.variant].evidence, exposures[expectation.variant])
        if isinstance(expectation.selector, Selector)
        else judge_measure(expectation, benches[expectation.variant])
        for expectation in expectations
        if expectation.variant in benches
    )


def selects(selector: Selector, row: Exposure) -> bool:
    """Whether the expectation speaks of this fact.

    The VPN server's own address is a server-address too, but what a tunnel shows is not what it was to hide: it is
    selected by `action: tunnel` alone.
    """
    fact = row.fact
    if fact.kind != selector.kind:
        return False
    if fact.action == TUNNEL_ACTION and fact.kind != Kind.TUNNEL and selector.action != TUNNEL_ACTION:
        return False
    wanted = ((selector.site, fact.site), (selector.action, fact.action), (selector.value, fact.value))
    return all(asked is None or asked == found for asked, found in wanted)


def is_seen_as_itself(row: Exposure) -> bool:
    """Whether a name or an address was read where such a fact stands: a name in a Host header is no DNS lookup.

    What carries a canary is itself wherever it stands.
    """
    kind = Kind(row.fact.kind)
    return row.read_as in ("", row.fact.kind) or kind not in NAME_KINDS | ADDRESS_KINDS


def _judge(
    expectation: Expectation, selector: Selector, variant: VariantEvidence, exposures: Sequence[Exposure]
) -> ExpectationResult:
    at_observer = [row for row in exposures if row.observer == expectation.observer]
    rows = [row for row in at_observer if selects(selector, row)]
    explain = Explainer(variant)
    if not rows:
        return _result(expectation, False, _nothing(expectation, selector, variant, at_observer))
    seen = [row for row in rows if row.verdict is Verdict.SEEN]
    if expectation.relation == "sees":
        as_itself = [row for row in seen if is_seen_as_itself(row)]
        if selector.count is not None:
            return _counted(expectation, selector.count, rows, as_itself)
        if as_itself:
            return _result(expectation, True, sentence(as_itself[0]), as_itself)
        if seen:
            return _result(expectation, False, f"not read as a {selector.kind}: {sentence(seen[0])}", seen)
        return _result(expectation, False, explain.not_seen(rows))
    if seen:
        more = f" (and {len(seen) - 1} more)" if len(seen) > 1 else ""
        return _result(expectation, False, explain.seen(seen[0]) + more, seen)
    unproven = [row for row in rows if row.verdict is Verdict.UNPROVEN]
    if unproven:
        first = unproven[0]
        reason = f"{first.fact.kind} {first.fact.value} of {first.fact.action} is not proven hidden: {first.reason}"
        return _result(expectation, False, reason)
    undone = _undone(selector, variant, rows)
    if undone:
        return _result(expectation, False, undone)
    number = len({row.fact.value for row in rows})
    if selector.count is not None and not selector.count.holds(number):
        return _result(expectation, False, f"all are hidden, but there are {number} different ones in all")
    every = "it is hidden" if len(rows) == 1 else f"all {len(rows)} are hidden"
    return _result(expectation, True, f"{every}; {rows[0].fact.value}: {rows[0].reason}")


def _counted(
    expectation: Expectation, bound: Bound, rows: Sequence[Exposure], seen: Sequence[Exposure]
) -> ExpectationResult:
    """Whether as many different facts are seen as expected, whatever became of those that are not proven hidden."""
    values = {row.fact.value for row in seen}
    unproven = {row.fact.value for row in rows if row.verdict is Verdict.UNPROVEN} - values
    total = len({row.fact.value for row in rows})
    words = f"{len(values)} of {total} different ones are seen"
    if unproven:
        words += f", {len(unproven)} of the others are unproven"
    holds = bound.holds(len(values)) and bound.holds(len(values) + len(unproven))
    return _result(expectation, holds, words, list({row.fact.value: row for row in reversed(seen)}.values())[::-1])


def _result(expectation: Expectation, holds: bool, reason: str, rows: Sequence[Exposure] = ()) -> ExpectationResult:
    evidence = tuple(row.evidence[0] for row in rows if row.evidence)
    return ExpectationResult(
        variant=expectation.variant,
        observer=expectation.observer,
        relation=expectation.relation,
        selector=str(expectation.selector),
        holds=holds,
        reason=reason,
        evidence=evidence,
    )


def _nothing(
    expectation: Expectation, selector: Selector, variant: VariantEvidence, at_observer: Sequence[Exposure]
) -> str:
    """Why an expectation selects no fact at all."""
    undone = _undone(selector, variant, ())
    if undone:
        return undone
    if not at_observer:
        return f"there is no observer {expectation.observer} in this variant that could have seen anything"
    if expectation.observer.partition(":")[1] and Kind(selector.kind) not in _kinds(at_observer):
        return f"{expectation.observer} recorded nothing that could tell a {selector.kind}"
    return f"the client did nothing that makes a fact {selector}, so nothing was seen or hidden"


def _kinds(rows: Iterable[Exposure]) -> set[Kind]:
    return {Kind(row.fact.kind) for row in rows}


def _undone(selector: Selector, variant: VariantEvidence, rows: Sequence[Exposure]) -> str:
    """The first failed action that never came to do what the selector is about; empty if there is none."""
    done = {row.fact.action for row in rows}
    for action in variant.actions:
        if action.ok or action.id in done or not _would_show(action, Kind(selector.kind), variant):
            continue
        if selector.action not in (None, action.id) or selector.value is not None:
            continue
        if selector.site is not None and selector.site not in action.target:
            continue
        why = action.error or action.detail or "it did not say why"
        return f"{action.id} ({action.target}) failed before it could show a {selector.kind}: {why}"
    return ""


def _would_show(action: ActionRecord, kind: Kind, variant: VariantEvidence) -> bool:
    """Whether a failed action would have shown such a fact, had it gone on."""
    if action.verb == "run":
        return kind is Kind.PAYLOAD and CANARY in action.target
    if kind is Kind.HTTP_BODY and action.verb in ("http", "https"):
        # Whether it was to send one is not on record: only a request that was sent shows that there was none.
        return not any(fact.kind is Kind.HTTP_URL and fact.action == action.id for fact in variant.facts)
    return kind in SHOWS.get(action.verb, frozenset())
