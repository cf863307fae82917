"""Agents through the REST API, with a whole bridge on the real homeserver."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Generator, Iterable
from dataclasses import replace
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import (
    Json,
    Person,
    Room,
    World,
    bridge_on,
    new_agent,
    new_person,
)
from tests.integration.rest import Rest, rest_as
from tests.scripts import obey
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.matrix.content import CURSOR
from letta_matrix.matrix.identifiers import room_alias
from letta_matrix.runtimes.memory import Answer, MemoryRuntime
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    Capabilities,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)
from letta_matrix.toolbox.principal import Scope


@pytest.fixture(scope="module")
async def ann(homeserver: Homeserver) -> Person:
    return await new_person(homeserver)


def obey_the_last_line(request: TurnRequest) -> Iterable[TurnEvent | float]:
    """`run COMMAND` asks first; above it stands who has written it."""
    line = request.text.splitlines()[-1]
    return asks(request, line) if line.startswith("run ") else obey(replace(request, text=line))


def asks(request: TurnRequest, line: str) -> Generator[TurnEvent, Answer, None]:
    wanted = ApprovalRequested(request.message_id, "Bash", {"command": line[4:]}, always=False)
    answer = yield wanted
    yield TextDelta("0", "done" if answer.allow else f"not done: {answer.message}")
    yield TurnFinished(StopReason.END_TURN)


@pytest.fixture(scope="module")
async def world(
    homeserver: Homeserver, ann: Person, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[World]:
    runtime = MemoryRuntime(script=obey_the_last_line)
    fixed = MemoryRuntime("fixed", agents=1, capabilities=Capabilities(manage=False))
    directory = tmp_path_factory.mktemp("api")
    async with bridge_on(homeserver, directory, ann, runtime, fixed) as running:
        yield running


@pytest.fixture(scope="module")
async def admin(world: World) -> Rest:
    return await rest_as(world)


def name_of_its_own() -> str:
    return f"Ada {secrets.token_hex(4)}"


async def test_an_agent_is_created_once_and_has_its_room(world: World, admin: Rest) -> None:
    name, key = name_of_its_own(), {"Idempotency-Key": secrets.token_hex(8)}
    body = {"name": name, "description": "Knows the archive."}
    status, made = await admin.call("POST", "/agents", body, headers=key)
    assert status == 201, made
    assert (made["name"], made["runtime"], made["status"]) == (name, "memory", "active")
    assert made["description"] == "Knows the archive."
    room = await world.person.get(
        f"/directory/room/{quote(room_alias(made['agent_id'], 'localhost'))}"
    )
    assert made["room_id"] == room["room_id"]
    status, again = await admin.call("POST", "/agents", body, headers=key)
    assert (status, again["agent_id"]) == (201, made["agent_id"])
    _, page = await admin.call("GET", "/agents", name=name.upper())
    assert [agent["agent_id"] for agent in page["agents"]] == [made["agent_id"]]
    status, other = await admin.call("POST", "/agents", {"name": "Eve"}, headers=key)
    assert (status, other["type"].split("/")[-1]) == (409, "conflict")


async def test_an_agent_is_renamed_at_once(world: World, admin: Rest) -> None:
    room = await world.meet()
    name = name_of_its_own()
    path = f"/agents/{room.agent.agent_id}"
    status, changed = await admin.call("PATCH", path, {"name": f"  {name} "})
    assert (status, changed["name"]) == (200, name)
    assert (await admin.call("GET", path))[1]["name"] == name
    profile = f"/profile/{quote(room.ghost)}/displayname"
    await eventually(lambda: world.person.get(profile), lambda p: p["displayname"] == name)


async def test_an_agent_is_removed_only_by_its_name(world: World, admin: Rest) -> None:
    room = await world.meet(new_agent(name_of_its_own()))
    path = f"/agents/{room.agent.agent_id}"
    assert (await admin.call("DELETE", path))[0] == 422
    status, problem = await admin.call("DELETE", path, confirm="Ada")
    assert (status, room.agent.name in problem["detail"]) == (409, True)
    assert room.agent in await world.runtime.list_agents()
    assert await admin.call("DELETE", path, confirm=room.agent.name) == (204, {})
    assert room.agent not in await world.runtime.list_agents()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "slug"),
    [
        ("POST", "/agents", {"name": "Eve", "runtime": "fixed"}, 409, "conflict"),
        ("POST", "/agents", {"name": "Eve", "runtime": "nowhere"}, 404, "not-found"),
        ("POST", "/agents", {"name": ""}, 422, "invalid-arguments"),
        ("POST", "/agents", {"name": "E\u0007ve"}, 422, "invalid-arguments"),
        ("POST", "/agents", {"name": "x" * 101}, 422, "invalid-arguments"),
        ("POST", "/agents", {"name": "Eve", "wings": 2}, 422, "invalid-arguments"),
        ("POST", "/agents", b"{", 400, "malformed-body"),
        ("PATCH", "/agents/agent-00000001-0000", {"name": "Eve"}, 409, "conflict"),
        ("PATCH", "/agents/agent-none", {"name": "Eve"}, 404, "not-found"),
        ("GET", "/agents/..%2F..%2Fetc", None, 404, "not-found"),
        ("GET", "/agents/%00", None, 404, "not-found"),
        ("GET", "/agents?after=nobody", None, 422, "invalid-arguments"),
        ("POST", "/agents/agent-none/messages", {"message": "x"}, 404, "not-found"),
        ("POST", "/agents/agent-00000001-0000/messages", {"message": ""}, 422, "invalid-arguments"),
        ("POST", "/agents/agent-00000001-0000/messages", {}, 422, "invalid-arguments"),
    ],
)
async def test_what_cannot_be_done_says_why(
    admin: Rest, method: str, path: str, body: object, status: int, slug: str
) -> None:
    answered, problem = await admin.call(
        method, path, body, headers={"Content-Type": "application/json"}
    )
    assert (answered, problem["type"].split("/")[-1]) == (status, slug), problem


async def test_a_runtime_that_is_away_is_said_to_be(world: World, admin: Rest) -> None:
    room = await world.meet()
    world.runtime.available = False
    try:
        status, problem = await admin.call("POST", "/agents", {"name": "Eve"})
        assert (status, "switched off" in problem["detail"]) == (503, True)
        renamed = await admin.call("PATCH", f"/agents/{room.agent.agent_id}", {"name": "Eve"})
        assert renamed[0] == 503
        status, synced = await admin.call("POST", "/agents/sync")
        assert status == 200
        assert "switched off" in synced["troubles"]["memory"]
        assert synced["troubles"]["fixed"] == ""
    finally:
        world.runtime.available = True
    assert (await admin.call("POST", "/agents/sync"))[1]["troubles"] == {"memory": "", "fixed": ""}


async def test_agents_come_in_pages(world: World, admin: Rest) -> None:
    mark = secrets.token_hex(4)
    rooms = [await world.meet(new_agent(f"{mark} {number}")) for number in range(3)]
    seen: list[str] = []
    after = ""
    for number in range(3):
        _, page = await admin.call("GET", "/agents", name=mark, limit="1", after=after)
        seen += [agent["agent_id"] for agent in page["agents"]]
        after = page["next"]
        assert (page["total"], after is None) == (3, number == 2)
    assert sorted(seen) == sorted(room.agent.agent_id for room in rooms)


async def test_scopes_and_rooms_limit_a_token(world: World) -> None:
    ada, bob = await world.meet(), await world.meet()
    reader = await rest_as(world, Scope.READ)
    assert (await reader.call("GET", "/agents"))[0] == 403
    speaker = await rest_as(world, Scope.AGENTS, rooms=frozenset({ada.room_id}))
    _, page = await speaker.call("GET", "/agents")
    assert [agent["agent_id"] for agent in page["agents"]] == [ada.agent.agent_id]
    status, shown = await speaker.call("GET", f"/agents/{ada.agent.agent_id}")
    assert (status, shown["trouble"]) == (200, None)
    for method, path, body in (
        ("GET", f"/agents/{bob.agent.agent_id}", None),
        ("POST", f"/agents/{bob.agent.agent_id}/messages", {"message": "psst"}),
    ):
        assert (await speaker.call(method, path, body))[0] == 404
    for method, path, body in (
        ("POST", "/agents", {"name": "Eve"}),
        ("PATCH", f"/agents/{ada.agent.agent_id}", {"name": "Eve"}),
        ("DELETE", f"/agents/{ada.agent.agent_id}?confirm=Ada", None),
        ("POST", "/agents/sync", None),
        ("GET", "/turns", None),
        ("GET", "/approvals", None),
    ):
        assert (await speaker.call(method, path, body))[0] == 403, path


async def test_an_agent_answers_whoever_waits(world: World, admin: Rest) -> None:
    room = await world.meet()
    path, key = f"/agents/{room.agent.agent_id}/messages", {"Idempotency-Key": secrets.token_hex(8)}
    status, told = await admin.call("POST", path, {"message": "are you there?"}, headers=key)
    assert status == 200, told
    assert told["answer"] == "echo: are you there?"
    asked = await world.person.get(f"/rooms/{quote(room.room_id)}/event/{quote(told['event_id'])}")
    assert asked["sender"] == world.config.bot_user_id
    said = await world.person.said_by(room.room_id, room.ghost)
    assert [one["event_id"] for one in said] == [told["answer_event_id"]]
    again = await admin.call("POST", path, {"message": "are you there?"}, headers=key)
    assert again == (200, told)
    assert len(await world.person.said_by(room.room_id, room.ghost)) == 1
    assert (await admin.call("GET", f"/agents/{room.agent.agent_id}"))[1]["conversations"] == 1
    _, recent = await admin.call("GET", "/turns", status="all", limit="1")
    assert [turn["turn_id"] for turn in recent["turns"]] == [told["turn_id"]]
    _, older = await admin.call("GET", "/turns", status="all", after=told["turn_id"])
    assert told["turn_id"] not in [turn["turn_id"] for turn in older["turns"]]
    _, page = await admin.call("GET", path)
    assert [one["text"] for one in page["messages"]][-1] == "echo: are you there?"
    status, turn = await admin.call("GET", f"/turns/{told['turn_id']}")
    assert (turn["status"], turn["text"]) == ("done", "echo: are you there?")


async def test_who_does_not_wait_asks_again(world: World, admin: Rest) -> None:
    room = await world.meet()
    path, key = f"/agents/{room.agent.agent_id}/messages", {"Idempotency-Key": secrets.token_hex(8)}
    body = {"message": "slow 0.5 think"}
    status, told = await admin.call("POST", path, body, headers=key, wait="0")
    assert (status, told["answer"]) == (202, None)

    async def waiting() -> list[str]:
        _, page = await admin.call("GET", "/turns")
        return [turn["turn_id"] for turn in page["turns"]]

    await eventually(waiting, lambda ids: told["turn_id"] in ids)
    status, later = await admin.call("POST", path, body, headers=key)
    assert (status, later["answer"]) == (200, "echo: slow 0.5 think")
    assert later["event_id"] == told["event_id"]


async def test_an_answer_streams_as_it_grows(world: World, admin: Rest) -> None:
    room = await world.meet()
    path = f"/agents/{room.agent.agent_id}/messages"
    events = await admin.events(path, {"message": "stream 8 0.15"})
    names = [name for name, _ in events]
    assert (names[0], names[-1], set(names[1:-1])) == ("accepted", "done", {"text"})
    whole = " ".join(f"word{number}" for number in range(8))
    texts = [data["text"] for name, data in events if name == "text"]
    assert len(texts) >= 2
    assert all(whole.startswith(text) for text in texts)
    assert texts == sorted(texts, key=len)
    assert events[-1][1]["answer"] == whole
    said = await world.person.said_by(room.room_id, room.ghost)
    assert [one["event_id"] for one in said] == [events[-1][1]["event_id"]]


async def test_a_turn_that_runs_shows_what_it_says_by_now(world: World, admin: Rest) -> None:
    room = await world.meet()
    path = f"/agents/{room.agent.agent_id}/messages"
    _, told = await admin.call("POST", path, {"message": "stream 30 0.15"}, wait="0")
    turn = f"/turns/{told['turn_id']}"

    async def text() -> str:
        _, shown = await admin.call("GET", turn)
        assert CURSOR not in shown["text"]
        return shown["text"] if shown["status"] == "running" else ""

    first = await eventually(text, bool)
    assert await eventually(text, lambda grown: len(grown) > len(first))
    newest = (await admin.call("GET", path))[1]["messages"][-1]
    assert newest["unfinished"] is True
    assert newest["text"].startswith(first)
    assert CURSOR not in newest["text"]
    assert (await admin.call("POST", f"{turn}/cancel"))[0] == 200
    await eventually(lambda: admin.call("GET", turn), lambda a: a[1]["status"] == "done")
    newest = (await admin.call("GET", path))[1]["messages"]
    assert not any("unfinished" in one for one in newest)


async def test_who_follows_an_answer_sees_what_it_waits_for(world: World, admin: Rest) -> None:
    room = await world.meet()
    path = f"/agents/{room.agent.agent_id}/messages"
    following = asyncio.create_task(admin.events(path, {"message": "run make test"}))

    async def pending() -> list[Json]:
        _, page = await admin.call("GET", "/approvals", agent_id=room.agent.agent_id)
        return page["approvals"]

    (asked,) = await eventually(pending, bool)
    turn = f"/turns/{asked['turn_id']}"
    assert (await admin.call("GET", turn))[1]["waiting_for_approval"] == [asked["key"]]
    # It is looked for twice a second.
    await asyncio.sleep(0.7)
    await admin.call("POST", f"/approvals/{asked['key']}", {"decision": "allow"})
    events = await following
    told = [data for name, data in events if name == "approval"]
    assert told == [{name: asked[name] for name in ("key", "tool", "arguments")}]
    assert events[-1][1]["answer"] == "done"
    assert (await admin.call("GET", turn))[1]["waiting_for_approval"] == []


async def test_a_stream_that_broke_off_is_taken_up_again(world: World, admin: Rest) -> None:
    room = await world.meet()
    path, key = f"/agents/{room.agent.agent_id}/messages", {"Idempotency-Key": secrets.token_hex(8)}
    body, accept = {"message": "stream 8 0.15"}, {"Accept": "text/event-stream"}
    listeners = world.bridge._parts.toolbox.arrivals._listeners
    before = len(listeners)
    async with admin.open("POST", path, body, headers={**key, **accept}) as response:
        first = await response.content.readuntil(b"\n\n")
    assert first.startswith(b"event: accepted")
    events = await admin.events(path, body, headers=key)
    assert events[-1][0] == "done"
    assert events[-1][1]["answer"].endswith("word7")
    assert events[0][1]["event_id"].encode() in first
    assert len(await world.person.said_by(room.room_id, room.ghost)) == 1
    await eventually(lambda: asyncio.sleep(0, len(listeners)), lambda count: count == before)


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_turn_that_fails_is_a_problem(world: World, admin: Rest, streamed: bool) -> None:
    room = await world.meet()
    path, body = f"/agents/{room.agent.agent_id}/messages", {"message": "fail of thirst"}
    if streamed:
        name, problem = (await admin.events(path, body))[-1]
        assert name == "error"
    else:
        status, problem = await admin.call("POST", path, body)
        assert status == 502
    assert problem["status"] == 502
    assert problem["type"].endswith("/agent-failed")
    assert "of thirst" in problem["detail"]
    assert problem["answer"] == "I was about to"


async def test_a_stream_ends_when_its_time_is_up(world: World, admin: Rest) -> None:
    room = await world.meet()
    path = f"/agents/{room.agent.agent_id}/messages"
    events = await admin.events(path, {"message": "slow 5 think"}, wait="0.2")
    assert [name for name, _ in events] == ["accepted", "error"]
    assert events[-1][1]["status"] == 504
    turn = f"/turns/{events[0][1]['turn_id']}"
    status, cancelled = await admin.call("POST", f"{turn}/cancel")
    assert (status, cancelled["cancelled"]) == (200, True)
    await eventually(lambda: admin.call("GET", turn), lambda a: a[1]["status"] == "done")
    status, problem = await admin.call("POST", f"{turn}/cancel")
    assert (status, problem["type"].split("/")[-1]) == (409, "conflict")


async def test_an_agents_token_speaks_as_that_agent(world: World) -> None:
    ada, bob = await world.meet(), await world.meet()
    as_ada = await rest_as(world, Scope.AGENTS, agent_id=ada.agent.agent_id)
    path = f"/agents/{bob.agent.agent_id}/messages"
    status, told = await as_ada.call("POST", path, {"message": "hello"})
    assert status == 200, told
    asked = await world.person.get(f"/rooms/{quote(bob.room_id)}/event/{quote(told['event_id'])}")
    assert asked["sender"] == ada.ghost
    assert (await as_ada.call("GET", f"/turns/{told['turn_id']}"))[0] == 200
    other = await rest_as(world, Scope.AGENTS, agent_id=bob.agent.agent_id)
    assert (await other.call("GET", f"/turns/{told['turn_id']}"))[0] == 404


async def waiting_for(admin: Rest, room: Room, command: str) -> Json:
    """The approval that an agent waits for, once it does."""
    await admin.call(
        "POST", f"/agents/{room.agent.agent_id}/messages", {"message": f"run {command}"}, wait="0"
    )

    async def pending() -> list[Json]:
        _, page = await admin.call("GET", "/approvals", agent_id=room.agent.agent_id)
        return page["approvals"]

    return (await eventually(pending, bool))[0]


@pytest.mark.parametrize(
    ("decision", "said", "shown"),
    [
        ({"decision": "allow"}, "done", "allowed by"),
        (
            {"decision": "deny", "reason": "Not now."},
            "not done: Denied by {who}: Not now.",
            "denied",
        ),
    ],
)
async def test_an_admin_answers_what_an_agent_asks(
    world: World, admin: Rest, decision: Json, said: str, shown: str
) -> None:
    room = await world.meet()
    approval = await waiting_for(admin, room, "make test")
    assert approval["arguments"] == {"command": "make test"}
    path = f"/approvals/{approval['key']}"
    status, problem = await admin.call("POST", path, {"decision": "always"})
    assert (status, problem["type"].split("/")[-1]) == (409, "conflict")
    assert (await admin.call("POST", path, {"decision": "maybe"}))[0] == 422
    key = {"Idempotency-Key": secrets.token_hex(8)}
    status, settled = await admin.call("POST", path, decision, headers=key)
    assert status == 200, settled
    who = f"token:{admin.token.split('_')[1]}"
    assert settled["decided_by"] == who
    assert await admin.call("POST", path, decision, headers=key) == (200, settled)
    status, problem = await admin.call("POST", path, decision)
    assert (status, problem["type"].split("/")[-1]) == (409, "conflict")
    turn = f"/turns/{approval['turn_id']}"
    _, ended = await eventually(lambda: admin.call("GET", turn), lambda a: a[1]["status"] == "done")
    assert ended["text"] == said.format(who=who)

    async def question() -> str:
        return str((await world.person.beside(room, "approval"))["content"]["body"])

    assert who in await eventually(question, lambda body: shown in body)
    _, audit = await admin.call("GET", "/audit")
    noted = audit["entries"][0]
    assert (noted["principal"], noted["action"]) == (who, "approvals.answer")


async def test_no_agent_answers_for_people(world: World, admin: Rest) -> None:
    ada, bob = await world.meet(), await world.meet()
    approval = await waiting_for(admin, ada, "make love")
    as_ada = await rest_as(world, agent_id=ada.agent.agent_id)
    _, seen = await as_ada.call("GET", "/approvals")
    assert [one["key"] for one in seen["approvals"]] == [approval["key"]]
    writes = await rest_as(world, Scope.WRITE, agent_id=ada.agent.agent_id)
    assert (await writes.call("GET", "/approvals"))[0] == 403
    await waiting_for(admin, bob, "make peace")
    _, first = await admin.call("GET", "/approvals", limit="1")
    assert len(first["approvals"]) == 1
    as_bob = await rest_as(world, agent_id=bob.agent.agent_id)
    seen = (await as_bob.call("GET", "/approvals"))[1]["approvals"]
    assert [one["agent_id"] for one in seen] == [bob.agent.agent_id]
    asked = await as_bob.call("GET", "/approvals", agent_id=ada.agent.agent_id)
    assert asked[0] == 403
    path, allow = f"/approvals/{approval['key']}", {"decision": "allow"}
    assert (await as_ada.call("POST", path, allow))[0] == 403
    elsewhere = await rest_as(world, rooms=frozenset({bob.room_id}))
    seen = (await elsewhere.call("GET", "/approvals"))[1]["approvals"]
    assert [one["room_id"] for one in seen] == [bob.room_id]
    assert (await elsewhere.call("POST", path, allow))[0] == 404
    assert (await admin.call("POST", "/approvals/none", allow))[0] == 404
    for one in (approval, *seen):
        assert (await admin.call("POST", f"/turns/{one['turn_id']}/cancel"))[0] == 200
