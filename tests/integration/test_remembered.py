"""What the bridge remembers, and the homeserver has no more: purged, set up afresh, put back from
a backup, renamed."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from tests.integration.bridge_world import DATABASE, Json, Person, World, bridge_on, new_agent
from tests.integration.bridge_world import new_person, room_of
from tests.scripts import obey
from tests.servers import Homeserver, homeserver_in
from tests.waiting import Clock, eventually

from letta_matrix.runtimes.memory import MemoryRuntime


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


async def alias_of(person: Person, localpart: str) -> str:
    _, answer = await person.call("GET", f"/directory/room/{quote(f'#{localpart}:localhost')}")
    return str(answer.get("room_id", ""))


@pytest.mark.parametrize("whole", [True, False])
async def test_purged_rooms_are_made_anew_at_the_next_start(
    homeserver: Homeserver, tmp_path: Path, ann: Person, whole: bool
) -> None:
    runtime = MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        ada, bert = await world.meet(), await world.meet()
        await ann.send(ada.room_id, "hello")
        assert await ann.answers(ada, 1) == ["echo: hello"]
        await world.ready()
        home = world.bridge._parts.home
        before = {home.space_id, home.control_room_id}
    for room_id in (*before, ada.room_id):
        await purge(homeserver, room_id, whole=whole)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        again = await world.find(ada.agent)
        assert again.room_id != ada.room_id
        await ann.send(again.room_id, "still there?")
        assert await ann.answers(again, 1) == ["echo: still there?"]
        assert {one.conversation_id for one in world.asked(again)} == {
            world.asked(again)[0].conversation_id
        }
        home = world.bridge._parts.home
        assert before.isdisjoint(home.rooms)
        children = await ann.get(f"/rooms/{quote(home.space_id)}/state")
        shown = {one["state_key"] for one in children if one["type"] == "m.space.child"}
        assert {again.room_id, bert.room_id} <= shown
        health = await world.health()
        assert "rooms made anew: 3" in " ".join(health["troubles"])
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        health = await world.health()
        assert health["homeserver_writes"] == health["counters"]["pings"] + 1
        assert health["status"] == "ok"
