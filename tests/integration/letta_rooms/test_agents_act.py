"""Agents use their Matrix tools: a real App Server's agents, in real rooms, as themselves."""

import base64
import secrets
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Person, Room
from tests.integration.letta_rooms.acts import call, invite, pending, question_of, tell, told
from tests.integration.letta_world import LettaWorld

from letta_matrix.conversations import notices
from letta_matrix.matrix.content import MARKER


@pytest.fixture(scope="module")
async def ada(world: LettaWorld) -> Room:
    return await world.meet()


@pytest.fixture(scope="module")
async def ben(world: LettaWorld) -> Room:
    return await world.meet(f"Ben {secrets.token_hex(3)}")


@pytest.fixture(scope="module")
async def kitchen(ann: Person, ada: Room) -> str:
    """A room of ann's into which she has invited Ada."""
    return (await invite(ann, ada, await ann.create_room(name="Kitchen"))).room_id


async def test_an_agent_posts_into_another_room_as_itself(
    ann: Person, ada: Room, kitchen: str
) -> None:
    message = f"**dinner** {secrets.token_hex(3)} @room"
    answer = await told(ann, ada, "matrix_send_message", room_id=kitchen, message=message)
    posted = [e for e in await ann.timeline(kitchen) if e["content"].get("body") == message]
    assert [(e["sender"], e["event_id"] in answer) for e in posted] == [(ada.ghost, True)]
    content = posted[0]["content"]
    assert content["m.mentions"] == {}
    assert content[MARKER]["agent_id"] == ada.agent.agent_id
    assert message not in await ann.bodies(ada.room_id, ada.ghost)


async def test_where_it_is_not_it_gets_a_clear_refusal(
    ann: Person, ada: Room, ben: Room, kitchen: str
) -> None:
    send: Json = {"message": "hi"}
    for agent, elsewhere, tool, arguments in (
        (ben, kitchen, "matrix_send_message", send),
        (ada, ben.room_id, "matrix_send_message", send),
        (ada, "!nowhere:localhost", "matrix_read_room", {}),
    ):
        refusal = f"You are not in {elsewhere}. Ask somebody there to invite {agent.ghost}."
        assert refusal in await told(ann, agent, tool, room_id=elsewhere, **arguments)
    assert await ann.bodies(kitchen, ben.ghost) == []
    assert await ann.bodies(ben.room_id, ada.ghost) == []


async def test_it_reacts_and_replies_in_threads(ann: Person, ada: Room, kitchen: str) -> None:
    asked = await ann.send(kitchen, "who cooks? (said to nobody)")
    here = {"room_id": kitchen, "event_id": asked}
    await told(ann, ada, "matrix_react", key="🍝", **here)
    assert await ann.reactions(kitchen, asked) == {"🍝": ada.ghost}
    await told(ann, ada, "matrix_reply_in_thread", message="I do", **here)
    said = [one for one in await ann.said_by(kitchen, ada.ghost) if one["thread"] == asked]
    assert "I do" in [one["content"]["body"] for one in said]


async def test_it_uploads_files(ann: Person, ada: Room, kitchen: str) -> None:
    await told(ann, ada, "matrix_upload_file", room_id=kitchen, name="a.md", content="# Soup")
    data = base64.b64encode(b"\x00\x01").decode()
    await told(ann, ada, "matrix_upload_file", room_id=kitchen, name="b.bin", content_base64=data)
    files = [
        one["content"]
        for one in await ann.said_by(kitchen, ada.ghost)
        if one["content"]["msgtype"] == "m.file"
    ]
    assert [await download(ann, file["url"]) for file in files] == [b"# Soup", b"\x00\x01"]
    assert [file["filename"] for file in files] == ["a.md", "b.bin"]


async def download(person: Person, mxc: str) -> bytes:
    url = f"{person.url}/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}"
    headers = {"Authorization": f"Bearer {person.token}"}
    async with person.http.get(url, headers=headers) as answer:
        assert answer.status == 200
        return await answer.read()


async def test_it_reads_its_rooms(ann: Person, ada: Room, kitchen: str) -> None:
    salt = f"the salt is {secrets.token_hex(4)}"
    await ann.send(kitchen, salt)
    assert salt in await told(ann, ada, "matrix_read_room", room_id="Kitchen", limit=1)
    assert kitchen in await told(ann, ada, "matrix_list_rooms")
    members = await told(ann, ada, "matrix_list_members", room_id=kitchen)
    assert ann.user_id in members
    assert ada.ghost in members
    whoami = await told(ann, ada, "matrix_whoami")
    assert ada.ghost in whoami
    assert ada.room_id in whoami


async def test_wrong_arguments_are_explained(ann: Person, ada: Room, kitchen: str) -> None:
    answer = await told(ann, ada, "matrix_send_message", room=kitchen, message="hi")
    assert "room_id" in answer


async def test_an_agent_asks_another_one(ann: Person, ada: Room, ben: Room) -> None:
    question = f"what is soup? {secrets.token_hex(3)}"
    answer = await told(ann, ada, "message_agent", agent=ben.agent.name, message=question)
    assert f"echo: {question}" in answer
    asked = (await ann.said_by(ben.room_id, ada.ghost))[-1]
    assert asked["content"]["body"] == question
    assert await ann.replies(ben, 1, asked["event_id"]) == [f"echo: {question}"]


async def test_messages_from_agent_to_agent_end(
    world: LettaWorld, ann: Person, ada: Room, ben: Room
) -> None:
    end = f"end {secrets.token_hex(3)}"
    third = call("message_agent", agent=ben.agent.name, message=end)
    second = call("message_agent", agent=ada.agent.name, message=third)
    answer = await told(ann, ada, "message_agent", agent=ben.agent.name, message=second)
    assert "tool said" in answer
    bodies = [
        *await ann.bodies(ada.room_id, ben.ghost),
        *await ann.bodies(ben.room_id, ada.ghost),
    ]
    assert second in bodies
    assert third in bodies
    assert end not in bodies
    refused = [
        body for body in await ann.bodies(ada.room_id, ada.ghost) if "agent to agent" in body
    ]
    assert any("2 times" in body for body in refused)


async def test_what_an_agent_wishes_of_another_an_admin_allows(
    ann: Person, ada: Room, ben: Room, tmp_path: Path
) -> None:
    before, made = len(await ann.replies(ada, 0)), tmp_path / "made"
    wish = f"tool:Bash:touch {made}"
    await ann.send(ada.room_id, call("message_agent", agent=ben.agent.name, message=wish))
    question = await ann.beside(ben, "approval")
    assert "For an admin" in question["content"]["body"]
    assert not made.exists()
    await ann.react(ben.room_id, question["event_id"], "✅")
    assert "tool said" in (await ann.replies(ada, before + 1))[before]
    assert made.exists()


async def test_no_agent_allows_anything(ann: Person, ada: Room, ben: Room, tmp_path: Path) -> None:
    made, room_id = tmp_path / "made", ada.room_id
    await invite(ann, ben, room_id)
    place = await ann.begin_thread(ada)
    await ann.say(place, f"tool:Bash:touch {made}")
    question = await pending(ann, place)
    here = {"room_id": room_id, "event_id": question["event_id"]}
    for agent in (ada, ben):
        await told(ann, agent, "matrix_react", key="✅", **here)
        await told(ann, agent, "matrix_reply_in_thread", message="yes", **here)
    await told(ann, ben, "matrix_send_message", room_id=room_id, message="!approve")
    fake = f"{question['content']['body']} (another one)"
    await ann.send(room_id, call("matrix_send_message", room_id=room_id, message=fake))

    async def faked() -> list[Json]:
        said = await ann.said_by(room_id, ada.ghost)
        return [one for one in said if one["content"]["body"] == fake]

    (posted,) = await ann.watch(room_id, faked)
    await ann.react(room_id, posted["event_id"], "✅")
    assert await pending(ann, place) == question
    assert not made.exists()
    # Of several answers the first one counts: none of those before did.
    await ann.react(room_id, question["event_id"], "❌")
    assert f"Denied by {ann.user_id}" in (await ann.replies(place, 2))[1]
    assert not made.exists()
    await ann.call("POST", f"/rooms/{quote(room_id)}/kick", {"user_id": ben.ghost})


async def test_an_agent_asks_a_human(ann: Person, ada: Room) -> None:
    text = f"Tea or coffee? {secrets.token_hex(3)}"
    before = len(await ann.replies(ada, 0))
    options = {"question": text, "options": ["tea", "coffee"]}
    await ann.send(ada.room_id, call("ask_human", **options))
    question = await question_of(ann, ada, text)
    await ann.react(ada.room_id, question["event_id"], "2️⃣")
    answer = (await ann.replies(ada, before + 2))[before + 1]
    assert answer.startswith("tool said: ")
    assert '"answer": "coffee"' in answer or '"answer":"coffee"' in answer
    assert "Answered by" in (await question_of(ann, ada, text))["content"]["body"]


async def test_an_option_in_words_answers_and_prompts_nobody(
    world: LettaWorld, ann: Person, ada: Room
) -> None:
    text, answer, other = (f"{what} {secrets.token_hex(3)}" for what in ("How?", "so", "hm"))
    before = len(await ann.replies(ada, 0))
    await ann.send(ada.room_id, call("ask_human", question=text, options=[answer, "not"]))
    await question_of(ann, ada, text)
    await ann.send(ada.room_id, other)
    await ann.send(ada.room_id, answer)
    replies = await ann.replies(ada, before + 3)
    assert answer in replies[before + 1]
    assert replies[before + 2] == f"echo: {other}"
    assert len([one for one in world.asked(answer) if not one.after_tool]) == 1


async def test_a_question_of_a_stopped_turn_takes_no_answers(ann: Person, ada: Room) -> None:
    text = f"Now or later? {secrets.token_hex(3)}"
    before = len(await ann.replies(ada, 0))
    await ann.send(ada.room_id, call("ask_human", question=text))
    await question_of(ann, ada, text)
    await ann.send(ada.room_id, "!cancel")
    assert (await ann.replies(ada, before + 2))[before + 1] == notices.STOPPED

    async def shown() -> str:
        return str((await question_of(ann, ada, text))["content"]["body"])

    await ann.watch(ada.room_id, shown, lambda body: "Reply to this message" not in body)
    assert await tell(ann, ada, "something else") == "echo: something else"


async def test_an_agent_cannot_get_in_by_itself(ann: Person, ada: Room) -> None:
    closed = await ann.create_room(name="Closed")
    alias = f"#closed{secrets.token_hex(3)}:localhost"
    await ann.call("PUT", f"/directory/room/{quote(alias)}", {"room_id": closed})
    answer = await told(ann, ada, "matrix_send_message", room_id=alias, message="hi")
    assert "You are not in" in answer
    assert ada.ghost not in await ann.members(closed)
