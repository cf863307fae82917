"""What people, agents and other clients do in the rooms of App Server agents, again and again."""

import json
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.integration.bridge_world import Json, Person, Room
from tests.integration.letta_world import LettaWorld

from letta_matrix.conversations.speech import UNASKED
from letta_matrix.operations.toolbox.others import OTHERS

HELD = "word1 word2 word3"
"""The whole answer to what is held."""


def held() -> str:
    """Words whose answer stops after its first until the test says `model.steps.finish`."""
    return f"steps:3 {secrets.token_hex(4)}"


def word(said: str = "hello") -> str:
    """Something that is said in no other test."""
    return f"{said} {secrets.token_hex(4)}"


SHOWN = {
    *("matrix_send_message", "matrix_reply", "matrix_react", "matrix_read_room"),
    *("matrix_list_rooms", "matrix_upload_file"),
}


def call(tool: str, /, **arguments: Any) -> str:
    """What the model is told so that it calls a tool: one that it is not shown by another."""
    if tool.startswith("matrix_") and tool not in SHOWN:
        tool, arguments = OTHERS, {"name": tool, "arguments": arguments}
    return f"tool:{tool}:{json.dumps(arguments)}"


async def tell(person: Person, place: Room, text: str) -> str:
    """Say something, and wait for the next thing the agent says there."""
    before = len(await person.replies(place, 0))
    await person.say(place, text)
    return (await person.replies(place, before + 1))[before]


async def told(person: Person, place: Room, tool: str, /, **arguments: Any) -> str:
    """Tell an agent to call a tool; what it says the tool said."""
    answer = await tell(person, place, call(tool, **arguments))
    assert answer.startswith("tool said: "), answer
    return answer.removeprefix("tool said: ")


async def growing(person: Person, place: Room) -> Json:
    """The answer that the agent is giving there, once it has begun."""

    async def live() -> list[Json]:
        said = await person.said(place)
        return [one for one in said if one["live"] and one["thread"] == place.thread]

    (found,) = await person.watch(place.room_id, live, what="an answer in the midst")
    return found


async def invite(person: Person, agent: Room, room_id: str) -> Room:
    """Invite an agent into a room of people, and wait until it is there. One that is there on a
    visit, with a message for another agent, leaves first."""
    path = f"/rooms/{quote(room_id)}/invite"

    async def membership() -> str:
        return (await person.members(room_id)).get(agent.ghost, "leave")

    await person.watch(room_id, membership, lambda it: it != "join", "the agent's visit ends")
    status, answer = await person.call("POST", path, {"user_id": agent.ghost})
    assert status == 200, answer
    await person.watch(room_id, membership, lambda it: it == "join", "the agent joins")
    return Room(agent.agent, room_id, agent.ghost)


async def ask(person: Person, place: Room, made: Path, tool: str = "tool") -> Json:
    """Have the agent make a file with Bash; the event that asks whether it may."""
    await person.say(place, f"{tool}:Bash:touch {made}")
    return await pending(person, place)


async def pending(person: Person, place: Room, but: str = "") -> Json:
    """The event that asks and is not answered yet, other than `but`."""

    async def asked() -> list[Json]:
        said = await person.said(place)
        open_ones = [one for one in said if one["content"]["body"].startswith("May I run")]
        return [one for one in open_ones if one["event_id"] != but]

    (question,) = await person.watch(place.room_id, asked, what="a question")
    return question


async def outcome(person: Person, place: Room) -> str:
    """What the event that asked says in the end."""

    async def shown() -> str:
        return str((await person.beside(place, "approval"))["content"]["body"])

    return await person.watch(place.room_id, shown, lambda body: not body.startswith("May I run"))


async def question_of(person: Person, place: Room, text: str) -> Json:
    """The event by which an agent asks people with `ask_human`."""

    async def asked() -> list[Json]:
        said = await person.said(place)
        return [one for one in said if one["content"]["body"].startswith(text)]

    (question,) = await person.watch(place.room_id, asked, what=text)
    return question


async def others_say(
    world: LettaWorld, agent_id: str, *texts: str, conversation_id: str = ""
) -> None:
    """Let another client talk with an agent, in a conversation of its own unless one is given."""
    async with world.client(agent_id) as client:
        if not conversation_id:
            made = await client.ask("conversation_create", body={"agent_id": agent_id})
            conversation_id = made["conversation"]["id"]
        for text in texts:
            assert await client.say(text, conversation_id) == f"echo: {text}"


async def unasked(person: Person, room: Room) -> list[Json]:
    said = await person.said_by(room.room_id, room.ghost)
    return [one for one in said if one["content"]["body"].startswith(UNASKED)]


async def heard(person: Person, room: Room, last: str) -> list[str]:
    """What an agent has said unasked, once it has said `last`."""

    async def bodies() -> list[str]:
        return [one["content"]["body"] for one in await unasked(person, room)]

    found = await person.watch(room.room_id, bodies, lambda all_: any(last in one for one in all_))
    return [body.removeprefix(UNASKED) for body in found]
