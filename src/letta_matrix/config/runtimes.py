"""Settings of the places where agents live: the section `runtimes`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from letta_matrix.config.types import (
    Duration,
    FilePath,
    HttpAddress,
    Section,
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
    request_timeout: Duration = 30.0
    keeper_socket: FilePath = Field(
        default="keeper.sock", description="relative paths start at the config file"
    )
    pid_file: FilePath | None = Field(default=None, description=PID_FILE)


class LettaApiRuntime(_Runtime):
    type: Literal["letta_api"]
    name: str = "letta"
    url: HttpAddress = Field(
        default="https://api.letta.com", description="Letta Cloud, or a Letta server's REST address"
    )
    api_key: SecretStr | None = None
    request_timeout: Duration = 30.0


class OpenAICompatibleRuntime(_Runtime):
    type: Literal["openai_compatible"]
    name: str = "openai"
    url: HttpAddress = Field(description="base URL whose `/models` lists the agents, with `/v1`")
    api_key: SecretStr | None = None
    request_timeout: Duration = 30.0


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


Runtimes = Annotated[list[Runtime], AfterValidator(_named_apart), AfterValidator(_kept_apart)]
