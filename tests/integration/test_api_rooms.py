"""Rooms, messages and files through the REST API, with a whole bridge on the real homeserver."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from urllib.parse import quote

import aiohttp
import pytest
from tests.integration.bridge_world import (
    Json,
    Person,
    World,
    bridge_on,
    new_person,
)
from tests.integration.rest import Rest, rest_as
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.toolbox.principal import Scope

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0"
    "000003010100c9fe92ef0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World]:
    directory = tmp_path_factory.mktemp("api")
    async with bridge_on(homeserver, directory, ann, MemoryRuntime(script=obey)) as running:
        yield running


@pytest.fixture(scope="module")
async def bot(world: World) -> Rest:
    return await rest_as(world)


@pytest.fixture(scope="module")
async def room(world: World, bot: Rest, ann: Person) -> str:
    """A room of the bot's that the person is in, as a path."""
    status, made = await bot.call("POST", "/rooms", {"name": "Plans", "invite": [ann.user_id]})
    assert status == 201, made
    await ann.call("POST", f"/rooms/{quote(made['room_id'])}/join")
    return f"/rooms/{quote(made['room_id'], safe='')}"


def kind(problem: dict[str, str]) -> str:
    return problem["type"].rsplit("/", 1)[-1]


async def test_a_room_is_made_listed_changed_and_left(bot: Rest, world: World, ann: Person) -> None:
    name = f"A/B {secrets.token_hex(4)} %2F"
    key = {"Idempotency-Key": secrets.token_hex(8)}
    body = {"name": name, "topic": "x", "invite": [ann.user_id]}
    status, made = await bot.call("POST", "/rooms", body, headers=key)
    assert (status, made["invited"]) == (201, [ann.user_id])
    assert (await bot.call("POST", "/rooms", body, headers=key)) == (201, made)
    _, listed = await bot.call("GET", "/rooms")
    assert made["room_id"] in [one["room_id"] for one in listed["rooms"]]
    by_name = f"/rooms/{quote(name, safe='')}"
    status, told = await bot.call("PATCH", by_name, {"topic": "y"})
    assert (status, told["changed"]) == (200, ["topic"])
    status, shown = await bot.call("GET", by_name)
    assert (status, shown["name"], shown["topic"]) == (200, name, "y")
    status, members = await bot.call("GET", f"{by_name}/members")
    assert world.config.bot_user_id in [one["user_id"] for one in members["members"]]
    status, left = await bot.call("POST", f"{by_name}/leave")
    assert (status, left["membership"]) == (200, "leave")
    assert (await bot.call("GET", by_name))[0] == 404


async def test_people_and_agents_come_and_go(
    world: World, bot: Rest, homeserver: Homeserver, room: str
) -> None:
    bob = await new_person(homeserver, "bob")
    ada = await world.meet()
    body = {"user_id": bob.user_id, "reason": "come"}
    assert (await bot.call("POST", f"{room}/invite", body))[1]["membership"] == "invite"
    status, told = await bot.call("POST", f"{room}/invite", {"user_id": ada.ghost})
    assert (status, told["membership"]) == (200, "join")
    assert (await bot.call("POST", f"{room}/kick", body))[1]["membership"] == "leave"
    assert (await bot.call("POST", f"{room}/ban", body))[1]["membership"] == "ban"
    assert (await bot.call("POST", f"{room}/unban", body))[1]["membership"] == "leave"
    as_ada = await rest_as(world, agent_id=ada.agent.agent_id)
    assert (await as_ada.call("POST", f"{room}/leave"))[1]["membership"] == "leave"
    status, problem = await as_ada.call("POST", f"{room}/messages", {"message": "still here"})
    assert (status, kind(problem)) == (403, "forbidden")


async def test_a_message_is_sent_once_edited_and_removed(bot: Rest, room: str) -> None:
    text = secrets.token_hex(8)
    body = {"message": f"**{text}**", "transaction_id": secrets.token_hex(8)}
    status, sent = await bot.call("POST", f"{room}/messages", body)
    assert (status, (await bot.call("POST", f"{room}/messages", body))[1]) == (201, sent)
    path = f"{room}/messages/{quote(sent['event_id'], safe='')}"
    status, _ = await bot.call("PUT", path, {"message": f"{text} edited"})
    assert status == 200
    _, page = await bot.call("GET", f"{room}/messages", limit="1")
    assert (page["messages"][0]["text"], page["messages"][0]["edited"]) == (f"{text} edited", True)
    status, found = await bot.call("GET", "/search", query=text)
    assert (status, found["messages"][0]["event_id"]) == (200, sent["event_id"])
    status, reacted = await bot.call("POST", f"{path}/reactions", {"key": "👍"})
    assert (status, reacted["key"]) == (201, "👍")
    status, gone = await bot.call("DELETE", path, reason="wrong")
    assert (status, gone["event_id"]) == (200, sent["event_id"])
    _, page = await bot.call("GET", f"{room}/messages", limit="5")
    assert sent["event_id"] not in [one["event_id"] for one in page["messages"]]


async def test_replies_threads_and_what_stands_around(bot: Rest, room: str) -> None:
    _, first = await bot.call("POST", f"{room}/messages", {"message": "first"})
    answer = {"message": "second", "reply_to": first["event_id"]}
    _, second = await bot.call("POST", f"{room}/messages", answer)
    in_thread = {"message": "third", "thread": first["event_id"]}
    _, third = await bot.call("POST", f"{room}/messages", in_thread)
    path = f"{room}/messages/{quote(first['event_id'], safe='')}"
    status, context = await bot.call("GET", f"{path}/context", around="2")
    assert status == 200
    shown = {one["event_id"]: one for one in context["messages"]}
    assert shown[second["event_id"]]["reply_to"] == first["event_id"]
    assert shown[third["event_id"]]["thread"] == first["event_id"]
    status, thread = await bot.call("GET", f"{path}/thread")
    assert [one["event_id"] for one in thread["messages"]] == [third["event_id"]]
    for path, body in (("read", {}), ("typing", {"seconds": 1}), ("typing", {"typing": False})):
        assert (await bot.call("POST", f"{room}/{path}", body))[0] == 200
    seen: list[str] = []
    before = ""
    for _ in range(2):
        _, page = await bot.call("GET", f"{room}/messages", limit="1", before=before)
        seen += [one["event_id"] for one in page["messages"]]
        before = page["before"]
    assert seen == [third["event_id"], second["event_id"]]


async def send_file(bot: Rest, room: str, name: str, key: dict[str, str], as_form: bool) -> Json:
    if as_form:
        form = aiohttp.FormData()
        form.add_field("file", PNG, filename="../evil.png", content_type="image/png")
        status, sent = await bot.call("POST", f"{room}/media", form, headers=key, filename=name)
    else:
        headers = {**key, "Content-Type": "image/png; charset=x"}
        status, sent = await bot.call("POST", f"{room}/media", PNG, headers=headers, filename=name)
    assert status == 201, sent
    return sent


@pytest.mark.parametrize("as_form", [False, True])
async def test_a_file_comes_back_as_it_was_sent(
    bot: Rest, room: str, ann: Person, as_form: bool
) -> None:
    name, key = '../../etc/ü "shadow".png', {"Idempotency-Key": secrets.token_hex(8)}
    sent = await send_file(bot, room, name, key, as_form)
    assert await send_file(bot, room, name, key, not as_form) == sent
    assert (sent["name"], sent["bytes"], sent["width"]) == ("ü _shadow_.png", len(PNG), 1)
    room_id = sent["room_id"]
    event = await ann.get(f"/rooms/{quote(room_id)}/event/{quote(sent['event_id'])}")
    assert event["content"]["msgtype"] == "m.image"
    path = f"{room}/messages/{quote(sent['event_id'], safe='')}/media"
    mxc = event["content"]["url"].removeprefix("mxc://")
    by_event, by_address = (path, "image/png"), (f"/media/{mxc}", "application/octet-stream")
    for where, media_type in (by_event, by_address):
        async with bot.open("GET", where) as response:
            assert response.status == 200
            assert await response.read() == PNG
            headers = response.headers
        assert headers["Content-Type"] == media_type
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in headers["Content-Security-Policy"]


async def test_a_large_file_comes_back_whole(bot: Rest, room: str) -> None:
    data = secrets.token_bytes(1_000_000)
    status, sent = await bot.call("POST", f"{room}/media", data, filename="large.bin")
    assert (status, sent.get("bytes")) == (201, len(data)), sent
    path = f"{room}/messages/{quote(sent['event_id'], safe='')}/media"
    async with bot.open("GET", path) as response:
        assert await response.read() == data
        assert response.content_length == len(data)


async def test_a_file_that_a_browser_would_run_is_only_stored(bot: Rest, room: str) -> None:
    headers = {"Content-Type": "text/html"}
    page = b"<script>alert(1)</script>"
    _, sent = await bot.call("POST", f"{room}/media", page, headers=headers, filename="x.html")
    path = f"{room}/messages/{quote(sent['event_id'], safe='')}/media"
    async with bot.open("GET", path) as response:
        assert await response.read() == page
        assert response.content_type == "application/octet-stream"
        assert "x.html" in response.headers["Content-Disposition"]


async def test_a_token_for_one_room_gets_no_other(world: World, bot: Rest, room: str) -> None:
    room_id = (await bot.call("GET", room))[1]["room_id"]
    _, other = await bot.call("POST", "/rooms", {"name": "Elsewhere"})
    limited = await rest_as(world, rooms=frozenset({room_id}))
    _, listed = await limited.call("GET", "/rooms")
    assert [one["room_id"] for one in listed["rooms"]] == [room_id]
    away = f"/rooms/{quote(other['room_id'], safe='')}"
    for method, path, body in (
        ("GET", away, None),
        ("GET", f"{away}/members", None),
        ("GET", f"{away}/messages", None),
        ("POST", f"{away}/messages", {"message": "x"}),
        ("POST", f"{away}/media?filename=x", b"x"),
        ("GET", f"{away}/messages/$x/media", None),
        ("POST", f"{away}/join", None),
        ("PATCH", away, {"name": "x"}),
        ("GET", f"/search?query=x&room_id={quote(other['room_id'], safe='')}", None),
        ("GET", "/media/localhost/abc", None),
        ("POST", "/rooms", {"name": "x"}),
    ):
        status, problem = await limited.call(method, path, body)
        assert (status, kind(problem)) == (403, "forbidden"), (path, problem)


@pytest.mark.parametrize(
    ("scope", "method", "path", "body"),
    [
        (Scope.WRITE, "GET", "/messages", None),
        (Scope.WRITE, "GET", "/messages/$x/media", None),
        (Scope.READ, "POST", "/messages", {"message": "x"}),
        (Scope.READ, "POST", "/media?filename=x", b"x"),
        (Scope.WRITE, "POST", "/invite", {"user_id": "@x:localhost"}),
    ],
)
async def test_a_token_needs_the_scope(
    world: World, room: str, scope: Scope, method: str, path: str, body: object
) -> None:
    rest = await rest_as(world, scope)
    status, problem = await rest.call(method, room + path, body)
    assert (status, kind(problem)) == (403, "forbidden")
    assert str({"GET": Scope.READ}.get(method, "")) in problem["detail"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("GET", "/rooms/%21none%3Alocalhost", None, 403, "forbidden"),
        ("GET", "/rooms/%23none%3Alocalhost", None, 404, "not-found"),
        ("GET", "/rooms/no%20such%2Froom", None, 404, "not-found"),
        ("GET", "/rooms/%00", None, 422, "invalid-arguments"),
        ("GET", "/rooms/%ff", None, 404, "not-found"),
        ("GET", "/rooms/..%2f..%2fetc%2fpasswd/messages", None, 404, "not-found"),
        ("GET", f"/rooms/{'x' * 300}", None, 422, "invalid-arguments"),
        ("POST", "ROOM/messages", {"message": ""}, 422, "invalid-arguments"),
        ("POST", "ROOM/messages", {"message": " \n "}, 422, "invalid-arguments"),
        ("POST", "ROOM/messages", {"message": 3}, 422, "invalid-arguments"),
        ("POST", "ROOM/messages", {"message": "x", "as": "@root"}, 422, "invalid-arguments"),
        ("POST", "ROOM/messages", {"message": "x" * 100_001}, 422, "invalid-arguments"),
        ("POST", "ROOM/messages", {"message": "x", "reply_to": "$none"}, 404, "not-found"),
        ("POST", "ROOM/messages", {"message": "x", "reply_to": "none"}, 422, "invalid-arguments"),
        ("POST", "ROOM/messages", b"\xff\xfe", 400, "malformed-body"),
        ("POST", "ROOM/messages", b"[" * 100_000, 400, "malformed-body"),
        ("PUT", "ROOM/messages/$none", {"message": "x"}, 404, "not-found"),
        ("DELETE", "ROOM/messages/$none", None, 404, "not-found"),
        ("GET", "ROOM/messages/$none/media", None, 404, "not-found"),
        ("GET", "ROOM/messages?limit=51", None, 422, "invalid-arguments"),
        ("GET", "/media/localhost/none", None, 404, "not-found"),
        ("GET", "/media/..%2F..%2F_synapse/admin", None, 404, "not-found"),
        ("GET", "/media/localhost/a%3Fb", None, 404, "not-found"),
        ("POST", "ROOM/media?filename=x", b"", 422, "invalid-arguments"),
        ("POST", "ROOM/media?filename=..", b"x", 422, "invalid-arguments"),
        ("POST", "ROOM/media", b"x", 422, "invalid-arguments"),
        ("POST", "ROOM/media?filename=x", b"x" * 1_000_000 * 6, 413, "too-large"),
        ("POST", "ROOM/invite", {"user_id": "bob"}, 422, "invalid-arguments"),
        ("POST", "ROOM/kick", {"user_id": "@nobody:localhost"}, 404, "not-found"),
        ("PATCH", "ROOM", {}, 422, "invalid-arguments"),
        ("PATCH", "ROOM", {"avatar": "https://example.org/x.png"}, 422, "invalid-arguments"),
        ("POST", "/rooms", {"name": "x", "alias": "a:b"}, 422, "invalid-arguments"),
        ("POST", "/rooms", {"name": "x\x00"}, 422, "invalid-arguments"),
    ],
)
async def test_hostile_input_is_refused_by_name(
    bot: Rest, room: str, method: str, path: str, body: object, status: int, slug: str
) -> None:
    headers = {"Content-Type": "text/plain" if "/media" in path else "application/json"}
    path = path.replace("ROOM", room)
    answered, problem = await bot.call(method, path, body, headers=headers)
    assert (answered, kind(problem)) == (status, slug), problem


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("multipart/form-data", b"x", 400),
        ("multipart/form-data; boundary=b", b"--b\r\nbroken\r\n\r\n", 400),
        ("multipart/form-data; boundary=b", b"--b--\r\n", 422),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--b--\r\n',
            422,
        ),
    ],
)
async def test_broken_forms_are_refused(
    bot: Rest, room: str, content_type: str, body: bytes, status: int
) -> None:
    headers = {"Content-Type": content_type}
    answered, problem = await bot.call("POST", f"{room}/media", body, headers=headers)
    assert answered == status, problem


async def test_a_transaction_is_for_one_request(bot: Rest, room: str) -> None:
    key = secrets.token_hex(8)
    body = {"message": "x", "transaction_id": key}
    status, problem = await bot.call(
        "POST", f"{room}/messages", body, headers={"Idempotency-Key": "other"}
    )
    assert (status, kind(problem)) == (422, "invalid-arguments")
    both = [
        bot.call("POST", f"{room}/messages", body, headers={"Idempotency-Key": f'"{key}"'})
        for _ in range(4)
    ]
    sent = await asyncio.gather(*both)
    assert len({answer["event_id"] for _, answer in sent}) == 1
    status, problem = await bot.call("POST", f"{room}/messages", {**body, "message": "y"})
    assert (status, kind(problem)) == (409, "conflict")


async def test_what_a_tool_says_is_no_agents_turn(world: World, bot: Rest) -> None:
    home = await world.meet()
    before = len(world.runtime.asked)
    path = f"/rooms/{quote(home.room_id, safe='')}/messages"
    assert (await bot.call("POST", path, {"message": "just a note"}))[0] == 201
    await world.person.send(home.room_id, "hello")
    await eventually(lambda: asyncio.sleep(0, len(world.runtime.asked)), lambda n: n > before)
    assert len(world.runtime.asked) == before + 1
