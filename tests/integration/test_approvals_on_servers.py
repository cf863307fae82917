"""An agent that wants to run Bash, on the real homeserver and the real App Server."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.integration.bridge_world import (
    Json,
    Person,
    Room,
    World,
    bridge_on,
    eventually,
    new_person,
)
from tests.integration.runtime_bench import Bench
from tests.servers import Homeserver

from letta_matrix.config import AppServerRuntime
from letta_matrix.runtimes.app_server import AppServer
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo


@asynccontextmanager
async def bridge(
    homeserver: Homeserver, directory: Path, person: Person, bench: Bench
) -> AsyncGenerator[World]:
    """A bridge to the bench's App Server, through its keeper."""
    address = AppServerRuntime.model_validate({"url": bench.url})
    runtime = AppServer(address, bench.socket)
    async with bridge_on(homeserver, directory, person, MemoryRuntime(), runtime) as world:
        yield world


async def asked_for(person: Person, room: Room, command: str) -> str:
    """Have a command wanted; returns the event that asks."""
    await person.send(room.room_id, f"tool:Bash:{command}")

    async def question() -> list[str]:
        return [
            str(event["event_id"])
            for event in await person.timeline(room.room_id)
            if event["sender"] == room.ghost
            and event["content"].get("body", "").startswith("May I run")
            and command in event["content"]["body"]
        ]

    (event_id,) = await eventually(question, bool)
    return event_id


async def react(person: Person, room: Room, event_id: str, key: str) -> None:
    relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
    await person.send_content(room.room_id, {"m.relates_to": relation}, "m.reaction")


async def offered(person: Person, room: Room, event_id: str) -> list[str]:
    """What the agent reacted with to its own question."""
    relations = [
        event["content"].get("m.relates_to", {})
        for event in await person.timeline(room.room_id)
        if event["type"] == "m.reaction" and event["sender"] == room.ghost
    ]
    return [r["key"] for r in relations if r.get("event_id") == event_id]


async def told(person: Person, room: Room, text: str) -> list[Json]:
    """The agent's messages once one of them, complete, has `text`."""

    async def said() -> list[Json]:
        return await person.said_by(room.room_id, room.ghost)

    def is_there(messages: list[Json]) -> bool:
        return any(text in m["content"]["body"] and not m["live"] for m in messages)

    return await eventually(said, is_there, 30)


async def test_bash_asks_first_and_a_restart_changes_nothing(
    homeserver: Homeserver, bench: Bench, tmp_path: Path
) -> None:
    ann, stranger = await new_person(homeserver), await new_person(homeserver, "eve")
    agent = AgentInfo(bench.agent_id, "Ada")
    done = tmp_path / "done"
    await bench.runtime.close()
    async with bridge(homeserver, tmp_path, ann, bench) as world:
        room = await world.find(agent)
        ghost = world.as_user(room.ghost)
        await ghost.call("POST", f"/rooms/{room.room_id}/invite", {"user_id": stranger.user_id})
        await stranger.call("POST", f"/rooms/{room.room_id}/join")
        first = await asked_for(ann, room, f"touch {tmp_path}/denied")
        await eventually(lambda: offered(ann, room, first), lambda keys: len(keys) >= 2)
        await react(ann, room, first, "❌")
        await told(ann, room, "denied by")
        second = await asked_for(ann, room, f"touch {done}")
        await react(stranger, room, second, "✅")
        await asyncio.sleep(1)
        assert not done.exists(), "a stranger's answer counted"
    async with bridge(homeserver, tmp_path, ann, bench):
        await asyncio.sleep(0.5)
        assert not done.exists()
        await react(ann, room, second, "✅")
        said = await told(ann, room, f"allowed by `{ann.user_id}`")
        await eventually(lambda: asyncio.to_thread(done.exists), bool)
        said = await eventually(
            lambda: told(ann, room, "</details>"),
            lambda all_: sum("</details>" in m["content"]["body"] for m in all_) == 2,
        )
        assert not (tmp_path / "denied").exists()
    bodies = [message["content"]["body"] for message in said]
    assert sum("May I run" in body for body in bodies) == 0, "a question was left open"
    assert sum("allowed by" in body for body in bodies) == 1
    assert sum("denied by" in body for body in bodies) == 1
    assert sum(body.startswith("tool said") for body in bodies) == 2
    traces = [m["content"] for m in said if "<details>" in m["content"]["body"]]
    assert len(traces) == 2
    assert all("<details><summary>" in trace["formatted_body"] for trace in traces)
    assert all(trace["msgtype"] == "m.notice" for trace in traces)
