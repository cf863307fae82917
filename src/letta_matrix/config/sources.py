"""Where settings come from: the configuration file and the environment."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import yaml

from letta_matrix.common.json_fields import items, mapping
from letta_matrix.common.program import starting, typed
from letta_matrix.config.faults import ConfigError, describe
from letta_matrix.config.original import SetBy, apply_original

ENV_PREFIX = "LETTA_MATRIX__"


def read_file(path: Path) -> dict[str, object]:
    """The file's sections, blank ones left out.

    Raises:
        ConfigError: it is not there, cannot be read, or is not YAML with sections.
    """
    try:
        data: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; `{typed(['init'])}` writes one, `{starting()}` needs none"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not a text file in UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML{_yaml_fault(error)}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected sections such as `homeserver:`, got {describe(data)}")
    # A section whose keys are all commented out is blank, and as good as absent.
    return {
        key: value for key, value in cast("dict[str, object]", data).items() if value is not None
    }


def _yaml_fault(error: yaml.YAMLError) -> str:
    """Place and problem, without the line itself: it may hold a token."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return ""
    mark = error.problem_mark
    return f": {error.problem} (line {mark.line + 1}, column {mark.column + 1})"


def apply_environment(data: dict[str, object], env: Mapping[str, str]) -> SetBy:
    """Put the environment's settings into `data`; variables that are set but empty do not count.

    Raises:
        ConfigError: a variable leads nowhere, or its YAML is broken.
    """
    set_by = apply_original(data, env)
    for variable, text in sorted(env.items()):
        if not variable.startswith(ENV_PREFIX) or not text:
            continue
        path = tuple(variable.removeprefix(ENV_PREFIX).lower().split("__"))
        target: object = data
        for depth in range(1, len(path)):
            target, is_new = _inside(target, path[depth - 1], variable)
            if is_new:
                set_by[path[:depth]] = variable
        _set(target, path[-1], _value(text, variable), variable)
        set_by[path] = variable
    return set_by


def in_full(data: dict[str, object]) -> None:
    """Let those of `agents.room_members` who are named without a server, as in `@admin`, have the
    homeserver's."""
    domain = mapping(data.get("homeserver")).get("domain")
    agents = mapping(data.get("agents"))
    members = items(agents.get("room_members"))
    if isinstance(domain, str) and members is not None:
        named = [
            f"{one}:{domain}" if re.fullmatch(r"@[^:\s]+", str(one)) else one for one in members
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
        raise ConfigError(f"{variable}: `{name}` cannot be inside {describe(container)}")
    items = cast("list[object]", container)
    place = int(name) if name.isdecimal() else -1
    if not 0 <= place <= len(items):
        raise ConfigError(f"{variable}: `{name}` should be a place from 0 to {len(items)}")
    if place == len(items):
        items.append({})
    return items, place


def _value(text: str, variable: str) -> object:
    if text[0] not in "[{":
        return text
    try:
        return cast("object", yaml.safe_load(text))
    except yaml.YAMLError:
        raise ConfigError(
            f"{variable}: is not valid YAML, though it starts with {text[0]}"
        ) from None
