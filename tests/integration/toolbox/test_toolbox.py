"""Agents' tools on a real homeserver: each acts as itself, once, and nowhere else."""

import base64
import secrets

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.bridge_world import Json
from tests.integration.toolbox.toolbox_bench import Bench
from tests.stress import examples
from tests.tool_arguments import arguments as tool_arguments

from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.intent import Intent
from letta_matrix.operations.toolbox import outcome
from letta_matrix.store.agents import Agent


async def test_a_message_is_sent_as_the_agent_itself_once(bench: Bench, ada: Agent) -> None:
    room_id = await bench.room(ada)
    arguments = {"room_id": room_id, "message": "**hi** @room"}
    once = secrets.token_hex(8)
    ok, told = await bench.call(ada, "matrix_send_message", once, **arguments)
    assert ok
    bench.restart()
    assert await bench.call(ada, "matrix_send_message", once, **arguments) == (True, told)
    events = [e for e in await bench.ann.timeline(room_id) if e["type"] == "m.room.message"]
    assert [(e["sender"], e["event_id"]) for e in events] == [(ada.user_id, told["event_id"])]
    assert events[0]["content"]["formatted_body"] == "<strong>hi</strong> @room"
    assert events[0]["content"]["m.mentions"] == {}
    assert events[0]["content"][MARKER]["tool"] == "matrix_send_message"


async def test_a_call_id_that_the_model_uses_again_is_another_call(
    bench: Bench, ada: Agent
) -> None:
    room_id = await bench.room(ada)
    # Nothing was asked here since: so it is when schedules run, day after day.
    conversation = await bench.talk(ada, room_id, done=True)
    for day in ("monday", "tuesday"):
        arguments = {"room_id": room_id, "message": f"report of {day}"}
        ok, _ = await bench.call(ada, "matrix_send_message", "", conversation, **arguments)
        assert ok
    said = await bench.ann.bodies(room_id, ada.user_id)
    assert said == ["report of monday", "report of tuesday"]


async def test_a_long_message_goes_out_in_parts(bench: Bench, ada: Agent) -> None:
    room_id, text = await bench.room(ada), "word " * 19_000
    ok, told = await bench.call(ada, "matrix_send_message", room_id=room_id, message=text)
    assert ok
    parts = await bench.ann.bodies(room_id, ada.user_id)
    assert len(parts) == 1 + len(told["more_event_ids"]) > 1
    assert " ".join(parts).split() == text.split()


async def test_nothing_works_in_a_room_the_agent_is_not_in(
    bench: Bench, ada: Agent, bea: Agent
) -> None:
    left = await bench.room(ada, name="Left")
    await Intent(bench.client, ada.user_id).leave(left)
    cases: list[tuple[str, Json]] = [
        ("matrix_send_message", {"message": "hi"}),
        ("matrix_reply_in_thread", {"event_id": "$x", "message": "hi"}),
        ("matrix_react", {"event_id": "$x", "key": "👍"}),
        ("matrix_upload_file", {"name": "a.txt", "content": "a"}),
        ("matrix_read_room", {}),
        ("matrix_list_members", {}),
    ]
    for tool, arguments in cases:
        for room_id in (bea.room_id, "!nowhere:localhost", "!odd", left):
            ok, told = await bench.call(ada, tool, room_id=room_id, **arguments)
            assert not ok, tool
            why = f"You are not in {room_id}. Ask somebody there to invite {ada.user_id}."
            assert told == why, tool
    assert await bench.ann.bodies(str(bea.room_id), ada.user_id) == []


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


async def test_a_reply_stands_in_the_thread_of_its_message(bench: Bench, ada: Agent) -> None:
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


async def test_a_reaction_is_given_once(bench: Bench, ada: Agent) -> None:
    target = await bench.ann.send(str(ada.room_id), "nice?")
    for _ in range(2):
        arguments = {"room_id": ada.room_id, "event_id": target, "key": "👍"}
        ok, _told = await bench.call(ada, "matrix_react", **arguments)
        assert ok
    events = await bench.ann.timeline(str(ada.room_id), "m.reaction")
    about = [e for e in events if e["content"]["m.relates_to"]["event_id"] == target]
    assert [e["sender"] for e in about] == [ada.user_id]


async def test_files_arrive_as_they_were(bench: Bench, ada: Agent) -> None:
    room_id, once = await bench.room(ada), secrets.token_hex(4)
    png = base64.b64encode(b"\x89PNG\r\n\x1a\nnot really").decode()
    files: list[Json] = [
        {"name": "../../etc/notes.md", "content": "# Ünïcode"},
        {"name": "dot.png", "content_base64": png},
        {"name": "data.bin", "content_base64": png, "media_type": "application/x-own"},
    ]
    for arguments in files:
        for _ in range(2):
            ok, told = await bench.call(
                ada, "matrix_upload_file", arguments["name"] + once, room_id=room_id, **arguments
            )
            assert ok, told
    said = await bench.ann.said_by(room_id, ada.user_id)
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


async def test_rooms_and_members_are_listed(bench: Bench, bea: Agent) -> None:
    ada = await bench.agent("Ada")
    named = await bench.room(ada, name="Plans", room_alias_name=f"p{secrets.token_hex(4)}")
    nameless = await bench.room(ada, bea)
    _, told = await bench.call(ada, "matrix_list_rooms")
    rooms = {room["room_id"]: room for room in told["rooms"]}
    assert set(rooms) == {ada.room_id, named, nameless}
    assert rooms[named]["name"] == "Plans"
    assert rooms[named]["alias"].startswith("#p")
    assert "Bea" in rooms[nameless]["name"]
    assert "Ada" not in rooms[nameless]["name"]
    _, told = await bench.call(ada, "matrix_list_rooms", include_members=True)
    members = next(r["members"] for r in told["rooms"] if r["room_id"] == nameless)
    assert {m["user_id"] for m in members} == {ada.user_id, bea.user_id, bench.ann.user_id}
    _, told = await bench.call(ada, "matrix_list_members", room_id=nameless)
    assert {"user_id": bea.user_id, "name": "Bea", "agent_id": bea.agent_id} in told["members"]


async def test_an_agent_knows_who_and_where_it_is(bench: Bench, ada: Agent) -> None:
    conversation = await bench.talk(ada, str(ada.room_id), "$root")
    _, told = await bench.call(ada, "matrix_whoami", "", conversation)
    assert told["user_id"] == ada.user_id
    assert told["here"] == {"room_id": ada.room_id, "thread": "$root"}


@given(st.data())
@settings(max_examples=examples(20, searching=50))
async def test_nothing_that_models_may_say_breaks_a_tool(
    bench: Bench, ada: Agent, bea: Agent, data: st.DataObject
) -> None:
    bench.restart()
    name = data.draw(st.sampled_from(sorted(bench.toolbox.tools)))
    schema = bench.toolbox.tools[name].parameters
    rooms = (str(ada.room_id), str(bea.room_id), "Ada's")
    arguments = data.draw(tool_arguments(schema, *rooms))
    for waits in ("timeout_seconds", "wait_seconds"):
        if waits in schema["properties"]:
            arguments[waits] = data.draw(st.sampled_from([1, 0, "x"]))
    _, told = await bench.call(ada, name, **arguments)
    assert told not in (outcome._BROKEN, outcome._UNCERTAIN, outcome._SLOW), arguments
    if name == "matrix_leave":
        assert ada.room_id in await Intent(bench.client, ada.user_id).joined_rooms()
