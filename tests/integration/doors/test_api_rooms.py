"""Rooms, messages and files through the REST API, with a whole bridge on the real homeserver."""

import asyncio
import secrets
from urllib.parse import quote

import aiohttp
import pytest
from tests.integration.bridge_world import Json, Person, Room, World
from tests.integration.doors.doors_world import new_key
from tests.integration.doors.rest import Rest, rest_as
from tests.waiting import eventually

from letta_matrix.access.principal import Scope

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc0"
    "000003010100c9fe92ef0000000049454e44ae426082"
)


@pytest.fixture(scope="module")
async def room(admin: Rest, ann: Person) -> str:
    """A room of the bot's that the person is in, as a path."""
    body = {"name": f"Plans {new_key()}", "invite": [ann.user_id]}
    made = await admin.call("POST", "/rooms", body, expect=201)
    await ann.call("POST", f"/rooms/{quote(made['room_id'])}/join")
    return path_of(made["room_id"])


def path_of(room_id: str) -> str:
    return f"/rooms/{quote(room_id, safe='')}"


def message_at(room: str, sent: Json) -> str:
    return f"{room}/messages/{quote(sent['event_id'], safe='')}"


async def test_a_room_is_made_listed_changed_and_left(
    admin: Rest, world: World, ann: Person
) -> None:
    name = f"A/B {new_key()} %2F"
    key = {"Idempotency-Key": new_key()}
    body = {"name": name, "topic": "x", "invite": [ann.user_id]}
    made = await admin.call("POST", "/rooms", body, headers=key, expect=201)
    assert made["invited"] == [ann.user_id]
    assert await admin.call("POST", "/rooms", body, headers=key, expect=201) == made
    listed = await admin.call("GET", "/rooms")
    assert made["room_id"] in [one["room_id"] for one in listed["rooms"]]
    by_name = path_of(name)
    assert (await admin.call("PATCH", by_name, {"topic": "y"}))["changed"] == ["topic"]
    shown = await admin.call("GET", by_name)
    assert (shown["name"], shown["topic"]) == (name, "y")
    members = await admin.call("GET", f"{by_name}/members")
    assert world.config.bot_user_id in [one["user_id"] for one in members["members"]]
    assert (await admin.call("POST", f"{by_name}/leave"))["membership"] == "leave"
    assert await admin.refused("GET", by_name) == (404, "not-found")


async def test_people_and_agents_come_and_go(
    world: World, admin: Rest, bob: Person, ada: Room, room: str
) -> None:
    async def membership(way: str, who: Json) -> str:
        return str((await admin.call("POST", f"{room}/{way}", who))["membership"])

    person = {"user_id": bob.user_id, "reason": "come"}
    assert await membership("invite", person) == "invite"
    assert await membership("invite", {"user_id": ada.ghost}) == "join"
    assert await membership("kick", person) == "leave"
    assert await membership("ban", person) == "ban"
    assert await membership("unban", person) == "leave"
    as_ada = await rest_as(world, agent_id=ada.agent.agent_id)
    assert (await as_ada.call("POST", f"{room}/leave"))["membership"] == "leave"
    refused = await as_ada.refused("POST", f"{room}/messages", {"message": "still here"})
    assert refused == (403, "forbidden")


async def test_a_message_is_sent_once_edited_and_removed(admin: Rest, room: str) -> None:
    text, messages = new_key(), f"{room}/messages"
    body = {"message": f"**{text}**", "transaction_id": new_key()}
    sent = await admin.call("POST", messages, body, expect=201)
    assert await admin.call("POST", messages, body, expect=201) == sent
    path = message_at(room, sent)
    await admin.call("PUT", path, {"message": f"{text} edited"})
    (newest,) = (await admin.call("GET", messages, limit="1"))["messages"]
    assert (newest["text"], newest["edited"]) == (f"{text} edited", True)
    found = await admin.call("GET", "/search", query=text)
    assert found["messages"][0]["event_id"] == sent["event_id"]
    reacted = await admin.call("POST", f"{path}/reactions", {"key": "👍"}, expect=201)
    assert reacted["key"] == "👍"
    gone = await admin.call("DELETE", path, reason="wrong")
    assert gone["event_id"] == sent["event_id"]
    page = await admin.call("GET", messages, limit="5")
    assert sent["event_id"] not in [one["event_id"] for one in page["messages"]]


async def test_replies_threads_and_what_stands_around(admin: Rest, room: str) -> None:
    messages = f"{room}/messages"
    first = await admin.call("POST", messages, {"message": "first"}, expect=201)
    answer = {"message": "second", "reply_to": first["event_id"]}
    second = await admin.call("POST", messages, answer, expect=201)
    in_thread = {"message": "third", "thread": first["event_id"]}
    third = await admin.call("POST", messages, in_thread, expect=201)
    path = message_at(room, first)
    context = await admin.call("GET", f"{path}/context", around="2")
    shown = {one["event_id"]: one for one in context["messages"]}
    assert shown[second["event_id"]]["reply_to"] == first["event_id"]
    assert shown[third["event_id"]]["thread"] == first["event_id"]
    thread = await admin.call("GET", f"{path}/thread")
    assert [one["event_id"] for one in thread["messages"]] == [third["event_id"]]
    for path, body in (("read", {}), ("typing", {"seconds": 1}), ("typing", {"typing": False})):
        await admin.call("POST", f"{room}/{path}", body)
    seen: list[str] = []
    before = ""
    for _ in range(2):
        page = await admin.call("GET", messages, limit="1", before=before)
        seen += [one["event_id"] for one in page["messages"]]
        before = page["before"]
    assert seen == [third["event_id"], second["event_id"]]


async def send_file(admin: Rest, room: str, name: str, key: dict[str, str], as_form: bool) -> Json:
    path = f"{room}/media"
    if not as_form:
        headers = {**key, "Content-Type": "image/png; charset=x"}
        return await admin.call("POST", path, PNG, headers=headers, filename=name, expect=201)
    form = aiohttp.FormData()
    form.add_field("file", PNG, filename="../evil.png", content_type="image/png")
    return await admin.call("POST", path, form, headers=key, filename=name, expect=201)


@pytest.mark.parametrize("as_form", [False, True])
async def test_a_file_comes_back_as_it_was_sent(
    admin: Rest, room: str, ann: Person, as_form: bool
) -> None:
    name, key = '../../etc/ü "shadow".png', {"Idempotency-Key": new_key()}
    sent = await send_file(admin, room, name, key, as_form)
    assert await send_file(admin, room, name, key, not as_form) == sent
    assert (sent["name"], sent["bytes"], sent["width"]) == ("ü _shadow_.png", len(PNG), 1)
    event = await ann.get(f"/rooms/{quote(sent['room_id'])}/event/{quote(sent['event_id'])}")
    assert event["content"]["msgtype"] == "m.image"
    mxc = event["content"]["url"].removeprefix("mxc://")
    by_event = f"{message_at(room, sent)}/media", "image/png"
    by_address = f"/media/{mxc}", "application/octet-stream"
    for where, media_type in (by_event, by_address):
        async with admin.open("GET", where) as response:
            assert response.status == 200
            assert await response.read() == PNG
            headers = response.headers
        assert headers["Content-Type"] == media_type
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Disposition"].startswith("attachment")
        assert "sandbox" in headers["Content-Security-Policy"]


async def test_a_large_file_comes_back_whole(admin: Rest, room: str) -> None:
    data, path = secrets.token_bytes(1_000_000), f"{room}/media"
    sent = await admin.call("POST", path, data, filename="large.bin", expect=201)
    assert sent["bytes"] == len(data)
    async with admin.open("GET", f"{message_at(room, sent)}/media") as response:
        assert await response.read() == data
        assert response.content_length == len(data)


async def test_a_file_that_a_browser_would_run_is_only_stored(admin: Rest, room: str) -> None:
    headers, path = {"Content-Type": "text/html"}, f"{room}/media"
    page = b"<script>alert(1)</script>"
    sent = await admin.call("POST", path, page, headers=headers, filename="x.html", expect=201)
    async with admin.open("GET", f"{message_at(room, sent)}/media") as response:
        assert await response.read() == page
        assert response.content_type == "application/octet-stream"
        assert "x.html" in response.headers["Content-Disposition"]


async def test_a_token_for_one_room_gets_no_other(world: World, admin: Rest, room: str) -> None:
    room_id = (await admin.call("GET", room))["room_id"]
    other = (await admin.call("POST", "/rooms", {"name": "Elsewhere"}, expect=201))["room_id"]
    limited = await rest_as(world, rooms=frozenset({room_id}))
    listed = await limited.call("GET", "/rooms")
    assert [one["room_id"] for one in listed["rooms"]] == [room_id]
    away = path_of(other)
    for method, path, body in (
        ("GET", away, None),
        ("GET", f"{away}/members", None),
        ("GET", f"{away}/messages", None),
        ("POST", f"{away}/messages", {"message": "x"}),
        ("POST", f"{away}/media?filename=x", b"x"),
        ("GET", f"{away}/messages/$x/media", None),
        ("POST", f"{away}/join", None),
        ("PATCH", away, {"name": "x"}),
        ("GET", f"/search?query=x&room_id={quote(other, safe='')}", None),
        ("GET", "/media/localhost/abc", None),
        ("POST", "/rooms", {"name": "x"}),
    ):
        assert await limited.refused(method, path, body) == (403, "forbidden"), path


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
    answer = await rest.ask(method, room + path, body)
    assert answer.problem == (403, "forbidden")
    assert str({"GET": Scope.READ}.get(method, "")) in answer.body["detail"]


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
    admin: Rest, room: str, method: str, path: str, body: object, status: int, slug: str
) -> None:
    headers = {"Content-Type": "text/plain" if "/media" in path else "application/json"}
    answer = await admin.ask(method, path.replace("ROOM", room), body, headers=headers)
    assert answer.problem == (status, slug), answer


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
    admin: Rest, room: str, content_type: str, body: bytes, status: int
) -> None:
    headers = {"Content-Type": content_type}
    answer = await admin.ask("POST", f"{room}/media", body, headers=headers)
    assert answer.problem[0] == status, answer


async def test_a_transaction_is_for_one_request(admin: Rest, room: str) -> None:
    key, path = new_key(), f"{room}/messages"
    body = {"message": "x", "transaction_id": key}
    other = {"Idempotency-Key": "other"}
    assert await admin.refused("POST", path, body, headers=other) == (422, "invalid-arguments")
    same = {"Idempotency-Key": f'"{key}"'}
    sent = await asyncio.gather(
        *(admin.call("POST", path, body, headers=same, expect=201) for _ in range(4))
    )
    assert len({answer["event_id"] for answer in sent}) == 1
    assert await admin.refused("POST", path, {**body, "message": "y"}) == (409, "conflict")


async def test_what_a_tool_says_is_no_agents_turn(world: World, admin: Rest, ada: Room) -> None:
    before, note = len(world.runtime.asked), {"message": "just a note"}
    await admin.call("POST", f"{path_of(ada.room_id)}/messages", note, expect=201)
    # What comes later is asked later.
    await world.person.send(ada.room_id, "hello")
    await eventually(lambda: len(world.runtime.asked) > before)
    assert [asked.text for asked in world.runtime.asked[before:]] == ["hello"]
