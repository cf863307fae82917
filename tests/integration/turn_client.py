"""Runs one turn in a process of its own, for tests that kill it.

`python -m tests.integration.turn_client '{"url": .., "socket": .., "agent_id": ..,
"conversation_id": .., "message_id": .., "text": .., "state": FILE}'` writes one JSON line per
text delta to stdout and keeps the turn's state in FILE. With `"tool": NAME` it offers that tool
and never answers a call; calls and approvals are a line each too.

With `"keeper": "HOST:PORT"`, `"keeper_token_file"` and `"epoch"` the keeper is elsewhere. The first
approval is allowed then when a line comes on stdin, and a line tells what came of that.
"""

import asyncio
import json
import sys
from pathlib import Path

from tests.integration.runtime_bench import connected

from letta_matrix.common.tools import ToolCall, ToolResult, ToolSpec
from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.app_server.keepers import local_keeper, remote_keeper
from letta_matrix.runtimes.faults import RuntimeFault
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    TextDelta,
    TurnFinished,
    TurnRequest,
    TurnState,
)


async def run(options: dict[str, str]) -> None:
    runtime = _runtime(options)
    if name := options.get("tool"):
        runtime.offer_tools([ToolSpec(name, "waits", {"type": "object"})], _wait)
    await runtime.start()
    request = TurnRequest(
        options["agent_id"], options["conversation_id"], options["message_id"], options["text"]
    )
    state_file = Path(options["state"])

    async def save(state: TurnState) -> None:
        state_file.write_text(json.dumps(dict(state)))

    await connected(runtime)
    async for event in runtime.run_turn(request, None, save):
        if isinstance(event, TextDelta):
            print(json.dumps({"text": event.text}), flush=True)
        elif isinstance(event, ApprovalRequested):
            print(json.dumps({"approval": event.approval_id}), flush=True)
            if "keeper" in options:
                await _answer(runtime, request, event.approval_id)
        elif isinstance(event, TurnFinished):
            print(json.dumps({"finished": event.stop_reason}), flush=True)
    await runtime.close()


def _runtime(options: dict[str, str]) -> AppServer:
    if "keeper" not in options:
        settings = AppServerRuntime.model_validate({"url": options["url"]})
        return AppServer(settings, local_keeper(settings, Path(options["socket"])))
    named = {key: options[key] for key in ("keeper", "keeper_token_file")}
    settings = AppServerRuntime.model_validate(named)
    return AppServer(settings, remote_keeper(settings), int(options["epoch"]))


async def _answer(runtime: AppServer, request: TurnRequest, approval_id: str) -> None:
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await runtime.answer_approval(request, approval_id, allow=True)
    except RuntimeFault as fault:
        print(json.dumps({"fault": str(fault)}), flush=True)
        raise
    print(json.dumps({"allowed": approval_id}), flush=True)


async def _wait(call: ToolCall) -> ToolResult:
    print(json.dumps({"call": call.call_id}), flush=True)
    await asyncio.Event().wait()
    return ToolResult("never")


if __name__ == "__main__":
    asyncio.run(run(json.loads(sys.argv[1])))
