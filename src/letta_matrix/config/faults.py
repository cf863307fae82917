"""Faults of a configuration, put so that a person knows what to write where."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, key, and what was expected."""


@dataclass(frozen=True)
class Key:
    """A known key: what it is for, and whether its value may be shown."""

    purpose: str
    secret: bool


def known_keys(model: type[BaseModel], prefix: str = "") -> dict[str, Key]:
    """Every key of a configuration by its dotted path; `*` stands for a place in a list."""
    known: dict[str, Key] = {}
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        path = prefix + name
        known[path] = Key(_purpose(field), SecretStr in _types(field.annotation))
        for section in _sections(field):
            inside = f"{path}.*." if get_origin(field.annotation) is list else f"{path}."
            known |= {key: known.get(key, one) for key, one in known_keys(section, inside).items()}
    return known


def explain(
    fault: Mapping[str, object],
    known: Mapping[str, Key],
    file: Path,
    variables: Mapping[tuple[str, ...], str],
) -> str:
    """One line for one of pydantic's errors: where from, which key, what was expected.

    `variables` names the environment variable behind each path that the file did not set.
    """
    where = _path(fault)
    source = next(
        (variables[where[:end]] for end in range(len(where), 0, -1) if where[:end] in variables),
        str(file),
    )
    return f"{source}: {_complaint(fault, where, known)}"


def _complaint(
    fault: Mapping[str, object], where: tuple[str, ...], known: Mapping[str, Key]
) -> str:
    key = ".".join(where)
    kind = str(fault["type"])
    if kind in ("extra_forbidden", "invalid_key"):
        nearest = nearest_key(where, known)
        return f"unknown key `{key}`" + (f"; did you mean `{nearest}`?" if nearest else "")
    entry = known.get(_pattern(where))
    if kind in ("missing", "union_tag_not_found"):
        purpose = _context(fault, "expected_tags") or (entry.purpose if entry else "")
        return f"`{key}` is missing" + (f": {purpose}" if purpose else "")
    shown = "" if entry and entry.secret else f" (got {describe(_input(fault))})"
    return f"`{key}` {_expectation(fault)}{shown}"


def nearest_key(where: tuple[str, ...], known: Mapping[str, Key]) -> str | None:
    """The known key that was probably meant: beside it, else anywhere, else of the same name."""
    *parents, name = where
    parent, wanted = _pattern(tuple(parents)), _pattern(where)
    # It can be the key of another kind of entry in the same list.
    others = [key for key in known if key != wanted]
    beside = {key.rpartition(".")[2]: key for key in others if key.rpartition(".")[0] == parent}
    if close := difflib.get_close_matches(name, beside, n=1):
        return ".".join([*parents, close[0]])
    if close := difflib.get_close_matches(
        wanted, others, n=1, cutoff=0.85 if "*" in wanted else 0.75
    ):
        return close[0]
    return next((key for key in others if key.rpartition(".")[2] == name), None)


def describe(value: object) -> str:
    """A wrong value for an error message; nothing of it that could be a credential."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a section"
    if isinstance(value, list):
        return "a list"
    text = str(value)
    return f"`{text}`" if len(text) <= 40 and "://" not in text else "a text"


def _path(fault: Mapping[str, object]) -> tuple[str, ...]:
    parts = [str(part) for part in cast("tuple[str | int, ...]", fault["loc"])]
    if parts[-1] == "[key]":
        parts.pop()
    if parts[0] == "runtimes" and len(parts) > 2:
        del parts[2]  # pydantic puts the runtime's type between its place and its keys
    if str(fault["type"]).startswith("union_tag"):
        parts.append(str(_context(fault, "discriminator")).strip("'"))
    return tuple(parts)


def _input(fault: Mapping[str, object]) -> object:
    return _context(fault, "tag") or fault["input"]


def _expectation(fault: Mapping[str, object]) -> str:
    kind = str(fault["type"])
    if kind == "union_tag_invalid":
        return f"should be one of {_context(fault, 'expected_tags')}"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "should be a section"
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return message.partition(", unable to")[0]


def _context(fault: Mapping[str, object], name: str) -> str:
    context = cast("Mapping[str, object]", fault.get("ctx") or {})
    return str(context.get(name, ""))


def _pattern(where: tuple[str, ...]) -> str:
    return ".".join("*" if part.isdigit() else part for part in where)


def _purpose(field: FieldInfo) -> str:
    if field.description:
        return field.description
    for section in _sections(field):
        required = [name for name, one in section.model_fields.items() if one.is_required()]
        if required:
            return f"a section with {', '.join(f'`{name}`' for name in required)}"
    return ""


def _sections(field: FieldInfo) -> list[type[BaseModel]]:
    types = _types(field.annotation)
    return [one for one in types if isinstance(one, type) and issubclass(one, BaseModel)]


def _types(annotation: object) -> list[object]:
    inner = get_args(annotation)
    return [one for part in inner for one in _types(part)] if inner else [annotation]
