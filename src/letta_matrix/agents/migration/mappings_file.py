"""The original integration's `agent_user_mappings.json`: which user and which room an agent had."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from letta_matrix.common.json_fields import items
from letta_matrix.common.lenient_json import printable, whole_text

_LARGEST = 32 * 2**20
_LONGEST_ID = 255
_USER_ID = re.compile(r"@[^:\s]+:\S+")
_ROOM_ID = re.compile(r"![^\s/]+")
_FIELDS = {"agent_id", "agent_name", "matrix_user_id", "matrix_password", "room_id"}


class NoMappings(Exception):
    """The file as a whole cannot be used; one line that says why."""


@dataclass(frozen=True, slots=True)
class OldMapping:
    """What the file says of one agent; "" for what it does not say. `place` counts from 1."""

    place: int
    agent_id: str
    name: str = ""
    user_id: str = ""
    room_id: str = ""
    password: str = field(default="", repr=False)


class _Object(dict[str, object]):
    """A JSON object that remembers names which it has twice."""

    def __init__(self, pairs: list[tuple[str, object]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def read_mappings(file: Path) -> tuple[list[OldMapping], list[str]]:
    """The mappings of a file, in its order, and a line for each entry that is none. Nothing of
    what an entry holds is shown: there are passwords. Raises NoMappings."""
    try:
        if not file.is_file():
            raise NoMappings("there is no such file")
        if file.stat().st_size > _LARGEST:
            raise NoMappings(f"more than {_LARGEST >> 20} MiB: no agent_user_mappings.json")
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise NoMappings(f"cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise NoMappings("is not text in UTF-8") from None
    entries = _entries(_parsed(text))
    if entries and not any(isinstance(one, dict) and _FIELDS & one.keys() for _, one in entries):
        raise NoMappings(
            "none of its entries has a field of agent_user_mappings.json: is it another file?"
        )
    found: list[OldMapping] = []
    faults: list[str] = []
    for place, (key, entry) in enumerate(entries, 1):
        read = _mapping(place, key, entry)
        if isinstance(read, str):
            faults.append(f"entry {place}{_named(key)}: {read}")
        else:
            found.append(read)
    return found, faults


def _parsed(text: str) -> object:
    if not text.strip():
        raise NoMappings("is empty")
    try:
        return json.loads(text, object_pairs_hook=_Object)
    except RecursionError:
        raise NoMappings("is not the file: nested too deeply") from None
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
            raise NoMappings(
                f"ends in the middle (line {error.lineno}): copy the whole of it"
            ) from None
        raise NoMappings(
            f"is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except ValueError:
        raise NoMappings("is not valid JSON: a number with thousands of digits") from None


def _entries(data: object) -> list[tuple[str, object]]:
    """Every entry with the name that it is filed under, "" in a list."""
    if isinstance(data, _Object):
        return data.pairs
    if (listed := items(data)) is not None:
        return [("", one) for one in listed]
    raise NoMappings("expected an object with an entry for each agent, or a list of them")


def _mapping(place: int, key: str, entry: object) -> OldMapping | str:
    """What an entry says, or what is wrong with it."""
    if not isinstance(entry, dict):
        return "expected an object"
    fields = cast("dict[str, object]", entry)
    texts = {name: fields.get(name) for name in _FIELDS}
    odd = [name for name, value in texts.items() if not isinstance(value, str | None)]
    if odd:
        return f"{', '.join(sorted(odd))}: expected a text"
    given = {name: whole_text(str(value or "")) for name, value in texts.items()}
    agent_id = given["agent_id"] or key
    if not agent_id:
        return "it does not say whose it is (agent_id)"
    if key and agent_id != key:
        return "it has another agent_id than the one that it is filed under: make them the same"
    if agent_id != printable(agent_id) or len(agent_id) > _LONGEST_ID:
        return "its agent_id is no id of an agent"
    if given["matrix_user_id"] and not _fits(_USER_ID, given["matrix_user_id"]):
        return "its matrix_user_id is no user id (@name:server)"
    if given["room_id"] and not _fits(_ROOM_ID, given["room_id"]):
        return "its room_id is no room id (!id:server)"
    return OldMapping(
        place,
        agent_id,
        given["agent_name"],
        given["matrix_user_id"],
        given["room_id"],
        given["matrix_password"],
    )


def _fits(kind: re.Pattern[str], text: str) -> bool:
    is_plain = text == printable(text) and len(text.encode()) <= _LONGEST_ID
    return is_plain and kind.fullmatch(text) is not None


def _named(key: str) -> str:
    return f" ({printable(key[:_LONGEST_ID])})" if key else ""
