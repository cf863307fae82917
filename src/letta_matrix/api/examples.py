"""Examples for the OpenAPI document, made of those that fields and parts have."""

from collections.abc import Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

_BY_NAME: Mapping[str, Any] = {
    "agent_id": "agent-1",
    "alias": "#ada:example.org",
    "event_id": "$1a2b3c",
    "room": "!abc:example.org",
    "room_id": "!abc:example.org",
    "sender": "@ann:example.org",
    "time": "2026-09-21T14:13:20Z",
    "url": "mxc://example.org/abc",
    "user_id": "@ann:example.org",
}
_BY_TYPE: Mapping[str, Any] = {
    "array": [],
    "boolean": True,
    "integer": 1,
    "null": None,
    "number": 1.0,
    "object": {},
    "string": "...",
}
_DEEPEST = 6


class Examples:
    """Makes examples of schemas; `schemas` are those that others refer to."""

    def __init__(self, schemas: Mapping[str, Schema]) -> None:
        self._schemas = schemas

    def of(self, schema: Schema, name: str = "", depth: int = 0) -> Any:
        """A value that is valid: the schema's own example, or one made of its parts."""
        schema = self._resolved(schema)
        for given in (schema.get("examples"), schema.get("enum"), _one(schema, "const")):
            if given:
                return self.whole(schema, given[0])
        if name in _BY_NAME:
            return _BY_NAME[name]
        if "default" in schema and schema["default"] not in ("", None):
            return schema["default"]
        options: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
        if options:
            return self.of(options[0], name, depth)
        return self._made(schema, depth)

    def whole(self, schema: Schema, example: Any) -> Any:
        """An example with the fields that are null in it: FastAPI leaves them out."""
        schema = self._resolved(schema)
        if isinstance(example, list) and "items" in schema:
            return [self.whole(schema["items"], one) for one in cast("list[Any]", example)]
        if not isinstance(example, dict):
            return cast("Any", example)
        fields: Mapping[str, Schema] = schema.get("properties", {})
        given = cast("dict[str, Any]", example)
        missing = [name for name in schema.get("required", []) if name not in given]
        told = {name: self.whole(fields.get(name, {}), value) for name, value in given.items()}
        return {**told, **dict.fromkeys(missing)}

    def _made(self, schema: Schema, depth: int) -> Any:
        kind = schema.get("type", "object")
        if depth > _DEEPEST:
            return _BY_TYPE[kind]
        if kind == "array" and "items" in schema:
            return [self.of(schema["items"], depth=depth + 1)]
        if kind == "object" and "properties" in schema:
            fields: Mapping[str, Schema] = schema["properties"]
            return {name: self.of(field, name, depth + 1) for name, field in fields.items()}
        return max(schema.get("minimum", 1), 1) if kind == "integer" else _BY_TYPE[kind]

    def _resolved(self, schema: Schema) -> Schema:
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        return self._schemas[name] if name else schema


def _one(schema: Schema, key: str) -> list[Any]:
    return [schema[key]] if key in schema else []
