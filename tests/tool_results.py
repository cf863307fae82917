"""Whether a tool's result is what its schema says."""

import copy
from collections.abc import Mapping
from typing import Any

import jsonschema

from letta_matrix.common.json_fields import items, mapping
from letta_matrix.operations.toolbox.tool import Tool


def assert_declared(tool: Tool[Any], result: Mapping[str, object]) -> None:
    """The result fits the tool's output schema and has nothing beside it."""
    schema = copy.deepcopy(tool.results)
    _close(schema)
    jsonschema.validate(dict(result), schema, jsonschema.Draft202012Validator)


def _close(schema: Any) -> None:
    """Allow no undeclared properties, at any depth."""
    node = mapping(schema)
    for part in [*node.values(), *(items(schema) or [])]:
        _close(part)
    if node.get("type") == "object" and "properties" in node:
        schema.setdefault("additionalProperties", False)
