"""Every setting, its default and its environment variable.

`config.yaml` has one section per class below; `LETTA_MATRIX__SECTION__KEY`
overrides a key, and the original Letta Matrix integration's variables stand in
for keys the file does not set.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

ENV_PREFIX = "LETTA_MATRIX__"
_LEGACY_ENVIRONMENT = {"MATRIX_HOMESERVER_URL": ("homeserver", "url")}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class ConfigError(Exception):
    """The configuration cannot be used; the text names file, key, and what was expected."""


def _seconds(value: object) -> object:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _UNITS[match[2]]
    return value


Duration = Annotated[float, BeforeValidator(_seconds), Field(ge=0)]
"""Seconds; in the file a number of seconds or a text such as `500ms`, `30s`, `24h`."""

Role = Literal["block", "user", "admin"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Homeserver(_Section):
    url: str = Field(description="base URL of the homeserver's client-server API")
    domain: str = Field(description="server name, the part after the colon in user ids")


class Appservice(_Section):
    id: str = "letta-matrix"
    url: str = Field("http://127.0.0.1:29377", description="where the homeserver reaches us")
    hostname: str = "127.0.0.1"
    port: int = Field(29377, ge=1, le=65535)
    bot_username: str = "letta"
    bot_displayname: str = "Letta"
    as_token: SecretStr
    hs_token: SecretStr


class Database(_Section):
    url: str = Field(
        "sqlite:///letta-matrix.db", description="relative SQLite paths start at the config file"
    )


class AppServerRuntime(_Section):
    type: Literal["app_server"] = "app_server"
    name: str = "local"
    url: str = Field("ws://127.0.0.1:4500", description="the App Server's WebSocket address")
    token: SecretStr | None = None
    permission_mode: Literal["standard", "acceptEdits", "plan", "unrestricted"] = "standard"
    request_timeout: Duration = 30.0
    keeper_socket: str = Field("keeper.sock", description="relative paths start at the config file")


class MemoryRuntime(_Section):
    type: Literal["memory"]
    name: str = "memory"
    agents: int = Field(1, ge=0)


Runtime = Annotated[AppServerRuntime | MemoryRuntime, Field(discriminator="type")]


class Agents(_Section):
    poll_interval: Duration = 0.5
    room_name: str = "{name} - Letta Agent Chat"
    room_topic: str = "{name} is a Letta agent. Write here and it answers."
    room_members: list[str] = Field(default_factory=list[str])
    space_name: str = "Letta Agents"
    removal_listings: int = Field(3, ge=1, description="listings without an agent before it counts")
    removal_grace: Duration = 60.0
    provision_concurrency: int = Field(6, ge=1, le=32)


class Conversations(_Section):
    max_event_age: Duration = 86400.0
    edit_interval: Duration = 1.0
    edits_per_second: float = Field(8.0, gt=0)
    idle_timeout: Duration = 300.0
    turn_timeout: Duration = 3600.0


class Api(_Section):
    hostname: str = "127.0.0.1"
    port: int = Field(8004, ge=1, le=65535)
    homeserver_url: str | None = Field(
        None, description="the homeserver as browsers reach it; default: homeserver.url"
    )


class Logging(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Config(_Section):
    """A whole, valid configuration."""

    homeserver: Homeserver
    appservice: Appservice
    database: Database = Field(default_factory=lambda: Database.model_validate({}))
    runtimes: list[Runtime] = Field(default_factory=list[Runtime])
    agents: Agents = Field(default_factory=lambda: Agents.model_validate({}))
    conversations: Conversations = Field(default_factory=lambda: Conversations.model_validate({}))
    permissions: dict[str, Role] = Field(default_factory=dict[str, Role])
    api: Api = Field(default_factory=lambda: Api.model_validate({}))
    logging: Logging = Field(default_factory=lambda: Logging.model_validate({}))
    directory: Path = Field(Path(), exclude=True, description="where the file lies")

    @property
    def bot_user_id(self) -> str:
        return f"@{self.appservice.bot_username}:{self.homeserver.domain}"

    def path(self, name: str) -> Path:
        """A path of the configuration, relative ones taken from the file's own folder."""
        return self.directory / Path(name).expanduser()

    def role_of(self, user_id: str) -> Role:
        """What a person may do: exact id, then domain, then `*`; nobody listed is blocked."""
        domain = user_id.partition(":")[2]
        for key in (user_id, domain, "*"):
            if key in self.permissions:
                return self.permissions[key]
        return "block"


def load_config(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read `path`, apply the environment, validate.

    Raises:
        ConfigError: with every fault, one a line: file, key, what was expected, the nearest key.
    """
    env = os.environ if environment is None else environment
    data = _read(path)
    _apply_legacy(data, env)
    _apply_environment(data, env)
    try:
        return Config.model_validate({**data, "directory": path.resolve().parent})
    except ValidationError as error:
        lines = [_explain(path, fault) for fault in cast("list[dict[str, object]]", error.errors())]
        raise ConfigError("\n".join(lines)) from None


def _read(path: Path) -> dict[str, object]:
    try:
        data: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; `letta-matrix init` writes one, `letta-matrix up` needs none"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected sections such as `homeserver:`, got a {_kind(data)}")
    return cast("dict[str, object]", data)


def _apply_legacy(data: dict[str, object], env: Mapping[str, str]) -> None:
    for variable, (section, key) in _LEGACY_ENVIRONMENT.items():
        if variable in env:
            values = data.setdefault(section, {})
            if isinstance(values, dict):
                cast("dict[str, object]", values).setdefault(key, env[variable])


def _apply_environment(data: dict[str, object], env: Mapping[str, str]) -> None:
    for variable, value in env.items():
        if not variable.startswith(ENV_PREFIX):
            continue
        *sections, key = variable.removeprefix(ENV_PREFIX).lower().split("__")
        target = data
        for section in sections:
            child = target.setdefault(section, {})
            if not isinstance(child, dict):
                raise ConfigError(f"{variable}: {section} is not a section of the configuration")
            target = cast("dict[str, object]", child)
        target[key] = yaml.safe_load(value)


def _explain(path: Path, fault: Mapping[str, object]) -> str:
    where = [str(part) for part in cast("tuple[str | int, ...]", fault["loc"])]
    where = [part for part in where if part not in ("app_server", "memory")]
    key = ".".join(where)
    if fault["type"] == "extra_forbidden":
        nearest = _nearest(where)
        hint = f"; did you mean `{nearest}`?" if nearest else ""
        return f"{path}: unknown key `{key}`{hint}"
    if fault["type"] == "missing":
        return f"{path}: `{key}` is missing{_purpose(where)}"
    message = str(fault["msg"])
    return f"{path}: `{key}`: {message[:1].lower()}{message[1:]} (got a {_kind(fault['input'])})"


def _known_keys() -> dict[str, str]:
    known: dict[str, str] = {}
    for name, field in Config.model_fields.items():
        if name == "directory":
            continue
        known[name] = field.description or ""
        section = field.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            for key, inner in section.model_fields.items():
                known[f"{name}.{key}"] = inner.description or ""
    for runtime in (AppServerRuntime, MemoryRuntime):
        for key, inner in runtime.model_fields.items():
            known.setdefault(f"runtimes.{key}", inner.description or "")
    return known


def _nearest(where: list[str]) -> str | None:
    plain = ".".join(part for part in where if not part.isdigit())
    matches = difflib.get_close_matches(plain, _known_keys(), n=1, cutoff=0.6)
    return matches[0] if matches else None


def _purpose(where: list[str]) -> str:
    purpose = _known_keys().get(".".join(part for part in where if not part.isdigit()), "")
    return f": {purpose}" if purpose else ""


def _kind(value: object) -> str:
    names = {"dict": "section", "list": "list", "str": "text", "int": "number", "NoneType": "blank"}
    name = type(value).__name__
    return names.get(name, name)
