"""What a run found out: the values between `run`, the verdict and the reports.

One frozen tree, `RunResult`, is all that a renderer gets; `result.json` is the same tree written out, and
`testbed show DIR` reads it back. The key names are a contract.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

SCHEMA = "vpn-testbed/result/1"


class Verdict(StrEnum):
    """What the evidence says of one fact for one observer."""

    SEEN = "seen"
    HIDDEN = "hidden"
    UNPROVEN = "unproven"  # not seen, but the search could not be shown to work: fails an expectation of "hides"


@dataclass(frozen=True, slots=True)
class Evidence:
    """A packet that proves a sighting.

    Shape: `file` is relative to the run directory; `frame` is 1-based; for a site's own log, `frame` is its line.
    Units: `time` in Unix seconds.
    """

    file: str
    frame: int
    time: float
    filter: str


@dataclass(frozen=True, slots=True)
class FactRef:
    kind: str
    value: str
    action: str
    site: str | None = None


@dataclass(frozen=True, slots=True)
class Exposure:
    """One cell of the matrix: one fact, one observer, one variant."""

    observer: str  # a tap's name, or "server:<site>"
    fact: FactRef
    verdict: Verdict
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""  # hidden: what was searched and which control fired; unproven: what is missing
    read_as: str = ""  # seen: the kind of sighting that told it, its own or another; "text" where only the search did


@dataclass(frozen=True, slots=True)
class TapRecord:
    name: str
    node: str
    interface: str
    file: str  # relative to the run directory
    packets: int
    octets: int
    dropped: int


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """One thing the client did, and how it ended. Units: Unix seconds."""

    id: str
    verb: str
    target: str
    ok: bool
    started_at: float
    ended_at: float
    detail: str = ""  # one line for people: "200, 412 octets from 93.184.216.34"
    error: str = ""


@dataclass(frozen=True, slots=True)
class VariantResult:
    name: str
    tunnel: dict[str, Any] | None  # the resolved tunnel settings plus what was measured of its start
    actions: tuple[ActionRecord, ...]
    interfaces: tuple[dict[str, Any], ...]  # the client's, as the kernel answers: {name, state, mtu, addresses}
    routes: tuple[dict[str, Any], ...]  # {family, destination, gateway, interface, metric}
    egress: tuple[dict[str, Any], ...]  # {site, address, interface, gateway, source, error}
    taps: tuple[TapRecord, ...]
    exposure: tuple[Exposure, ...]
    leaks: tuple[
        dict[str, Any], ...
    ]  # what a tunnel in full use should have hidden and did not: {kind, value, action, evidence}
    metrics: dict[str, float]  # seconds by phase, octets and packets by direction
    # with a tunnel: {mapped, file, inner_packets, outer_packets, overhead_octets, delay_seconds, flows, …}, or why not
    ground_truth: dict[str, Any] = field(default_factory=dict)
    # what the timeline did: {at, after, time, words, ok, error}; `at` in seconds after the start of the workload
    # as planned, `after` as it was, `time` the same in Unix seconds; both null if the workload ended before
    events: tuple[dict[str, Any], ...] = ()
    # as `egress`, at the end of the workload: those ways that events, or a tunnel that failed, had changed by then
    egress_after: tuple[dict[str, Any], ...] = ()
    # who talked to whom, as taps on both sides of the VPN server tell by times and sizes alone:
    # {near, far, client, tunnel, server, site, egress, score, p_value, confidence, sentence, evidence, …}
    correlations: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class ExpectationResult:
    """One `sees` or `hides` of the scenario, and why it holds or does not."""

    variant: str
    observer: str
    relation: str  # "sees" | "hides"
    selector: str  # "dns-name", or "http-url (site www.example.com)"
    holds: bool
    reason: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class RunResult:
    scenario: dict[str, Any]  # {name, title, description, file}
    seed: int
    ok: bool
    variants: dict[str, VariantResult]
    expectations: tuple[ExpectationResult, ...]
    environment: dict[str, Any]
    warnings: tuple[str, ...] = ()
    captures: tuple[dict[str, Any], ...] = ()  # merged for people: {file, what, packets, secrets}
    schema: str = field(default=SCHEMA)
