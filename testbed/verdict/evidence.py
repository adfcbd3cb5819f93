"""What the verdict is given and what it gives back, as frozen values.

A run fills one `VariantEvidence` per variant: the facts of the workload, one `TapEvidence` per tap (what the observer
read from the capture file plus the file's own octets), the control tap, and the sites' logs. Nothing here reads a
file; `parse_site_log` takes the octets of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from testbed.facts import Fact, Sighting
from testbed.result import ActionRecord, ExpectationResult, Exposure
from testbed.scenario.values import TunnelSpec
from testbed.verdict.headers import ETHERNET


class CapturedFrame(Protocol):
    """One frame of a capture file.

    Shape: `number` is 1-based; `data` is what was kept of the frame, `wire_octets` how long it was on the wire.
    Units: `time` in Unix seconds.
    """

    @property
    def number(self) -> int: ...
    @property
    def time(self) -> float: ...
    @property
    def data(self) -> bytes: ...
    @property
    def wire_octets(self) -> int: ...


class CapturedStream(Protocol):
    """One direction of a reassembled conversation, or an HTTP body as it reads once decoded.

    Shape: `label` begins with the layer: `tcp`, `udp`, `icmp` or `http-body`. `segments` are (offset in data, frame
        number), ascending by offset: the octets from that offset on came in that frame.
    """

    @property
    def label(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def segments(self) -> Sequence[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class TapEvidence:
    """One capture: what the observer made of it, and its octets for the search.

    `damage` says why the capture may lack frames or octets although the tap counted no drop (a file cut short, say);
    empty means it is whole. `before_tunnel_server` is False for vantage points behind the VPN server, where the
    client's traffic is meant to be in clear: nothing seen there is a leak of the tunnel.
    """

    name: str
    file: str  # relative to the run directory
    packets: int  # as the tap counted them
    dropped: int
    sightings: tuple[Sighting, ...]
    frames: Sequence[CapturedFrame]
    streams: Sequence[CapturedStream] = ()
    damage: str = ""
    addresses: Mapping[str, Sequence[int]] = field(default_factory=dict)  # in any IP header -> its first frames
    before_tunnel_server: bool = True
    link_type: int = ETHERNET  # of its frames, as capture files number them


@dataclass(frozen=True, slots=True)
class SiteLog:
    """What a site's own log recorded. The n-th entry is line n of the file; None where a line is not a JSON object."""

    site: str
    file: str  # relative to the run directory
    records: tuple[Mapping[str, Any] | None, ...]


@dataclass(frozen=True, slots=True)
class VariantEvidence:
    """Everything one variant left behind. `client_tun` is the control tap on the client's tun device, where it has one.

    `tunnel_endpoint` is the VPN server's outer address; `client_addresses` are those of the client's interfaces, its
    tun device's not among them.
    """

    variant: str
    tunnel: TunnelSpec | None
    tunnel_endpoint: str | None
    facts: tuple[Fact, ...]
    actions: tuple[ActionRecord, ...]
    taps: tuple[TapEvidence, ...]
    client_tun: TapEvidence | None = None
    logs: tuple[SiteLog, ...] = ()
    client_addresses: tuple[str, ...] = ()
    workload_began_at: float | None = None  # Unix seconds; where it is not told, the first action's start stands for it
    # Of the map from inner to outer packets, where there is one: octets beyond the inner packet's own, on average.
    overhead_octets: float | None = None
    map_file: str = ""
    correlations: tuple[dict[str, Any], ...] = ()  # see VariantResult
    not_mapped: str = ""  # why there is no map


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdicts of a run, by variant, and what became of each expectation of the variants that ran."""

    exposures: dict[str, tuple[Exposure, ...]]
    leaks: dict[str, tuple[dict[str, Any], ...]]
    expectations: tuple[ExpectationResult, ...]
    warnings: tuple[str, ...] = ()
    correlations: dict[str, tuple[dict[str, Any], ...]] = field(default_factory=dict)


def parse_site_log(site: str, file: str, untrusted: bytes) -> SiteLog:
    """The records of a log file of JSON lines; a line that is no JSON object is kept as None, so that numbers stay."""
    records: list[Mapping[str, Any] | None] = []
    for line in untrusted.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        records.append(value if isinstance(value, dict) else None)
    return SiteLog(site, file, tuple(records))
