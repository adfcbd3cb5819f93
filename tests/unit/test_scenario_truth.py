"""Every scenario that ships has a test that runs it and holds the observer against tshark on what it captured."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from testbed.scenario.shipped import list_scenarios

TESTS = Path(__file__).parents[1] / "scenarios"
COMPARES = "assert_tshark_agrees"
FOLDER = "scenarios/"  # where a test names a scenario's file


def test_every_shipped_scenario_is_held_against_tshark() -> None:
    said = {text for path in sorted(TESTS.glob("test_*.py")) for text in texts_of_comparing_tests(path)}
    names = {text.removeprefix(FOLDER).removesuffix(".yaml") for text in said}
    shipped = {scenario.name for scenario in list_scenarios()}
    assert len(shipped) >= 21
    folders = {name for name in names if name.count("/") == 1 and name.endswith("/")} - {"/"}
    # A test that takes its names from the list names the folder alone.
    assert sorted(name for name in shipped - names if not name.startswith(tuple(folders))) == []


def texts_of_comparing_tests(path: Path) -> Iterator[str]:
    """The texts in tests that compare, and in what they name of their module: fixtures and constants."""
    module = ast.parse(path.read_text())
    defined = {name: node for node in module.body for name in names_defined(node)}
    for name, node in defined.items():
        if name.startswith("test_") and any(isinstance(n, ast.Name) and n.id == COMPARES for n in ast.walk(node)):
            for used in (node, *(defined[n] for n in names_used(node) if n in defined)):
                yield from texts(used)
                yield from (text for n in names_used(used) if n in defined for text in texts(defined[n]))


def names_defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef):
        yield node.name
    elif isinstance(node, ast.Assign):
        yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def names_used(node: ast.AST) -> set[str]:
    names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
    return names | {inner.arg for inner in ast.walk(node) if isinstance(inner, ast.arg)}


def texts(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value
