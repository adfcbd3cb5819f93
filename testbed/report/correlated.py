"""What taps on both sides of a VPN server found together: each conversation once, with everybody who can tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_CONFIDENCE = {"strong": 0, "weak": 1}
_SAME = ("client", "tunnel", "server", "site", "egress", "protocol")


def both_sides_in_words(correlations: Iterable[Mapping[str, Any]]) -> list[str]:
    """A sentence per conversation, by the pair of taps that is surest of it; the other pairs are named."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for one in correlations:
        found.setdefault(tuple(one.get(key) for key in _SAME), []).append(one)
    return [_sentence(sorted(pairs, key=_doubt)) for pairs in found.values()]


def _doubt(one: Mapping[str, Any]) -> tuple[int, float]:
    return _CONFIDENCE.get(str(one.get("confidence")), 2), -float(one.get("score") or 0)


def _sentence(pairs: list[Mapping[str, Any]]) -> str:
    best = pairs[0]
    others = [f"{one.get('near')} and {one.get('far')}" for one in pairs[1:]]
    told = f"{best.get('near')} and {best.get('far')} together: {best.get('sentence', '?')}"
    return told + (f"; so do {', '.join(others)}" if others else "")
