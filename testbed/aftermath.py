"""What a run adds to its directory once its variants are over: the map from inner to outer packets of each tunnel.

The captures are closed, the bubble is gone; what remains of the tunnel's keys is in memory and in the key log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from testbed.ground_truth import export
from testbed.ground_truth.mapping import NotMapped, TunnelSecrets, VariantMap, map_variant
from testbed.rundir import RunDirectory
from testbed.tunnels.openvpn_config import PORT
from testbed.verdict import VariantEvidence

MAP_FILE = "inner-outer.csv"


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
