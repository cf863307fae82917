"""What stays when the bridge, its database or its configuration changes under the agents."""

import asyncio
import shutil
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Person, bridge_on, new_agent, new_person
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.agents.provisioner import _REMOVED
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.database import Database, database_url
from letta_matrix.toolbox.ledger import CANCELLED

DATABASE = "letta-matrix.db"


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


def forget(directory: Path) -> None:
    """Lose the database."""
    for file in directory.glob(f"{DATABASE}*"):
        file.unlink()


async def test_failed_and_empty_listings_remove_nobody(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    runtime, settings = MemoryRuntime(script=obey), {"agents": {"removal_grace": 30}}
    async with bridge_on(homeserver, tmp_path, ann, runtime, **settings) as world:
        room = await world.meet()
        runtime.available = False
        await eventually(world.health, lambda health: health["troubles"])
        assert (await world.health())["agents"] == 1
        runtime.available = True
        runtime.remove(room.agent.agent_id)
        await eventually(world.health, lambda health: not health["troubles"])
        await ann.send(room.room_id, "gone for a moment")
        runtime.add(room.agent)
        assert (await world.health())["agents"] == 1
        await ann.send(room.room_id, "here again")
        bodies = await ann.answers(room, 2)
        assert bodies[-1] == "echo: here again"
        assert _REMOVED not in bodies


async def test_a_restart_writes_nothing_but_ping_and_wake(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    agents = [new_agent(f"Agent {number}") for number in range(5)]
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        rooms = [await world.meet(agent) for agent in agents]
        await world.ready()
        assert (await world.health())["homeserver_writes"] > 20
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        health = await world.health()
        assert health["homeserver_writes"] == health["counters"]["pings"] + 1
        assert health["agents"] == 5
        await ann.send(rooms[0].room_id, "remember me?")
        assert await ann.answers(rooms[0], 1) == ["echo: remember me?"]


async def test_a_lost_database_finds_its_rooms_again(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    agent, runtime = new_agent("Forgotten"), MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        before = await world.meet(agent)
        await ann.send(before.room_id, "said before")
        assert await ann.answers(before, 1) == ["echo: said before"]
    forget(tmp_path)
    asked = len(runtime.asked)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        after = await world.find(agent)
        await world.ready()
        assert after.room_id == before.room_id
        await ann.send(after.room_id, "said after")
        assert await ann.answers(after, 2) == ["echo: said before", "echo: said after"]
        assert len(runtime.asked) == asked + 1
        assert (await world.health())["agents_in_trouble"] == 0


async def test_an_interrupted_set_up_goes_on_where_it_stopped(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    agent, runtime = new_agent("Halfway"), MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        runtime.add(agent)

        async def known() -> int:
            return int((await world.health())["agents"])

        await eventually(known, lambda count: count == 1)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        room = await world.find(agent)
        await ann.send(room.room_id, "hello")
        assert await ann.answers(room, 1) == ["echo: hello"]
        aliases = await world.bot.get(f"/rooms/{quote(room.room_id)}/aliases")
        assert aliases["aliases"] == [f"#{room.ghost[1:]}"]


async def test_people_who_are_not_there_harm_nobody(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    members_wanted = [ann.user_id, "@nobody_ever:localhost", "@far:unreachable.invalid"]
    settings = {"agents": {"room_members": members_wanted}}
    async with bridge_on(
        homeserver, tmp_path, ann, MemoryRuntime(script=obey), **settings
    ) as world:
        room = await world.meet()
        await ann.send(room.room_id, "hello")
        assert await ann.answers(room, 1) == ["echo: hello"]


async def test_people_added_later_are_invited(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    bob = await new_person(homeserver, "bob")
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        room = await world.meet()
        await world.ready()
    both = {"agents": {"room_members": [ann.user_id, bob.user_id]}}
    async with bridge_on(homeserver, tmp_path, ann, runtime, **both):

        async def joined() -> list[str]:
            return (await bob.get("/joined_rooms"))["joined_rooms"]

        await eventually(joined, lambda rooms: room.room_id in rooms and len(rooms) == 2)


async def test_an_old_copy_of_the_database_answers_nothing_twice(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        room = await world.meet()
        await world.ready()
    shutil.copy(tmp_path / DATABASE, tmp_path / "backup")
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        await ann.send(room.room_id, "hello")
        assert await ann.answers(room, 1) == ["echo: hello"]
    forget(tmp_path)
    shutil.copy(tmp_path / "backup", tmp_path / DATABASE)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        await ann.send(room.room_id, "again")
        assert await ann.answers(room, 2) == ["echo: hello", "echo: again"]


async def test_an_open_question_does_not_hold_up_the_end(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        ada = await world.meet()
        database = Database(database_url(world.config.database.url, tmp_path))
        before = asyncio.all_tasks()
        asking = asyncio.create_task(
            runtime.call_tool(ada.agent.agent_id, "", "ask_human", {"question": "Which?"})
        )

        async def asked() -> list[str]:
            return await ann.bodies(ada.room_id, ada.ghost)

        await eventually(asked, bool)
        started = time.monotonic()
    assert time.monotonic() - started < 2.5
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asyncio.all_tasks() <= before
    assert "Nobody answered" in (await ann.timeline(ada.room_id))[-1]["content"]["body"]
    await database.open()
    assert [one.outcome for one in await AuditStore(database).newest(9)] == [CANCELLED]
    await database.close()
