"""From what a variant left in its directory to what the verdict is given.

Each capture is read twice from the closed file: by the observer, and frame by frame for the search. Nothing that the
lab's processes know but did not write down gets in here, except the facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.capture.reader import CaptureReader
from testbed.facts import Fact, Kind
from testbed.internet import CLIENT, Roles
from testbed.observer import Observation, Stream, observe
from testbed.result import ActionRecord
from testbed.scenario.values import CLIENT_TUN, Variant
from testbed.verdict import SiteLog, TapEvidence, VariantEvidence
from testbed.verdict.correlation import Correlation, correlate
from testbed.verdict.evidence import parse_site_log
from testbed.verdict.headers import ETHERNET


@dataclass(frozen=True, slots=True)
class SearchedFrame:
    """A frame as the verdict's search wants it."""

    number: int
    time: float
    data: bytes
    wire_octets: int


@dataclass(frozen=True, slots=True)
class SearchedStream:
    """One direction of a conversation as the verdict's search wants it."""

    label: str
    data: bytes
    segments: Sequence[tuple[int, int]]


def read_evidence(directory_fd: int, variant: Variant, roles: Roles, returned: Mapping[str, Any]) -> VariantEvidence:
    """What the variant left: facts, captures as observed, site logs."""
    root = Path(f"/proc/self/fd/{directory_fd}")
    observations = {record["name"]: observe(root / record["file"]) for record in returned["taps"]}
    taps = {record["name"]: _read_tap(root, record, observations[record["name"]]) for record in returned["taps"]}
    return VariantEvidence(
        variant=variant.name,
        tunnel=variant.tunnel,
        tunnel_endpoint=roles.vpn_address if variant.tunnel else None,
        facts=tuple(_fact(values) for values in returned["facts"]),
        actions=tuple(ActionRecord(**record) for record in returned["actions"]),
        taps=tuple(evidence for name, evidence in taps.items() if name != CLIENT_TUN),
        client_tun=taps.get(CLIENT_TUN),
        logs=tuple(_read_log(root, variant.name, site.name) for site in variant.sites.values() if site.served),
        workload_began_at=returned.get("workload_began_at"),
        client_addresses=tuple(_client_addresses(returned["interfaces"], variant)),
        correlations=tuple(_correlations(taps, observations)) if variant.tunnel else (),
    )


def _client_addresses(interfaces: Sequence[Mapping[str, Any]], variant: Variant) -> Iterator[str]:
    """The client's addresses towards its ISP."""
    device = variant.tunnel.device if variant.tunnel else ""
    for interface in interfaces:
        if interface["name"] not in ("lo", device):
            yield from (address.partition("/")[0] for address in interface["addresses"])


def _correlations(taps: Mapping[str, TapEvidence], observations: Mapping[str, Observation]) -> Iterator[dict[str, Any]]:
    """Who talked to whom, as each pair of taps on both sides of the VPN server tells."""
    sides: dict[bool, list[str]] = {True: [], False: []}
    for name, tap in taps.items():
        if name != CLIENT_TUN:
            sides[tap.before_tunnel_server].append(name)
    for near in sides[True]:
        for far in sides[False] if observations[near].tunnels else ():
            for found in correlate(observations[near], observations[far]):
                yield _correlation(found, taps[near], taps[far])


def _correlation(found: Correlation, near: TapEvidence, far: TapEvidence) -> dict[str, Any]:
    ends = {name: str(getattr(found, name)) for name in ("client", "server", "site", "egress")}
    kept = ("tunnel", "protocol", "score", "p_value", "runner_up", "packets", "matched", "overhead_octets")
    return {
        "near": near.name,
        "far": far.name,
        **ends,
        **{name: getattr(found, name) for name in kept},
        "delay_seconds": found.delay_seconds,
        "confidence": found.confidence.value,
        "sentence": found.sentence,
        "evidence": [
            {near.name: {"file": near.file, "frame": inner}, far.name: {"file": far.file, "frame": outer}}
            for inner, outer in found.frames
        ],
    }


def _read_tap(root: Path, record: Mapping[str, Any], observation: Observation) -> TapEvidence:
    path = root / record["file"]
    with CaptureReader(path) as reader:
        frames = tuple(SearchedFrame(f.number, f.time_ns / 1e9, f.data, f.octets) for f in reader)
        link_type = reader.interfaces[0].link_type if reader.interfaces else ETHERNET
    return TapEvidence(
        name=record["name"],
        file=record["file"],
        packets=record["packets"],
        dropped=max(record["dropped"], observation.dropped),
        sightings=tuple(observation.sightings),
        frames=frames,
        streams=tuple(_searched(stream, observation) for stream in observation.streams),
        addresses=observation.addresses,
        damage=_damage(observation, record["packets"]),
        before_tunnel_server=record["before_tunnel_server"],
        link_type=link_type,
    )


def _searched(stream: Stream, observation: Observation) -> SearchedStream:
    flow = observation.flows[stream.flow]
    ends = (flow.client, flow.server) if stream.direction == "client_to_server" else (flow.server, flow.client)
    label = f"{stream.layer} {ends[0]} -> {ends[1]}"
    return SearchedStream(label, stream.data, tuple(zip(stream.offsets, stream.frames, strict=True)))


def _damage(observation: Observation, packets: int) -> str:
    if observation.frames != packets:
        return f"the tap counted {packets} packets, the file holds {observation.frames}"
    if observation.damaged:  # the verdict itself holds against a tap what it cut off, and counts as on the wire
        return "; ".join(observation.warnings) or "the observer could not keep everything"
    return ""


def _read_log(root: Path, variant: str, site: str) -> SiteLog:
    file = f"{variant}/logs/{site}.jsonl"
    path = root / file
    return parse_site_log(site, file, path.read_bytes() if path.exists() else b"")


def _fact(values: Mapping[str, Any]) -> Fact:
    return Fact(Kind(values["kind"]), values["value"], values["action"], values["site"], tuple(values["needles"]))


def is_before_tunnel_server(node: str, roles: Roles) -> bool:
    """Whether a tap at `node` hears the client's side of the tunnel."""
    return node in (CLIENT, roles.resolver_node)
