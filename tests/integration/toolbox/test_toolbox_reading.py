"""The tools that read what was said, on a real homeserver."""

import asyncio
import json
import secrets

from tests.integration.toolbox.readers import Read, fault_of, say, texts
from tests.integration.toolbox.toolbox_bench import Bench

from letta_matrix.access.faults import Fault
from letta_matrix.common.tools import ToolCall
from letta_matrix.matrix.content import edit_content, text_content
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent


async def test_pages_leave_nothing_out_where_much_is_not_said(
    bench: Bench, ada: Agent, read: Read
) -> None:
    room_id = await bench.room(ada)
    ghost = Intent(bench.client, ada.user_id)
    for number in range(4):
        (sent,) = await say(bench, room_id, f"message {number}")
        for version in range(6):
            edit = edit_content(f"{number}.{version}", target_event_id=sent, marker={})
            await bench.ann.send_content(room_id, edit)
        trace = text_content("a trace", marker={"agent_id": ada.agent_id}, msgtype="m.notice")
        await ghost.send(room_id, "m.room.message", trace, secrets.token_hex(8))
    seen: list[str] = []
    told = await read(ada, "matrix_read_room", room_id=room_id, limit=1)
    newer = told["after"]
    while True:
        shown = {(message["sender"], message["edited"]) for message in told["messages"]}
        assert shown <= {(bench.ann.user_id, True)}
        assert "untrusted" in told
        seen += texts(told)
        if "before" not in told:
            break
        told = await read(ada, "matrix_read_room", room_id=room_id, limit=1, before=told["before"])
    assert seen == ["3.5", "2.5", "1.5", "0.5"]
    told = await read(ada, "matrix_read_room", room_id=room_id, after=newer)
    assert texts(told) == []
    await say(bench, room_id, "news", "more", "most")
    told = await read(ada, "matrix_read_room", room_id=room_id, after=told["after"], limit=2)
    assert texts(told) == ["news", "more"]
    told = await read(ada, "matrix_read_room", room_id=room_id, after=told["after"])
    assert texts(told) == ["most"]
    backwards = await read(ada, "matrix_read_room", room_id=room_id, limit=1, before=newer)
    call = read(ada, "matrix_read_room", room_id=room_id, after=backwards["before"])
    assert "~b" in backwards["before"]
    assert await fault_of(call) is Fault.INVALID
    both = read(ada, "matrix_read_room", room_id=room_id, after=newer, before=newer)
    assert await fault_of(both) is Fault.INVALID
    nonsense = read(ada, "matrix_read_room", room_id=room_id, before="nonsense")
    assert await fault_of(nonsense) is Fault.REFUSED
    await read(ada, "matrix_send_message", room_id=room_id, message="mine")
    (own,) = (await read(ada, "matrix_read_room", room_id=room_id, limit=1))["messages"]
    assert (own["text"], own["sender"], own["agent"]) == ("mine", ada.user_id, ada.name)


async def test_what_is_read_stays_small(bench: Bench, ada: Agent) -> None:
    room_id = await bench.room(ada)
    await say(bench, room_id, *["\U0001f600" * 9000] * 4)
    arguments = {"room_id": room_id}
    call = ToolCall(ada.agent_id, "", "c", "matrix_read_room", arguments, secrets.token_hex(8))
    result = await bench.handler(call)
    assert len(result.text.encode()) <= 16_000
    told = json.loads(result.text)
    assert len(told["messages"]) == 4
    assert "cut" in told["note"]


async def test_a_message_is_read_in_its_context(bench: Bench, ada: Agent, read: Read) -> None:
    room_id = await bench.room(ada)
    sent = await say(bench, room_id, *"abc")
    for version in range(8):
        edit = edit_content(f"c{version}", target_event_id=sent[2], marker={})
        await bench.ann.send_content(room_id, edit)
    sent += await say(bench, room_id, *"def")
    about = {"room_id": room_id, "event_id": sent[2]}
    told = await read(ada, "matrix_get_context", around=2, **about)
    assert (texts(told), told["event_id"]) == (["a", "b", "c7", "d", "e"], sent[2])
    more = await read(ada, "matrix_read_room", room_id=room_id, after=told["after"])
    assert texts(more) == ["f"]
    alone = await read(ada, "matrix_get_context", around=0, **about)
    assert texts(alone) == ["c7"]
    older = await read(ada, "matrix_read_room", room_id=room_id, before=alone["before"])
    assert texts(older) == ["a", "b"]
    reaction = await bench.ann.react(room_id, sent[0], "👍")
    told = await read(ada, "matrix_get_context", room_id=room_id, event_id=reaction, around=0)
    assert told["messages"][0]["type"] == "m.reaction"
    gone = read(ada, "matrix_get_context", room_id=room_id, event_id="$gone")
    assert await fault_of(gone) is Fault.NOT_FOUND


async def test_a_thread_is_read_page_by_page(bench: Bench, ada: Agent, read: Read) -> None:
    room_id = await bench.room(ada)
    (root,) = await say(bench, room_id, "root")
    inside = [await bench.ann.say_in_thread(room_id, root, str(number)) for number in range(5)]
    await say(bench, room_id, "beside")
    told = await read(ada, "matrix_read_thread", room_id=room_id, event_id=root, limit=3)
    assert (told["root"]["text"], texts(told)) == ("root", ["2", "3", "4"])
    rest = await read(
        ada, "matrix_read_thread", room_id=room_id, event_id=inside[0], before=told["before"]
    )
    assert (rest["thread"], texts(rest)) == (root, ["0", "1"])
    gone = read(ada, "matrix_read_thread", room_id=room_id, event_id="$gone")
    assert await fault_of(gone) is Fault.NOT_FOUND


async def test_words_are_searched_in_the_callers_rooms(
    bench: Bench, ada: Agent, read: Read
) -> None:
    word = f"word{secrets.token_hex(5)}"
    here, there = await bench.room(ada, name="Here"), await bench.room(ada, name="There")
    foreign = await bench.room()
    for room_id in (here, there, foreign):
        await say(bench, room_id, f"one {word}", "nothing", f"two {word}")
    told = await read(ada, "matrix_search", query=word)
    assert texts(told) == [f"two {word}", f"one {word}"] * 2
    assert [(m["room_id"], m["room"]) for m in told["messages"]] == [
        *[(there, "There")] * 2,
        *[(here, "Here")] * 2,
    ]
    first = await read(ada, "matrix_search", query=word, limit=3)
    second = await read(ada, "matrix_search", query=word, limit=3, before=first["before"])
    assert texts(first) + texts(second) == texts(told)
    only = await read(ada, "matrix_search", query=f"two {word}", room_id="Here")
    assert [m["room_id"] for m in only["messages"]] == [here]
    limited = await read(ada, "matrix_search", query=word, rooms={here})
    assert {m["room_id"] for m in limited["messages"]} == {here}
    mine = await read(ada, "matrix_search", query=word, sender=ada.user_id)
    assert texts(mine) == []
    theirs = await read(ada, "matrix_search", query=word, sender=bench.ann.user_id, limit=25)
    assert len(theirs["messages"]) == 4
    for room_id in (foreign, "!nowhere"):
        call = read(ada, "matrix_search", query=word, room_id=room_id)
        assert await fault_of(call) is Fault.FORBIDDEN
    assert await fault_of(read(ada, "matrix_search", query=word, before="%")) is Fault.REFUSED


async def test_what_a_room_names_as_its_predecessor_is_not_searched(
    bench: Bench, ada: Agent, read: Read
) -> None:
    word = f"word{secrets.token_hex(5)}"
    secret = await bench.room(ada)
    # The creation of a room may name any other one.
    named = {"predecessor": {"room_id": secret, "event_id": "$x"}}
    trap = await bench.room(ada, creation_content=named)
    for room_id in (secret, trap):
        await say(bench, room_id, word)
    for about in ({"rooms": {trap}}, {"room_id": trap}):
        found = (await read(ada, "matrix_search", query=word, **about))["messages"]
        assert [message["room_id"] for message in found] == [trap], about
    everywhere = (await read(ada, "matrix_search", query=word))["messages"]
    assert {message["room_id"] for message in everywhere} == {secret, trap}


async def test_a_visitor_finds_nothing_of_the_room_it_visits(
    bench: Bench, ada: Agent, bea: Agent, read: Read
) -> None:
    word = f"word{secrets.token_hex(5)}"
    await bench.visit(ada, bea)
    await say(bench, str(bea.room_id), word)
    assert texts(await read(ada, "matrix_search", query=word)) == []
    unread = (await read(ada, "matrix_list_unread"))["rooms"]
    assert bea.room_id not in {room["room_id"] for room in unread}


async def test_an_edited_message_is_found_once(bench: Bench, ada: Agent, read: Read) -> None:
    word, room_id = f"word{secrets.token_hex(5)}", await bench.room(ada)
    (sent,) = await say(bench, room_id, f"{word} v0")
    for version in (1, 2):
        edit = edit_content(f"{word} v{version}", target_event_id=sent, marker={})
        await bench.ann.send_content(room_id, edit)
    (found,) = (await read(ada, "matrix_search", query=word))["messages"]
    assert (found["event_id"], found["text"], found["edited"]) == (sent, f"{word} v2", True)


async def test_unread_is_what_came_after_the_last_receipt(bench: Bench, read: Read) -> None:
    eve = await bench.agent("Eve")
    ghost, room_id = Intent(bench.client, eve.user_id), await bench.room(eve, name="Busy")
    assert (await read(eve, "matrix_list_unread"))["rooms"] == []
    sent = await say(bench, room_id, "one", "two", "three")
    await bench.ann.mention(room_id, "Eve!", eve.user_id)
    told = await read(eve, "matrix_list_unread")
    (room,) = told["rooms"]
    assert (room["room_id"], room["name"], room["unread"]) == (room_id, "Busy", 4)
    assert (room["mentions"], room["last"]["text"], "or_more" in room) == (1, "Eve!", False)
    await ghost.read_receipt(room_id, sent[1])
    (room,) = (await read(eve, "matrix_list_unread"))["rooms"]
    assert room["unread"] == 2
    await asyncio.gather(*(say(bench, room_id, str(number)) for number in range(30)))
    (room,) = (await read(eve, "matrix_list_unread"))["rooms"]
    assert (room["unread"], room["or_more"]) == (30, True)
    await bench.call_as(eve, "matrix_send_message", room_id=room_id, message="I am here")
    assert (await read(eve, "matrix_list_unread"))["rooms"] == []
    await bench.ann.say_in_thread(room_id, sent[0], "in a thread")
    (room,) = (await read(eve, "matrix_list_unread"))["rooms"]
    assert room["unread"] == 1
    assert (await read(eve, "matrix_list_unread", rooms={str(eve.room_id)}))["rooms"] == []


async def test_the_bot_reads_too(bench: Bench, read: Read) -> None:
    bot = Intent(bench.client, bench.config.bot_user_id)
    room_id = await bot.create_room({"name": "Office", "invite": [bench.ann.user_id]})
    await bench.ann.call("POST", f"/rooms/{room_id}/join")
    await say(bench, room_id, "hello bot")
    rooms = {room_id}
    told = await read(None, "matrix_list_unread", rooms=rooms)
    assert [(room["name"], room["unread"]) for room in told["rooms"]] == [("Office", 1)]
    await bench.call_as(None, "matrix_mark_read", room_id=room_id)
    assert (await read(None, "matrix_list_unread", rooms=rooms))["rooms"] == []
    assert texts(await read(None, "matrix_read_room", room_id=room_id)) == ["hello bot"]
    who = await read(None, "matrix_whoami", rooms=rooms)
    assert (who["user_id"], who["agent_id"], who["rooms"]) == (bot.user_id, "", [room_id])
    assert "read" in who["scopes"]
    (room,) = (await read(None, "matrix_list_rooms", rooms=rooms))["rooms"]
    assert room["room_id"] == room_id
