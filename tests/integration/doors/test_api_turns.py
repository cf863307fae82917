"""Talking to agents through the REST API, and answering what they ask."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Room, World
from tests.integration.doors.doors_world import Gates, new_key
from tests.integration.doors.rest import Rest, rest_as
from tests.waiting import eventually

from letta_matrix.access.principal import Scope
from letta_matrix.matrix.content import CURSOR


def messages_of(room: Room) -> str:
    return f"/agents/{room.agent.agent_id}/messages"


async def said_by_its_agent(world: World, room: Room) -> list[str]:
    """The event ids of what an agent has said in its room, once it says no more."""
    await world.idle()
    return [one["event_id"] for one in await world.person.said_by(room.room_id, room.ghost)]


async def over(admin: Rest, turn_id: str) -> Json:
    """A turn that has ended."""
    path = f"/turns/{turn_id}"
    return await eventually(lambda: admin.call("GET", path), lambda turn: turn["status"] == "done")


async def test_an_agent_answers_whoever_waits(world: World, admin: Rest, ada: Room) -> None:
    path, key = messages_of(ada), {"Idempotency-Key": new_key()}
    agent, before = f"/agents/{ada.agent.agent_id}", await said_by_its_agent(world, ada)
    conversations = (await admin.call("GET", agent))["conversations"]
    told = await admin.call("POST", path, {"message": "are you there?"}, headers=key)
    assert told["answer"] == "echo: are you there?"
    asked = await world.person.get(f"/rooms/{quote(ada.room_id)}/event/{quote(told['event_id'])}")
    assert asked["sender"] == world.config.bot_user_id
    assert await admin.call("POST", path, {"message": "are you there?"}, headers=key) == told
    assert await said_by_its_agent(world, ada) == [*before, told["answer_event_id"]]
    assert (await admin.call("GET", agent))["conversations"] == conversations + 1
    recent = await admin.call("GET", "/turns", status="all", limit="1")
    assert [turn["turn_id"] for turn in recent["turns"]] == [told["turn_id"]]
    older = await admin.call("GET", "/turns", status="all", after=told["turn_id"])
    assert told["turn_id"] not in [turn["turn_id"] for turn in older["turns"]]
    page = await admin.call("GET", path)
    assert page["messages"][-1]["text"] == "echo: are you there?"
    turn = await admin.call("GET", f"/turns/{told['turn_id']}")
    assert (turn["status"], turn["text"]) == ("done", "echo: are you there?")


async def test_who_does_not_wait_asks_again(admin: Rest, gates: Gates, ada: Room) -> None:
    path, key = messages_of(ada), new_key()
    body, headers = {"message": f"held {key}"}, {"Idempotency-Key": key}
    told = await admin.call("POST", path, body, headers=headers, wait="0", expect=202)
    assert told["answer"] is None
    turns = (await admin.call("GET", "/turns"))["turns"]
    assert told["turn_id"] in [turn["turn_id"] for turn in turns]
    gates.open(key)
    later = await admin.call("POST", path, body, headers=headers)
    assert later["answer"] == f"echo: held {key}"
    assert later["event_id"] == told["event_id"]


async def test_an_answer_streams_as_it_grows(
    world: World, admin: Rest, gates: Gates, ada: Room
) -> None:
    key, events = new_key(), list[tuple[str, Any]]()
    before = await said_by_its_agent(world, ada)
    async with admin.stream(messages_of(ada), {"message": f"words {key} 3"}) as coming:
        async for name, data in coming:
            events.append((name, data))
            if name == "text":
                gates.open(key)
    assert [name for name, _ in events] == ["accepted", "text", "text", "text", "done"]
    texts = [data["text"] for _, data in events[1:-1]]
    assert texts == ["word0", "word0 word1", "word0 word1 word2"]
    assert events[-1][1]["answer"] == texts[-1]
    assert await said_by_its_agent(world, ada) == [*before, events[-1][1]["event_id"]]


async def test_a_turn_that_runs_shows_what_it_says_by_now(
    admin: Rest, gates: Gates, ada: Room
) -> None:
    path, key = messages_of(ada), new_key()
    told = await admin.call("POST", path, {"message": f"words {key} 9"}, wait="0", expect=202)
    turn = f"/turns/{told['turn_id']}"

    async def text() -> str:
        shown = await admin.call("GET", turn)
        assert CURSOR not in shown["text"]
        assert shown["status"] != "done"
        return shown["text"]

    assert await eventually(text) == "word0"
    gates.open(key)
    await eventually(text, lambda grown: grown == "word0 word1")
    newest = (await admin.call("GET", path))["messages"][-1]
    assert (newest["text"], newest["unfinished"]) == ("word0 word1", True)
    await admin.call("POST", f"{turn}/cancel")
    await over(admin, told["turn_id"])
    newest = (await admin.call("GET", path))["messages"]
    assert not any("unfinished" in one for one in newest)


async def test_who_follows_an_answer_sees_what_it_waits_for(admin: Rest, ada: Room) -> None:
    events = list[tuple[str, Any]]()
    async with admin.stream(messages_of(ada), {"message": "run make test"}) as coming:
        async for name, data in coming:
            events.append((name, data))
            if name != "approval":
                continue
            (asked,) = (await admin.call("GET", "/approvals"))["approvals"]
            assert data == {name: asked[name] for name in ("key", "tool", "arguments")}
            turn = f"/turns/{asked['turn_id']}"
            assert (await admin.call("GET", turn))["waiting_for_approval"] == [asked["key"]]
            await admin.call("POST", f"/approvals/{asked['key']}", {"decision": "allow"})
            assert (await admin.call("GET", turn))["waiting_for_approval"] == []
    assert [name for name, _ in events].count("approval") == 1
    assert events[-1][1]["answer"] == "done"


async def test_a_stream_that_broke_off_is_taken_up_again(
    world: World, admin: Rest, gates: Gates, ada: Room
) -> None:
    path, key = messages_of(ada), new_key()
    body, headers = {"message": f"words {key} 3"}, {"Idempotency-Key": key}
    listeners = world.bridge.app.toolbox.event_bus._listeners
    before, said = len(listeners), await said_by_its_agent(world, ada)
    async with admin.stream(path, body, headers=headers) as coming:
        first = await anext(coming)
    gates.open(key, 3)
    events = await admin.events(path, body, headers=headers)
    assert events[0] == first
    assert (events[-1][0], events[-1][1]["answer"]) == ("done", "word0 word1 word2")
    assert await said_by_its_agent(world, ada) == [*said, events[-1][1]["event_id"]]
    await eventually(lambda: len(listeners) <= before, what="nobody listens any more")


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_turn_that_fails_is_a_problem(admin: Rest, ada: Room, streamed: bool) -> None:
    path, body = messages_of(ada), {"message": "fail of thirst"}
    if streamed:
        name, problem = (await admin.events(path, body))[-1]
        assert name == "error"
    else:
        problem = await admin.call("POST", path, body, expect=502)
    assert problem["status"] == 502
    assert problem["type"].endswith("/agent-failed")
    assert "of thirst" in problem["detail"]
    assert problem["answer"] == "I was about to"


async def test_a_stream_ends_when_its_time_is_up(admin: Rest, gates: Gates, ada: Room) -> None:
    key = new_key()
    events = await admin.events(messages_of(ada), {"message": f"held {key}"}, wait="0.2")
    assert [name for name, _ in events] == ["accepted", "error"]
    assert events[-1][1]["status"] == 504
    turn_id = events[0][1]["turn_id"]
    assert (await admin.call("POST", f"/turns/{turn_id}/cancel"))["cancelled"] is True
    await over(admin, turn_id)
    assert await admin.refused("POST", f"/turns/{turn_id}/cancel") == (409, "conflict")


async def test_an_agents_token_speaks_as_that_agent(world: World, ada: Room, bea: Room) -> None:
    as_ada = await rest_as(world, Scope.AGENTS, agent_id=ada.agent.agent_id)
    told = await as_ada.call("POST", messages_of(bea), {"message": "hello"})
    asked = await world.person.get(f"/rooms/{quote(bea.room_id)}/event/{quote(told['event_id'])}")
    assert asked["sender"] == ada.ghost
    turn = f"/turns/{told['turn_id']}"
    assert (await as_ada.call("GET", turn))["turn_id"] == told["turn_id"]
    other = await rest_as(world, Scope.AGENTS, agent_id=bea.agent.agent_id)
    assert await other.refused("GET", turn) == (404, "not-found")


async def waiting_for(admin: Rest, room: Room, command: str) -> Json:
    """The approval that an agent waits for, once it does."""
    body = {"message": f"run {command}"}
    told = await admin.call("POST", messages_of(room), body, wait="0", expect=202)

    async def pending() -> list[Json]:
        page = await admin.call("GET", "/approvals", agent_id=room.agent.agent_id)
        return [one for one in page["approvals"] if one["turn_id"] == told["turn_id"]]

    return (await eventually(pending))[0]


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
    world: World, admin: Rest, ada: Room, decision: Json, said: str, shown: str
) -> None:
    approval = await waiting_for(admin, ada, "make test")
    assert approval["arguments"] == {"command": "make test"}
    path = f"/approvals/{approval['key']}"
    assert await admin.refused("POST", path, {"decision": "always"}) == (409, "conflict")
    assert await admin.refused("POST", path, {"decision": "maybe"}) == (422, "invalid-arguments")
    key = {"Idempotency-Key": new_key()}
    settled = await admin.call("POST", path, decision, headers=key)
    assert settled["decided_by"] == admin.principal
    assert await admin.call("POST", path, decision, headers=key) == settled
    assert await admin.refused("POST", path, decision) == (409, "conflict")
    ended = await over(admin, approval["turn_id"])
    assert ended["text"] == said.format(who=admin.principal)

    async def question() -> str:
        return str((await world.person.beside(ada, "approval"))["content"]["body"])

    assert admin.principal in await eventually(question, lambda body: shown in body)
    noted = (await admin.call("GET", "/audit"))["entries"][0]
    assert (noted["principal"], noted["action"]) == (admin.principal, "approvals.answer")


async def test_no_agent_answers_for_people(world: World, admin: Rest, ada: Room, bea: Room) -> None:
    asked_ada, asked_bea = await asyncio.gather(
        waiting_for(admin, ada, "make love"), waiting_for(admin, bea, "make peace")
    )
    as_ada = await rest_as(world, agent_id=ada.agent.agent_id)
    as_bea = await rest_as(world, agent_id=bea.agent.agent_id)
    elsewhere = await rest_as(world, rooms=frozenset({bea.room_id}))
    for who, seen in ((as_ada, asked_ada), (as_bea, asked_bea), (elsewhere, asked_bea)):
        approvals = (await who.call("GET", "/approvals"))["approvals"]
        assert [one["key"] for one in approvals] == [seen["key"]]
    assert len((await admin.call("GET", "/approvals"))["approvals"]) == 2
    assert len((await admin.call("GET", "/approvals", limit="1"))["approvals"]) == 1
    writes = await rest_as(world, Scope.WRITE, agent_id=ada.agent.agent_id)
    assert await writes.refused("GET", "/approvals") == (403, "forbidden")
    asked = await as_bea.refused("GET", "/approvals", agent_id=ada.agent.agent_id)
    assert asked == (403, "forbidden")
    path, allow = f"/approvals/{asked_ada['key']}", {"decision": "allow"}
    assert await as_ada.refused("POST", path, allow) == (403, "forbidden")
    assert await elsewhere.refused("POST", path, allow) == (404, "not-found")
    assert await admin.refused("POST", "/approvals/none", allow) == (404, "not-found")
    for one in (asked_ada, asked_bea):
        await admin.call("POST", f"/turns/{one['turn_id']}/cancel")
        await over(admin, one["turn_id"])
