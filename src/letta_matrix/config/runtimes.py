"""Settings of the places where agents live: the section `runtimes`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from letta_matrix.config.types import (
    Duration,
    FilePath,
    HttpAddress,
    PlaceName,
    Section,
    Token,
    WebSocketAddress,
    Whole,
)

PID_FILE = (
    "written by `up`: tells the process that has to listen at `url`; nobody else on this machine "
    "is told the token"
)


class _Runtime(Section):
    speech: bool = Field(
        default=True, description="show in its room what an agent says outside of Matrix's turns"
    )
    speech_interval: Duration = Field(
        default=5.0, gt=0, description="shortest pause between two looks for that"
    )


class AppServerRuntime(_Runtime):
    type: Literal["app_server"] = Field(
        default="app_server",
        description="`app_server`, `letta_api`, `openai_compatible` or `memory`",
    )
    name: str = "local"
    url: WebSocketAddress = Field(
        default="ws://127.0.0.1:4500", description="the App Server's WebSocket address"
    )
    token: SecretStr | None = None
    permission_mode: Literal["strict", "standard", "acceptEdits", "unrestricted"] = Field(
        default="strict", description="which of the App Server's own tools ask first"
    )
    request_timeout: Duration = Field(default=30.0, gt=0)
    keeper_socket: FilePath = Field(
        default="keeper.sock", description="relative paths start at the config file"
    )
    pid_file: FilePath | None = Field(default=None, description=PID_FILE)
    keeper: PlaceName | None = Field(
        default=None,
        description="`HOST:PORT` of a keeper beside the App Server (`letta-matrix keeper "
        "--listen`), `tls://HOST:PORT` where a proxy before it speaks TLS; none is started here",
    )
    keeper_token: Token | None = None
    keeper_token_file: FilePath | None = Field(
        default=None, description="a file with the token of `keeper`, for the bridge's user alone"
    )

    @property
    def address(self) -> str:
        """Where the bridge connects, as it may be shown."""
        return self.keeper or self.shown_url

    @property
    def shown_url(self) -> str:
        """Its `url` without what may be a proxy's key."""
        return self.url.partition("?")[0]

    @property
    def server(self) -> str:
        """What it is called."""
        of = "at" if self.keeper is None else "of the keeper at"
        return f"the App Server {of} {self.address}"

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        tokens = [one for one in (self.keeper_token, self.keeper_token_file) if one is not None]
        if self.keeper is None:
            if tokens:
                raise ValueError("should name a `keeper`, where it has a token for one")
            return self
        if len(tokens) != 1:
            raise ValueError(
                "should have a `keeper_token_file` for its `keeper` (or a `keeper_token`)"
            )
        given = _KEEPERS_OWN & self.model_fields_set
        if needless := sorted(name for name in given if getattr(self, name) is not None):
            raise ValueError(
                f"should not set `{needless[0]}` beside `keeper`: that is the keeper's to know "
                "(`letta-matrix keeper --app-server ...`)"
            )
        return self


_KEEPERS_OWN = {"url", "token", "pid_file", "keeper_socket"}


class LettaApiRuntime(_Runtime):
    type: Literal["letta_api"]
    name: str = "letta"
    url: HttpAddress = Field(
        default="https://api.letta.com", description="Letta Cloud, or a Letta server's REST address"
    )
    api_key: SecretStr | None = None
    request_timeout: Duration = Field(default=30.0, gt=0)


class OpenAICompatibleRuntime(_Runtime):
    type: Literal["openai_compatible"]
    name: str = "openai"
    url: HttpAddress = Field(description="base URL whose `/models` lists the agents, with `/v1`")
    api_key: SecretStr | None = None
    request_timeout: Duration = Field(default=30.0, gt=0)


class MemoryRuntime(_Runtime):
    type: Literal["memory"]
    name: str = "memory"
    agents: Whole = Field(default=1, ge=0, le=100_000)


Runtime = Annotated[
    AppServerRuntime | LettaApiRuntime | OpenAICompatibleRuntime | MemoryRuntime,
    Field(discriminator="type"),
]


def _named_apart(runtimes: list[Runtime]) -> list[Runtime]:
    names = [runtime.name for runtime in runtimes]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"should each have a `name` of its own; taken twice: {min(twice)}")
    return runtimes


def _kept_apart(runtimes: list[Runtime]) -> list[Runtime]:
    first: dict[object, int] = {}
    for place, runtime in enumerate(runtimes):
        if not isinstance(runtime, AppServerRuntime):
            continue
        key, named = "keeper_socket", runtime.keeper_socket
        if runtime.keeper is not None:
            key, named = "keeper", runtime.keeper
        where = named if key == "keeper" else Path(named).expanduser()
        if first.setdefault(where, place) != place:
            raise ValueError(
                f"should each have a `{key}` of its own; taken twice: {named}; "
                f"set `runtimes.{place}.{key}`"
            )
    return runtimes


Runtimes = Annotated[list[Runtime], AfterValidator(_named_apart), AfterValidator(_kept_apart)]
