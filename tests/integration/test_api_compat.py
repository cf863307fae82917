"""The paths of the original Letta-Matrix integration, over a real bridge and homeserver."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from tests.integration.bridge_world import Json, Person, new_agent
from tests.integration.rest_world import Answer, Rest, rest_on
from tests.servers import Homeserver
from tests.waiting import eventually

PASSWORDS: dict[str, str] = {}


async def person(homeserver: Homeserver, name: str) -> Person:
    """Somebody whose password is known."""
    who, token, password = await homeserver.register(name)
    PASSWORDS[who] = password
    return Person(homeserver.http, homeserver.url, who, token)


@pytest.fixture(scope="module")
async def boss(homeserver: Homeserver) -> Person:
    return await person(homeserver, "compat_boss")


@pytest.fixture(scope="module")
async def rest(
    homeserver: Homeserver, boss: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Rest]:
    directory = tmp_path_factory.mktemp("compat")
    refused = {"permissions": {"@compat_mallory:localhost": "block"}}
    async with rest_on(homeserver, directory, boss, **refused) as running:
        yield running


def login_of(who: str, **fields: Any) -> Json:
    return {"homeserver": "", "user_id": who, "password": PASSWORDS.get(who, "x"), **fields}


async def log_in(rest: Rest, who: str, **fields: Any) -> Answer:
    return await rest.call("POST", "/login", login_of(who, **fields), token="")


async def test_the_front_door_and_health(rest: Rest) -> None:
    told = (await rest.call("GET", "/", token="")).body
    assert told.keys() >= {"message", "version", "status"}
    browser = await rest.call("GET", "/", token="", Accept="text/html")
    assert (browser.status, browser.headers["Location"]) == (302, "/chat")
    health = (await rest.call("GET", "/health", token="")).body
    assert health.keys() >= {"status", "authenticated", "timestamp", "agent_sync_available"}
    shown = json.dumps(health)
    assert rest.world.homeserver.as_token not in shown
    assert rest.world.homeserver.hs_token not in shown


async def test_an_admin_logs_in_and_acts_as_the_bot(rest: Rest, boss: Person) -> None:
    before = await boss.get("/devices")
    answer = await log_in(rest, boss.user_id, homeserver=rest.world.config.homeserver.url)
    assert answer.status == 200
    assert answer.body.keys() == {"success", "access_token", "device_id", "user_id", "message"}
    assert (answer.body["success"], answer.body["user_id"]) == (True, boss.user_id)
    token = answer.body["access_token"]
    assert token.startswith("lm_")
    assert await boss.get("/devices") == before
    me = (await rest.call("GET", "/api/v1/whoami", token=token)).body
    assert me["user_id"] == rest.world.config.bot_user_id
    assert (me["scopes"], me["rooms"]) == (["admin", "agents", "read", "rooms", "write"], None)
    tokens = (await rest.call("GET", "/api/v1/tokens", token=token)).body["tokens"]
    (mine,) = [one for one in tokens if one["label"] == f"login of {boss.user_id}"]
    assert mine["expires_at"] - mine["created_at"] == 86_400
    log = (await rest.call("GET", "/api/v1/audit", token=token)).body["entries"]
    assert (log[0]["action"], log[0]["principal"]) == ("login", f"user:{boss.user_id}")


async def test_a_user_reads_the_rooms_that_they_share_with_the_bot(
    rest: Rest, boss: Person, homeserver: Homeserver
) -> None:
    carl = await person(homeserver, "compat_carl")
    await boss.bring(rest.room.room_id, carl)
    other = await rest.world.meet(new_agent("Bea"))
    late = await boss.create_room(
        rest.world.config.bot_user_id,
        initial_state=[
            {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
        ],
    )
    await boss.bring(late, carl)
    bot = rest.world.config.bot_user_id
    await eventually(lambda: boss.members(late), lambda all_: all_.get(bot) == "join")
    login = await log_in(rest, "compat_carl", password=PASSWORDS[carl.user_id])
    token = login.body["access_token"]
    me = (await rest.call("GET", "/api/v1/whoami", token=token)).body
    assert (me["scopes"], me["rooms"]) == (["read"], [rest.room.room_id])
    listed = await rest.call("GET", "/rooms/list", token=token)
    assert [room["room_id"] for room in listed.body["rooms"]] == [rest.room.room_id]
    body = {"room_id": other.room_id}
    refused = await rest.call("POST", "/messages/get", body, token=token)
    assert refused.problem == (403, "forbidden")
    sent = await rest.call("POST", "/messages/send", {**body, "message": "x"}, token=token)
    assert sent.problem == (403, "forbidden")


async def test_a_wrong_password_is_refused(rest: Rest, boss: Person) -> None:
    answer = await log_in(rest, boss.user_id, password="wrong")
    assert answer.problem == (401, "login-failed")
    assert answer.body["success"] is False
    assert answer.body["message"] == answer.body["detail"]


@pytest.mark.parametrize(
    ("who", "problem"),
    [
        ("@compat_mallory:localhost", (403, "forbidden")),
        ("@letta:localhost", (403, "forbidden")),
        ("@agent_x:localhost", (403, "forbidden")),
        ("@ann:elsewhere.example", (401, "login-failed")),
        ("@a b:localhost", (401, "login-failed")),
    ],
)
async def test_others_do_not_even_reach_the_homeserver(
    rest: Rest, homeserver: Homeserver, who: str, problem: tuple[int, str]
) -> None:
    if "mallory" in who:
        await person(homeserver, "compat_mallory")
    assert (await log_in(rest, who)).problem == problem


async def test_tries_are_counted(rest: Rest) -> None:
    nobody = "@compat_nobody:localhost"
    for _ in range(5):
        assert (await log_in(rest, nobody)).problem == (401, "login-failed")
    answer = await log_in(rest, nobody)
    assert answer.problem == (429, "rate-limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_nobody_is_logged_in_unasked(rest: Rest, method: str) -> None:
    answer = await rest.call(method, "/login/auto", token="")
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
    answer = await rest.call(method, path, named)
    assert answer.problem == (400, "foreign-homeserver")
    assert answer.body["success"] is False


@pytest.mark.parametrize("path", ["/rooms/list", "/messages/recent", "/api/v1/whoami"])
async def test_a_token_in_the_url_is_refused(rest: Rest, path: str) -> None:
    answer = await rest.call("GET", f"{path}?access_token={rest.token}")
    assert answer.problem == (400, "token-in-url")
    assert rest.token not in json.dumps(answer.body)


async def test_messages_there_and_back(rest: Rest, boss: Person) -> None:
    room_id = rest.room.room_id
    in_body = {"access_token": rest.token, "homeserver": "localhost", "room_id": room_id}
    sent = await rest.call("POST", "/messages/send", {**in_body, "message": "**Hi**"}, token="")
    assert sent.status == 200
    assert sent.body.keys() == {"success", "event_id", "message"}
    event_id = sent.body["event_id"]
    event = await boss.get(f"/rooms/{room_id}/event/{event_id}")
    assert event["sender"] == rest.world.config.bot_user_id
    assert event["content"]["formatted_body"] == "<strong>Hi</strong>"
    got = await rest.call("POST", "/messages/get", {**in_body, "limit": 2}, token="")
    found = {one["event_id"]: one for one in got.body["messages"]}
    assert found[event_id].keys() == {"sender", "body", "timestamp", "formatted_time", "event_id"}
    assert found[event_id]["timestamp"] // 1000 == event["origin_server_ts"] // 1000
    recent = await rest.call(
        "GET", "/messages/recent?limit=500", token="", X_Access_Token=rest.token
    )
    shown = {one["event_id"]: one for one in recent.body["messages"]}
    assert shown[event_id]["room_id"] == room_id
    assert recent.body["total_found"] == len(shown)
    rooms = await rest.call("GET", "/rooms/list", token="", X_Access_Token=rest.token)
    (room,) = [one for one in rooms.body["rooms"] if one["room_id"] == room_id]
    assert room["room_name"] == shown[event_id]["room_name"]


async def test_a_token_is_needed_wherever_it_is(rest: Rest) -> None:
    body = {"room_id": rest.room.room_id, "message": "x", "access_token": "syt_matrix_token"}
    answer = await rest.call("POST", "/messages/send", body, token="")
    assert answer.problem == (401, "unauthorized")


async def test_a_new_agent_is_there_at_once(rest: Rest) -> None:
    agent = new_agent("Cleo")
    rest.world.runtime.add(agent)
    body = {"agent_id": agent.agent_id, "timestamp": "2026-09-21T14:13:20"}
    answer = await rest.call("POST", "/webhook/new-agent", body)
    assert (answer.status, answer.body["success"]) == (200, True)

    async def room() -> Answer:
        return await rest.call("GET", f"/agents/{agent.agent_id}/room")

    found = await eventually(room, lambda got: got.status == 200)
    assert found.body.keys() >= {"agent_name", "room_id", "matrix_user_id", "invitation_status"}
    known = (await rest.call("GET", "/agents/mappings")).body["mappings"][agent.agent_id]
    assert known["room_id"] == found.body["room_id"]
    assert "matrix_password" not in known
    unknown = await rest.call("POST", "/webhook/new-agent", {"agent_id": "agent-none"})
    assert unknown.problem == (404, "not-found")


async def test_what_lists_the_runtimes_is_for_admins(rest: Rest) -> None:
    token = await rest.new_token("agents")
    told = await rest.call("POST", "/webhook/new-agent", {"agent_id": "agent-none"}, token=token)
    assert told.problem == (403, "forbidden")
    rest.world.runtime.available = False
    try:
        away = await rest.call("POST", "/webhook/new-agent", {"agent_id": "agent-none"})
    finally:
        rest.world.runtime.available = True
    assert away.problem == (503, "unavailable")
    assert away.body["detail"] == "These runtimes cannot be listed: memory."


async def test_rooms_of_no_concern_are_not_told(rest: Rest) -> None:
    agent_id = rest.room.agent.agent_id
    token = await rest.new_token("agents", rooms={"!other:localhost"})
    answer = await rest.call("GET", f"/agents/{agent_id}/room", token=token)
    assert answer.problem == (404, "not-found")
    unknown = await rest.call("GET", "/agents/agent-none/room", token=token)
    assert unknown.problem == (404, "not-found")
    assert unknown.body["detail"] == answer.body["detail"]
    known = (await rest.call("GET", "/agents/mappings", token=token)).body["mappings"]
    assert agent_id not in known
