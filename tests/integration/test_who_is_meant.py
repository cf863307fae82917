"""Whom a message is for, and what an agent is told around it: scripted people on a real Synapse."""

import io
from dataclasses import replace
from urllib.parse import quote

import pytest
from PIL import Image as Picture
from tests.integration.bridge_world import Json, Person, Room, World, new_person
from tests.waiting import eventually

from letta_matrix.conversations import notices


@pytest.fixture(scope="module")
async def eve(world: World) -> Person:
    """Somebody who is invited and never comes."""
    return await new_person(world.homeserver, "eve")


async def joined(world: World, room: Room, room_id: str) -> Room:
    """Another room of an agent, once the bridge knows that it is there."""
    rooms = world.bridge.app.stores.rooms
    await eventually(lambda: room.ghost in rooms.ours_in(room_id), what="the agent joins")
    return replace(room, room_id=room_id)


@pytest.fixture
async def direct(world: World, ann: Person, room: Room) -> Room:
    room_id = await ann.create_room(room.ghost, is_direct=True)
    return await joined(world, room, room_id)


@pytest.fixture
async def group(world: World, ann: Person, bob: Person, room: Room) -> Room:
    room_id = await ann.create_room(name="Kitchen")
    await ann.bring(room_id, bob)
    await ann.call("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": room.ghost})
    return await joined(world, room, room_id)


NOBODY: Json = {"m.mentions": {}}
"""What clients say of a message in which nobody was picked."""


def naming(*user_ids: str) -> Json:
    return {"m.mentions": {"user_ids": list(user_ids)}}


def within(root: str) -> Json:
    return {"m.relates_to": {"rel_type": "m.thread", "event_id": root}}


def told(world: World, room: Room) -> str:
    """The last thing that an agent was told."""
    return world.asked(room)[-1].text


async def upload(person: Person) -> str:
    file = io.BytesIO()
    Picture.new("RGB", (30, 20), "red").save(file, "PNG")
    headers = {"Authorization": f"Bearer {person.token}", "Content-Type": "image/png"}
    url = f"{person.url}/_matrix/media/v3/upload"
    async with person.http.post(url, data=file.getvalue(), headers=headers) as answer:
        return str((await answer.json())["content_uri"])


async def leave(person: Person, room: Room) -> None:
    assert (await person.call("POST", f"/rooms/{quote(room.room_id)}/leave"))[0] == 200


async def test_a_dm_stays_one_whoever_is_invited_comes_or_goes(
    world: World, ann: Person, bob: Person, eve: Person, direct: Room
) -> None:
    path = f"/rooms/{quote(direct.room_id)}/invite"
    for who in (eve.user_id, world.config.bot_user_id):
        assert (await ann.call("POST", path, {"user_id": who}))[0] == 200
    bot = world.config.bot_user_id
    rooms = world.bridge.app.stores.rooms
    await eventually(lambda: bot in rooms.ours_in(direct.room_id), what="the bot joins")
    await ann.send(direct.room_id, "one")
    await ann.answers(direct, 1)
    await ann.bring(direct.room_id, bob)
    await ann.send(direct.room_id, "for Bob alone")
    thanks = await bob.send(direct.room_id, "thanks")
    inbox = world.bridge.app.stores.inbox
    # Who is there is looked at besides: how it is by then, not when it was said.
    await eventually(lambda: inbox.known([thanks]), what="Bob is heard")
    await leave(bob, direct)
    await ann.send(direct.room_id, "two")
    assert await ann.answers(direct, 2) == ["echo: one", "echo: two"]


async def test_a_group_is_told_to_whom_it_mentions(
    world: World, ann: Person, bob: Person, group: Room
) -> None:
    wrong = await bob.send(group.room_id, "diner at seven?")
    new = {"msgtype": "m.text", "body": "dinner at eight?"}
    relation = {"rel_type": "m.replace", "event_id": wrong}
    edit: Json = {"msgtype": "m.text", "body": "* x", "m.new_content": new}
    await bob.send_content(group.room_id, edit | {"m.relates_to": relation})
    secret = await bob.send(group.room_id, "my password is hunter2")
    path = f"/rooms/{quote(group.room_id)}/redact/{quote(secret)}/1"
    assert (await bob.call("PUT", path))[0] == 200
    root = await ann.mention(group.room_id, "what did Bob ask?", group.ghost)
    assert await ann.replies(group, 1, root) == ["echo: what did Bob ask?"]
    lines = told(world, group).split("\n")
    assert lines[0].startswith("[Matrix, Kitchen, ")
    assert lines[1:] == [
        "> [Context, not addressed to you now: the last messages of this room]",
        "> Bob Builder: dinner at eight?",
        "",
        "what did Bob ask?",
    ]


async def test_what_was_said_before_it_was_invited_is_not_told(
    world: World, ann: Person, bob: Person, room: Room
) -> None:
    public = [{"type": "m.room.history_visibility", "content": {"history_visibility": "shared"}}]
    room_id = await ann.create_room(name="Kitchen", initial_state=public)
    await ann.bring(room_id, bob)
    root = await bob.send(room_id, "dinner?")
    await bob.say_in_thread(room_id, root, "at eight")
    await ann.call("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": room.ghost})
    group = await joined(world, room, room_id)
    begun = await ann.mention(room_id, "hello", room.ghost)
    assert await ann.replies(group, 1, begun) == ["echo: hello"]
    assert "[Context" not in told(world, group)
    await ann.send(room_id, "who cooks?", **within(root), **naming(room.ghost))
    assert await ann.replies(group, 1, root) == ["echo: who cooks?"]
    assert "> Bob Builder: dinner?\n\nwho cooks?" in told(world, group)
    assert "at eight" not in told(world, group)


async def test_a_thread_is_told_at_its_first_turn_and_what_was_missed_later(
    world: World, ann: Person, bob: Person, group: Room
) -> None:
    root = await bob.send(group.room_id, "dinner?")
    await ann.say_in_thread(group.room_id, root, "at eight")
    await bob.say_in_thread(group.room_id, root, "or nine")
    await ann.send(group.room_id, "choose!", **within(root), **naming(group.ghost))
    await ann.replies(group, 1, root)
    context = told(world, group).partition("\n")[2]
    assert context.startswith("> [Context, not addressed to you now: what came before in this")
    assert [line.partition(": ")[2] for line in context.split("\n")[1:4]] == [
        *("dinner?", "at eight", "or nine"),
    ]
    await bob.send(group.room_id, "Ann, no", **within(root), **naming(ann.user_id))
    await ann.say_in_thread(group.room_id, root, "and now?")
    assert (await ann.replies(group, 2, root))[1] == "echo: and now?"
    assert "> Bob Builder: Ann, no\n\nand now?" in told(world, group)
    assert "at eight" not in told(world, group)
    assert len(world.asked(group)) == 2


async def test_a_thread_on_an_agents_own_message_is_talk_with_it(
    world: World, ann: Person, bob: Person, group: Room
) -> None:
    news = await world.as_user(group.ghost).send(group.room_id, "Soup is ready.")
    chat = await bob.send(group.room_id, "I am hungry")
    await ann.say_in_thread(group.room_id, chat, "me too")
    await ann.say_in_thread(group.room_id, news, "which soup?")
    assert await ann.replies(group, 1, news) == ["echo: which soup?"]
    assert "> you: Soup is ready.\n\nwhich soup?" in told(world, group)
    assert len(world.asked(group)) == 1


async def test_a_plain_reply_goes_on_in_the_thread(world: World, ann: Person, room: Room) -> None:
    root = await ann.send(room.room_id, "root", msgtype="m.notice")
    await ann.say_in_thread(room.room_id, root, "begin")
    await ann.replies(room, 1, root)
    (answer,) = await ann.said(room)
    await ann.reply(room.room_id, answer["event_id"], "go on")
    assert (await ann.replies(room, 2, root))[1] == "echo: go on"
    first, second = world.asked(room)
    assert first.conversation_id == second.conversation_id
    await ann.send(room.room_id, "elsewhere")
    await ann.replies(room, 1)
    assert world.asked(room)[-1].conversation_id != first.conversation_id


async def test_in_its_own_room_an_agent_keeps_out_of_talk_between_people(
    world: World, ann: Person, bob: Person, room: Room
) -> None:
    await ann.bring(room.room_id, bob)
    await ann.mention(room.room_id, "Bob, dinner?", bob.user_id)
    said = await bob.mention(room.room_id, "yes, Ann", ann.user_id)
    await ann.reply(room.room_id, said, "good")
    await ann.send(room.room_id, f"{bob.user_id} at eight?", **NOBODY)
    await ann.reply(room.room_id, said, f"{room.ghost}, did he say yes?")
    assert await ann.answers(room, 1) == ["echo: Ada, did he say yes?"]
    await bob.reply(room.room_id, said, "I did")
    assert (await ann.answers(room, 2))[1] == "echo: I did"
    assert len(world.asked(room)) == 2


async def test_a_picture_that_is_replied_to_or_begins_a_thread_is_seen(
    world: World, ann: Person, room: Room
) -> None:
    mxc = await upload(ann)
    content = {"msgtype": "m.image", "body": "cat.png", "url": mxc}
    picture = await ann.send_content(room.room_id, content)
    await ann.replies(room, 1)
    await ann.reply(room.room_id, picture, "what is it?")
    await ann.replies(room, 2)
    await ann.say_in_thread(room.room_id, picture, "and its colour?")
    await ann.replies(room, 1, picture)
    _, replied, threaded = world.asked(room)
    for asked in (replied, threaded):
        assert [image.media_type for image in asked.images] == ["image/png"]
        assert "[image: cat.png, image/png, " in asked.text
    await ann.say_in_thread(room.room_id, picture, "and its size?")
    await ann.replies(room, 2, picture)
    assert world.asked(room)[-1].images == ()


async def test_who_types_an_id_by_hand_is_heard_and_names_are_told(
    world: World, ann: Person, group: Room
) -> None:
    typed = await ann.send(group.room_id, f"{group.ghost}: hello", **NOBODY)
    assert await ann.replies(group, 1, typed) == ["echo: Ada: hello"]
    await ann.send(group.room_id, f"`{group.ghost}` is an id", **NOBODY)
    pill = f'<a href="https://matrix.to/#/{group.ghost}">Lady Ada</a>: hello'
    html: Json = {"format": "org.matrix.custom.html", "formatted_body": pill}
    picked = await ann.send(group.room_id, f"{group.ghost}: hello", **html, **naming(group.ghost))
    assert await ann.replies(group, 1, picked) == ["echo: Lady Ada: hello"]
    assert len(world.asked(group)) == 2


async def test_peoples_own_quotes_are_told(ann: Person, room: Room) -> None:
    said = await ann.send(room.room_id, "one")
    await ann.replies(room, 1)
    await ann.reply(room.room_id, said, "> to be or not\n\nwho said that?")
    await ann.reply(room.room_id, said, f"> <{ann.user_id}> one\n\ntwo")
    assert (await ann.replies(room, 3))[1:] == [
        *("echo: > to be or not\n\nwho said that?", "echo: two"),
    ]


async def test_what_is_no_text_is_told_or_refused_with_a_word(
    world: World, ann: Person, room: Room
) -> None:
    await ann.send_content(
        room.room_id, {"body": "Thumbs up", "url": await upload(ann)}, "m.sticker"
    )
    await ann.replies(room, 1)
    assert told(world, room).startswith("(a sticker: Thumbs up)\n\n[image: Thumbs up, image/png, ")
    assert len(world.asked(room)[-1].images) == 1
    answers = [{"id": str(n), "org.matrix.msc1767.text": text} for n, text in enumerate("ab")]
    question = {"org.matrix.msc1767.text": "Which?"}
    start = {"org.matrix.msc3381.poll.start": {"question": question, "answers": answers}}
    poll = await ann.send_content(room.room_id, start, "org.matrix.msc3381.poll.start")
    assert (await ann.replies(room, 2))[1] == "echo: (a poll: Which?\n1. a\n2. b)"
    vote = {"m.relates_to": {"rel_type": "m.reference", "event_id": poll}}
    await ann.send_content(room.room_id, vote, "org.matrix.msc3381.poll.response")
    await ann.react(room.room_id, poll, "👍")
    await ann.send_content(room.room_id, {"call_id": "1"}, "m.call.invite")
    await ann.send(room.room_id, "a six", msgtype="org.example.dice")
    assert (await ann.replies(room, 3))[2] == (
        "echo: (a message of the type org.example.dice: a six)"
    )
    await ann.send(room.room_id, " ", msgtype="org.example.dice")
    assert (await ann.replies(room, 4))[3] == notices.UNUSABLE
    assert len(world.asked(room)) == 3
