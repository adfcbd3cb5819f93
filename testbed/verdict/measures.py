"""Expectations of what is measured: leaks and when the first came, when a tunnel was recognised, sizes, who called.

Each is a number and where it comes from, held against a bound. A number that a capture with holes could have falsified
does not count: a tap that lost packets proves neither "no leak" nor "never". What did not happen at all is later than
any time and beyond any packet, so `first_leak_after: ">= 2s"` holds where nothing leaked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from testbed.facts import Fact, Kind
from testbed.result import Evidence, ExpectationResult
from testbed.scenario.bounds import NEVER, Bound, OneOf
from testbed.scenario.values import SERVER_OBSERVER, TUNNEL_ACTION, Expectation
from testbed.verdict.capture import Capture
from testbed.verdict.evidence import VariantEvidence
from testbed.verdict.headers import transport

MOST_EVIDENCE = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """Shape: `number` None means that it could not be measured, `words` then say why."""

    number: float | None
    words: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """What a variant's expectations are measured on."""

    evidence: VariantEvidence
    captures: Mapping[str, Capture]
    leaks: Sequence[Mapping[str, Any]]


def judge_measure(expectation: Expectation, bench: Bench) -> ExpectationResult:
    """Whether a measured number, or the addresses a server saw, are as expected."""
    about = expectation.selector
    if isinstance(about, OneOf):
        holds, reason, evidence = _callers(expectation.observer, about, bench)
    elif isinstance(about, Bound):
        measured = _measured(expectation, bench)
        holds = measured.number is not None and about.holds(measured.number)
        reason, evidence = measured.words, measured.evidence
    else:
        raise TypeError(f"{expectation.relation} goes with no selector")
    return ExpectationResult(
        variant=expectation.variant,
        observer=expectation.observer,
        relation=expectation.relation,
        selector=str(about),
        holds=holds,
        reason=reason,
        evidence=evidence[:MOST_EVIDENCE],
    )


def _measured(expectation: Expectation, bench: Bench) -> Measured:
    capture = bench.captures.get(expectation.observer)
    if capture is None:
        return Measured(None, f"there is no tap {expectation.observer} in this variant")
    ways: Mapping[str, Callable[[Capture, Bench], Measured]] = {
        "leaks": _leaks,
        "first_leak_after": _first_leak,
        "tunnel_detected_at_packet": _detected,
        "volume": _volume,
        "packets": _packets,
        "overhead": _overhead,
    }
    return ways[expectation.relation](capture, bench)


def _leaks_at(capture: Capture, bench: Bench) -> list[Mapping[str, Any]]:
    found = [leak for leak in bench.leaks if leak["observer"] == capture.tap.name]
    return sorted(found, key=lambda leak: min((one["time"] for one in leak["evidence"]), default=NEVER))


def _proof(leaks: Sequence[Mapping[str, Any]]) -> tuple[Evidence, ...]:
    return tuple(Evidence(**leak["evidence"][0]) for leak in leaks if leak["evidence"])


def _leaks(capture: Capture, bench: Bench) -> Measured:
    found = _leaks_at(capture, bench)
    if not capture.tap.before_tunnel_server:
        return Measured(None, f"{capture.tap.name} listens behind the VPN server, where nothing is a leak")
    doubt = capture.doubt()
    if doubt:  # more may have leaked than is in the capture
        return Measured(None, f"{len(found)} leaks are in the capture, but {doubt}", _proof(found))
    if not found:
        frames = len(capture.tap.frames)
        return Measured(0, f"none of the {frames} packets shows anything that the tunnel was to hide")
    first = found[0]
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return Measured(len(found), f"{len(found)} leaked: {first['kind']} {first['value']}{more}", _proof(found))


def _first_leak(capture: Capture, bench: Bench) -> Measured:
    found = [leak for leak in _leaks_at(capture, bench) if leak["evidence"]]
    started = _began(bench.evidence)
    if started is None:
        return Measured(None, "the client did nothing, so there is no start to count from")
    doubt = capture.doubt()
    if doubt:
        return Measured(None, f"a leak may have come earlier than any that was recorded: {doubt}", _proof(found[:1]))
    if not found:
        return Measured(NEVER, "nothing leaked")
    first = min(_proof(found), key=lambda one: one.time)
    after = max(first.time - started, 0.0)
    words = f"{found[0]['kind']} {found[0]['value']} leaked {after:.3f} s after the workload began"
    return Measured(after, f"{words}: {first.file} frame {first.frame} ({first.filter})", (first,))


def _began(evidence: VariantEvidence) -> float | None:
    """When the workload began, of which the first action may have waited for its time."""
    if evidence.workload_began_at is not None:
        return evidence.workload_began_at
    return min((action.started_at for action in evidence.actions), default=None)


def _detected(capture: Capture, bench: Bench) -> Measured:
    endpoint = bench.evidence.tunnel_endpoint or ""
    server = ip_address(endpoint).packed if endpoint else b""
    found = capture.find(Fact(Kind.TUNNEL, f"tunnel to {endpoint}", TUNNEL_ACTION))
    last = found.evidence[0].frame if found else NEVER
    packets = 0
    for frame in capture.tap.frames:
        packet = transport(frame.data, capture.tap.link_type) if frame.number <= last else None
        packets += packet is not None and server in (packet.source, packet.destination)
    if not packets:
        return Measured(None, f"no packet to or from {endpoint or 'a tunnel server'} was recorded")
    doubt = capture.doubt()
    if doubt:
        return Measured(None, f"the packet's number cannot be told: {doubt}")
    if found is None:
        return Measured(NEVER, f"no rule recognised a tunnel in its {packets} packets")
    first = found.evidence[0]
    words = f"recognised with packet {packets} of the conversation with {endpoint}"
    return Measured(packets, f"{words}: {first.file} frame {first.frame} ({first.filter})", (first,))


def _volume(capture: Capture, _: Bench) -> Measured:
    frames = capture.tap.frames
    octets = sum(frame.wire_octets for frame in frames)
    return _whole(capture, octets, f"{octets} octets in {len(frames)} packets")


def _packets(capture: Capture, _: Bench) -> Measured:
    return _whole(capture, len(capture.tap.frames), f"{len(capture.tap.frames)} packets")


def _whole(capture: Capture, number: int, words: str) -> Measured:
    """A count of everything. Shape: cut-off frames are counted as they were on the wire, lost ones make it unknown."""
    tap = capture.tap
    if tap.dropped or tap.packets != len(tap.frames):
        return Measured(None, f"{words}, but {capture.doubt()}")
    ends = (tap.frames[0], tap.frames[-1]) if tap.frames else ()
    evidence = tuple(Evidence(tap.file, f.number, f.time, f"frame.number == {f.number}") for f in ends)
    return Measured(number, f"{words}, {tap.file}", evidence)


def _overhead(_: Capture, bench: Bench) -> Measured:
    evidence = bench.evidence
    if evidence.overhead_octets is None:
        return Measured(None, f"inner packets are not linked to outer ones: {evidence.not_mapped or 'there is no map'}")
    words = f"{evidence.overhead_octets:g} octets more than the inner packet on average: {evidence.map_file}"
    time = min((action.started_at for action in evidence.actions), default=0.0)
    return Measured(evidence.overhead_octets, words, (Evidence(evidence.map_file, 1, time, ""),))


def _callers(observer: str, expected: OneOf, bench: Bench) -> tuple[bool, str, tuple[Evidence, ...]]:
    """Whether every request in a site's log came from one of the addresses."""
    log = next((one for one in bench.evidence.logs if f"{SERVER_OBSERVER}{one.site}" == observer), None)
    if log is None:
        return False, f"there is no log of {observer} in this variant", ()
    lines = [(number, record) for number, record in enumerate(log.records, 1)]
    broken = [number for number, record in lines if record is None]
    if broken:
        return False, f"{log.file} line {broken[0]} cannot be read, so somebody else may have called", ()
    called: dict[str, list[Evidence]] = {}
    for number, record in lines:
        source = record.get("source") if record else None
        address = str(source[0]) if isinstance(source, list) and source else "an unknown address"
        time = float(record.get("time") or 0.0) if record else 0.0
        called.setdefault(address, []).append(Evidence(log.file, number, time, ""))
    if not called:
        return False, f"{log.file} has no line: nobody called", ()
    others = {address: proof for address, proof in called.items() if address not in expected.addresses}
    found = others or called
    evidence = tuple(one for proof in found.values() for one in proof)
    words = ", ".join(f"{address} ({len(proof)})" for address, proof in found.items())
    return not others, f"requests came from {words}: {log.file}", evidence
