"""The scenario file: one question about a tunnel, written down so that a machine can ask it.

`load_scenario` reads a file and gives frozen values, or every mistake in it at once with file, line and column. Nothing
here opens a socket, starts a program or looks at the host. The heavy part (pydantic, ruamel.yaml) is imported when a
file is read, so that a process that only handles the values does not pay for it.
"""

from __future__ import annotations

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

__all__ = [
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
