"""What stays when the bridge, its database or its configuration changes under the agents."""

import asyncio
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import DATABASE, Json, Person, bridge_on, new_agent
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.operations.toolbox.ledger import CANCELLED
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.database import Database, database_url


def forget(directory: Path) -> None:
    """Lose the database."""
    for file in directory.glob(f"{DATABASE}*"):
        file.unlink()


async def test_a_restart_writes_nothing_but_ping_and_wake_and_ends_what_was_begun(
    homeserver: Homeserver, tmp_path: Path, ann: Person, bob: Person
) -> None:
    runtime, agents = MemoryRuntime(script=obey), [new_agent(f"Agent {n}") for n in range(3)]
    # Whom an operator lists and who is not there harms nobody.
    people = [ann.user_id, "@nobody_ever:localhost", "@far:unreachable.invalid"]
    members: Json = {"agents": {"room_members": people}}
    async with bridge_on(homeserver, tmp_path, ann, runtime, **members) as world:
        rooms = await asyncio.gather(*map(world.meet, agents))
        await ann.send(rooms[0].room_id, "hello")
        assert await ann.answers(rooms[0], 1) == ["echo: hello"]
        await world.ready()
        assert (await world.health())["homeserver_writes"] > 20
    async with bridge_on(homeserver, tmp_path, ann, runtime, **members) as world:
        health = await world.health()
        assert health["homeserver_writes"] == health["counters"]["pings"] + 1
        assert health["agents"] == 3
        await ann.send(rooms[0].room_id, "remember me?")
        assert (await ann.answers(rooms[0], 2))[1] == "echo: remember me?"
        half_way = new_agent("Halfway")
        runtime.add(half_way)

        async def known() -> int:
            return int((await world.health())["agents"])

        await eventually(known, lambda count: count == 4)
    members["agents"]["room_members"].append(bob.user_id)
    async with bridge_on(homeserver, tmp_path, ann, runtime, **members) as world:
        room = await world.find(half_way)
        await ann.send(room.room_id, "hello")
        assert await ann.answers(room, 1) == ["echo: hello"]
        aliases = await world.bot.get(f"/rooms/{quote(room.room_id)}/aliases")
        assert aliases["aliases"] == [f"#{room.ghost[1:]}"]
        space = (await ann.get(f"/directory/room/{quote('#letta_agents:localhost')}"))["room_id"]
        wanted = {space, room.room_id, *(one.room_id for one in rooms)}

        async def joined() -> set[str]:
            return set((await bob.get("/joined_rooms"))["joined_rooms"])

        await eventually(joined, lambda found: wanted <= found)


async def test_a_lost_and_an_old_database_answer_nothing_twice(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    runtime = MemoryRuntime(script=obey)
    said = ["echo: said before"]
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        room = await world.meet()
        await ann.send(room.room_id, "said before")
        assert await ann.answers(room, 1) == said
        await world.ready()
    shutil.copy(tmp_path / DATABASE, tmp_path / "backup")
    async with bridge_on(homeserver, tmp_path, ann, runtime):
        await ann.send(room.room_id, "hello")
        said += ["echo: hello"]
        assert await ann.answers(room, 2) == said
    forget(tmp_path)
    shutil.copy(tmp_path / "backup", tmp_path / DATABASE)
    async with bridge_on(homeserver, tmp_path, ann, runtime):
        await ann.send(room.room_id, "again")
        said += ["echo: again"]
        assert await ann.answers(room, 3) == said
    forget(tmp_path)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        assert (await world.find(room.agent)).room_id == room.room_id
        await world.ready()
        await ann.send(room.room_id, "said after")
        assert await ann.answers(room, 4) == [*said, "echo: said after"]
        assert len(runtime.asked) == 4
        assert (await world.health())["agents_in_trouble"] == 0


async def test_an_open_question_does_not_hold_up_the_end(
    homeserver: Homeserver, tmp_path: Path, ann: Person, clock: Clock
) -> None:
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        ada = await world.meet()
        database = Database(database_url(world.config.database.url, tmp_path))
        before = asyncio.all_tasks()
        asking = asyncio.create_task(
            runtime.call_tool(ada.agent.agent_id, "", "ask_human", {"question": "Which?"})
        )

        async def asked() -> list[Json]:
            return await ann.said_by(ada.room_id, ada.ghost)

        (question,) = await ann.watch(ada.room_id, asked)
        # We may see it before the answer has come that tells the bridge where it stands.
        questions = world.bridge.app.toolbox.questions
        await eventually(lambda: question["event_id"] in questions._open)
        clock.stop()
        closing = asyncio.create_task(world.bridge.app.toolbox.close())
        await settled(closing)
        clock.advance(0.5)
        await within(closing)
        clock.go()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.all_tasks() <= before
    assert "Nobody answered" in (await ann.timeline(ada.room_id))[-1]["content"]["body"]
    await database.open()
    assert [one.outcome for one in await AuditStore(database).newest(9)] == [CANCELLED]
    await database.close()
