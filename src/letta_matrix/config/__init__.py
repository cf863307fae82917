"""Every setting, its default and its environment variable.

`config.yaml` has one section per class below; `LETTA_MATRIX__SECTION__KEY`
overrides a key, and the original Letta Matrix integration's variables stand in
for keys the file does not set.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal, cast
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from letta_matrix.common.loopback import is_loopback
from letta_matrix.config.access import Access, Api, Mcp
from letta_matrix.config.database import Database, with_password
from letta_matrix.config.faults import ConfigError, explain, known_keys
from letta_matrix.config.portals import Portals, PortalSettings
from letta_matrix.config.replica import ReplicaSettings
from letta_matrix.config.runtimes import (
    PID_FILE,
    AppServerRuntime,
    LettaApiRuntime,
    MemoryRuntime,
    OpenAICompatibleRuntime,
    Runtime,
    Runtimes,
)
from letta_matrix.config.sms import SmsSettings, with_own_users, with_users
from letta_matrix.config.sources import apply_environment, in_full, read_file
from letta_matrix.config.types import (
    AbsolutePath,
    Duration,
    FilePath,
    HomeserverAddress,
    HttpAddress,
    ListenHost,
    Number,
    Person,
    Section,
    ServerName,
    Token,
    UserId,
    Whole,
    matches,
    secret_of,
)
from letta_matrix.config.watching import Logging, Telemetry

__all__ = [
    "AppServerRuntime",
    "Config",
    "ConfigError",
    "LettaApiRuntime",
    "MemoryRuntime",
    "OpenAICompatibleRuntime",
    "PortalSettings",
    "Runtime",
    "SmsSettings",
    "load_config",
]

_NOT_IN_THE_FILE = ("directory",)
_MOST_FAULTS = 20
"""That are told: whoever mends those sees the others."""

DEFAULT_ENVELOPE = "[Matrix, {room}, {time}] {name} ({sender}){thread}:"


def _fields_filled_in(template: str) -> str:
    try:
        template.format(room="", time="", name="", sender="", thread="")
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except (ValueError, LookupError, AttributeError):
        parts = [("", "", "", None)]
    if any(not (name or "").isidentifier() or spec or how for _, name, spec, how in parts):
        raise ValueError(
            "should use no fields but {room}, {time}, {name}, {sender} and {thread}, "
            "and {{ }} for braces"
        )
    return template


Envelope = Annotated[str, AfterValidator(_fields_filled_in)]
Role = Literal["block", "user", "admin"]


class Homeserver(Section):
    url: HomeserverAddress = Field(description="base URL of the homeserver's client-server API")
    domain: ServerName = Field(description="server name, the part after the colon in user ids")
    pid_file: FilePath | None = Field(default=None, description=PID_FILE)
    ca_file: FilePath | None = Field(
        default=None, description="certificates (PEM) that count besides the system's"
    )
    admin_username: str | None = Field(
        default=None, description="an admin of the homeserver, where the bridge may use its power"
    )
    admin_password: Token | None = None


class Appservice(Section):
    id: str = "letta-matrix"
    url: HttpAddress = Field(
        default="http://127.0.0.1:29377", description="where the homeserver reaches us"
    )
    hostname: ListenHost = "127.0.0.1"
    port: Whole = Field(default=29377, ge=1, le=65535)
    bot_username: Annotated[
        str, matches(r"[a-z0-9._=/+-]{1,100}", "the localpart of a user id, in small letters")
    ] = "letta"
    bot_displayname: str = "Letta"
    as_token: Token = Field(description="as in the registration the homeserver reads")
    hs_token: Token = Field(description="as in the registration the homeserver reads")
    earlier_as_token: Token | None = None
    earlier_hs_token: Token | None = None


class Agents(Section):
    poll_interval: Duration = Field(default=0.5, gt=0)
    room_name: str = "{name} - Letta Agent Chat"
    room_topic: str = "{name} is a Letta agent. Write here and it answers."
    room_members: list[UserId] = Field(default_factory=list[str])
    room_history: Literal["invited", "joined", "shared"] = Field(
        default="invited",
        description="what of an agent's room those read who come later: from their invitation on, "
        "from their coming on, or all",
    )
    room_version: Whole | None = Field(
        default=None,
        ge=1,
        le=99,
        description="of new agents' rooms; without it the homeserver's own default",
    )
    space_name: str = "Letta Agents"
    removal_listings: Whole = Field(
        default=3, ge=1, description="listings without an agent before it counts"
    )
    removal_grace: Duration = 60.0
    provision_concurrency: Whole = Field(default=6, ge=1, le=32)
    passwords: bool = Field(
        default=False,
        description="agents' accounts have passwords, which homeserver.admin_username sets",
    )
    dev_mode: bool = Field(
        default=False, description="the password is `password`, for a homeserver on this machine"
    )
    allow_paths: list[AbsolutePath] = Field(
        default_factory=list[Path],
        description="what agents of the embedded App Server may use beside their own folders",
    )


class Conversations(Section):
    max_event_age: Duration = 86400.0
    edit_interval: Duration = 1.0
    edits_per_second: Number = Field(default=8.0, gt=0)
    idle_timeout: Duration = Field(default=300.0, gt=0)
    turn_timeout: Duration = Field(default=3600.0, gt=0)
    envelope: Envelope = Field(
        default=DEFAULT_ENVELOPE,
        description="what an agent is told before each message of a room with several people",
    )
    thread_context: Whole = Field(
        default=10,
        ge=0,
        le=50,
        description="messages of a thread that an agent is told when it first comes to it",
    )
    group_context: Whole = Field(
        default=5,
        ge=0,
        le=50,
        description="last messages of a group that an agent is told when it is mentioned there",
    )
    agent_mentions: bool = Field(
        default=False, description="user ids that an agent writes notify those people"
    )
    tool_activity: bool = Field(default=True, description="show which tools an agent uses")
    approval_timeout: Duration = 1800.0
    approvers: Literal["requester", "users", "admins"] = Field(
        default="admins", description="who may answer approvals of `approver_tools`, besides admins"
    )
    approver_tools: list[str] = Field(
        default_factory=list[str], description="tools that others than admins may approve"
    )
    person_waiting: Whole = Field(
        default=50, ge=0, description="messages and commands of one person that wait; 0: no limit"
    )
    person_per_minute: Whole = Field(
        default=60, ge=0, description="new messages and commands of one person; 0: no limit"
    )
    join_messages: Duration = Field(
        default=1.0,
        description="files and words sent within this time are one question; 0: each its own",
    )
    bot_replies: Whole = Field(
        default=8,
        ge=0,
        description="answers in a row to a program that answers at once; 0: no limit",
    )
    max_hops: Whole = Field(
        default=3, ge=0, description="how far messages from agent to agent go on"
    )
    tool_calls_per_minute: Whole = Field(
        default=30, ge=1, description="Matrix tool calls for each agent"
    )
    tool_scopes: list[Literal["read", "write", "rooms", "agents"]] = Field(
        default=["read", "write", "rooms", "agents"],
        description="groups of Matrix tools that agents are offered",
    )
    toolset: Literal["few", "usual", "all"] = Field(
        default="few", description="how many of them agents see at once; one calls the others"
    )
    destructive_tools: bool = Field(
        default=False, description="agents may kick, ban, redact and change power levels"
    )
    max_image_bytes: Whole = Field(
        default=20_000_000, ge=0, description="larger images are not fetched"
    )
    max_image_side: Whole = Field(
        default=1568, ge=64, description="pixels; larger images are downscaled"
    )
    max_text_bytes: Whole = Field(
        default=100_000, ge=0, description="of a file given to an agent as text"
    )


class Config(Section):
    """A whole, valid configuration."""

    homeserver: Homeserver
    appservice: Appservice
    database: Database = Field(default_factory=lambda: Database.model_validate({}))
    runtimes: Runtimes = Field(default_factory=list[Runtime])
    agents: Agents = Field(default_factory=lambda: Agents.model_validate({}))
    conversations: Conversations = Field(default_factory=lambda: Conversations.model_validate({}))
    portals: Portals = Field(default_factory=list[PortalSettings])
    sms: SmsSettings | None = None
    permissions: dict[Person, Role] = Field(default_factory=dict[str, Role])
    api: Api = Field(default_factory=lambda: Api.model_validate({}))
    mcp: Mcp = Field(default_factory=lambda: Mcp.model_validate({}))
    access: Access = Field(default_factory=lambda: Access.model_validate({}))
    logging: Logging = Field(default_factory=lambda: Logging.model_validate({}))
    telemetry: Telemetry = Field(default_factory=lambda: Telemetry.model_validate({}))
    replica: ReplicaSettings = Field(default_factory=lambda: ReplicaSettings.model_validate({}))
    directory: Path = Field(Path(), exclude=True, description="where the file lies")

    _users = model_validator(mode="before")(with_users)
    _own_users = field_validator("sms")(with_own_users)

    @property
    def bridges(self) -> list[PortalSettings]:
        """Every bridge to another network."""
        return [*self.portals, *([self.sms] if self.sms is not None else ())]

    @property
    def bot_user_id(self) -> str:
        return f"@{self.appservice.bot_username}:{self.homeserver.domain}"

    @property
    def listens(self) -> list[tuple[str, int]]:
        """Every host and port that the bridge listens on."""
        api, mcp, appservice = self.api, self.mcp, self.appservice
        places = [(appservice.hostname, appservice.port), (api.hostname, api.port)]
        if mcp.enabled:
            places += [(mcp.hostname, mcp.port), (mcp.hostname, mcp.websocket_port)]
        return places

    @property
    def database_password(self) -> str:
        """ "" where the database asks for none, or another program keeps it (PGPASSFILE)."""
        return secret_of(self.database.password)

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
    in_full(data)
    with_password(data, path)
    known = known_keys(Config)
    faults = [{"type": "extra_forbidden", "loc": (key,)} for key in data if key in _NOT_IN_THE_FILE]
    try:
        config = Config.model_validate({**data, "directory": path.resolve().parent})
    except ValidationError as error:
        faults += cast("list[dict[str, object]]", error.errors())
    else:
        if not faults and (clash := clashes(config)):
            raise ConfigError("\n".join(f"{path}: {one}" for one in clash))
        if not faults:
            return config
    told = [explain(fault, known, path, set_by) for fault in faults[:_MOST_FAULTS]]
    if more := len(faults) - len(told):
        told.append(f"{path}: and {more} faults more")
    raise ConfigError("\n".join(told))


def clashes(config: Config) -> list[str]:
    """What settings of several sections want of each other, and do not have."""
    home, agents = config.homeserver, config.agents
    both = "`homeserver.admin_username` and `homeserver.admin_password`"
    if (home.admin_username is None) != (home.admin_password is None):
        return [f"{both} go together"]
    if agents.passwords and home.admin_username is None:
        return [f"`agents.passwords` needs {both}: only an admin of the homeserver sets passwords"]
    if agents.passwords and agents.dev_mode and not is_loopback(urlsplit(home.url).hostname or ""):
        return [
            "`agents.dev_mode` (DEV_MODE) gives every agent the password `password`: that is for "
            "a homeserver on this machine, see `homeserver.url`"
        ]
    return []
