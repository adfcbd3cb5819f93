"""The scenarios that ship, and the schema that editors get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.scenario import ScenarioErrors, find_scenario, list_scenarios, load_scenario, scenario_schema
from testbed.scenario.support import SUPPORTED


def test_every_shipped_scenario_is_right_and_says_what_it_is_about() -> None:
    for shipped in list_scenarios():
        scenario = load_scenario(shipped.path)
        assert scenario.title == shipped.title
        assert shipped.description
        assert {e.variant for e in scenario.expectations} == set(scenario.variants), "each variant claims something"


def test_the_main_scenario_holds_without_with_and_split_against_each_other() -> None:
    scenario = load_scenario(find_scenario("what-a-vpn-hides"))
    assert list(scenario.variants) == ["without", "with", "split"]
    assert scenario.variants["without"].tunnel is None
    split = scenario.variants["split"].tunnel
    assert split is not None
    assert split.carries("10.20.0.10")
    assert split.carries("203.0.113.80")
    assert not split.carries("93.184.216.34")
    assert not split.carries("2001:db8:4::80")
    observers = {e.observer for e in scenario.expectations}
    assert {"isp", "server:www.example.com"} <= observers


def test_a_name_that_does_not_ship_names_the_nearest() -> None:
    with pytest.raises(ScenarioErrors, match="did you mean what-a-vpn-hides"):
        find_scenario("what-a-vpn-hide")


def test_a_file_with_a_slip_in_its_name_names_the_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "leaks.yaml").write_text("title: t\n")
    with pytest.raises(ScenarioErrors) as caught:
        find_scenario(str(tmp_path / "leaks.yml"))
    assert f"did you mean {tmp_path / 'leaks.yaml'}?" in str(caught.value)


def test_the_schema_describes_every_key() -> None:
    schema = scenario_schema()
    json.dumps(schema)
    undescribed = [
        f"{owner}.{key}"
        for owner, part in [("scenario", schema), *schema["$defs"].items()]
        for key, value in part.get("properties", {}).items()
        if not value.get("description")
    ]
    assert undescribed == []
    assert schema["additionalProperties"] is False
    assert "title" in schema["required"]


def test_the_schema_resolves_every_reference() -> None:
    schema = scenario_schema()
    references = json.dumps(schema).split('"$ref": "#/$defs/')[1:]
    assert references
    assert {reference.split('"')[0] for reference in references} <= set(schema["$defs"])


def test_what_can_be_run_is_a_part_of_what_can_be_said() -> None:
    tunnel = scenario_schema()["$defs"]["TunnelModel"]["properties"]
    for key in ("mode", "transport", "cipher", "control"):
        said = json.dumps(tunnel[key])
        assert all(f'"{value}"' in said for value in SUPPORTED[f"tunnel.{key}"])
