"""Every setting, its default and its environment variable.

`config.yaml` has one section per class below; `LETTA_MATRIX__SECTION__KEY`
overrides a key, and the original Letta Matrix integration's variables stand in
for keys the file does not set.
"""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from letta_matrix.config_faults import ConfigError, explain, known_keys
from letta_matrix.config_sources import apply_environment, read_file

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|)")
_UNITS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SERVER_NAME = r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
_USER_ID = rf"@[^:\s]+:{_SERVER_NAME}"

_NOT_IN_THE_FILE = ("directory",)


def _seconds(value: object) -> float:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _UNITS[match[2]]
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf:
        return float(value)
    raise ValueError("should be seconds or a text such as `500ms`, `30s`, `24h`")


def _matches(pattern: str, expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if re.fullmatch(pattern, value) is None:
            raise ValueError(f"should be {expected}")
        return value

    return AfterValidator(check)


def _address(*schemes: str) -> AfterValidator:
    def check(value: str) -> str:
        try:
            parts = urlsplit(value)
            usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f"should be a URL that starts with {schemes[0]}:// or {schemes[1]}://")
        return value.rstrip("/")

    return AfterValidator(check)


def _not_empty(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("should not be empty")
    return value


Duration = Annotated[float, BeforeValidator(_seconds)]
"""Seconds; in the file a number of seconds or a text such as `500ms`, `30s`, `24h`."""

HttpAddress = Annotated[str, _address("http", "https")]
WebSocketAddress = Annotated[str, _address("ws", "wss")]
DatabaseAddress = Annotated[str, _matches(r"sqlite://.*", "sqlite:///FILE")]
ServerName = Annotated[str, _matches(_SERVER_NAME, "a server name such as example.org")]
UserId = Annotated[str, _matches(_USER_ID, "a user id such as @you:example.org")]
Person = Annotated[
    str,
    _matches(
        rf"\*|{_USER_ID}|{_SERVER_NAME}",
        "`*`, a server name, or a user id such as @you:example.org",
    ),
]
Token = Annotated[SecretStr, AfterValidator(_not_empty)]

Role = Literal["block", "user", "admin"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Homeserver(_Section):
    url: HttpAddress = Field(description="base URL of the homeserver's client-server API")
    domain: ServerName = Field(description="server name, the part after the colon in user ids")


class Appservice(_Section):
    id: str = "letta-matrix"
    url: HttpAddress = Field(
        "http://127.0.0.1:29377", description="where the homeserver reaches us"
    )
    hostname: str = "127.0.0.1"
    port: int = Field(29377, ge=1, le=65535)
    bot_username: Annotated[
        str, _matches(r"[a-z0-9._=/+-]+", "the localpart of a user id, in small letters")
    ] = "letta"
    bot_displayname: str = "Letta"
    as_token: Token = Field(description="as in the registration the homeserver reads")
    hs_token: Token = Field(description="as in the registration the homeserver reads")


class Database(_Section):
    url: DatabaseAddress = Field(
        "sqlite:///letta-matrix.db", description="relative SQLite paths start at the config file"
    )


class AppServerRuntime(_Section):
    type: Literal["app_server"] = Field("app_server", description="`app_server` or `memory`")
    name: str = "local"
    url: WebSocketAddress = Field(
        "ws://127.0.0.1:4500", description="the App Server's WebSocket address"
    )
    token: SecretStr | None = None
    permission_mode: Literal["standard", "acceptEdits", "plan", "unrestricted"] = "standard"
    request_timeout: Duration = 30.0
    keeper_socket: str = Field("keeper.sock", description="relative paths start at the config file")


class MemoryRuntime(_Section):
    type: Literal["memory"]
    name: str = "memory"
    agents: int = Field(1, ge=0)


Runtime = Annotated[AppServerRuntime | MemoryRuntime, Field(discriminator="type")]


def _named_apart(runtimes: list[Runtime]) -> list[Runtime]:
    names = [runtime.name for runtime in runtimes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"should each have a `name` of its own; taken twice: {min(twice)}")
    return runtimes


def _kept_apart(runtimes: list[Runtime]) -> list[Runtime]:
    first: dict[Path, int] = {}
    for place, runtime in enumerate(runtimes):
        if not isinstance(runtime, AppServerRuntime):
            continue
        socket = runtime.keeper_socket
        if first.setdefault(Path(socket).expanduser(), place) != place:
            raise ValueError(
                f"should each have a `keeper_socket` of its own; taken twice: {socket}; "
                f"set `runtimes.{place}.keeper_socket`"
            )
    return runtimes


class Agents(_Section):
    poll_interval: Duration = Field(0.5, gt=0)
    room_name: str = "{name} - Letta Agent Chat"
    room_topic: str = "{name} is a Letta agent. Write here and it answers."
    room_members: list[UserId] = Field(default_factory=list[str])
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
    homeserver_url: HttpAddress | None = Field(
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
    runtimes: Annotated[
        list[Runtime], AfterValidator(_named_apart), AfterValidator(_kept_apart)
    ] = Field(default_factory=list[Runtime])
    agents: Agents = Field(default_factory=lambda: Agents.model_validate({}))
    conversations: Conversations = Field(default_factory=lambda: Conversations.model_validate({}))
    permissions: dict[Person, Role] = Field(default_factory=dict[str, Role])
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

    `LETTA_MATRIX__RUNTIMES__0__URL` and the like override a key, also in a list; a value that
    starts with `[` or `{` is read as YAML, an empty one counts as not set.

    Raises:
        ConfigError: with every fault, one a line: file or variable, key, what was expected, the
            nearest key.
    """
    env = os.environ if environment is None else environment
    data = read_file(path)
    set_by = apply_environment(data, env)
    known = known_keys(Config)
    faults = [{"type": "extra_forbidden", "loc": (key,)} for key in data if key in _NOT_IN_THE_FILE]
    try:
        config = Config.model_validate({**data, "directory": path.resolve().parent})
    except ValidationError as error:
        faults += cast("list[dict[str, object]]", error.errors())
    else:
        if not faults:
            return config
    raise ConfigError("\n".join(explain(fault, known, path, set_by) for fault in faults))
