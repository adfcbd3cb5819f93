"""Whatever a scenario file holds, reading it ends in a scenario or in mistakes with places."""

from __future__ import annotations

import json
from importlib.resources import files

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.scenario import Scenario, ScenarioErrors, parse_scenario

SHIPPED = files("scenarios").joinpath("what-a-vpn-hides.yaml").read_bytes()
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5) | st.sampled_from(["isp", "all", "udp"])
KEYS = st.sampled_from(
    ["title", "sites", "tunnel", "workload", "taps", "variants", "expect", "links", "topology", "seed", "events"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc:.-", max_size=4), inner, max_size=3),
    max_leaves=12,
)


def read(untrusted: bytes) -> None:
    outcome = attempt(untrusted)
    if isinstance(outcome, ScenarioErrors):
        assert outcome.mistakes
        assert all(mistake.line >= 1 and mistake.column >= 1 for mistake in outcome.mistakes)
    else:
        assert parse_scenario(outcome.resolved_yaml().encode(), "again.yaml").variants == outcome.variants


def attempt(untrusted: bytes) -> Scenario | ScenarioErrors:
    try:
        return parse_scenario(untrusted, "f.yaml", nodes=["client", "isp", "vpn", "web", "private"])
    except ScenarioErrors as errors:
        return errors


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_octets_end_in_mistakes(untrusted: bytes) -> None:
    read(untrusted)


@given(st.dictionaries(KEYS, VALUES, max_size=5))
@settings(deadline=None)
def test_any_values_under_known_keys_end_in_mistakes_or_a_scenario(document: dict[str, object]) -> None:
    read(json.dumps({"title": "t", **document}).encode())


@given(st.integers(0, len(SHIPPED) - 1), st.integers(0, 40), st.binary(max_size=8))
@settings(deadline=None, max_examples=60)
def test_a_shipped_file_with_a_piece_replaced_ends_in_mistakes_or_a_scenario(at: int, size: int, piece: bytes) -> None:
    read(SHIPPED[:at] + piece + SHIPPED[at + size :])
