"""letta-matrix with in-memory agents that do what they are told.

Runs as `python -m tests.stub_agents CONFIG`. The first word of a message decides:

    slow:N           N words, one every 0.1 s, as the stub model says them
    approval         asks whether a tool may run; the reply tells when it asked and was answered
    held:PATH        an echo, as soon as there is such a file
    tool:SECONDS     a tool that takes so long; the reply tells when it returned

and anything else is echoed. Times in replies are `time.monotonic()` in seconds, which all
processes of a machine share.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.scripts import DONE
from tests.stub_model import WORD_DELAY

from letta_matrix.app import bridge
from letta_matrix.config import MemoryRuntime, Runtime, load_config
from letta_matrix.runtimes import memory
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    AgentRuntime,
    ApprovalRequested,
    TextDelta,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnRequest,
)

Steps = Iterable[TurnEvent | float]

_TOOL = "Bash"
_LOOK = 0.05
"""Seconds from one look at a gate to the next."""


def perform(request: TurnRequest) -> Steps:
    """The script of every agent."""
    word, _, argument = request.text.split()[0].partition(":")
    match word:
        case "slow":
            yield from _slow(int(argument))
        case "approval":
            yield from _approval(request)
        case "held":
            yield from _held(request, Path(argument))
        case "tool":
            yield from _tool(request, float(argument))
        case _:
            yield from memory.echo(request)


def _slow(words: int) -> Steps:
    for number in range(1, words + 1):
        yield TextDelta("0", f"word{number} ")
        yield WORD_DELAY
    yield DONE


def _approval(request: TurnRequest) -> Steps:
    asked = time.monotonic()
    yield ApprovalRequested(f"approve-{request.message_id}", _TOOL, {"command": "true"})
    yield TextDelta("0", f"asked {asked:.6f} answered {time.monotonic():.6f}")
    yield DONE


def _held(request: TurnRequest, gate: Path) -> Steps:
    while not gate.exists():
        yield _LOOK
    yield from memory.echo(request)


def _tool(request: TurnRequest, seconds: float) -> Steps:
    call_id = f"call-{request.message_id}"
    yield ToolStarted(call_id, _TOOL, '{"command": "true"}')
    yield seconds
    yield ToolReturned(call_id, ok=True, output="done")
    yield TextDelta("0", f"returned {time.monotonic():.6f}")
    yield DONE


def _make_runtime(settings: Runtime, *_: object) -> AgentRuntime:
    assert isinstance(settings, MemoryRuntime)
    runtime = memory.MemoryRuntime(settings.name, script=perform)
    for number in range(1, settings.agents + 1):
        # Not the ids of others, whose ghosts this homeserver may know.
        runtime.add(AgentInfo(f"agent-{number:08d}-{settings.name}", f"Scripted {number}"))
    return runtime


if __name__ == "__main__":
    bridge.make_runtime = _make_runtime
    asyncio.run(bridge.run(load_config(Path(sys.argv[1]))))
