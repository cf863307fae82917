"""Faults of a configuration, put so that a person knows what to write where."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from typing import cast, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from letta_matrix.common.lenient_json import printable

_IN_OUR_WORDS = {
    "model_type": "should be a section",
    "dict_type": "should be a section",
    "model_attributes_type": "should be a section",
    "path_type": "should be a path",
    "int_parsing_size": "should be a smaller number",
}
_NAME = re.compile(r"[\w.-]+")
_CREDENTIALS = re.compile(r"://|:[^@\s]*@")
_LARGE = 10**20
LONGEST_KEY, _LONGEST = 100, 600
"""Characters of the key that a line tells of, and of the whole line."""


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, key, and what was expected, in
    characters that any terminal shows."""

    def __init__(self, text: str) -> None:
        lines = (shortened(printable(line), _LONGEST) for line in text.split("\n"))
        super().__init__("\n".join(lines))


@dataclass(frozen=True)
class Key:
    """A known key: what it is for, whether its value is a secret, and whether it is a section
    with secrets in it, in whose place people put one by mistake."""

    purpose: str
    secret: bool
    around_secrets: bool = False


def known_keys(model: type[BaseModel], prefix: str = "") -> dict[str, Key]:
    """Every key of a configuration by its dotted path; `*` stands for a place in a list."""
    known: dict[str, Key] = {}
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        path = prefix + name
        inside = f"{path}.*." if get_origin(field.annotation) is list else f"{path}."
        within: dict[str, Key] = {}
        for section in _sections(field):
            within = known_keys(section, inside) | within
        is_secret = SecretStr in _types(field.annotation)
        known[path] = Key(_purpose(field), is_secret, any(one.secret for one in within.values()))
        known |= within
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
    return f"{source}: {printable(_complaint(fault, where, known))}"


def _complaint(
    fault: Mapping[str, object], where: tuple[str, ...], known: Mapping[str, Key]
) -> str:
    kind = str(fault["type"])
    if kind in ("extra_forbidden", "invalid_key"):
        # Behind its name stands what was to be its value, where the space is missing.
        name = _NAME.match(where[-1])
        where = (*where[:-1], name[0] if name else "")
    key = shortened(".".join(where), LONGEST_KEY)
    if kind in ("extra_forbidden", "invalid_key"):
        nearest = f"{key}: ..." if _pattern(where) in known else nearest_key(where, known)
        return f"unknown key `{key}`" + (f"; did you mean `{nearest}`?" if nearest else "")
    pattern = _pattern(where)
    entry = known.get(pattern) or known.get(pattern.removesuffix(".*"))
    if kind in ("missing", "union_tag_not_found"):
        purpose = _context(fault, "expected_tags") or (entry.purpose if entry else "")
        return f"`{key}` is missing" + (f": {purpose}" if purpose else "")
    got = "a text" if entry and _may_be_secret(entry, fault) else describe(_input(fault))
    shown = "" if entry and entry.secret else f" (got {got})"
    return f"`{key}` {_expectation(fault)}{shown}"


def _may_be_secret(entry: Key, fault: Mapping[str, object]) -> bool:
    return entry.around_secrets and isinstance(_input(fault), str)


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
    if isinstance(value, int) and abs(value) >= _LARGE:
        return "a large number"
    if not isinstance(value, str | int | float | date | time):
        # What it holds can be long, and written out longer still.
        return "a text" if isinstance(value, bytes) else "a list"
    text = printable(str(value))
    return f"`{text}`" if len(text) <= 40 and not _CREDENTIALS.search(text) else "a text"


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _path(fault: Mapping[str, object]) -> tuple[str, ...]:
    parts = [str(part) for part in cast("tuple[str | int, ...]", fault["loc"])] or [""]
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
    if kind in _IN_OUR_WORDS:
        return _IN_OUR_WORDS[kind]
    message = str(fault["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    message = message.partition(", unable to")[0]
    return message if message.startswith("should ") else f"should be something else: {message}"


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
