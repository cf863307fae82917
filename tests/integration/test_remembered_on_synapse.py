"""What the bridge remembers, and the homeserver has no more: purged, set up afresh, put back from
a backup, renamed."""

import shutil
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.integration.bridge_world import Person, Room, World, bridge_on, new_agent, troubles_in
from tests.scripts import obey
from tests.servers import Homeserver, homeserver_in
from tests.waiting import eventually

from letta_matrix.cli.forget import _forget
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import Agent


async def purge(homeserver: Homeserver, room_id: str, *, whole: bool = True) -> None:
    """Delete a room by the admin API, as Synapse's admin tools do; with `whole` from the database
    too."""
    admin, headers = f"{homeserver.url}/_synapse/admin/v2", _by_admin(homeserver)
    url = f"{admin}/rooms/{quote(room_id)}"
    async with homeserver.http.delete(url, json={"purge": whole}, headers=headers) as response:
        deletion = (await response.json())["delete_id"]

    async def status() -> str:
        url = f"{admin}/rooms/delete_status/{deletion}"
        async with homeserver.http.get(url, headers=headers) as response:
            return str((await response.json())["status"])

    await eventually(status, lambda found: found == "complete")


def _by_admin(homeserver: Homeserver) -> dict[str, str]:
    return {"Authorization": f"Bearer {homeserver.admin_token}"}


def known(world: World, agent: AgentInfo) -> Agent:
    found = world.bridge.app.stores.directory.get(agent.agent_id)
    assert found is not None
    return found


async def moved(world: World, room: Room) -> Room:
    """The room that an agent has in place of another one, once the person is there."""

    def is_made() -> bool:
        return known(world, room.agent).room_id not in (None, room.room_id)

    await eventually(is_made, what="another room of the agent")
    agent = known(world, room.agent)
    now = Room(room.agent, str(agent.room_id), agent.user_id)

    async def joined() -> bool:
        return now.room_id in (await world.person.get("/joined_rooms"))["joined_rooms"]

    await eventually(joined, what="the person is in the agent's other room")
    return now


async def talks(world: World, room: Room, text: str = "hello") -> None:
    """Ask an agent for the first time in a room."""
    await world.person.send(room.room_id, text)
    assert await world.person.answers(room, 1) == [f"echo: {text}"]


async def audited(world: World) -> set[str]:
    return {one.tool for one in await world.bridge.app.stores.audit.newest(50)}


async def test_deleted_rooms_are_made_anew_at_the_next_start(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        ada, bert, carl = await world.meet(), await world.meet(), await world.meet()
        await talks(world, ada)
        await world.ready()
        home = world.bridge.app.home
        space, control = home.space_id, home.control_room_id
    for room_id in (space, ada.room_id):
        await purge(homeserver, room_id)
    # Their aliases stay, and lead nowhere.
    for room_id in (control, bert.room_id):
        await purge(homeserver, room_id, whole=False)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        again = await moved(world, ada)
        await talks(world, again, "still there?")
        # What was talked about goes on.
        assert len({one.conversation_id for one in world.asked(again)}) == 1
        other = await moved(world, bert)
        await talks(world, other, "and you?")
        home = world.bridge.app.home
        assert home.rooms.isdisjoint({space, control})
        children: Any = await ann.get(f"/rooms/{quote(home.space_id)}/state")
        shown = {one["state_key"] for one in children if one["type"] == "m.space.child"}
        assert {again.room_id, other.room_id, carl.room_id} <= shown
        health = await world.health()
        assert "rooms made anew: 4" in " ".join(health["troubles"])
        assert await audited(world) == {"rooms.make_anew"}
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        health = await world.health()
        assert health["homeserver_writes"] == health["counters"]["pings"] + 1
        assert health["status"] == "ok"


async def test_what_is_purged_under_a_running_bridge_is_made_anew(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        ada = await world.meet()
        guests = await ann.create_room(ada.ghost)

        def visits() -> list[str]:
            return world.bridge.app.stores.rooms.rooms_of(ada.ghost)

        await eventually(visits, lambda found: found == [guests], "the agent comes")
        space = world.bridge.app.home.space_id
        for room_id in (space, ada.room_id, guests):
            await purge(homeserver, room_id)
        again = await moved(world, ada)
        await talks(world, again)
        await eventually(visits, lambda found: found == [], "the agent's visit is forgotten")
        await eventually(lambda: world.bridge.app.home.space_id != space, what="a space")


@asynccontextmanager
async def another_homeserver(directory: Path, of: Homeserver) -> AsyncGenerator[Homeserver]:
    """One that knows the same application service, in a folder and with a name of its own."""
    directory.mkdir()
    made = homeserver_in(directory, of.http, name="elsewhere.test")
    await made.start()
    try:
        yield made
    finally:
        made.stop()


def back_up(homeserver: Homeserver, folder: Path) -> None:
    """Copy the files of a homeserver that runs."""
    files, database = homeserver.synapse.directory, homeserver.synapse.database.path
    shutil.copytree(files, folder, ignore=shutil.ignore_patterns(f"{database.name}*"))
    target = folder / database.name
    with closing(sqlite3.connect(database)) as own, closing(sqlite3.connect(target)) as copy:
        own.backup(copy)


async def person_on(homeserver: Homeserver) -> Person:
    """The same person, wherever it is."""
    who, token, password = await homeserver.register("eve")
    return Person(homeserver.http, homeserver.url, who, token, password=password)


async def test_a_homeserver_put_back_set_up_afresh_or_renamed_gets_what_it_lacks(
    homeserver: Homeserver, ann: Person, tmp_path: Path
) -> None:
    runtime, agents = MemoryRuntime(script=obey), [new_agent("Early"), new_agent("Late")]
    folder, backup = tmp_path / "there", tmp_path / "backup"
    async with another_homeserver(folder, homeserver) as own:
        files = own.synapse.directory
        eve = await person_on(own)
        async with bridge_on(own, tmp_path, eve, runtime) as world:
            early = await world.meet(agents[0])
            await talks(world, early)
            back_up(own, backup)
            late = await world.meet(agents[1])
            await talks(world, late)
            own.stop()
            shutil.rmtree(files)
            shutil.copytree(backup, files)
            await own.server.start()
            # The bridge goes on with a homeserver that has never heard of the second agent.
            await talks(world, await moved(world, late), "and now?")
            assert known(world, early.agent).room_id == early.room_id
            assert await audited(world) == {"accounts.make_anew", "rooms.make_anew"}
            own.stop()
            shutil.rmtree(files)
            await own.start()
            eve = world.person = await person_on(own)
            for room in (early, late):
                await talks(world, await moved(world, room), "who are you?")
            profile = await eve.get(f"/profile/{quote(early.ghost)}")
            assert profile["displayname"] == "Early"
            assert profile["avatar_url"]
            bot = await eve.get(f"/profile/{quote(world.config.bot_user_id)}")
            assert bot["displayname"] == world.config.appservice.bot_displayname
    # And with another name, which makes other users of them.
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        there = await moved(world, early)
        assert there.ghost == early.ghost.replace(":elsewhere.test", ":localhost")
        await talks(world, there, "where are we?")
        assert "accounts.rename" in await audited(world)
        assert len({one.conversation_id for one in world.asked(there)}) == 1


async def test_an_operator_can_have_it_all_set_up_afresh(
    homeserver: Homeserver, tmp_path: Path, ann: Person
) -> None:
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        ada, bert = await world.meet(new_agent("Ada")), await world.meet(new_agent("Bert"))
        await talks(world, ada)
        guests = await ann.create_room(ada.ghost)
        rooms = world.bridge.app.stores.rooms
        await eventually(lambda: rooms.rooms_of(ada.ghost) == [guests])
        config, home = world.config, world.bridge.app.home.rooms
    names = await _forget(config, [], everything=True, new_room=False)
    assert sorted(names) == ["Ada", "Bert"]
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        # All of it is there, so it is found.
        assert known(world, ada.agent).room_id == ada.room_id
        assert known(world, bert.agent).room_id == bert.room_id
        assert world.bridge.app.home.rooms == home
        assert troubles_in(await world.health()) == []
    names = await _forget(config, ["Ada"], everything=False, new_room=True)
    assert names == ["Ada"]
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        again = await moved(world, ada)
        await talks(world, again, "here now?")
        assert len({one.conversation_id for one in world.asked(again)}) == 1
        tombstone = await ann.state(ada.room_id, "m.room.tombstone")
        assert tombstone["replacement_room"] == again.room_id
        assert known(world, bert.agent).room_id == bert.room_id
        assert set(world.bridge.app.stores.rooms.rooms_of(ada.ghost)) == {guests, ada.room_id}
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        health = await world.health()
        assert health["homeserver_writes"] == health["counters"]["pings"] + 1
