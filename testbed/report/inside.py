"""What the map from inner to outer packets says, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def inside_in_words(ground_truth: Mapping[str, Any]) -> str:
    """`82 of 82 packets linked to those that carried them; 52 octets more each; 0.11 ms later up, 0.16 ms down; …`."""
    if not ground_truth.get("mapped"):
        return f"no inner-outer.csv, which packet carried which: {ground_truth.get('reason', 'it does not say why')}"
    inner, mapped = ground_truth["inner_packets"], ground_truth["inner_packets_mapped"]
    parts = [f"{mapped} of {inner} packets linked to those that carried them"]
    if overhead := ground_truth["overhead_octets"]:
        parts.append(f"{round(overhead['mean'], 1):g} octets more each")
    delays = [
        f"{_milliseconds(spread['median'])} later {way}"
        for way, spread in ground_truth["delay_seconds"].items()
        if spread
    ]
    parts += [", ".join(delays)] if delays else []
    parts.append(f"{ground_truth['flows_alone']} of {ground_truth['flows_in_all']} flows stand alone")
    return "; ".join(parts)


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
