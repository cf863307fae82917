"""Hypothesis strategies for what a model may pass to a tool."""

from typing import Any

from hypothesis import strategies as st

_ODD = [
    *("!1:test", "!", "#", "#a:test", "#:", "$1", "$" + "x" * 300, "@a:test", "👍", "%2e%2e/x"),
    *("\ud800", "\x00", "", "../..", "a" * 70_000, "image/png", "text/markdown", "YQ==", "t1-2_0"),
]
STRINGS = st.text(max_size=50) | st.sampled_from(_ODD)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=5,
)


def arguments(schema: dict[str, Any], *rooms: str) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that mostly fit a tool's JSON Schema, and some that are anything at all."""
    fields = {name: _value(name, field, rooms) for name, field in schema["properties"].items()}
    required = {name: fields.pop(name) for name in schema.get("required", [])}
    fitting = st.fixed_dictionaries(required, optional=fields)
    return fitting | fitting | fitting | st.dictionaries(STRINGS, JSON, max_size=3)


def _value(name: str, field: dict[str, Any], rooms: tuple[str, ...]) -> st.SearchStrategy[Any]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "string": st.sampled_from(rooms) if name == "room_id" and rooms else STRINGS,
        "integer": st.integers(0, 60),
        "number": st.floats(0, 1),
        "boolean": st.booleans(),
        "array": st.lists(STRINGS, max_size=4),
    }
    fitting = kinds[field["type"]]
    return st.one_of(fitting, fitting, fitting, STRINGS, JSON)
