"""The scenario file: one question about a tunnel, written down so that a machine can ask it.

`load_scenario` reads a file and gives frozen values, or every mistake in it at once with file, line and column. Nothing
here opens a socket, starts a program or looks at the host. The heavy part (pydantic, ruamel.yaml) is imported when a
file is read, so that a process that only handles the values does not pay for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from testbed.scenario.values import (
    Action,
    Expectation,
    LinkOptions,
    Scenario,
    Selector,
    Site,
    TapSpec,
    TopologyRef,
    TunnelSpec,
    Variant,
)

if TYPE_CHECKING:
    from testbed.scenario.check import TopologyShape
    from testbed.scenario.errors import Mistake, ScenarioErrors
    from testbed.scenario.load import load_scenario, parse_scenario
    from testbed.scenario.schema import scenario_schema
    from testbed.scenario.shipped import ShippedScenario, find_scenario, list_scenarios

_WHERE = {
    "TopologyShape": "check",
    "Mistake": "errors",
    "ScenarioErrors": "errors",
    "load_scenario": "load",
    "parse_scenario": "load",
    "scenario_schema": "schema",
    "ShippedScenario": "shipped",
    "find_scenario": "shipped",
    "list_scenarios": "shipped",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


__all__ = [
    "find_scenario",
    "list_scenarios",
    "load_scenario",
    "Mistake",
    "parse_scenario",
    "scenario_schema",
    "ScenarioErrors",
    "ShippedScenario",
    "TopologyShape",
    "Action",
    "Expectation",
    "LinkOptions",
    "Scenario",
    "Selector",
    "Site",
    "TapSpec",
    "TopologyRef",
    "TunnelSpec",
    "Variant",
]
