"""Finding a topology by the name a scenario gives it: one of `topologies/`, or a class in a file.

`client-isp-server` is the class that `topologies/client_isp_server.py` offers in its `topos`, as `mn --custom` reads
it; `./file.py:Class` is a class in a file of the user's. The file is the user's own code and is run as such.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import topologies
from testbed.lab.model import LabPlanError

if TYPE_CHECKING:
    from mininet.topo import Topo


def shipped_topologies() -> list[str]:
    """Return the names of the topologies that ship, as a scenario spells them."""
    folder = Path(topologies.__file__).parent
    return sorted(file.stem.replace("_", "-") for file in folder.glob("*.py") if file.stem != "__init__")


def load_topology(reference: str, params: Mapping[str, Any] | None = None) -> Topo:
    """Return the topology that `reference` names, built with `params`.

    Errors: LabPlanError if there is none, if its file does not load, or if it does not take these parameters.
    """
    if ":" in reference or reference.endswith(".py"):
        factory = _class_in_file(reference)
    elif reference in shipped_topologies():
        name = reference.replace("-", "_")
        factory = importlib.import_module(f"topologies.{name}").topos[name]
    else:
        known = ", ".join(shipped_topologies())
        raise LabPlanError([f"no topology is called {reference!r}; there are {known}, and ./file.py:Class"])
    try:
        return factory(**(params or {}))
    except TypeError as error:
        raise LabPlanError([f"topology {reference} does not take these parameters: {error}"]) from error


def _class_in_file(reference: str) -> Any:
    file, _, name = reference.partition(":")
    path = Path(file)
    if not path.is_file():
        raise LabPlanError([f"topology {reference}: there is no file {file}"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise LabPlanError([f"topology {reference}: {file} is not a Python file"])
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is its mistake, not ours
        raise LabPlanError([f"topology {reference}: {file} does not load: {error!r}"]) from error
    return _pick_class(module, reference, name)


def _pick_class(module: ModuleType, reference: str, name: str) -> Any:
    offered = dict(getattr(module, "topos", {}))
    candidates = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "addLink")
    }
    found = offered.get(name) or candidates.get(name)
    if not name and len(candidates) == 1:
        found = next(iter(candidates.values()))
    if found is None:
        known = ", ".join({**offered, **candidates}) or "none"
        raise LabPlanError([f"topology {reference}: no class {name!r} in it; there are: {known}"])
    return found
