"""`--set key.path=value`: one value of a scenario changed from the command line.

The value is YAML, so `tunnel=null`, `taps=[isp]` and `seed=7` mean what they mean in the file. The key path is split at
dots; where keys of the file contain dots themselves (host names), the longest key that exists is taken, and double
quotes hold a new one together. A number selects an item of a list.
"""

from __future__ import annotations

import re
from dataclasses import replace

from testbed.scenario.errors import Mistake, ScenarioErrors, shown
from testbed.scenario.tree import Located, join_path, kind_name, parse_value

_PART = re.compile(r'"([^"]*)"|([^."]+)')


def apply_override(root: Located, override: str) -> Located:
    """The tree with one value set. Errors: ScenarioErrors if the override cannot be read or leads nowhere"""
    source = f"--set {shown(override)}"
    path, equals, text = override.partition("=")
    parts = _split(path.strip())
    if not equals or not parts:
        raise _error(source, "must be key.path=value, such as tunnel.cipher=AES-256-GCM")
    value = parse_value(text, source, path.strip())
    if value is None:
        value = Located(None, source, 0, 0, path.strip(), 0, 0)
    return _set(root, parts, _nowhere(value), source)


def _split(path: str) -> list[str]:
    parts: list[str] = []
    at = 0
    while at < len(path):
        found = _PART.match(path, at)
        if not found or (found.end() < len(path) and path[found.end()] != "."):
            return []
        parts.append(found[1] if found[1] is not None else found[2])
        at = found.end() + 1
    return [] if path.endswith(".") else parts


def _nowhere(tree: Located) -> Located:
    """The same values without line and column: they stand in no file."""
    value = tree.value
    if isinstance(value, dict):
        value = {key: _nowhere(child) for key, child in value.items()}
    elif isinstance(value, list):
        value = [_nowhere(child) for child in value]
    return replace(tree, value=value, line=0, column=0, key_line=0, key_column=0)


def _set(tree: Located, parts: list[str], value: Located, source: str) -> Located:
    if not parts:
        return value
    if isinstance(tree.value, list):
        return _set_item(tree, parts, value, source)
    if tree.value is not None and not isinstance(tree.value, dict):
        raise _error(source, f"{tree.path} is {kind_name(tree.value)}, nothing can be set inside it")
    pairs = dict(tree.value or {})
    length = next((n for n in range(len(parts), 0, -1) if ".".join(parts[:n]) in pairs), 1)
    key = ".".join(parts[:length])
    empty = Located({}, source, 0, 0, join_path(tree.path, key), 0, 0)
    pairs[key] = _set(pairs.get(key, empty), parts[length:], value, source)
    return replace(tree, value=pairs)


def _set_item(tree: Located, parts: list[str], value: Located, source: str) -> Located:
    items = list(tree.value) if isinstance(tree.value, list) else []
    if not parts[0].isdecimal() or int(parts[0]) >= len(items):
        raise _error(source, f"{tree.path} is a list of {len(items)}; {shown(parts[0])} is none of its places (from 0)")
    index = int(parts[0])
    items[index] = _set(items[index], parts[1:], value, source)
    return replace(tree, value=items)


def _error(source: str, message: str) -> ScenarioErrors:
    return ScenarioErrors([Mistake(source, 0, 0, "", message)])
