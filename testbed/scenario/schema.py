"""The JSON Schema of the scenario file, for editors and for `testbed schema`."""

from __future__ import annotations

from typing import Any

from testbed.scenario.model import ScenarioModel, VariantModel


def scenario_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) with a description of every key."""
    schema = ScenarioModel.model_json_schema(ref_template="#/$defs/{model}")
    variant = VariantModel.model_json_schema(ref_template="#/$defs/{model}")
    schema.setdefault("$defs", {}).update(variant.pop("$defs", {}))
    schema["properties"]["variants"]["additionalProperties"] = {"anyOf": [_overriding(variant), {"type": "null"}]}
    # A key that every variant sets itself need not stand at the top.
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _overriding(variant: dict[str, Any]) -> dict[str, Any]:
    """A variant's own keys: any may be null, and a mapping may hold any part of what it overrides."""
    properties = {}
    for name, key in variant["properties"].items():
        described = {"description": key.get("description", ""), "title": key.get("title", name)}
        if name in ("sites", "links", "tunnel", "topology"):
            properties[name] = described | ({} if name == "topology" else {"type": ["object", "null"]})
        else:
            properties[name] = described | {"anyOf": [key, {"type": "null"}]}
    return {"type": "object", "additionalProperties": False, "properties": properties}
