"""The scenarios that come with the testbed: their names, titles and files.

Reads the head of each file only; a file of a scenario that ships is checked by the tests, not here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from testbed.scenario.errors import Mistake, ScenarioErrors, nearest
from testbed.scenario.tree import parse_scenario_text


@dataclass(frozen=True, slots=True)
class ShippedScenario:
    name: str
    title: str
    description: str
    path: Path


def list_scenarios() -> tuple[ShippedScenario, ...]:
    """Every scenario that ships, by name; those in a folder are called `folder/name`."""
    found: list[ShippedScenario] = []
    for root in _roots():
        for path in sorted(root.rglob("*.yaml")):
            tree = parse_scenario_text(path.read_bytes(), str(path)).plain()
            name = path.relative_to(root).with_suffix("").as_posix()
            description = " ".join(str(tree.get("description", "")).split())
            found.append(ShippedScenario(name, str(tree.get("title", "")), description, path))
    return tuple(found)


def find_scenario(name_or_path: str) -> Path:
    """The file a person means: an existing path, or the name of a scenario that ships.

    Errors: ScenarioErrors if it is neither
    """
    path = Path(name_or_path)
    if os.path.exists(path):  # unlike Path.exists, no error for what cannot be a file's name
        return path
    shipped = {scenario.name: scenario.path for scenario in list_scenarios()}
    if name_or_path in shipped:
        return shipped[name_or_path]
    message = f"no such file, and no scenario of that name ships{nearest(name_or_path, (*shipped, *_beside(path)))}"
    known = f"those that ship: {', '.join(shipped)}"
    raise ScenarioErrors([Mistake(name_or_path, 0, 0, "", f"{message}; {known}")])


def _beside(path: Path) -> Iterator[str]:
    """The scenario files in the folder that a person named, as they would have to be written."""
    with suppress(OSError, ValueError):
        yield from (str(path.parent / name) for name in os.listdir(path.parent) if name.endswith((".yaml", ".yml")))


def _roots() -> tuple[Path, ...]:
    # A regular package on disk: the scenarios are files that people are told to copy and edit.
    return tuple(Path(str(root)) for root in (files("scenarios"),))
