"""`result.json`: a run's result written out and read back, exactly.

The dataclasses of `testbed.result` are the schema: their annotations drive both directions, so the file cannot drift
from them. Two deliberate differences of form: `schema` comes first, and a variant's name is only its key under
`variants`.

Strict both ways. Reading refuses unknown and missing keys, wrong types, duplicate keys, NaN and another schema;
writing refuses what would not come back the same (a tuple or a dataclass inside a free-form part, a key that is no
string). Every refusal names the key path. A field with a default may be absent, so that files written before the
field existed stay readable.

Only ASCII is written: captured strings cannot steer a terminal through `--json`, and lone surrogates survive.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from enum import Enum
from typing import Any, TypeVar, cast

from testbed.result import SCHEMA, RunResult

T = TypeVar("T")


class ResultError(ValueError):
    """The value or file is not a run's result: says where and why."""


def to_json(result: RunResult) -> str:
    """The text of `result.json`.

    Errors: ResultError if a free-form part holds what JSON cannot give back unchanged
    """
    plain = _to_plain(result, "")
    variants = cast(dict[str, Any], plain["variants"])
    for name, variant in variants.items():
        if variant.pop("name") != name:
            raise ResultError(f"variants.{name}: the variant calls itself {result.variants[name].name!r}")
    ordered = {"schema": plain.pop("schema"), **plain}
    return json.dumps(ordered, indent=2, ensure_ascii=True, allow_nan=False) + "\n"


def from_json(text: str | bytes) -> RunResult:
    """The result that `to_json` wrote.

    Errors: ResultError with the key path, or the line and column where it is not JSON
    """
    try:
        plain = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ResultError(f"not JSON: {error}") from error
    if not isinstance(plain, dict):
        raise ResultError(f"a result is an object, not {_type_name(plain)}")
    if plain.get("schema") != SCHEMA:
        raise ResultError(f"schema: {plain.get('schema')!r} is not {SCHEMA!r}, the only one this version reads")
    variants = plain.get("variants")
    if isinstance(variants, dict):
        plain["variants"] = {name: _named(name, variant) for name, variant in variants.items()}
    return _from_plain(RunResult, plain, "")


def _named(name: str, variant: object) -> object:
    if not isinstance(variant, dict):
        return variant
    if "name" in variant:
        raise ResultError(f"variants.{name}.name: unknown key; the name is the key under variants")
    return {"name": name, **variant}


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    plain = dict(pairs)
    if len(plain) != len(pairs):
        twice = next(
            key for position, (key, _) in enumerate(pairs) if any(key == other for other, _ in pairs[:position])
        )
        raise ResultError(f"the key {twice!r} appears twice in one object")
    return plain


def _refuse_constant(name: str) -> object:
    raise ResultError(f"{name} is not a number that JSON has")


def _at(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _type_name(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a string", bool: "true/false", type(None): "null"}.get(
        type(value), f"a {type(value).__name__}"
    )


# --- writing ---


def _to_plain(value: Any, path: str) -> dict[str, Any]:
    """A dataclass as an object; its own tuples become lists."""
    hints = typing.get_type_hints(type(value))
    return {
        field.name: _write(hints[field.name], getattr(value, field.name), _at(path, field.name))
        for field in dataclasses.fields(value)
    }


def _write(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _to_plain(_instance(cast(type, hint), value, path), path)
    if origin is tuple:
        return [
            _write(arguments[0], item, _at(path, index)) for index, item in enumerate(_instance(tuple, value, path))
        ]
    if origin is dict:
        _check_keys(_instance(dict, value, path), path)
        return {key: _write(arguments[1], item, _at(path, key)) for key, item in value.items()}
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _write(_without_none(arguments), value, path)
    if hint is Any:
        return _checked_json(value, path)
    if issubclass(hint, Enum):
        return _instance(cast(type[Enum], hint), value, path).value
    return _scalar(hint, value, path)


def _checked_json(value: Any, path: str) -> Any:
    """A free-form value that reads back equal: JSON's own types only."""
    if isinstance(value, dict):
        _check_keys(value, path)
        return {key: _checked_json(item, _at(path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_checked_json(item, _at(path, index)) for index, item in enumerate(value)]
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise ResultError(f"{path}: {value!r} ({type(value).__name__}) would not read back from JSON unchanged")


def _check_keys(value: dict[Any, Any], path: str) -> None:
    for key in value:
        if type(key) is not str:
            raise ResultError(f"{path}: the key {key!r} is not a string")


# --- reading ---


def _from_plain(cls: type[T], plain: Any, path: str) -> T:
    values = _instance(dict, plain, path)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    unknown = [key for key in values if key not in fields]
    if unknown:
        raise ResultError(f"{_at(path, unknown[0])}: unknown key; known are {', '.join(fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ResultError(f"{_at(path, name)}: missing")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _read(hints[key], value, _at(path, key)) for key, value in values.items()})


def _read(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _from_plain(cast(type, hint), value, path)
    if origin is tuple:
        return tuple(
            _read(arguments[0], item, _at(path, index)) for index, item in enumerate(_instance(list, value, path))
        )
    if origin is dict:
        return {key: _read(arguments[1], item, _at(path, key)) for key, item in _instance(dict, value, path).items()}
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _read(_without_none(arguments), value, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _member(hint, value, path)
    return value if hint is Any else _scalar(hint, value, path)


def _member(enum: type[Enum], value: object, path: str) -> Enum:
    for member in enum:
        if member.value == value:
            return member
    raise ResultError(f"{path}: {value!r} is none of {', '.join(str(member.value) for member in enum)}")


def _without_none(arguments: tuple[Any, ...]) -> Any:
    (hint,) = (argument for argument in arguments if argument is not type(None))
    return hint


def _instance(cls: type[T], value: Any, path: str) -> T:
    if not isinstance(value, cls):
        raise ResultError(f"{path or 'result'}: expected {cls.__name__}, not {_type_name(value)}")
    return value


def _scalar(hint: Any, value: Any, path: str) -> Any:
    """A string, number or truth value of exactly the declared type; a whole number may stand for a float."""
    allowed = (int, float) if hint is float else (hint,)
    if type(value) not in allowed:
        raise ResultError(f"{path}: expected {hint.__name__}, not {_type_name(value)}")
    if type(value) is float and not math.isfinite(value):
        raise ResultError(f"{path}: {value!r} is not a number that JSON has")
    return value
