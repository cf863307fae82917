"""What a schedule tells an agent to run, in conversations that nobody has opened, asks."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.runtime_bench import Bench, Client
from tests.waiting import eventually


@pytest.mark.parametrize("where", ["new", "default", "never used"])
async def test_a_schedule_runs_nothing_unasked(bench: Bench, tmp_path: Path, where: str) -> None:
    made, name = tmp_path / "made", f"touches {tmp_path}"
    scope = {"agent_id": bench.agent_id, "conversation_id": where}
    if where == "never used":
        scope["conversation_id"] = await bench.runtime.create_conversation(bench.agent_id, where)

    def waits(frame: dict[str, Any]) -> bool:
        pending = frame.get("device_status", {}).get("pending_control_requests")
        return str(made) in json.dumps(pending)

    async with Client(bench) as other:
        task = {"name": name, "description": "d", "cron": "0 0 1 1 *", "recurring": True}
        added = await other.ask("cron_add", **scope, **task, prompt=f"tool:Bash:touch {made}")
        await other.ask("cron_trigger", task_id=added["task"]["id"])
        if where == "new":
            scope["conversation_id"] = await _made(other, name)
        # Who opens the conversation sees the question, and names no mode.
        assert (await other.ask("runtime_start", **scope))["success"]
        await other.until(0, waits)
        await other.ask("abort_message", runtime=scope)
        await other.ask("cron_delete", task_id=added["task"]["id"])
    assert not made.exists()


async def _made(client: Client, name: str) -> str:
    """The conversation that a schedule has made."""

    async def found() -> str:
        query = {"agent_id": client.bench.agent_id, "limit": 50}
        listed = await client.ask("conversation_list", query=query)
        return next((one["id"] for one in listed["conversations"] if one["summary"] == name), "")

    return await eventually(found)
