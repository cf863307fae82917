"""Tokens of people's logins follow their people, over a real bridge and homeserver."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Room, World
from tests.integration.doors.doors_world import Account, new_account, room_with_bot
from tests.integration.doors.rest import Rest, rest_as
from tests.integration.doors.test_mcp_websocket import UPDATED, messages_of, news
from tests.integration.doors.test_mcp_websocket import url_of as socket_of
from tests.mcp_socket import raw_client
from tests.servers import Homeserver
from tests.waiting import Clock, eventually

from letta_matrix.access.login_sessions import RECHECK
from letta_matrix.doors.rest.compat_login import SESSION_NAME


@pytest.fixture(scope="module")
async def rest(world: World) -> Rest:
    """What an admin who acts as the bot sees."""
    # Who has tried to log in before may try again.
    Clock.of(asyncio.get_running_loop()).advance(60)
    return await rest_as(world, below="")


@pytest.fixture
async def carl(homeserver: Homeserver) -> Account:
    """Somebody who may use agents."""
    return await new_account(homeserver, "carl")


@pytest.fixture
async def room(world: World, carl: Account) -> Room:
    """The room of an agent, which Carl is in too."""
    return await shared_room(world, carl)


async def shared_room(world: World, who: Account) -> Room:
    """The room of a new agent, which somebody is in too, and the bot: what the token of a login
    may read is what its person and the bot are in by then."""
    made = await room_with_bot(world)
    await world.person.bring(made.room_id, who.person)
    return made


@contextmanager
def role(world: World, who: Account, name: str) -> Generator[None]:
    """While somebody has a role."""
    world.config.permissions[who.user_id] = name  # type: ignore[assignment]
    yield
    del world.config.permissions[who.user_id]


async def log_in(rest: Rest, who: Account) -> str:
    body = {"user_id": who.user_id, "password": who.password}
    answer = await rest.ask("POST", "/login", body, token="")
    assert answer.status == 200, answer
    return answer.body["access_token"]


async def read(rest: Rest, room: Room, token: str) -> int:
    answer = await rest.ask("POST", "/messages/get", {"room_id": room.room_id}, token=token)
    return answer.status


async def deactivate(who: Account) -> None:
    proof = {"identifier": {"type": "m.id.user", "user": who.user_id}, "password": who.password}
    body = {"auth": {"type": "m.login.password", **proof}}
    status, answer = await who.person.call("POST", "/account/deactivate", body)
    assert status == 200, answer


@pytest.mark.parametrize("how", ["kick", "ban", "leave"])
async def test_who_is_not_in_a_room_any_more_reads_nothing_of_it(
    rest: Rest, world: World, carl: Account, room: Room, how: str
) -> None:
    token = await log_in(rest, carl)
    assert await read(rest, room, token) == 200
    path = f"/rooms/{quote(room.room_id)}"
    if how == "leave":
        status, _ = await carl.person.call("POST", f"{path}/leave")
    else:
        bot = world.as_user(room.ghost)
        status, _ = await bot.call("POST", f"{path}/{how}", {"user_id": carl.user_id})
    assert status == 200
    await eventually(lambda: read(rest, room, token), lambda status: status == 403)
    assert (await rest.ask("GET", "/rooms/list", token=token)).body["rooms"] == []


async def test_a_login_reads_what_its_person_reads(rest: Rest, world: World, carl: Account) -> None:
    made = await room_with_bot(world)
    before = await world.person.send(made.room_id, "a secret", msgtype="m.notice")
    await world.person.bring(made.room_id, carl.person)
    after = await world.person.send(made.room_id, "hello Carl", msgtype="m.notice")
    token = await log_in(rest, carl)
    answer = await rest.ask("POST", "/messages/get", {"room_id": made.room_id}, token=token)
    assert answer.status == 200
    said = [one["event_id"] for one in answer.body["messages"]]
    assert after in said
    assert before not in said


@pytest.mark.parametrize("is_admin", [False, True])
async def test_who_was_deactivated_gets_in_no_more(
    rest: Rest, world: World, carl: Account, room: Room, clock: Clock, is_admin: bool
) -> None:
    with role(world, carl, "admin" if is_admin else "user"):
        token = await log_in(rest, carl)
        assert await read(rest, room, token) == 200
        await deactivate(carl)
        clock.advance(RECHECK)
        answer = await rest.ask("GET", "/rooms/list", token=token)
    assert answer.problem == (401, "unauthorized")


async def test_who_signs_the_session_out_ends_the_login(
    rest: Rest, carl: Account, room: Room, clock: Clock
) -> None:
    token = await log_in(rest, carl)
    devices = (await carl.person.get("/devices"))["devices"]
    assert SESSION_NAME in [one["display_name"] for one in devices]
    status, _ = await carl.person.call("POST", "/logout/all")
    assert status == 200
    clock.advance(RECHECK)
    assert await read(rest, room, token) == 401


async def test_who_is_demoted_or_blocked_gets_in_no_more(
    rest: Rest, world: World, carl: Account, room: Room
) -> None:
    with role(world, carl, "admin"):
        admin = await log_in(rest, carl)
        assert await read(rest, room, admin) == 200
    assert await read(rest, room, admin) == 401
    user = await log_in(rest, carl)
    assert await read(rest, room, user) == 200
    with role(world, carl, "block"):
        assert await read(rest, room, user) == 401


async def test_who_was_kicked_is_told_nothing_more_of_the_room(
    rest: Rest, world: World, carl: Account, room: Room
) -> None:
    other = await shared_room(world, carl)
    token = await log_in(rest, carl)
    assert await read(rest, other, token) == 200
    async with raw_client(socket_of(world), token) as client:
        await client.initialize()
        for one in (room, other):
            await client.result("resources/subscribe", {"uri": messages_of(one.room_id)})
        kick = f"/rooms/{quote(room.room_id)}/kick"
        await world.as_user(room.ghost).call("POST", kick, {"user_id": carl.user_id})
        await eventually(lambda: read(rest, room, token), lambda status: status == 403)
        await world.person.send(room.room_id, "a secret", msgtype="m.notice")
        await world.person.send(other.room_id, "news", msgtype="m.notice")
        told = await news(client, UPDATED)
    assert told["params"]["uri"] == messages_of(other.room_id)


async def test_open_streams_of_a_deactivated_person_end(
    rest: Rest, world: World, carl: Account, room: Room, clock: Clock
) -> None:
    token = await log_in(rest, carl)
    async with raw_client(socket_of(world), token) as client:
        await client.initialize()
        await deactivate(carl)
        clock.advance(2 * RECHECK)
        code, _ = await client.closed()
    assert code == 4401
