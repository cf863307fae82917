"""Hypothesis strategies for what a model may pass to a tool."""

from collections.abc import Callable, Sequence
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


def arguments(
    schema: dict[str, Any], *rooms: str, **known: Sequence[str]
) -> st.SearchStrategy[dict[str, Any]]:
    """Arguments that mostly fit a tool's JSON Schema, and some that are anything at all. `known`
    are values, by argument, that exist."""
    known = {"room_id": rooms, **known}
    fields = {
        name: _value(field, known.get(name, ())) for name, field in schema["properties"].items()
    }
    required = {name: fields.pop(name) for name in schema.get("required", [])}
    fitting = st.fixed_dictionaries(required, optional=fields)
    return fitting | fitting | fitting | st.dictionaries(STRINGS, JSON, max_size=3)


def _value(field: dict[str, Any], known: Sequence[str]) -> st.SearchStrategy[Any]:
    fitting = st.sampled_from(known) if known else _fitting(field)
    return st.one_of(fitting, fitting, fitting, STRINGS, JSON)


def _fitting(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in field:
        return st.sampled_from(field["enum"])
    if "anyOf" in field:
        return st.one_of(*map(_fitting, field["anyOf"]))
    least, most = field.get("minimum", 0), field.get("maximum", 60)
    kinds: dict[str, Callable[[], st.SearchStrategy[Any]]] = {
        "string": lambda: _texts(field),
        "integer": lambda: st.integers(least, most),
        "number": lambda: st.floats(least, min(most, max(least, 1))),
        "boolean": st.booleans,
        "null": st.none,
        "object": lambda: st.dictionaries(STRINGS, JSON, max_size=3),
        "array": lambda: st.lists(
            _fitting(field["items"]),
            min_size=field.get("minItems", 0),
            max_size=min(field.get("maxItems", 4), 4),
        ),
    }
    return kinds[field["type"]]()


def _texts(field: dict[str, Any]) -> st.SearchStrategy[str]:
    if pattern := str(field.get("pattern", "")):
        return st.from_regex(pattern) | STRINGS
    if "const" in field:
        return st.just(field["const"])
    longest = field.get("maxLength", 50)
    least = field.get("minLength", 0)
    return st.text(min_size=least, max_size=max(least, min(longest, 50))) | STRINGS
