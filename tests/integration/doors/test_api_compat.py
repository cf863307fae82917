"""The paths of the original Letta-Matrix integration, over a real bridge and homeserver."""

import asyncio
import json

import pytest
from tests.integration.bridge_world import Json, Person, Room, World, new_agent
from tests.integration.doors.doors_world import (
    BOT,
    Account,
    new_account,
    new_key,
    room_with_bot,
)
from tests.integration.doors.rest import Answer, Rest, rest_as
from tests.servers import Homeserver
from tests.waiting import Clock, eventually

from letta_matrix.access.principal import Scope
from letta_matrix.doors.rest.compat_login import SESSION_NAME


@pytest.fixture(scope="module")
async def rest(world: World) -> Rest:
    """What an admin who acts as the bot sees."""
    # Who has tried to log in before may try again.
    Clock.of(asyncio.get_running_loop()).advance(60)
    return await rest_as(world, below="")


@pytest.fixture(scope="module")
async def room(world: World) -> Room:
    """The room of an agent, which others may come into."""
    return await room_with_bot(world)


async def log_in(rest: Rest, who: str, password: str, homeserver: str = "") -> Answer:
    body = {"homeserver": homeserver, "user_id": who, "password": password}
    return await rest.ask("POST", "/login", body, token="")


async def sessions_of(who: Account) -> list[str]:
    """What the sessions of an account are called."""
    devices = (await who.person.get("/devices"))["devices"]
    return [one["display_name"] for one in devices]


async def test_the_front_door_and_health(rest: Rest, world: World) -> None:
    told = (await rest.ask("GET", "/", token="")).body
    assert told.keys() >= {"message", "version", "status"}
    browser = await rest.ask("GET", "/", token="", headers={"Accept": "text/html"})
    assert (browser.status, browser.headers["Location"]) == (302, "/chat")
    health = (await rest.ask("GET", "/health", token="")).body
    assert health.keys() >= {"status", "authenticated", "timestamp", "agent_sync_available"}
    shown = json.dumps(health)
    assert world.homeserver.as_token not in shown
    assert world.homeserver.hs_token not in shown


async def tokens_at(rest: Rest, token: str) -> list[Json]:
    """All of them, also of the tests before this one."""
    found: list[Json] = []
    query = "limit=200"
    while query:
        page = (await rest.ask("GET", f"/api/v1/tokens?{query}", token=token)).body
        found += page["tokens"]
        query = f"limit=200&after={page['next']}" if page["next"] else ""
    return found


async def test_an_admin_logs_in_and_acts_as_the_bot(
    rest: Rest, world: World, boss: Account
) -> None:
    answer = await log_in(rest, boss.user_id, boss.password, world.config.homeserver.url)
    assert answer.status == 200
    assert answer.body.keys() == {"success", "access_token", "device_id", "user_id", "message"}
    assert (answer.body["success"], answer.body["user_id"]) == (True, boss.user_id)
    token = answer.body["access_token"]
    assert token.startswith("lm_")
    me = (await rest.ask("GET", "/api/v1/whoami", token=token)).body
    assert me["user_id"] == BOT
    assert (me["scopes"], me["rooms"]) == (sorted(Scope), None)
    (mine,) = [
        one for one in await tokens_at(rest, token) if one["label"] == f"login of {boss.user_id}"
    ]
    assert mine["expires_at"] - mine["created_at"] == 86_400

    async def logins() -> list[str]:
        log = (await rest.ask("GET", "/api/v1/audit", token=token)).body["entries"]
        return [one["principal"] for one in log if one["action"] == "login"]

    # It is noted beside what it tells of.
    noted = await eventually(logins, lambda found: f"user:{boss.user_id}" in found)
    assert noted.count(f"user:{boss.user_id}") == 1
    assert SESSION_NAME in await sessions_of(boss)
    path = f"/api/v1/tokens/{mine['token_id']}"
    assert (await rest.ask("DELETE", path, token=token)).status in (200, 204)
    assert SESSION_NAME not in await sessions_of(boss)


async def test_a_user_reads_the_rooms_that_they_share_with_the_bot(
    rest: Rest, ann: Person, room: Room, bea: Room, homeserver: Homeserver
) -> None:
    carl = await new_account(homeserver, "compat_carl")
    await ann.bring(room.room_id, carl.person)
    await ann.bring(await ann.create_room(), carl.person)
    localpart = carl.user_id[1:].partition(":")[0]
    token = (await log_in(rest, localpart, carl.password)).body["access_token"]
    me = (await rest.ask("GET", "/api/v1/whoami", token=token)).body
    assert (me["scopes"], me["rooms"]) == (["read"], [room.room_id])
    listed = await rest.ask("GET", "/rooms/list", token=token)
    assert [one["room_id"] for one in listed.body["rooms"]] == [room.room_id]
    body = {"room_id": bea.room_id}
    refused = await rest.ask("POST", "/messages/get", body, token=token)
    assert refused.problem == (403, "forbidden")
    sent = await rest.ask("POST", "/messages/send", {**body, "message": "x"}, token=token)
    assert sent.problem == (403, "forbidden")


async def test_a_wrong_password_is_refused(rest: Rest, boss: Account) -> None:
    answer = await log_in(rest, boss.user_id, "wrong")
    assert answer.problem == (401, "login-failed")
    assert answer.body["success"] is False
    assert answer.body["message"] == answer.body["detail"]


@pytest.mark.parametrize(
    ("who", "problem"),
    [
        ("", (403, "forbidden")),
        (BOT, (403, "forbidden")),
        ("@agent_x:localhost", (403, "forbidden")),
        ("@ann:elsewhere.example", (401, "login-failed")),
        ("@a b:localhost", (401, "login-failed")),
    ],
    ids=["blocked", "the bot", "an agent", "elsewhere", "nonsense"],
)
async def test_others_do_not_even_reach_the_homeserver(
    rest: Rest, mallory: Account, who: str, problem: tuple[int, str]
) -> None:
    assert (await log_in(rest, who or mallory.user_id, mallory.password)).problem == problem


async def test_tries_are_counted(rest: Rest, clock: Clock) -> None:
    nobody = f"@nobody_{new_key()}:localhost"
    clock.stop()
    for _ in range(5):
        assert (await log_in(rest, nobody, "x")).problem == (401, "login-failed")
    answer = await log_in(rest, nobody, "x")
    assert answer.problem == (429, "rate-limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nobody_is_logged_in_unasked(rest: Rest, method: str) -> None:
    answer = await rest.ask(method, "/login/auto", token="")
    assert answer.problem == (410, "gone")
    assert "letta-matrix tokens create" in answer.body["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/login", {"user_id": "x", "password": "x"}),
        ("POST", "/messages/send", {"room_id": "!a:b", "message": "x"}),
        ("POST", "/messages/get", {"room_id": "!a:b"}),
        ("GET", "/messages/recent?homeserver=http://127.0.0.1:9", None),
        ("GET", "/rooms/list?homeserver=http://127.0.0.1:9", None),
    ],
)
async def test_another_homeserver_is_refused(
    rest: Rest, method: str, path: str, body: Json | None
) -> None:
    named = body and {**body, "homeserver": "http://127.0.0.1:9"}
    answer = await rest.ask(method, path, named)
    assert answer.problem == (400, "foreign-homeserver")
    assert answer.body["success"] is False


@pytest.mark.parametrize("path", ["/rooms/list", "/messages/recent", "/api/v1/whoami"])
async def test_a_token_in_the_url_is_refused(rest: Rest, path: str) -> None:
    answer = await rest.ask("GET", path, access_token=rest.token)
    assert answer.problem == (400, "token-in-url")
    assert rest.token not in json.dumps(answer.body)


async def test_messages_there_and_back(rest: Rest, ann: Person, ada: Room) -> None:
    room_id = ada.room_id
    in_body = {"access_token": rest.token, "homeserver": "localhost", "room_id": room_id}
    in_header = {"X-Access-Token": rest.token}
    sent = await rest.ask("POST", "/messages/send", {**in_body, "message": "**Hi**"}, token="")
    assert sent.status == 200
    assert sent.body.keys() == {"success", "event_id", "message"}
    event_id = sent.body["event_id"]
    event = await ann.get(f"/rooms/{room_id}/event/{event_id}")
    assert event["sender"] == BOT
    assert event["content"]["formatted_body"] == "<strong>Hi</strong>"
    got = await rest.ask("POST", "/messages/get", {**in_body, "limit": 2}, token="")
    found = {one["event_id"]: one for one in got.body["messages"]}
    assert found[event_id].keys() == {"sender", "body", "timestamp", "formatted_time", "event_id"}
    assert found[event_id]["timestamp"] // 1000 == event["origin_server_ts"] // 1000
    recent = await rest.ask("GET", "/messages/recent?limit=500", token="", headers=in_header)
    shown = {one["event_id"]: one for one in recent.body["messages"]}
    assert shown[event_id]["room_id"] == room_id
    assert recent.body["total_found"] == len(shown)
    rooms = await rest.ask("GET", "/rooms/list", token="", headers=in_header)
    (room,) = [one for one in rooms.body["rooms"] if one["room_id"] == room_id]
    assert room["room_name"] == shown[event_id]["room_name"]


async def test_a_token_is_needed_wherever_it_is(rest: Rest, ada: Room) -> None:
    body = {"room_id": ada.room_id, "message": "x", "access_token": "syt_matrix_token"}
    answer = await rest.ask("POST", "/messages/send", body, token="")
    assert answer.problem == (401, "unauthorized")


async def test_a_new_agent_is_there_at_once(rest: Rest, world: World) -> None:
    agent = new_agent("Cleo")
    world.runtime.add(agent)
    body = {"agent_id": agent.agent_id, "timestamp": "2026-09-21T14:13:20"}
    assert (await rest.call("POST", "/webhook/new-agent", body))["success"] is True

    async def room() -> Answer:
        return await rest.ask("GET", f"/agents/{agent.agent_id}/room")

    found = await eventually(room, lambda got: got.status == 200)
    assert found.body.keys() >= {"agent_name", "room_id", "matrix_user_id", "invitation_status"}
    known = (await rest.call("GET", "/agents/mappings"))["mappings"][agent.agent_id]
    assert known["room_id"] == found.body["room_id"]
    assert "matrix_password" not in known
    nobody = {"agent_id": "agent-none"}
    assert await rest.refused("POST", "/webhook/new-agent", nobody) == (404, "not-found")


async def test_what_lists_the_runtimes_is_for_admins(rest: Rest, world: World) -> None:
    limited, body = await rest_as(world, Scope.AGENTS, below=""), {"agent_id": "agent-none"}
    assert await limited.refused("POST", "/webhook/new-agent", body) == (403, "forbidden")
    world.runtime.available = False
    try:
        away = await rest.ask("POST", "/webhook/new-agent", body)
    finally:
        world.runtime.available = True
    assert away.problem == (503, "unavailable")
    assert away.body["detail"] == "These runtimes cannot be listed: memory."


async def test_rooms_of_no_concern_are_not_told(rest: Rest, world: World, ada: Room) -> None:
    agent_id = ada.agent.agent_id
    rooms = frozenset({"!other:localhost"})
    limited = await rest_as(world, Scope.AGENTS, rooms=rooms, below="")
    answer = await limited.ask("GET", f"/agents/{agent_id}/room")
    assert answer.problem == (404, "not-found")
    unknown = await limited.ask("GET", "/agents/agent-none/room")
    assert unknown.problem == (404, "not-found")
    assert unknown.body["detail"] == answer.body["detail"]
    assert agent_id not in (await limited.call("GET", "/agents/mappings"))["mappings"]
