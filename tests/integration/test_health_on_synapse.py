"""Health tells what is wrong around the bridge, on a homeserver with odd settings."""

import asyncio
import signal
import socket
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import aiohttp
import pytest
from tests.integration.bridge_world import World, bridge_on, new_person
from tests.integration.people import Json, Person
from tests.scripts import obey
from tests.servers import Homeserver, homeserver_in
from tests.waiting import Clock, eventually, within

from letta_matrix.access.principal import Scope
from letta_matrix.access.secrets import issue
from letta_matrix.runtimes.memory import MemoryRuntime

TWO_DAYS = 2 * 86_400


@pytest.fixture(scope="module")
async def odd(
    http: aiohttp.ClientSession, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Homeserver]:
    """A Synapse that encrypts all rooms, and that asks servers on this machine, too."""
    server = homeserver_in(tmp_path_factory.mktemp("odd"), http)
    server.odd = {
        "encryption_enabled_by_default_for_room_type": "all",
        "federation_domain_whitelist": None,
        "ip_range_blacklist": [],
        # Or it would leave them to another process.
        "send_federation": True,
    }
    try:
        await server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
async def one(odd: Homeserver, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[World]:
    """A bridge on it, with an agent."""
    directory, runtime = tmp_path_factory.mktemp("bridge"), MemoryRuntime(script=obey)
    async with bridge_on(odd, directory, await new_person(odd), runtime) as world:
        await world.meet()
        await world.ready()
        yield world


async def check(world: World, name: str) -> Json:
    """One of the checks, as `/health` tells it."""
    (found,) = [one for one in (await world.health())["checks"] if one["name"] == name]
    return found


async def test_rooms_that_the_homeserver_encrypts_are_told(one: World) -> None:
    told = await eventually(lambda: check(one, "encryption"), lambda it: it["state"] == "trouble")
    assert told["says"].endswith("the room of 1 agent")
    assert "encryption_enabled_by_default_for_room_type: off" in told["remedy"]
    assert (await one.health())["status"] == "degraded"


async def test_a_server_that_does_not_answer_keeps_nobody_waiting(one: World, clock: Clock) -> None:
    token, stored = issue(agent_id="", scopes=frozenset(Scope))
    await one.bridge.app.stores.tokens.add(stored)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        deaf.setblocking(False)
        server = f"127.0.0.1:{deaf.getsockname()[1]}"
        body = {"name": "Plans", "invite": [f"@them:{server}", one.person.user_id]}
        asking = asyncio.create_task(create_room(one, token, body))
        connection, _ = await asyncio.get_running_loop().sock_accept(deaf)

        with connection:
            # Who is of this server is invited by now: time may pass for the other alone.
            clock.advance(11)
            answer = await within(asking)
    assert answer["invited"] == [one.person.user_id]
    (them,) = answer["not_invited"]
    assert them["reason"].startswith(f"{server} did not answer within 10 s")


async def create_room(world: World, token: str, body: Json) -> Json:
    url = f"http://127.0.0.1:{world.config.api.port}/api/v1/rooms"
    headers = {"Authorization": f"Bearer {token}"}
    async with world.person.http.post(url, json=body, headers=headers) as response:
        answer = await response.json()
        assert response.status in (200, 201), answer
        return answer


async def test_a_homeserver_that_hangs_is_noticed_by_an_idle_bridge(
    one: World, odd: Homeserver, clock: Clock
) -> None:
    assert odd.server.process is not None
    odd.server.process.send_signal(signal.SIGSTOP)
    try:
        await clock.until(lambda: one.bridge.app.vitals.of("homeserver"), step=1)
        assert not one.bridge.is_ready()
    finally:
        odd.server.process.send_signal(signal.SIGCONT)
    # Slower than else: what it is asked now has to be answered in its time.
    await clock.until(one.bridge.is_ready, step=0.1)


async def test_a_bridge_that_is_not_reached_is_not_ready(one: World) -> None:
    address = ("127.0.0.1", one.config.appservice.port)
    appservice = one.bridge.appservice
    await appservice.close()
    appservice.heard_at -= 60
    one.bridge._reach._asked_at -= 60
    url = f"http://127.0.0.1:{one.config.api.port}/ready"

    async def ready() -> int:
        async with one.person.http.get(url) as response:
            return response.status

    await eventually(ready, (503).__eq__)

    async def told() -> str:
        await ready()
        return str((await check(one, "reachability"))["says"])

    # A busy homeserver may not have answered the first ping in time.
    says = await eventually(told, lambda says: "Nobody listens there" in says)
    assert f"cannot reach us at {one.config.appservice.url}: " in says
    await appservice.start(*address)
    await eventually(ready, (200).__eq__)


async def test_a_clock_two_days_ahead_makes_no_message_old(
    homeserver: Homeserver, ann: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, runtime = time.time, MemoryRuntime(script=obey)
    async with bridge_on(homeserver, tmp_path, ann, runtime) as world:
        room = await world.meet()
        monkeypatch.setattr(time, "time", lambda: told() + TWO_DAYS)
        await ann.send(room.room_id, "first")
        await ann.send(room.room_id, "!whoami")
        await ann.send(room.room_id, "second")
        # A command is not behind the messages.
        who, *answers = sorted(await ann.answers(room, 3))
        assert answers == ["echo: first", "echo: second"]
        assert who.startswith("You are ")
        clock = await check(world, "clock")
        assert clock["says"] == "this machine's clock is 2 days ahead of the homeserver's"
        monkeypatch.undo()
        await ann.send(room.room_id, "third")
        await eventually(lambda: check(world, "clock"), lambda it: it["state"] == "ok")
