"""Holds a tree against a model: the model's value, and each complaint of pydantic as a sentence with a place.

What is wrong is cut out of the tree and the rest is looked at again, until nothing is wrong any more. So a caller gets
every mistake of shape, and still a value to check everything else on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from testbed.scenario.errors import Mistake, nearest, one_of
from testbed.scenario.model_base import WRONG_WORD
from testbed.scenario.tree import Located, join_path, kind_name

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]

_OF_A_KEY = "[key]"  # where pydantic says that a mapping's key is wrong, not its value
_MUST_BE = {
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
}
_RANGES = {
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be {ge:g} or more",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be {le} or less",
}


def fit(model: type[M], tree: Located) -> tuple[M | None, Located, list[Mistake]]:
    """The model's value for what is right in the tree, the tree of what is right, and a mistake for the rest.

    Shape: the value is None only if a key of the top level is missing that has no default.
    """
    mistakes: list[Mistake] = []
    told: set[Path] = set()
    while True:
        try:
            return model.model_validate(tree.plain()), tree, mistakes
        except ValidationError as errors:
            found = errors.errors(include_url=False)
        wrong: set[Path] = set()
        for error in found:
            place, path = _locate(tree, error["loc"])
            if error["type"] != "missing" or (*path, error["loc"][-1]) not in told:  # what was cut out is missing
                mistakes.append(_explain(model, error, place, path))
            wrong.add(path)
        told |= wrong
        if () in wrong:
            return None, tree, mistakes
        for path in sorted(wrong, key=_order, reverse=True):  # from the end, so that no list moves under our feet
            tree = _without(tree, path)


def _order(path: Path) -> list[tuple[str, int]]:
    return [("", key) if isinstance(key, int) else (key, 0) for key in path]


def _locate(tree: Located, location: Path) -> tuple[Located, Path]:
    """The deepest value that exists on the way to pydantic's location, and its path."""
    here: Located = tree
    path: Path = ()
    for key in location:
        found = here.child(key)
        if found is None:
            # Locations also name union members, and keys that a bare value stands for.
            continue
        here, path = found, (*path, key)
    return here, path


def _without(tree: Located, path: Path) -> Located:
    key, rest = path[0], path[1:]
    child = tree.child(key)
    if child is None:
        return tree  # an ancestor has been cut out already
    if isinstance(tree.value, dict):
        pairs = {name: value for name, value in tree.value.items() if name != key or rest}
        if rest:
            pairs[str(key)] = _without(child, rest)
        return replace(tree, value=pairs)
    items = list(tree.value) if isinstance(tree.value, list) else []
    if rest:
        items[int(key)] = _without(child, rest)
    else:
        del items[int(key)]
    return replace(tree, value=items)


def _explain(model: type[BaseModel], error: Any, place: Located, path: Path) -> Mistake:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        key = str(error["loc"][-1])
        message = f"missing; {_description(model, error['loc'])}"
        if path and path[-1] == key:  # a bare value stood for the mapping
            return place.mistake(message)
        return Mistake(place.source, place.line, place.column, join_path(place.path, key), message)
    if kind == "extra_forbidden":
        known = _known_keys(model, error["loc"][:-1])
        return place.key_mistake(f"unknown key; {one_of(known)}{nearest(error['loc'][-1], known)}")
    if error["loc"][-1] == _OF_A_KEY:
        return place.key_mistake(f"key {path[-1]}: {_allowed(kind, context, error['msg'], place)}")
    return place.mistake(f"value {_value(place)}: {_allowed(kind, context, error['msg'], place)}")


def _value(place: Located) -> str:
    return kind_name(place.value).removeprefix("the value ")


def _allowed(kind: str, context: Mapping[str, Any], fallback: str, place: Located) -> str:
    if kind == WRONG_WORD:
        return str(context["reason"])
    if kind == "literal_error":
        words = re.findall(r"'([^']*)'", str(context["expected"]))
        return f"{one_of(words)}{nearest(place.value, words)}"
    if kind in _MUST_BE:
        quotes = isinstance(place.value, (int, float)) and kind == "string_type"
        yes = isinstance(place.value, str) and place.value.casefold() in ("yes", "no", "on", "off")
        hint = "; put it in quotes" if quotes else "; yes and no are text" if yes and kind == "bool_type" else ""
        return _MUST_BE[kind] + hint
    if kind in _RANGES:
        return _RANGES[kind].format(**context)
    if kind in ("too_short", "string_too_short"):
        return "must not be empty"
    return fallback


def _model_at(model: type[BaseModel], location: Path) -> type[BaseModel] | None:
    here: Any = model
    for key in location:
        found = _models_in(here)
        fields = _fields(found[0]) if found else {}
        if key in fields:
            here = fields[str(key)].annotation
        elif get_origin(here) in (dict, list):
            here = get_args(here)[-1]
        # anything else is the name of a union's member, which leads no deeper
    found = _models_in(here)
    return found[0] if found else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (dict, list):
        return []
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _known_keys(model: type[BaseModel], location: Path) -> list[str]:
    found = _model_at(model, location)
    return list(_fields(found)) if found else []


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The model's fields by the keys that stand in a file."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _description(model: type[BaseModel], location: Path) -> str:
    found = _model_at(model, location[:-1])
    field = _fields(found).get(str(location[-1])) if found else None
    return (field.description if field and field.description else "it has no default").rstrip(".")
