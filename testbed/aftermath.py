"""What a run adds to its directory once its variants are over: each tunnel's map, and captures that explain themselves.

    <variant>/inner-outer.csv      which outer packets carried which inner packet
    captures/annotated.pcapng      all taps of all variants in one file, with names, remarks and TLS secrets (0600)
    captures/unwrapped.pcapng      the tunnels' outside with their control packets made readable, with secrets (0600)
    captures/<tap>-view.pcapng     what that observer has: its own packets of all variants, no secrets, no remarks

The captures are closed, the bubble is gone; what remains of the tunnel's keys is in memory and in the key log.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from testbed import annotate
from testbed.capture.merge import Additions, Place, Remark, Tape, read_link_type, read_tape_frames, write_merged
from testbed.capture.pcapng import LINKTYPE_ETHERNET
from testbed.ground_truth import export
from testbed.ground_truth.mapping import NotMapped, TunnelSecrets, VariantMap, map_variant
from testbed.lab.model import LabPlan
from testbed.observer.observe import without_collector
from testbed.result import RunResult, TapRecord
from testbed.rundir import RunDirectory
from testbed.scenario.values import CLIENT_TUN, Variant
from testbed.tunnels.openvpn_config import PORT, RESOLVER_V4, RESOLVER_V6
from testbed.verdict import VariantEvidence

MAP_FILE = "inner-outer.csv"
CAPTURES = "captures"
# Of all captures together: beyond that nobody reads remarks, and a run would wait for them.
MOST_PACKETS = 500_000
MOST_OCTETS = 256 << 20
MOST_REMARKED = 50_000  # inner packets whose carriers are remarked


@dataclass(frozen=True, slots=True)
class Mapped:
    """A variant's map, and what the result says of it. Shape: empty values for a variant without a tunnel."""

    found: VariantMap | NotMapped
    summary: dict[str, Any]
    metrics: dict[str, float]

    def told(self, evidence: VariantEvidence) -> VariantEvidence:
        """The evidence, with what the map says that an expectation may ask for."""
        if isinstance(self.found, NotMapped):
            return replace(evidence, not_mapped=self.found.reason)
        overhead = self.metrics["overhead_octets_per_inner_packet"]
        return replace(evidence, overhead_octets=overhead, map_file=self.summary["file"])


@without_collector()
def map_tunnel(directory: RunDirectory, evidence: VariantEvidence, returned: Mapping[str, Any]) -> Mapped:
    """Link the variant's inner packets to those that carried them, and write the links down."""
    if evidence.tunnel is None:
        return Mapped(NotMapped("there is no tunnel"), {}, {})
    keys = {name: bytes.fromhex(digits) for name, digits in returned.get("tunnel_keys", {}).items()}
    secrets = TunnelSecrets(read_text(directory, f"{evidence.variant}/keys.log"), keys)
    found = map_variant(evidence, secrets, PORT)
    file = f"{evidence.variant}/{MAP_FILE}"
    if isinstance(found, VariantMap):
        directory.write_text(file, export.to_csv(found))
    return Mapped(found, export.summary(found, file), export.metrics(found))


def read_text(directory: RunDirectory, name: str) -> str:
    """A file of the run's own, read without following a link; empty if there is none."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
    except FileNotFoundError:
        return ""
    with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
        return file.read()


@dataclass(frozen=True, slots=True)
class Afterwards:
    """A judged run, ready to be explained. Shape: mappings are by variant; `keys` are the tunnels' own."""

    result: RunResult
    plans: Mapping[str, LabPlan]
    variants: Mapping[str, Variant]
    maps: Mapping[str, Mapped]
    keys: Mapping[str, Mapping[str, str]] = field(repr=False)
    before_server: frozenset[str]  # taps that hear the client's side of the tunnel


@without_collector()
def write_captures(directory: RunDirectory, run: Afterwards) -> tuple[dict[str, Any], ...]:
    """Write the merged captures; returns what the result says of each: {file, what, packets, secrets}."""
    records = [(name, tap) for name, variant in run.result.variants.items() for tap in variant.taps]
    if not records or why_not_merged(run.result):
        return ()
    os.close(directory.make_directory(CAPTURES))
    tapes = [_tape(directory, name, tap, run.plans[name]) for name, tap in records]
    secrets = "".join(read_text(directory, f"{name}/keys.log") for name in run.result.variants)
    results = run.result.variants.values()
    names = annotate.names_of(run.plans, run.variants.values(), results, (RESOLVER_V4, RESOLVER_V6))
    whole = Additions(names, secrets, _remarks(run))
    written = [_write(directory, "annotated", "every tap, with names, remarks and TLS secrets", tapes, whole)]
    written += _views(directory, run, tapes)
    peeled = [found for tape in tapes for found in _unwrapped(tape, run)]
    if peeled:
        remarks = {place: said for one in peeled for place, said in one.remarks.items()}
        what = "the tunnels' outside, control packets without wrapping and TLS records whole, with TLS secrets"
        added = Additions(names, secrets, remarks)
        written.append(_write(directory, "unwrapped", what, [one.tape for one in peeled], added))
    return tuple(written)


def why_not_merged(result: RunResult) -> str:
    """Why a run has no merged captures, in words; empty if it has."""
    taps = [tap for variant in result.variants.values() for tap in variant.taps]
    packets, octets = sum(tap.packets for tap in taps), sum(tap.octets for tap in taps)
    if packets <= MOST_PACKETS and octets <= MOST_OCTETS:
        return ""
    return f"{packets} packets of {octets} octets are too many for merged captures: open the taps' own files"


def _tape(directory: RunDirectory, variant: str, record: TapRecord, plan: LabPlan) -> Tape:
    fd = os.open(record.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory.fd)
    try:
        if not os.fstat(fd).st_size:  # a tap that ended before it wrote anything
            return annotate.tape_of(variant, record, plan, (), LINKTYPE_ETHERNET)
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as octets, memoryview(octets) as view:
            frames, link_type = list(read_tape_frames(view)), read_link_type(view)
    finally:
        os.close(fd)
    return annotate.tape_of(variant, record, plan, frames, link_type)


def _write(
    directory: RunDirectory, name: str, what: str, tapes: Sequence[Tape], additions: Additions
) -> dict[str, Any]:
    file = f"{CAPTURES}/{name}.pcapng"
    with os.fdopen(directory.create_file(file, secret=bool(additions.secrets)), "wb") as out:
        packets = write_merged(out, tapes, additions)
    return {"file": file, "what": what, "packets": packets, "secrets": bool(additions.secrets)}


def _views(directory: RunDirectory, run: Afterwards, tapes: Sequence[Tape]) -> Iterator[dict[str, Any]]:
    """What each observer has: nothing that only the lab knows goes in."""
    by_tap: dict[str, list[str]] = {}
    for variant in run.result.variants.values():
        for tap in variant.taps:
            if tap.name != CLIENT_TUN:
                by_tap.setdefault(tap.name, []).append(tap.file)
    for tap_name, files in by_tap.items():
        record = next(t for v in run.result.variants.values() for t in v.taps if t.file == files[0])
        own = [tape for tape in tapes if tape.key in files]
        names = annotate.neighbours_of(run.plans, record)
        yield _write(directory, f"{tap_name}-view", f"what {tap_name} has, and no more", own, Additions(names))


def _unwrapped(tape: Tape, run: Afterwards) -> Iterator[annotate.Unwrapped]:
    variant = tape.key.partition("/")[0]
    tunnel, result = run.variants[variant].tunnel, run.result.variants[variant]
    name = next(tap.name for tap in result.taps if tap.file == tape.key)
    server = str((result.tunnel or {}).get("server_address", ""))
    if tunnel is None or tunnel.mode != "tls" or not server or name not in run.before_server:
        return
    key = bytes.fromhex(next(iter(run.keys[variant].values()), ""))
    found = annotate.unwrapped(tape, server, PORT, tunnel.control, key)
    if found is not None:
        yield found


def _remarks(run: Afterwards) -> dict[Place, list[Remark]]:
    remarks: dict[Place, list[Remark]] = {}
    for name, variant in run.result.variants.items():
        for place, said in annotate.learned_remarks(variant.exposure, variant.leaks).items():
            remarks.setdefault(place, []).extend(said)
        found = run.maps[name].found
        if isinstance(found, VariantMap) and len(found.links) <= MOST_REMARKED:
            for place, remark in annotate.carried_remarks(found):
                remarks.setdefault(place, []).append(remark)
    return remarks
