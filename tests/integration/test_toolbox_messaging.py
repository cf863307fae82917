"""Agents that write to each other on a real homeserver: answered, and no members for it."""

import asyncio
import secrets
from collections.abc import AsyncGenerator

import pytest
from tests.integration.bridge_world import Json
from tests.integration.toolbox_bench import Bench, bench_on
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.conversations.routing import new_turn
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.turns import TurnKind
from letta_matrix.toolbox import messaging, visits
from letta_matrix.toolbox.faults import ToolError


@pytest.fixture(scope="module")
async def bench(
    homeserver: Homeserver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Bench]:
    async with bench_on(homeserver, tmp_path_factory.mktemp("messaging")) as made:
        yield made


async def test_an_agent_asks_another_and_gets_its_answer(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    conversation = await bench.talk(ada, str(ada.room_id), hops=1)
    arguments = {"agent": bob.name.upper(), "message": "what is 2 + 2?"}
    asking = asyncio.create_task(
        bench.call(ada, "message_agent", "call-1", conversation, **arguments)
    )
    event = await bench.answer(bob, "four")
    ok, told = await asking
    assert ok
    assert told["answer"] == "four"
    assert event["sender"] == ada.user_id
    marker = event["content"][MARKER]
    assert (marker["prompts"], marker["hops"]) == (bob.agent_id, 2)
    bench.restart()
    _, again = await bench.call(ada, "message_agent", "call-1", conversation, **arguments)
    assert again == told
    assert await bench.ann.bodies(str(bob.room_id), ada.user_id) == ["what is 2 + 2?"]


async def test_an_agent_that_does_not_answer_is_not_waited_for_for_ever(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    arguments = {"agent": bob.agent_id, "message": "hello?", "wait_seconds": 0.2}
    ok, told = await bench.call(ada, "message_agent", **arguments)
    assert ok
    assert "not answered yet" in told["note"]
    assert await bench.ann.bodies(str(bob.room_id), ada.user_id) == ["hello?"]


async def test_messages_from_agent_to_agent_have_an_end(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    conversation = await bench.talk(ada, str(ada.room_id), hops=3)
    arguments = {"agent": bob.name, "message": "hi", "wait_seconds": 0}
    ok, told = await bench.call(ada, "message_agent", "", conversation, **arguments)
    assert not ok
    assert "as far as it may go" in told
    for ref, why in ((ada.name, "That is you"), ("Nobody", "There is no agent 'Nobody'")):
        ok, told = await bench.call(ada, "message_agent", agent=ref, message="hi")
        assert not ok
        assert why in told
    twin = await bench.agent(bob.name)
    ok, told = await bench.call(ada, "message_agent", agent=bob.name, message="hi")
    assert not ok
    assert bob.agent_id in told
    assert twin.agent_id in told


async def test_agents_with_no_turn_now_do_not_pass_a_message_on_for_ever(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    conversation = await bench.talk(ada, str(ada.room_id), hops=3, done=True)
    arguments = {"agent": bob.name, "message": "hi", "wait_seconds": 0}
    ok, told = await bench.call(ada, "message_agent", "", conversation, **arguments)
    assert (ok, "as far as it may go" in told) == (False, True)


async def test_a_token_is_no_way_round_the_end_of_messages_from_agent_to_agent(
    bench: Bench,
) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    arguments: Json = {"agent": bob.name, "message": "hi", "wait_seconds": 0}
    await bench.talk(ada, str(ada.room_id), hops=2)
    told = await bench.call_as(ada, "message_agent", **arguments)
    sent = await Intent(bench.client, bob.user_id).event(str(bob.room_id), told["event_id"])
    assert sent["content"][MARKER]["hops"] == 3
    await bench.talk(ada, str(ada.room_id), "$thread", hops=3)
    with pytest.raises(ToolError, match="as far as it may go"):
        await bench.call_as(ada, "message_agent", **arguments)


async def test_a_paused_agent_is_not_written_to(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    await bench.rooms.change_settings(bob.agent_id, str(bob.room_id), paused=True)
    ok, told = await bench.call(ada, "message_agent", agent=bob.name, message="hi")
    assert (ok, told) == (False, f"{bob.name} is paused in its room; people there can resume it.")
    assert await bench.ann.bodies(str(bob.room_id), ada.user_id) == []


async def test_an_agent_that_leaves_a_message_is_no_member(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    room_id = str(bob.room_id)
    arguments = {"agent": bob.name, "message": "hi", "wait_seconds": 0}
    assert (await bench.call(ada, "message_agent", **arguments))[0]
    assert room_id not in await Intent(bench.client, ada.user_id).joined_rooms()


async def test_an_agent_that_people_invited_stays(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    room_id = str(bob.room_id)
    await bench.visit(ada, bob)
    await bench.rooms.joined(room_id, ada.user_id, direct=False, since=0.0)
    arguments = {"agent": bob.name, "message": "hi", "wait_seconds": 0}
    assert (await bench.call(ada, "message_agent", **arguments))[0]
    ok, told = await bench.call(ada, "matrix_read_room", room_id=room_id)
    assert ok, told
    assert [message["text"] for message in told["messages"]] == ["hi"]


async def test_a_visit_that_was_killed_ends_when_the_call_comes_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    ghost = Intent(bench.client, ada.user_id)
    arguments = {"agent": bob.name, "message": "hi", "wait_seconds": 0}

    async def die(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(visits, "_leave", die)
        assert not (await bench.call(ada, "message_agent", "request", **arguments))[0]
    assert bob.room_id in await ghost.joined_rooms()
    bench.restart()
    assert (await bench.call(ada, "message_agent", "request", **arguments))[0]
    assert bob.room_id not in await ghost.joined_rooms()
    assert await bench.ann.bodies(str(bob.room_id), ada.user_id) == ["hi"]


async def test_a_visit_that_is_stopped_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    ghost = Intent(bench.client, ada.user_id)

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(messaging, "send_once", hang)
    asking = asyncio.create_task(bench.call(ada, "message_agent", agent=bob.name, message="hi"))
    await eventually(ghost.joined_rooms, lambda rooms: bob.room_id in rooms)
    asking.cancel()
    await asyncio.wait([asking])
    await eventually(ghost.joined_rooms, lambda rooms: bob.room_id not in rooms)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("matrix_send_message", {"message": "hi"}),
        ("matrix_reply_in_thread", {"event_id": "$x", "message": "hi"}),
        ("matrix_react", {"event_id": "$x", "key": "👍"}),
        ("matrix_upload_file", {"name": "a.txt", "content": "a"}),
        ("matrix_read_room", {}),
        ("matrix_list_members", {}),
        ("matrix_list_rooms", {}),
    ],
)
async def test_what_a_killed_visit_left_open_is_closed(
    bench: Bench, tool: str, arguments: Json
) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    ghost = Intent(bench.client, ada.user_id)
    await bench.visit(ada, bob)
    if tool == "matrix_list_rooms":
        _, told = await bench.call(ada, tool)
        assert [room["room_id"] for room in told["rooms"]] == [ada.room_id]
    else:
        ok, told = await bench.call(ada, tool, room_id=bob.room_id, **arguments)
        assert (ok, told.partition(".")[0]) == (False, f"You are not in {bob.room_id}")
    assert bob.room_id not in await ghost.joined_rooms()
    assert await bench.ann.bodies(str(bob.room_id), ada.user_id) == []


async def test_while_an_agent_leaves_a_message_it_cannot_read(bench: Bench) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    ghost = Intent(bench.client, ada.user_id)
    await bench.ann.send(str(bob.room_id), "a secret")
    async with bench.toolbox._visits.visit(ghost, bob):
        for ref in (bob.room_id, f"{bob.name}'s"):
            ok, _ = await bench.call(ada, "matrix_read_room", room_id=ref)
            assert not ok
        assert bob.room_id in await ghost.joined_rooms(), "the visit goes on"
    assert bob.room_id not in await ghost.joined_rooms()


async def test_an_agent_whose_invitation_is_just_being_taken_is_not_sent_away(
    bench: Bench,
) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    room_id = str(bob.room_id)
    await bench.visit(ada, bob)
    event: Json = {"event_id": f"${secrets.token_hex(8)}", "room_id": room_id, "content": {}}
    turn = new_turn({**event, "sender": bench.ann.user_id}, ada.agent_id, ada.user_id)
    turn.kind = TurnKind.INVITE
    entry = InboxEntry(turn.event_id, room_id, event, InboxState.ROUTED, [turn])
    await Inbox(bench.database).admit(secrets.token_hex(4), [entry])
    assert not (await bench.call(ada, "matrix_read_room", room_id=room_id))[0]
    assert room_id in await Intent(bench.client, ada.user_id).joined_rooms()
