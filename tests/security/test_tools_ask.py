"""No tool of an App Server that reaches a shell or a file runs before somebody was asked."""

import asyncio
import json
from pathlib import Path

from tests.integration.runtime_bench import Bench, text_of
from tests.security.tricks import READS, WRITES

from letta_matrix.runtimes.protocol import ApprovalRequested

SECRET = "the-secret-itself"
_TURNS = 8


async def denied(bench: Bench, conversation_id: str, call: str, calls: int = 1) -> str:
    """Let the model make a call, or several at once, and deny each; what the agent said in the
    end."""
    events = await bench.answered(bench.request(call, conversation_id), allow=False)
    asked = [event for event in events if isinstance(event, ApprovalRequested)]
    assert len(asked) == calls, f"ran unasked: {call}"
    return text_of(events)


async def test_no_command_runs_unasked(bench: Bench, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    names = {"secret": secret, "folder": tmp_path, "name": tmp_path.name}
    calls = [trick.format(**names) for trick in READS]
    made = [tmp_path / f"made{number}" for number in range(len(WRITES))]
    calls += [trick.format(made=path) for trick, path in zip(WRITES, made, strict=True)]
    assert len(calls) >= 60

    async def in_one_turn(some: list[str]) -> None:
        talk = await bench.runtime.create_conversation(bench.agent_id, "tricks")
        said = await denied(bench, talk, f"tools:Bash:{json.dumps(some)}", len(some))
        assert SECRET not in said

    turns = [calls[first::_TURNS] for first in range(_TURNS)]
    await asyncio.gather(*map(in_one_turn, turns))
    assert [path for path in made if path.exists()] == []


async def test_no_file_is_read_or_written_unasked(bench: Bench, tmp_path: Path) -> None:
    secret, made = tmp_path / "secret", tmp_path / "made"
    secret.write_text(SECRET)
    calls = {
        "Read": {"file_path": str(secret)},
        "Write": {"file_path": str(made), "content": "x"},
        "Edit": {"file_path": str(secret), "old_string": "the", "new_string": "a"},
        "Monitor": {"command": f"cat {secret}", "description": "x", "persistent": False},
    }
    for tool, arguments in calls.items():
        said = await denied(bench, bench.conversation_id, f"tool:{tool}:{json.dumps(arguments)}")
        assert SECRET not in said
    assert (secret.read_text(), made.exists()) == (SECRET, False)


async def test_no_list_that_agents_share_is_used_unasked(bench: Bench) -> None:
    """The App Server has one list of tasks for all agents, rooms and people."""
    calls = {
        "TaskCreate": {"subject": "x", "description": "x", "activeForm": "x"},
        "TaskList": {},
        "TaskGet": {"taskId": "1"},
        "TaskUpdate": {"taskId": "1", "status": "completed"},
    }
    for tool, arguments in calls.items():
        await denied(bench, bench.conversation_id, f"tool:{tool}:{json.dumps(arguments)}")
