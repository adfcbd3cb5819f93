"""What the models of a scenario file are made of: the base class, and how a word, a bare value or a list is taken."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticCustomError

from testbed.scenario import words

WRONG_WORD = "scenario"  # the error type of everything `words` refuses


def word(spelling: Any, *arguments: str) -> AfterValidator:
    def check(value: Any) -> Any:
        try:
            return spelling(value, *arguments)
        except ValueError as error:
            raise PydanticCustomError(WRONG_WORD, "{reason}", {"reason": str(error)}) from None

    return AfterValidator(check)


@dataclass(eq=False)  # pydantic hashes annotations
class OrBare:
    """Tells the JSON Schema that a bare value may stand for the mapping."""

    bare: dict[str, Any]

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [self.bare, handler(core)]}


def bare_is(key: str) -> BeforeValidator:
    """A bare value stands for a mapping with that one key."""
    return BeforeValidator(lambda value: value if isinstance(value, dict) else {key: value})


def one_as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _split(value: Any) -> Any:
    """A command line written as one text is taken apart as a shell would, without being one."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise PydanticCustomError(WRONG_WORD, "{reason}", {"reason": f"is no command line: {error}"}) from None


TEXT = {"type": "string"}
ARGV = {"type": "array", "items": TEXT, "minItems": 1}
Address = Annotated[str, word(words.address)]
Percent = Annotated[float, Field(ge=0, le=100)]
Argument = Annotated[str, word(words.argument)]
CommandLine = Annotated[
    list[Argument], BeforeValidator(_split), Field(min_length=1), WithJsonSchema({"anyOf": [TEXT, ARGV]})
]
Duration = Annotated[
    Any,
    word(words.duration),
    WithJsonSchema({"type": ["string", "number"], "examples": ["2s", "500ms", 1.5]}),
]


class Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
