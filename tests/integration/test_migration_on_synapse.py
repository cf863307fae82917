"""`import-mappings` on a real homeserver: agents that were made the old way."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete
from tests.integration.bridge_world import (
    DATABASE,
    Json,
    Person,
    bridge_on,
    config_on,
    lay_database,
    new_agent,
)
from tests.integration.original import OldAgent, Original
from tests.integration.people import Room
from tests.servers import Homeserver

from letta_matrix.agents.migration.found import Living
from letta_matrix.agents.migration.importing import Importing, importing
from letta_matrix.agents.migration.mappings_file import read_mappings
from letta_matrix.agents.migration.plan import Plan
from letta_matrix.matrix.homeserver import Homeserver as Requests
from letta_matrix.matrix.pacing import Pacer
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.passwords import PasswordStore
from letta_matrix.store.schema import agents

GONE = "!gone:localhost"


@pytest.fixture(scope="module")
async def boss(homeserver: Homeserver) -> Person:
    who, token, password = await homeserver.register(f"chief_{secrets.token_hex(3)}", admin=True)
    return Person(homeserver.http, homeserver.url, who, token, password=password)


def credentials(boss: Person) -> Json:
    return {"admin_username": boss.user_id, "admin_password": boss.password}


@asynccontextmanager
async def an_import(
    homeserver: Homeserver, directory: Path, ann: Person, admin: Json
) -> AsyncGenerator[Importing]:
    config = config_on(homeserver, directory, ann, homeserver=admin)
    await lay_database(homeserver, directory)
    database = Database(database_url(f"sqlite:///{directory / DATABASE}", directory))
    server = Requests(homeserver.url, homeserver.as_token, Pacer(8))
    await database.open()
    try:
        known = await AgentDirectory(database).load()
        async with importing(config, server, known, PasswordStore(database)) as work:
            yield work
    finally:
        await server.close()
        await database.close()


async def planned(work: Importing, file: Path, infos: list[AgentInfo]) -> Plan:
    mappings, faults = read_mappings(file)
    assert faults == []
    return await work.plan(mappings, {one.agent_id: Living("memory", one) for one in infos})


def told(plan: Plan, agent: OldAgent) -> str:
    """What is said of an agent that is not all taken over."""
    found = [one for one in plan.adoptions if one.agent_id == agent.info.agent_id]
    notes = [note for one in found for note in one.notes]
    notes += [note for one, note in plan.left if one.agent_id == agent.info.agent_id]
    return "; ".join(note.what for note in notes)


async def leave_only(directory: Path, *some: OldAgent) -> None:
    """Let the bridge know these alone: to set all the others up takes it long."""
    database = Database(database_url(f"sqlite:///{directory / DATABASE}", directory))
    wanted = [one.info.agent_id for one in some]
    await database.open()
    await database.execute(delete(agents).where(agents.c.agent_id.not_in(wanted)))
    await database.close()


async def test_agents_live_on_where_people_know_them(
    homeserver: Homeserver, boss: Person, ann: Person, tmp_path: Path
) -> None:
    original = Original(homeserver, boss)
    infos = [new_agent() for _ in range(14)]
    plain = [await original.agent(infos[0])]
    made = (original.agent(one, signed_in=False) for one in infos[1:])
    plain += await asyncio.gather(*made)
    own, out, sealed, lost, deaf, twin = plain[:6]
    infos += [new_agent("Newton"), new_agent("Newton")]
    renamed = [await original.agent(one, f"newton_{secrets.token_hex(3)}") for one in infos[-2:]]
    gone = await original.agent(new_agent("Gone"))
    # Some have a room that the original's admin has made, and no power there; others have none.
    for old in plain[6:12]:
        old.room_id = await original.room(boss, old.person)
    own.room_id = await original.room(boss, own.person, ann)
    out.room_id = await original.room(boss, ann)
    sealed.room_id = await original.room(boss, sealed.person, encrypted=True)
    deaf.room_id = await original.room(boss, deaf.person)
    await boss.call("POST", f"/rooms/{deaf.room_id}/leave")
    for old in renamed:
        old.room_id = await original.room(old.person, ann)
    lost.room_id, twin.room_id, gone.room_id = GONE, own.room_id, "!left:localhost"
    await ann.send(own.room_id, "a question of before")
    await own.person.send(own.room_id, "an answer of before")
    second = {**renamed[0].entry, "room_id": await original.room(renamed[0].person)}
    file = original.write(tmp_path / "agent_user_mappings.json", second)

    async with an_import(homeserver, tmp_path, ann, credentials(boss)) as work:
        plan = await planned(work, file, infos)
        assert await ann.members(out.room_id) == dict.fromkeys((boss.user_id, ann.user_id), "join")
        assert "is encrypted" in told(plan, sealed)
        assert "is gone" in told(plan, lost)
        assert "with power" in told(plan, deaf)
        assert "who keeps it" in told(plan, twin)
        assert "twice" in told(plan, renamed[0])
        assert "no runtime has this agent" in told(plan, gone)
        outcomes = await work.carry_out(plan)
        assert [one.notes for one in outcomes if one.notes] == []
        again = await planned(work, file, infos)
        assert again.is_done
        assert len(again.adoptions) == len(infos)

    # Nobody knows a password of theirs any more; whom nobody took over has it.
    assert (await own.person.call("GET", "/account/whoami"))[0] == 401
    assert (await gone.person.call("GET", "/account/whoami"))[0] == 200
    assert await ann.members(renamed[0].room_id) == {
        ann.user_id: "join",
        renamed[0].ghost: "join",
        renamed[0].person.user_id: "leave",
    }
    levels = await boss.state(plain[9].room_id, "m.room.power_levels")
    assert levels["users"][plain[9].ghost] == 100

    await leave_only(tmp_path, own, out, renamed[0])
    runtime = MemoryRuntime()
    for old in (own, out, renamed[0]):
        runtime.add(old.info)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        for old in (own, out, renamed[0]):
            before = len(await ann.bodies(old.room_id, old.ghost))
            await ann.send(old.room_id, "are you there?")
            answers = await ann.answers(Room(old.info, old.room_id, old.ghost), before + 1)
            assert answers[-1] == "echo: are you there?"
        assert "an answer of before" in await ann.bodies(own.room_id, own.ghost)
        # The homeserver tells us now that it was invited, with all that was said from then on.
        await world.idle()
        assert [one.text for one in runtime.asked if "before" in one.text] == []


async def test_without_an_admin_passwords_open_what_they_can(
    homeserver: Homeserver, boss: Person, ann: Person, tmp_path: Path
) -> None:
    original = Original(homeserver, boss)
    newton, wrong = [
        await original.agent(new_agent("Newton"), f"newton_{secrets.token_hex(3)}")
        for _ in range(2)
    ]
    same = await original.agent(new_agent("Same"))
    newton.room_id = await original.room(newton.person, ann)
    wrong.room_id = await original.room(wrong.person, ann)
    same.room_id = await original.room(same.person, ann)
    entry = {**wrong.entry, "matrix_password": "not-this-one"}
    file = original.write(tmp_path / "m.json", entry, without=[wrong.info.agent_id])
    infos = [one.info for one in original.agents]
    async with an_import(homeserver, tmp_path, ann, {}) as work:
        plan = await planned(work, file, infos)
        assert "its password does not let us in" in told(plan, wrong)
        assert "not-this-one" not in told(plan, wrong)
        assert "still good" in told(plan, same)
        outcomes = await work.carry_out(plan)
        assert [one.notes for one in outcomes if one.notes] == []
        assert (await planned(work, file, infos)).is_done
    assert await ann.members(newton.room_id) == {
        ann.user_id: "join",
        newton.ghost: "join",
        newton.person.user_id: "leave",
    }
    # Whoever was signed in is out; that password is told of above.
    assert (await same.person.call("GET", "/account/whoami"))[0] == 401
    assert (await wrong.person.call("GET", "/account/whoami"))[0] == 200
    devices = (await newton.person.get("/devices"))["devices"]
    assert "letta-matrix" not in [one["device_id"] for one in devices]
