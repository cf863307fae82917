"""Tools that run here and are called by agents, whatever their runtime."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that runs here and that agents may call; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """An agent's call of an offered tool.

    `request_id` is unlike that of any other call, and the same when this one comes again after
    a crash. `call_id` is the model's; it may give it to many calls.
    """

    agent_id: str
    conversation_id: str
    call_id: str
    name: str
    arguments: Mapping[str, object]
    request_id: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the agent is told; `ok` False marks it as an error."""

    text: str
    ok: bool = True


ToolHandler = Callable[[ToolCall], Awaitable[ToolResult]]
"""Runs a call; never raises, and is idempotent by `request_id`."""
