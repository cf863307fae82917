"""Agents' tools on a real homeserver: each acts as itself, once, and nowhere else."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncGenerator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.integration.bridge_world import Json
from tests.integration.toolbox_bench import Bench, bench_on
from tests.servers import Homeserver
from tests.tool_arguments import arguments as tool_arguments
from tests.waiting import eventually

from letta_matrix.matrix.content import MARKER, edit_content, text_content
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.protocol import ToolCall
from letta_matrix.store.agents import Agent
from letta_matrix.toolbox import registry


@pytest.fixture(scope="module")
async def bench(
    homeserver: Homeserver, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Bench]:
    async with bench_on(homeserver, tmp_path_factory.mktemp("toolbox")) as made:
        yield made


@pytest.fixture(scope="module")
async def fuzzed(bench: Bench) -> tuple[Agent, Agent]:
    return await bench.agent(), await bench.agent()


async def test_a_message_is_sent_as_the_agent_itself_once(bench: Bench) -> None:
    ada = await bench.agent()
    room_id = await bench.room(ada)
    arguments = {"room_id": room_id, "message": "**hi** @room"}
    ok, told = await bench.call(ada, "matrix_send_message", "call-1", **arguments)
    assert ok
    bench.restart()
    assert await bench.call(ada, "matrix_send_message", "call-1", **arguments) == (True, told)
    events = [e for e in await bench.ann.timeline(room_id) if e["type"] == "m.room.message"]
    assert [(e["sender"], e["event_id"]) for e in events] == [(ada.user_id, told["event_id"])]
    assert events[0]["content"]["formatted_body"] == "<strong>hi</strong> @room"
    assert events[0]["content"]["m.mentions"] == {}
    assert events[0]["content"][MARKER]["tool"] == "matrix_send_message"


async def test_a_repeated_call_sends_once_though_the_homeserver_has_forgotten(
    bench: Bench,
) -> None:
    ada = await bench.agent()
    room_id = await bench.room(ada)
    arguments = {"room_id": room_id, "message": "once"}
    _, first = await bench.call(ada, "matrix_send_message", "call-1", **arguments)
    await bench.homeserver.restart()
    _, second = await bench.call(ada, "matrix_send_message", "call-1", **arguments)
    assert first == second
    assert await bench.ann.bodies(room_id, ada.user_id) == ["once"]


async def test_a_call_id_that_the_model_uses_again_is_another_call(bench: Bench) -> None:
    ada = await bench.agent()
    room_id = await bench.room(ada)
    # Nothing was asked here since: so it is when schedules run, day after day.
    conversation = await bench.talk(ada, room_id, done=True)
    for day in ("monday", "tuesday"):
        arguments = {"room_id": room_id, "message": f"report of {day}"}
        ok, _ = await bench.call(ada, "matrix_send_message", "", conversation, **arguments)
        assert ok
    said = await bench.ann.bodies(room_id, ada.user_id)
    assert said == ["report of monday", "report of tuesday"]


async def test_a_long_message_goes_out_in_parts(bench: Bench) -> None:
    ada = await bench.agent()
    text = "word " * 19_000
    ok, told = await bench.call(ada, "matrix_send_message", room_id=ada.room_id, message=text)
    assert ok
    parts = await bench.ann.bodies(str(ada.room_id), ada.user_id)
    assert len(parts) == 1 + len(told["more_event_ids"]) > 1
    assert " ".join(parts).split() == text.split()


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("matrix_send_message", {"message": "hi"}),
        ("matrix_reply_in_thread", {"event_id": "$x", "message": "hi"}),
        ("matrix_react", {"event_id": "$x", "key": "👍"}),
        ("matrix_upload_file", {"name": "a.txt", "content": "a"}),
        ("matrix_read_room", {}),
        ("matrix_list_members", {}),
    ],
)
async def test_nothing_works_in_a_room_the_agent_is_not_in(
    bench: Bench, tool: str, arguments: Json
) -> None:
    ada, bob = await bench.agent(), await bench.agent()
    left = await bench.room(ada, name="Left")
    await Intent(bench.client, ada.user_id).leave(left)
    for room_id in (bob.room_id, "!nowhere:localhost", "!odd", left):
        ok, told = await bench.call(ada, tool, room_id=room_id, **arguments)
        assert not ok
        assert f"You are not in {room_id}. Ask somebody there to invite {ada.user_id}." == told
    assert await bench.ann.bodies(str(bob.room_id), ada.user_id) == []


async def test_rooms_go_by_alias_and_by_exact_name(bench: Bench) -> None:
    ada = await bench.agent()
    alias, name = f"alias{secrets.token_hex(4)}", f"Name {secrets.token_hex(4)}"
    room_id = await bench.room(ada, room_alias_name=alias, name=name)
    for ref in (f"#{alias}:localhost", name, f" {name} "):
        ok, told = await bench.call(ada, "matrix_send_message", room_id=ref, message="hi")
        assert ok, told
        assert told["room_id"] == room_id
    second = await bench.room(ada, name=name)
    ok, told = await bench.call(ada, "matrix_send_message", room_id=name, message="hi")
    assert not ok
    assert room_id in told
    assert second in told
    ok, told = await bench.call(ada, "matrix_send_message", room_id="Nowhere", message="hi")
    assert (ok, "None of your rooms is called 'Nowhere'" in told) == (False, True)
    for ref in ("#none:localhost", "#none", "#"):
        ok, told = await bench.call(ada, "matrix_send_message", room_id=ref, message="hi")
        assert not ok
        assert ref in told


async def test_a_reply_stands_in_the_thread_of_its_message(bench: Bench) -> None:
    ada = await bench.agent()
    root = await bench.ann.send(str(ada.room_id), "root")
    arguments = {"room_id": ada.room_id, "message": "in thread"}
    _, first = await bench.call(ada, "matrix_reply_in_thread", event_id=root, **arguments)
    _, second = await bench.call(
        ada, "matrix_reply_in_thread", event_id=first["event_id"], **arguments
    )
    said = await Intent(bench.client, ada.user_id).event(str(ada.room_id), second["event_id"])
    assert said["content"]["m.relates_to"]["event_id"] == root
    assert said["content"]["m.relates_to"]["rel_type"] == "m.thread"
    ok, told = await bench.call(ada, "matrix_reply_in_thread", event_id="$gone", **arguments)
    assert (ok, told) == (False, f"There is no message $gone in {ada.room_id}.")


async def test_a_reaction_is_given_once(bench: Bench) -> None:
    ada = await bench.agent()
    target = await bench.ann.send(str(ada.room_id), "nice?")
    for _ in range(2):
        arguments = {"room_id": ada.room_id, "event_id": target, "key": "👍"}
        ok, _told = await bench.call(ada, "matrix_react", **arguments)
        assert ok
    events = await bench.ann.timeline(str(ada.room_id))
    reactions = [e for e in events if e["type"] == "m.reaction"]
    assert [e["sender"] for e in reactions] == [ada.user_id]


async def test_files_arrive_as_they_were(bench: Bench) -> None:
    ada = await bench.agent()
    png = base64.b64encode(b"\x89PNG\r\n\x1a\nnot really").decode()
    files: list[Json] = [
        {"name": "../../etc/notes.md", "content": "# Ünïcode"},
        {"name": "dot.png", "content_base64": png},
        {"name": "data.bin", "content_base64": png, "media_type": "application/x-own"},
    ]
    for arguments in files:
        for _ in range(2):
            ok, told = await bench.call(
                ada, "matrix_upload_file", arguments["name"], room_id=ada.room_id, **arguments
            )
            assert ok, told
    said = await bench.ann.said_by(str(ada.room_id), ada.user_id)
    contents = [one["content"] for one in said]
    assert [(c["msgtype"], c["body"], c["info"]["mimetype"]) for c in contents] == [
        ("m.file", "notes.md", "text/markdown"),
        ("m.image", "dot.png", "image/png"),
        ("m.file", "data.bin", "application/x-own"),
    ]
    media = contents[0]["url"].removeprefix("mxc://")
    url = f"{bench.ann.url}/_matrix/client/v1/media/download/{media}"
    headers = {"Authorization": f"Bearer {bench.ann.token}"}
    async with bench.ann.http.get(url, headers=headers) as response:
        assert await response.read() == "# Ünïcode".encode()


async def test_reading_goes_back_page_by_page_through_everything_said(bench: Bench) -> None:
    ada = await bench.agent()
    room_id, ghost = str(ada.room_id), Intent(bench.client, ada.user_id)
    for number in range(7):
        sent = await bench.ann.send(room_id, f"old {number}")
        edit = edit_content(f"new {number}", target_event_id=sent, marker={})
        await bench.ann.send_content(room_id, edit)
        trace = text_content("a trace", marker={"agent_id": ada.agent_id}, msgtype="m.notice")
        await ghost.send(room_id, "m.room.message", trace, secrets.token_hex(8))
    await bench.call(ada, "matrix_send_message", room_id=room_id, message="mine")
    texts: list[str] = []
    before, pages = "", 0
    while before or not pages:
        ok, told = await bench.call(
            ada, "matrix_read_room", room_id=room_id, limit=3, before=before
        )
        assert ok, told
        assert "untrusted" in told
        texts = [m["text"] for m in told["messages"]] + texts
        before, pages = told.get("before", ""), pages + 1
        assert pages < 20
    assert texts == [*(f"new {number}" for number in range(7)), "mine"]
    _, told = await bench.call(ada, "matrix_read_room", room_id=room_id, limit=2)
    old, own = told["messages"]
    assert (old["sender"], old["edited"]) == (bench.ann.user_id, True)
    assert (own["sender"], own["agent"]) == (ada.user_id, ada.name)
    ok, told = await bench.call(ada, "matrix_read_room", room_id=room_id, before="nonsense")
    assert (ok, "refused" in told) == (False, True)


async def test_what_is_read_stays_small(bench: Bench) -> None:
    ada = await bench.agent()
    for _ in range(4):
        await bench.ann.send(str(ada.room_id), "\U0001f600" * 9000)
    arguments = {"room_id": ada.room_id}
    call = ToolCall(ada.agent_id, "", "c", "matrix_read_room", arguments, secrets.token_hex(8))
    result = await bench.handler(call)
    assert len(result.text.encode()) <= 16_000
    told = json.loads(result.text)
    assert len(told["messages"]) == 4
    assert "cut" in told["note"]


async def test_rooms_and_members_are_listed(bench: Bench) -> None:
    ada, bob = await bench.agent("Ada"), await bench.agent("Bob")
    named = await bench.room(ada, name="Plans", room_alias_name=f"p{secrets.token_hex(4)}")
    nameless = await bench.room(ada, bob)
    _, told = await bench.call(ada, "matrix_list_rooms")
    rooms = {room["room_id"]: room for room in told["rooms"]}
    assert set(rooms) == {ada.room_id, named, nameless}
    assert rooms[named]["name"] == "Plans"
    assert rooms[named]["alias"].startswith("#p")
    assert "Bob" in rooms[nameless]["name"]
    assert "Ada" not in rooms[nameless]["name"]
    _, told = await bench.call(ada, "matrix_list_rooms", include_members=True)
    members = next(r["members"] for r in told["rooms"] if r["room_id"] == nameless)
    assert {m["user_id"] for m in members} == {ada.user_id, bob.user_id, bench.ann.user_id}
    _, told = await bench.call(ada, "matrix_list_members", room_id=nameless)
    assert {"user_id": bob.user_id, "name": "Bob", "agent_id": bob.agent_id} in told["members"]


async def test_an_agent_knows_who_and_where_it_is(bench: Bench) -> None:
    ada = await bench.agent()
    conversation = await bench.talk(ada, str(ada.room_id), "$root")
    _, told = await bench.call(ada, "matrix_whoami", "", conversation)
    assert told["user_id"] == ada.user_id
    assert told["here"] == {"room_id": ada.room_id, "thread": "$root"}


async def test_what_the_last_speaker_says_next_answers_no_later_question(bench: Bench) -> None:
    ada = await bench.agent()
    room_id = str(ada.room_id)
    conversation = await bench.talk(ada, room_id, done=True)
    asking = asyncio.create_task(
        bench.call(ada, "ask_human", "", conversation, question="Why?", timeout_seconds=4)
    )
    await eventually(lambda: bench.ann.bodies(room_id, ada.user_id), bool)
    since = len(await bench.ann.timeline(room_id))
    await bench.ann.send(room_id, "something else")
    assert not await bench.offer_new(room_id, since)
    asking.cancel()
    await asyncio.wait([asking])


async def test_a_person_chooses_by_reaction(bench: Bench) -> None:
    ada = await bench.agent()
    room_id = str(ada.room_id)
    root = await bench.ann.send(room_id, "go on")
    conversation = await bench.talk(ada, room_id, root)
    since = len(await bench.ann.timeline(room_id))
    asking = asyncio.create_task(
        bench.call(
            ada, "ask_human", "", conversation, question="Tea?", options=["Yes", "No", "Both"]
        )
    )

    async def offered() -> list[Json]:
        return [e for e in await bench.ann.timeline(room_id) if e["type"] == "m.reaction"]

    reactions = await eventually(offered, lambda found: len(found) == 3)
    assert [e["content"]["m.relates_to"]["key"] for e in reactions] == ["1️⃣", "2️⃣", "3️⃣"]
    assert not await bench.offer_new(room_id, since), "an agent's own reactions choose nothing"
    asked = reactions[0]["content"]["m.relates_to"]["event_id"]
    question = await Intent(bench.client, ada.user_id).event(room_id, asked)
    assert question["content"]["m.relates_to"]["event_id"] == root
    assert question["content"]["body"].startswith("Tea?\n\n1️⃣ Yes\n2️⃣ No\n3️⃣ Both\n\n*React")
    choice = {"m.relates_to": {"rel_type": "m.annotation", "event_id": asked, "key": "2⃣"}}
    await bench.ann.send_content(room_id, choice, "m.reaction")
    assert await bench.offer_new(room_id, since)
    ok, told = await asking
    assert ok
    assert (told["answer"], told["option"], told["by"]) == ("No", 2, bench.ann.user_id)
    shown = (await bench.ann.bodies(room_id, ada.user_id))[-1]
    assert shown.endswith(f"*Answered by {bench.ann.user_id}.*")


async def test_an_answer_given_while_the_bridge_was_away_counts(bench: Bench) -> None:
    ada = await bench.agent()
    room_id = str(ada.room_id)
    asking = asyncio.create_task(bench.call(ada, "ask_human", "call-1", question="Why?"))

    async def asked() -> list[Json]:
        said = [e for e in await bench.ann.timeline(room_id) if e["type"] == "m.room.message"]
        return [e for e in said if e["sender"] == ada.user_id]

    (question,) = await eventually(asked, bool)
    asking.cancel()
    await asyncio.wait([asking])
    bench.restart()
    reply = {"m.in_reply_to": {"event_id": question["event_id"]}}
    content = {"msgtype": "m.text", "body": "Because.", "m.relates_to": reply}
    await bench.ann.send_content(room_id, content)
    ok, told = await bench.call(ada, "ask_human", "call-1", question="Why?")
    assert ok
    assert told["answer"] == "Because."
    assert len(await bench.ann.bodies(room_id, ada.user_id)) == 1


async def test_what_was_said_before_a_question_does_not_answer_it(bench: Bench) -> None:
    ada = await bench.agent()
    room_id = str(ada.room_id)
    conversation = await bench.talk(ada, room_id)
    await bench.ann.send(room_id, "before")
    asking = asyncio.create_task(
        bench.call(ada, "ask_human", "call-1", conversation, question="Why?")
    )
    await eventually(lambda: bench.ann.bodies(room_id, ada.user_id), bool)
    asking.cancel()
    await asyncio.wait([asking])
    bench.restart()
    asking = asyncio.create_task(
        bench.call(ada, "ask_human", "call-1", conversation, question="Why?")
    )
    assert not (await asyncio.wait([asking], timeout=0.5))[0]
    asking.cancel()
    await asyncio.wait([asking])
    bench.restart()
    await bench.ann.send(room_id, "after")
    _, told = await bench.call(ada, "ask_human", "call-1", conversation, question="Why?")
    assert told["answer"] == "after"


async def test_an_answer_that_came_in_time_counts_though_it_is_stored_later(bench: Bench) -> None:
    ada = await bench.agent()
    room_id = str(ada.room_id)
    arguments = {"question": "Hello?", "timeout_seconds": 2}
    asking = asyncio.create_task(bench.call(ada, "ask_human", **arguments))
    await eventually(lambda: bench.ann.bodies(room_id, ada.user_id), bool)
    (question,) = await bench.ann.said_by(room_id, ada.user_id)
    reply = {"m.in_reply_to": {"event_id": question["event_id"]}}
    content = {"msgtype": "m.text", "body": "Yes.", "m.relates_to": reply}
    await bench.ann.send_content(room_id, content)
    event = (await bench.ann.timeline(room_id))[-1]
    stored = bench.toolbox.questions.match({**event, "room_id": room_id})
    assert stored is not None
    await asyncio.sleep(2.5)
    stored()
    _, told = await asking
    assert told["answer"] == "Yes."


async def test_a_question_nobody_answers_ends(bench: Bench) -> None:
    ada = await bench.agent()
    ok, told = await bench.call(ada, "ask_human", question="Hello?", timeout_seconds=1)
    assert ok
    assert told["answer"] is None
    assert "Nobody answered within 1 seconds" in told["note"]
    shown = await bench.ann.bodies(str(ada.room_id), ada.user_id)
    assert shown == ["Hello?\n\n*Nobody answered in time; a reply still reaches me as a message.*"]


@given(st.data())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
async def test_nothing_that_models_may_say_breaks_a_tool(
    bench: Bench, fuzzed: tuple[Agent, Agent], data: st.DataObject
) -> None:
    ada, bob = fuzzed
    bench.restart()
    name = data.draw(st.sampled_from(sorted(bench.toolbox.tools)))
    schema = bench.toolbox.tools[name].parameters
    rooms = (str(ada.room_id), str(bob.room_id), "Ada's")
    arguments = data.draw(tool_arguments(schema, *rooms))
    for waits in ("timeout_seconds", "wait_seconds"):
        if waits in schema["properties"]:
            arguments[waits] = data.draw(st.sampled_from([1, 0, "x"]))
    _, told = await bench.call(ada, name, **arguments)
    assert told not in (registry._BROKEN, registry._UNCERTAIN, registry._SLOW), arguments
    if name == "matrix_leave":
        assert ada.room_id in await Intent(bench.client, ada.user_id).joined_rooms()
