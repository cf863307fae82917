"""What a tool, an operation or an endpoint takes, from its JSON Schema."""

import json
from collections.abc import Mapping
from typing import Any

from docsite.markdown import code, table

Schema = Mapping[str, Any]
HEAD = ("argument", "type", "default", "what it is")


def arguments(schema: Schema) -> str:
    """A table of the properties of an object; "" for none."""
    needed, defined = schema.get("required", []), schema.get("$defs", {})
    fields: Mapping[str, Schema] = schema.get("properties", {})
    rows = [
        (
            code(name),
            kind(field, defined),
            "required" if name in needed else default(field),
            str(field.get("description", "")),
        )
        for name, field in fields.items()
        if name != "transaction_id"
    ]
    return table(HEAD, rows) if rows else ""


def default(field: Schema) -> str:
    """Its default as it is written, "" for none."""
    value = field.get("default")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value in (None, "", [], {}) else code(json.dumps(value, ensure_ascii=False))


def kind(field: Schema, defined: Mapping[str, Schema]) -> str:
    """What values it takes, in words."""
    if "$ref" in field:
        return kind(defined[str(field["$ref"]).rsplit("/", 1)[-1]], defined)
    if "enum" in field:
        return ", ".join(code(str(one)) for one in field["enum"] if one != "")
    if "const" in field:
        return code(str(field["const"]))
    if "anyOf" in field:
        kinds = [kind(one, defined) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if field.get("type") == "array":
        least, most = field.get("minItems"), field.get("maxItems")
        return f"list of {kind(field.get('items', {}), defined)}{_between(least, most)}"
    return f"{field.get('type', 'any')}{_limits(field)}"


def _limits(field: Schema) -> str:
    least = field.get("minimum", field.get("exclusiveMinimum"))
    most = field.get("maximum", field.get("exclusiveMaximum"))
    return _between(least, most)


def _between(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f", {_number(least)} to {_number(most)}"
    if most is not None:
        return f", at most {_number(most)}"
    return f", at least {_number(least)}" if least is not None else ""


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else f"{value:,}"
