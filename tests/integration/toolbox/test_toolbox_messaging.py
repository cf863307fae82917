"""Agents that write to each other on a real homeserver: answered, and no members for it."""

import asyncio
import secrets

import pytest
from tests.integration.bridge_world import Json
from tests.integration.toolbox.toolbox_bench import Bench
from tests.waiting import eventually, within

from letta_matrix.access.faults import ToolError
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox import guest_posting, messaging
from letta_matrix.store.agents import Agent
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.turns import TurnKind


@pytest.fixture
def text() -> str:
    """What no other test says."""
    return f"hi {secrets.token_hex(3)}"


async def said_by(bench: Bench, guest: Agent, host: Agent, text: str) -> int:
    """How often an agent has said something in another's room."""
    return (await bench.ann.bodies(str(host.room_id), guest.user_id)).count(text)


async def test_an_agent_asks_another_and_gets_its_answer(
    bench: Bench, ada: Agent, bea: Agent
) -> None:
    conversation, once = await bench.talk(ada, str(ada.room_id), hops=1), secrets.token_hex(8)
    question = "what is 2 + 2?"
    arguments = {"agent": bea.name.upper(), "message": question}
    asking = asyncio.create_task(bench.call(ada, "message_agent", once, conversation, **arguments))
    event = await bench.answer(bea, question, "four")
    ok, told = await within(asking)
    assert ok
    assert told["answer"] == "four"
    assert event["sender"] == ada.user_id
    marker = event["content"][MARKER]
    assert (marker["prompts"], marker["hops"]) == (bea.agent_id, 2)
    bench.restart()
    _, again = await bench.call(ada, "message_agent", once, conversation, **arguments)
    assert again == told
    assert await said_by(bench, ada, bea, question) == 1


async def test_an_agent_that_does_not_answer_is_not_waited_for_for_ever(
    bench: Bench, ada: Agent, bea: Agent, text: str
) -> None:
    arguments = {"agent": bea.agent_id, "message": text, "wait_seconds": 0.2}
    ok, told = await bench.call(ada, "message_agent", **arguments)
    assert ok
    assert "not answered yet" in told["note"]
    assert await said_by(bench, ada, bea, text) == 1


async def test_messages_from_agent_to_agent_have_an_end(
    bench: Bench, bea: Agent, text: str
) -> None:
    own = await bench.agent()
    arguments = {"agent": bea.name, "message": text, "wait_seconds": 0}
    # With no turn now, and in one.
    for done in (True, False):
        conversation = await bench.talk(own, await bench.room(own), hops=3, done=done)
        ok, told = await bench.call(own, "message_agent", "", conversation, **arguments)
        assert (ok, "as far as it may go" in told) == (False, True)
    assert await said_by(bench, own, bea, text) == 0


async def test_there_must_be_somebody_else_to_write_to(bench: Bench, ada: Agent) -> None:
    for ref, why in ((ada.name, "That is you"), ("Nobody", "There is no agent `Nobody`")):
        ok, told = await bench.call(ada, "message_agent", agent=ref, message="hi")
        assert not ok
        assert why in told


async def test_a_token_is_no_way_round_the_end_of_messages_from_agent_to_agent(
    bench: Bench, bea: Agent, text: str
) -> None:
    own = await bench.agent()
    arguments: Json = {"agent": bea.name, "message": text, "wait_seconds": 0}
    await bench.talk(own, str(own.room_id), hops=2)
    told = await bench.call_as(own, "message_agent", **arguments)
    sent = await Intent(bench.client, bea.user_id).event(str(bea.room_id), told["event_id"])
    assert sent["content"][MARKER]["hops"] == 3
    await bench.talk(own, str(own.room_id), "$thread", hops=3)
    with pytest.raises(ToolError, match="as far as it may go"):
        await bench.call_as(own, "message_agent", **arguments)


async def test_a_paused_agent_is_not_written_to(
    bench: Bench, ada: Agent, bea: Agent, text: str
) -> None:
    await bench.rooms.change_settings(bea.agent_id, str(bea.room_id), paused=True)
    ok, told = await bench.call(ada, "message_agent", agent=bea.name, message=text)
    await bench.rooms.change_settings(bea.agent_id, str(bea.room_id), paused=False)
    assert (ok, told) == (False, f"{bea.name} is paused in its room; people there can resume it.")
    assert await said_by(bench, ada, bea, text) == 0


async def test_an_agent_that_leaves_a_message_is_no_member(
    bench: Bench, ada: Agent, bea: Agent, text: str
) -> None:
    arguments = {"agent": bea.name, "message": text, "wait_seconds": 0}
    assert (await bench.call(ada, "message_agent", **arguments))[0]
    assert bea.room_id not in await Intent(bench.client, ada.user_id).joined_rooms()


async def test_an_agent_that_people_invited_stays(bench: Bench, bea: Agent, text: str) -> None:
    guest, room_id = await bench.agent(), str(bea.room_id)
    await bench.visit(guest, bea)
    await bench.rooms.joined(room_id, guest.user_id, direct=False, since=0.0)
    arguments = {"agent": bea.name, "message": text, "wait_seconds": 0}
    assert (await bench.call(guest, "message_agent", **arguments))[0]
    ok, told = await bench.call(guest, "matrix_read_room", room_id=room_id, limit=1)
    assert ok, told
    assert [message["text"] for message in told["messages"]] == [text]


async def test_a_visit_that_was_killed_ends_when_the_call_comes_again(
    bench: Bench, ada: Agent, bea: Agent, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost, once = Intent(bench.client, ada.user_id), secrets.token_hex(8)
    arguments = {"agent": bea.name, "message": text, "wait_seconds": 0}

    async def die(*_: object) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(guest_posting, "_leave", die)
        assert not (await bench.call(ada, "message_agent", once, **arguments))[0]
    assert bea.room_id in await ghost.joined_rooms()
    bench.restart()
    assert (await bench.call(ada, "message_agent", once, **arguments))[0]
    assert bea.room_id not in await ghost.joined_rooms()
    assert await said_by(bench, ada, bea, text) == 1


async def test_a_visit_that_is_stopped_ends(
    bench: Bench, ada: Agent, bea: Agent, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost, visiting = Intent(bench.client, ada.user_id), asyncio.Event()

    async def hang(*_: object) -> None:
        visiting.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(messaging, "send_once", hang)
    asking = asyncio.create_task(bench.call(ada, "message_agent", agent=bea.name, message=text))
    await within(visiting.wait())
    assert bea.room_id in await ghost.joined_rooms()
    asking.cancel()
    await asyncio.wait([asking])
    await eventually(ghost.joined_rooms, lambda rooms: bea.room_id not in rooms)


async def test_what_a_killed_visit_left_open_is_closed(
    bench: Bench, ada: Agent, bea: Agent
) -> None:
    ghost = Intent(bench.client, ada.user_id)
    before = await bench.ann.bodies(str(bea.room_id), ada.user_id)
    cases: list[tuple[str, Json]] = [
        ("matrix_send_message", {"message": "hi"}),
        ("matrix_reply_in_thread", {"event_id": "$x", "message": "hi"}),
        ("matrix_react", {"event_id": "$x", "key": "👍"}),
        ("matrix_upload_file", {"name": "a.txt", "content": "a"}),
        ("matrix_read_room", {}),
        ("matrix_list_members", {}),
    ]
    for tool, arguments in cases:
        await bench.visit(ada, bea)
        ok, told = await bench.call(ada, tool, room_id=bea.room_id, **arguments)
        assert (ok, told.partition(".")[0]) == (False, f"You are not in {bea.room_id}"), tool
        assert bea.room_id not in await ghost.joined_rooms(), tool
    await bench.visit(ada, bea)
    _, told = await bench.call(ada, "matrix_list_rooms")
    rooms = [room["room_id"] for room in told["rooms"]]
    assert (ada.room_id in rooms, bea.room_id in rooms) == (True, False)
    assert bea.room_id not in await ghost.joined_rooms()
    assert await bench.ann.bodies(str(bea.room_id), ada.user_id) == before


async def test_while_an_agent_leaves_a_message_it_cannot_read(
    bench: Bench, ada: Agent, bea: Agent
) -> None:
    ghost = Intent(bench.client, ada.user_id)
    await bench.ann.send(str(bea.room_id), "a secret")
    async with bench.toolbox._house.guest_posting.visit(ghost, bea):
        for ref in (bea.room_id, f"{bea.name}'s"):
            ok, _ = await bench.call(ada, "matrix_read_room", room_id=ref)
            assert not ok
        assert bea.room_id in await ghost.joined_rooms(), "the visit goes on"
    assert bea.room_id not in await ghost.joined_rooms()


async def test_an_agent_whose_invitation_is_just_being_taken_is_not_sent_away(
    bench: Bench, bea: Agent
) -> None:
    guest, room_id = await bench.agent(), str(bea.room_id)
    await bench.visit(guest, bea)
    event: Json = {"event_id": f"${secrets.token_hex(8)}", "room_id": room_id, "content": {}}
    turn = new_turn({**event, "sender": bench.ann.user_id}, guest.agent_id, guest.user_id)
    turn.kind = TurnKind.INVITE
    entry = InboxEntry(turn.event_id, room_id, event, InboxState.ROUTED, [turn])
    await Inbox(bench.database).admit(secrets.token_hex(4), [entry])
    assert not (await bench.call(guest, "matrix_read_room", room_id=room_id))[0]
    assert room_id in await Intent(bench.client, guest.user_id).joined_rooms()
