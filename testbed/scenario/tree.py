"""YAML text to a tree in which every value knows where it was written, and the merge of two such trees.

Works on ruamel.yaml's composed nodes: nothing is ever constructed, so no tag can make anything happen. Explicit tags,
duplicate keys, keys that are not text, and merge keys are mistakes. Aliases are allowed, but what they expand to is
counted, so that a few lines cannot become millions of values.

Source: YAML 1.2.2; scalars by its core schema (a date, for one, is text)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from testbed.scenario.errors import Mistake, ScenarioErrors, shown

MAX_OCTETS = 256 * 1024
MAX_VALUES = 20_000  # after aliases are expanded; the largest honest scenario has a few hundred
MAX_DEPTH = 30

Scalar = str | int | float | bool | None

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "seq", "map", "merge")}


@dataclass(frozen=True, slots=True)
class Located:
    """A value of the file and its place. Shape: lines and columns are 1-based; `key_*` is where its key stands."""

    value: dict[str, Located] | list[Located] | Scalar
    source: str
    line: int
    column: int
    path: str
    key_line: int
    key_column: int

    def child(self, key: str | int) -> Located | None:
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def at(self, *keys: str | int) -> Located:
        """The value at a key path, or the deepest value on the way to it."""
        here = self
        for key in keys:
            found = here.child(key)
            if found is None:
                break
            here = found
        return here

    def mistake(self, message: str) -> Mistake:
        return Mistake(self.source, self.line, self.column, self.path, message)

    def key_mistake(self, message: str) -> Mistake:
        return Mistake(self.source, self.key_line, self.key_column, self.path, message)

    def plain(self) -> Any:
        """The value without places, as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: value.plain() for key, value in self.value.items()}
        if isinstance(self.value, list):
            return [value.plain() for value in self.value]
        return self.value


def parse_scenario_text(untrusted: bytes, source: str) -> Located:
    """The tree of a scenario file.

    Errors: ScenarioErrors if it is too large, not UTF-8, not YAML, or not a mapping of text keys
    """
    check_size(len(untrusted), source)
    try:
        text = untrusted.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = untrusted.count(b"\n", 0, error.start) + 1
        column = error.start - untrusted.rfind(b"\n", 0, error.start)
        fail(source, f"octet 0x{untrusted[error.start]:02x} is not UTF-8; save the file as UTF-8", line, column)
    root = parse_value(text, source)
    if root is None or root.value is None:
        fail(source, "the file is empty; a scenario starts with `title: …`")
    if not isinstance(root.value, dict):
        fail(source, f"a scenario is a mapping of keys such as `title: …`, not {kind_name(root.value)}", root.line)
    return root


def check_size(octets: int, source: str) -> None:
    if octets > MAX_OCTETS:
        size = f"{octets} octets" if octets < 1_000_000 else f"{octets / 1_000_000:.1f} MB"
        fail(source, f"the file has {size}; a scenario has at most {MAX_OCTETS // 1024} KB")


def parse_value(text: str, source: str, path: str = "") -> Located | None:
    """The tree of any YAML text; None if there is nothing in it."""
    try:
        node = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = _plainer(error.problem or error.context or "syntax error", text, mark)
        fail(source, f"not YAML: {problem}", *((mark.line + 1, mark.column + 1) if mark else (1, 1)))
    except RecursionError:
        fail(source, f"nested too deeply; at most {MAX_DEPTH} levels")
    except (YAMLError, ValueError) as error:
        fail(source, f"not YAML: {' '.join(str(error).split())}")
    if node is None:
        return None
    reader = _Reader(source)
    tree = reader.read(node, path, node, 0)
    if reader.mistakes:
        raise ScenarioErrors(reader.mistakes)
    return tree


def fail(source: str, message: str, line: int = 1, column: int = 1) -> NoReturn:
    raise ScenarioErrors([Mistake(source, line, column, "", message)])


def merge(base: Located, override: Located) -> Located:
    """`base` with `override` on top: mappings merge, everything else replaces, null removes."""
    if not isinstance(override.value, dict):
        return override
    merged = dict(base.value) if isinstance(base.value, dict) else {}
    empty = replace(override, value={})
    for key, value in override.value.items():
        if value.value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key, empty), value)
    # A key that is missing after the merge is missing where the mapping was first written.
    where = base if isinstance(base.value, dict) and base.value else override
    return replace(where, value=merged)


def kind_name(value: object) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the value {shown(value)}"


def join_path(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


class _Reader:
    """Turns composed nodes into `Located` values, counting what aliases expand to."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []
        self.values = 0

    def read(self, node: Node, path: str, key: Node, depth: int) -> Located:
        self._count(node, depth)
        value: dict[str, Located] | list[Located] | Scalar
        if node.tag not in _PLAIN_TAGS:
            self._note(node, path, f"tag {shown(node.tag)} is not allowed; a scenario has plain values only")
            value = None
        elif isinstance(node, MappingNode):
            value = dict(self._pairs(node, path, depth))
        elif isinstance(node, SequenceNode):
            value = [self.read(item, join_path(path, index), item, depth + 1) for index, item in enumerate(node.value)]
        else:
            value = self._scalar(str(node.value), str(node.tag).removeprefix(_TAG), node, path)
        start, at = node.start_mark, key.start_mark
        return Located(value, self.source, start.line + 1, start.column + 1, path, at.line + 1, at.column + 1)

    def _pairs(self, node: MappingNode, path: str, depth: int) -> Iterator[tuple[str, Located]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self._note(key, path, "a key must be plain text, not a list or a mapping")
                continue
            name = key.value
            here = join_path(path, name)
            if key.tag == f"{_TAG}merge":
                self._note(key, here, "YAML merge keys are not used here; variants merge by themselves")
            elif name in seen:
                self._note(key, here, f"the key stands twice (first in line {seen[name]}); keep one")
            else:
                seen[name] = key.start_mark.line + 1
                yield name, self.read(value, here, key, depth + 1)

    def _scalar(self, text: str, kind: str, node: Node, path: str) -> Scalar:
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return bool(text.casefold() == "true")
            if kind == "int":
                return int(text.replace("_", ""), 0 if text.lstrip("+-")[:2].casefold() in ("0x", "0o") else 10)
            if kind == "float":
                return float(text.replace("_", "").casefold().replace(".inf", "inf").replace(".nan", "nan"))
        except ValueError:
            self._note(node, path, f"value {shown(text)} is not a number; put text in quotes")
            return None
        return text

    def _count(self, node: Node, depth: int) -> None:
        self.values += 1
        start = node.start_mark
        if self.values > MAX_VALUES:
            message = f"more than {MAX_VALUES} values (aliases included); a scenario never needs that many"
            fail(self.source, message, start.line + 1, start.column + 1)
        if depth > MAX_DEPTH:
            message = f"nested too deeply; at most {MAX_DEPTH} levels (does an alias contain itself?)"
            fail(self.source, message, start.line + 1, start.column + 1)

    def _note(self, node: Node, path: str, message: str) -> None:
        self.mistakes.append(Mistake(self.source, node.start_mark.line + 1, node.start_mark.column + 1, path, message))


_BARE_COMPARISON = re.compile(r"[:\[,]\s*>=?\s*\d")  # what stands after it is read as the head of a block of text


def _plainer(problem: str, text: str, mark: Any) -> str:
    """The parser's complaint in words that name the usual cause."""
    line = text.split("\n")[mark.line] if mark and mark.line < text.count("\n") + 1 else ""
    if "\\t" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        return "the line is indented with a tab; YAML wants spaces"
    if _BARE_COMPARISON.search(line):
        return 'a bare > means something else in YAML; put the comparison in quotes, as in ">= 2s"'
    return " ".join(problem.split())
