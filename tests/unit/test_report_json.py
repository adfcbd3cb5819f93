"""`result.json`: exact both ways, and strict."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.report.json import ResultError, from_json, to_json
from testbed.result import SCHEMA, RunResult, Verdict
from tests.unit.test_report_sample import sample_result

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_a_result_comes_back_equal_and_the_text_too() -> None:
    result = sample_result()
    text = to_json(result)
    assert from_json(text) == result
    assert to_json(from_json(text)) == text
    assert list(from_json(text).variants) == ["without", "with", "split"]


@given(st.dictionaries(st.text(), JSON_VALUES, max_size=5))
def test_any_free_form_part_that_json_can_hold_comes_back_equal(environment: dict[str, Any]) -> None:
    result = RunResult({}, 1, True, {}, (), environment)
    assert from_json(to_json(result)) == result


def test_the_keys_are_those_of_the_contract() -> None:
    plain = json.loads(to_json(sample_result()))
    assert list(plain) == [
        "schema",
        "scenario",
        "seed",
        "ok",
        "variants",
        "expectations",
        "environment",
        "warnings",
        "captures",
    ]
    assert plain["schema"] == SCHEMA
    assert set(plain["variants"]["with"]) == {
        *("tunnel", "actions", "interfaces", "routes", "egress", "taps", "exposure", "leaks", "metrics"),
        *("ground_truth", "events", "egress_after", "correlations"),
    }
    row = plain["variants"]["without"]["exposure"][0]
    assert (row["observer"], row["verdict"]) == ("isp", "seen")
    assert {"kind", "value", "action"} <= set(row["fact"])
    assert set(row["evidence"][0]) == {"file", "frame", "time", "filter"}
    assert {"file", "packets", "octets", "dropped"} <= set(plain["variants"]["with"]["taps"][0])


def test_the_text_is_ascii_so_that_no_capture_steers_the_terminal_it_is_printed_on() -> None:
    text = to_json(sample_result())
    assert text.isascii()
    assert "\x1b" not in text


def _edit(change: Callable[[dict[str, Any]], object]) -> str:
    plain = json.loads(to_json(sample_result()))
    change(plain)
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda r: r.update(extra=1), r"extra: unknown key"),
        (lambda r: r.pop("seed"), r"seed: missing"),
        (lambda r: r.update(schema="vpn-testbed/result/99"), r"schema: 'vpn-testbed/result/99' is not"),
        (lambda r: r.update(seed="1"), r"seed: expected int, not a string"),
        (lambda r: r.update(seed=True), r"seed: expected int, not true/false"),
        (lambda r: r.update(ok=1), r"ok: expected bool"),
        (lambda r: r["variants"]["with"].update(name="with"), r"variants\.with\.name: unknown key"),
        (lambda r: r["variants"].update(other=3), r"variants\.other: expected dict"),
        (lambda r: r["variants"]["with"]["taps"][0].pop("dropped"), r"variants\.with\.taps\[0\]\.dropped: missing"),
        (lambda r: r["variants"]["with"]["exposure"][2].update(verdict="maybe"), r"exposure\[2\]\.verdict: 'maybe'"),
        (lambda r: r["warnings"].append(None), r"warnings\[1\]: expected str, not null"),
    ],
)
def test_what_is_not_a_result_is_refused_by_key_path(
    change: Callable[[dict[str, Any]], object], complaint: str
) -> None:
    with pytest.raises(ResultError, match=complaint):
        from_json(_edit(change))


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"schema": 1, "schema": 2}', '{"seed": NaN}', b"\xff", "[" * 100_000, "null"]
)
def test_damaged_text_is_a_result_error_and_nothing_else(text: str | bytes) -> None:
    with pytest.raises(ResultError):
        from_json(text)


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [
        ({"a": (1, 2)}, r"environment\.a: \(1, 2\) \(tuple\)"),
        ({"a": [{"b": float("nan")}]}, r"environment\.a\[0\]\.b: nan"),
        ({"a": {1: 2}}, r"environment\.a: the key 1 is not a string"),
        ({"a": Verdict.SEEN}, r"environment\.a: .*Verdict"),
        ({"a": b"x"}, r"environment\.a: b'x' \(bytes\)"),
    ],
)
def test_what_would_not_come_back_the_same_is_not_written(environment: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ResultError, match=complaint):
        to_json(replace(sample_result(), environment=environment))


def test_a_key_that_appears_twice_is_refused_though_both_values_are_valid() -> None:
    twice = to_json(sample_result()).replace('"seed": 1,', '"seed": 1, "seed": 2,', 1)
    with pytest.raises(ResultError, match="the key 'seed' appears twice"):
        from_json(twice)


def test_a_variant_under_another_name_is_not_written() -> None:
    result = sample_result()
    with pytest.raises(ResultError, match=r"variants\.other: the variant calls itself 'with'"):
        to_json(replace(result, variants={"other": result.variants["with"]}))


def test_a_field_with_a_default_may_be_absent() -> None:
    text = _edit(lambda r: [row.pop("reason") for row in r["variants"]["without"]["exposure"]])
    assert from_json(text).variants["without"].exposure[0].reason == ""
