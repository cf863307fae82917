"""Where settings come from: the configuration file and the environment."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from letta_matrix.common.json_fields import items, mapping
from letta_matrix.common.program import starting, typed
from letta_matrix.config.faults import LONGEST_KEY, ConfigError, describe, shortened
from letta_matrix.config.original import SetBy, apply_original
from letta_matrix.config.yaml_text import YamlFault, parse, read

ENV_PREFIX = "LETTA_MATRIX__"
_BARE = re.compile(r"@[^:\s]+")
_LONGEST_PLACE = 5
"""Digits of a place in a list."""


def read_file(path: Path) -> dict[str, object]:
    """The file's sections, blank ones left out.

    Raises:
        ConfigError: it is not there, cannot be read, or is not YAML with sections.
    """
    try:
        data = read(path)
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; `{typed(['init'])}` writes one, `{starting()}` needs none"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a text file in UTF-8") from None
    except YamlFault as fault:
        raise ConfigError(f"{path}: is not valid YAML: {fault}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected sections such as `homeserver:`, got {describe(data)}")
    # A section whose keys are all commented out is blank, and as good as absent.
    return {
        key: value for key, value in cast("dict[str, object]", data).items() if value is not None
    }


def apply_environment(data: dict[str, object], env: Mapping[str, str]) -> SetBy:
    """Put the environment's settings into `data`; variables that are set but empty do not count.

    Raises:
        ConfigError: a variable leads nowhere, or its YAML is broken.
    """
    set_by = apply_original(data, env)
    for path, name in sorted(_paths(env), key=_order):
        variable = shortened(name, LONGEST_KEY)
        target: object = data
        for depth in range(1, len(path)):
            target, is_new = _inside(target, path[depth - 1], variable)
            if is_new:
                set_by[path[:depth]] = variable
        _set(target, path[-1], _value(env[name], variable), variable)
        set_by[path] = variable
    return set_by


def _paths(env: Mapping[str, str]) -> Iterator[tuple[tuple[str, ...], str]]:
    for variable, text in env.items():
        if variable.startswith(ENV_PREFIX) and text:
            yield tuple(variable.removeprefix(ENV_PREFIX).lower().split("__")), variable


def _order(one: tuple[tuple[str, ...], str]) -> list[tuple[int, str]]:
    """Sections before what is in them, and the tenth place of a list after the ninth."""
    return [(len(part) if part.isdecimal() else 0, part) for part in one[0]]


def in_full(data: dict[str, object]) -> None:
    """Let those of `agents.room_members` who are named without a server, as in `@admin`, have the
    homeserver's."""
    domain = mapping(data.get("homeserver")).get("domain")
    agents = mapping(data.get("agents"))
    members = items(agents.get("room_members"))
    if isinstance(domain, str) and members is not None:
        named = [
            f"{one}:{domain}" if isinstance(one, str) and _BARE.fullmatch(one) else one
            for one in members
        ]
        data["agents"] = {**agents, "room_members": named}


def _inside(container: object, name: str, variable: str) -> tuple[object, bool]:
    """What stands under `name`, and whether it was put there just now."""
    if isinstance(container, dict):
        section = cast("dict[str, object]", container)
        is_new = section.get(name) is None
        if is_new:
            section[name] = {}
        return section[name], is_new
    items, place = _place(container, name, variable)
    return items[place], False


def _set(container: object, name: str, value: object, variable: str) -> None:
    if isinstance(container, dict):
        container[name] = value
        return
    items, place = _place(container, name, variable)
    items[place] = value


def _place(container: object, name: str, variable: str) -> tuple[list[object], int]:
    """A list and the place `name` in it; one past its end makes the list longer."""
    if not isinstance(container, list):
        # It may be a section's, with a secret in it.
        what = "a text" if isinstance(container, str) else describe(container)
        raise ConfigError(f"{variable}: `{shortened(name, LONGEST_KEY)}` cannot be inside {what}")
    items = cast("list[object]", container)
    place = int(name) if name.isdecimal() and len(name) <= _LONGEST_PLACE else -1
    if not 0 <= place <= len(items):
        shown = shortened(name, LONGEST_KEY)
        raise ConfigError(f"{variable}: `{shown}` should be a place from 0 to {len(items)}")
    if place == len(items):
        items.append({})
    return items, place


def _value(text: str, variable: str) -> object:
    if text[0] not in "[{":
        return text
    try:
        return parse(text)
    except YamlFault as fault:
        raise ConfigError(
            f"{variable}: is not valid YAML, though it starts with {text[0]}: {fault}"
        ) from None
