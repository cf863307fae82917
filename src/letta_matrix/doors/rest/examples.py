"""Examples for the OpenAPI document, made of those that fields and parts have."""

from collections.abc import Mapping
from typing import Any, cast

from letta_matrix.operations.turns import TURN_ID

Schema = Mapping[str, Any]

AGENT_ID = "agent-5b1f0c4e-2f0a-4b7e-9f0e-0a8f5b1d7c11"
_EVENT = "$KfSWbdoLZpBf9lhXd6Uv0pzR0KzLGtYtNtTQpx8l2wE"
_ROOM = "!QvR5cQmXhVJzbAtYkS:example.org"
_TIME = 1790000000.0

_BY_NAME: Mapping[str, Any] = {
    "access_token": "lm_...",
    "action": "matrix_send_message",
    "agent_id": AGENT_ID,
    "agent_name": "Ada",
    "alias": "#ada:example.org",
    "answer": "All is well.",
    "answer_event_id": "$ZJ5Xy2Qn6Vb1sT0cQ1mN4gq3dK8wYp7uRfLhEoAiBxM",
    "asked_at": _TIME,
    "at": _TIME,
    "avatar": "mxc://example.org/abc",
    "created_at": _TIME,
    "description": "Knows the archive.",
    "door": "api",
    "event_id": _EVENT,
    "expires_at": _TIME + 900,
    "formatted_time": "2026-09-21 14:13:20",
    "invite": "@ann:example.org",
    "key": "👍",
    "label": "nightly report",
    "matrix_user_id": "@agent_1:example.org",
    "message": "Good **morning**.",
    "name": "Ada",
    "outcome": "ok",
    "password": "...",
    "principal": "token:a1b2c3d4e5f6",
    "reason": "Not on a Friday.",
    "reply_to": _EVENT,
    "requester": "@ann:example.org",
    "room": _ROOM,
    "room_id": _ROOM,
    "room_name": "Ada",
    "runtime": "letta",
    "scope": "read",
    "sender": "@ann:example.org",
    "sent_at": _TIME,
    "thread": _EVENT,
    "time": "2026-09-21T14:13:20Z",
    "timestamp": "2026-09-21T14:13:20+00:00",
    "token": "lm_...",
    "token_id": "a1b2c3d4e5f6",
    "tool": "Bash",
    "topic": "What comes next",
    "turn_id": TURN_ID,
    "url": "mxc://example.org/abc",
    "user_id": "@ann:example.org",
    "version": "0.1.0",
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
_TYPES = {"string": str, "number": float}
_NOTHING = ("", None)
_NULL = {"type": "null"}
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
        options: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
        kinds = {_TYPES.get(str(one.get("type"))) for one in (schema, *options)}
        if type(named := _BY_NAME.get(name)) in kinds:
            return named
        if "default" in schema and schema["default"] not in _NOTHING:
            return schema["default"]
        if options:
            return self.of(options[0], name, depth)
        return self._made(schema, name, depth)

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

    def _made(self, schema: Schema, name: str, depth: int) -> Any:
        kind = schema.get("type", "object")
        if depth > _DEEPEST:
            return _BY_TYPE[kind]
        if kind == "array" and "items" in schema:
            return [self.of(schema["items"], name.removesuffix("s"), depth + 1)]
        if kind == "object" and "properties" in schema:
            fields: Mapping[str, Schema] = schema["properties"]
            # What is "" or null by itself is better not given.
            return {
                called: self.of(field, called, depth + 1)
                for called, field in fields.items()
                if field.get("default", 1) not in _NOTHING
                and (called in schema.get("required", ()) or _NULL not in field.get("anyOf", ()))
            }
        return max(schema.get("minimum", 1), 1) if kind == "integer" else _BY_TYPE[kind]

    def _resolved(self, schema: Schema) -> Schema:
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        return self._schemas[name] if name else schema


def _one(schema: Schema, key: str) -> list[Any]:
    return [schema[key]] if key in schema else []
