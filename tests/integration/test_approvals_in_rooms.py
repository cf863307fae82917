"""People allow and deny an agent's own tools: a real App Server's Bash, asked for in a room."""

import asyncio
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest
from tests.integration.bridge_world import Json, Person, Room, new_person
from tests.integration.letta_world import LettaWorld, formatted, whole_text
from tests.servers import Homeserver
from tests.waiting import eventually

from letta_matrix.conversations import notices


@pytest.fixture(scope="module")
async def bob(homeserver: Homeserver) -> Person:
    """A user who is in the rooms, but did not ask for anything."""
    return await new_person(homeserver, "bob")


@pytest.fixture
async def shared(room: Room, ann: Person, bob: Person) -> Room:
    """The same with the other person in it."""
    await ann.bring(room.room_id, bob)
    return room


@pytest.fixture
def made() -> Iterator[Path]:
    """The file that the tool makes when it runs; its path is so short that rooms show it whole."""
    with TemporaryDirectory() as directory:
        yield Path(directory) / "made"


async def ask(person: Person, room: Room, made: Path, tool: str = "tool") -> Json:
    """Have the agent use Bash; the event that asks whether it may."""
    await person.send(room.room_id, f"{tool}:Bash:touch {made}")
    return await pending(person, room)


async def pending(person: Person, room: Room, but: str = "") -> Json:
    """The event that asks and is not answered yet, other than `but`."""

    async def asked() -> list[Json]:
        said = await person.said_by(room.room_id, room.ghost)
        open_ones = [one for one in said if one["content"]["body"].startswith("May I run")]
        return [one for one in open_ones if one["event_id"] != but]

    (question,) = await eventually(asked, bool)
    return question


async def outcome(person: Person, room: Room) -> str:
    """What the event that asked says in the end."""

    async def shown() -> str:
        return str((await person.beside(room, "approval"))["content"]["body"])

    return await eventually(shown, lambda body: not body.startswith("May I run"))


async def test_everything_that_would_run_is_shown(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    command = f"touch {made}; echo '`x` <b>*y*</b> @room' # {'long ' * 60}end"
    await ann.send(room.room_id, f"tool:Bash:{command}")
    question = await ann.beside(room, "approval")
    body, marker = question["content"]["body"], question["content"]["org.letta.matrix"]
    assert command in body
    assert "a test command" in body
    assert "<b>" not in formatted(question)
    assert question["content"]["m.mentions"] == {}
    assert (marker["agent_id"], marker["beside"]) == (room.agent.agent_id, "approval")

    async def offered() -> Json:
        return await ann.reactions(room.room_id, question["event_id"])

    keys = await eventually(offered, lambda keys: {"✅", "❌"} <= keys.keys())
    assert set(keys.values()) == {room.ghost}
    await ann.send(room.room_id, "!status")
    (status,) = await ann.replies(room, 1)
    assert "Bash" in status
    assert "left" in status
    await ann.react(room.room_id, question["event_id"], "❌")
    await ann.replies(room, 2)
    assert not made.exists()


async def test_only_who_asked_can_allow_it(
    ann: Person, bob: Person, shared: Room, made: Path
) -> None:
    question = await ask(ann, shared, made)
    for key in ("✅", "♾️", "❌"):
        await bob.react(shared.room_id, question["event_id"], key)
    await bob.reply(shared.room_id, question["event_id"], "yes")
    (refusal,) = await ann.replies(shared, 1)
    assert "to allow or deny" in refusal
    await asyncio.sleep(1)
    assert not made.exists()
    assert (await ann.beside(shared, "approval"))["content"]["body"].startswith("May I run")
    await ann.react(shared.room_id, question["event_id"], "✅")
    answer = (await ann.replies(shared, 2))[1]
    assert answer.startswith("tool said:")
    assert made.exists()
    assert await outcome(ann, shared) == f"✅ `Bash` (`touch {made}`) allowed by `{ann.user_id}`"


async def test_a_denial_is_told_to_the_agent(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    question = await ask(ann, room, made)
    await ann.react(room.room_id, question["event_id"], "❌")
    (answer,) = await ann.replies(room, 1)
    assert f"Denied by {ann.user_id}" in answer
    assert not made.exists()
    assert "❌" in await outcome(ann, room)


async def test_a_reply_of_yes_allows(ann: Person, room: Room, made: Path) -> None:
    question = await ask(ann, room, made)
    await ann.reply(room.room_id, question["event_id"], "Yes.")
    replies = await ann.replies(room, 2)
    assert any(reply.startswith("tool said:") for reply in replies)
    assert made.exists()


async def test_a_reason_reaches_the_model(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    await ask(ann, room, made)
    await ann.send(room.room_id, "!deny the disk is full")
    replies = await ann.replies(room, 2)
    assert any("the disk is full" in reply and "tool said" in reply for reply in replies)
    assert "the disk is full" in whole_text(world.asked(str(made))[-1])
    assert not made.exists()


async def test_what_is_allowed_for_good_is_not_asked_for_again(
    ann: Person, room: Room, made: Path
) -> None:
    question = await ask(ann, room, made)
    await ann.react(room.room_id, question["event_id"], "♾️")
    await ann.replies(room, 1)
    made.unlink()
    await ann.send(room.room_id, f"tool:Bash:touch {made}")
    assert (await ann.replies(room, 2))[1].startswith("tool said:")
    assert made.exists()
    assert "allowed for good" in await outcome(ann, room)


async def test_each_call_is_asked_for_by_itself(ann: Person, room: Room, made: Path) -> None:
    first = await ask(ann, room, made, "tool2")
    await ann.react(room.room_id, first["event_id"], "✅")

    question = await pending(ann, room, first["event_id"])
    made.unlink()
    await ann.react(room.room_id, first["event_id"], "♾️")
    await asyncio.sleep(1)
    assert not made.exists()
    await ann.react(room.room_id, question["event_id"], "❌")
    (answer,) = await ann.replies(room, 1)
    assert "Denied by" in answer
    assert not made.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
async def test_a_restart_changes_nothing(
    world: LettaWorld, ann: Person, bob: Person, shared: Room, made: Path, number: signal.Signals
) -> None:
    question = await ask(ann, shared, made)
    await world.restart(number)
    await bob.react(shared.room_id, question["event_id"], "✅")
    await asyncio.sleep(1.5)
    assert not made.exists()
    asked = await ann.beside(shared, "approval")
    assert asked["event_id"] == question["event_id"]
    assert asked["content"]["body"] == question["content"]["body"]
    await ann.react(shared.room_id, question["event_id"], "✅")
    (answer,) = await ann.replies(shared, 1)
    assert answer.startswith("tool said:")
    assert made.exists()
    assert "allowed by" in await outcome(ann, shared)
    assert len([one for one in world.asked(str(made)) if not one.after_tool]) == 1


async def test_an_answer_that_came_while_the_bridge_was_down_counts(
    world: LettaWorld, ann: Person, bob: Person, shared: Room, made: Path
) -> None:
    question = await ask(ann, shared, made)
    world.kill()
    await bob.react(shared.room_id, question["event_id"], "❌")
    await ann.react(shared.room_id, question["event_id"], "✅")
    assert not made.exists()
    await world.start()
    (answer,) = await ann.replies(shared, 1)
    assert answer.startswith("tool said:")
    assert made.exists()


async def test_the_stop_sign_ends_a_turn_that_waits(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    question = await ask(ann, room, made)
    await ann.react(room.room_id, question["event_id"], "🛑")
    assert await ann.replies(room, 1) == [notices.STOPPED]
    assert "not answered before the turn ended" in await outcome(ann, room)
    await ann.react(room.room_id, question["event_id"], "✅")
    await ann.send(room.room_id, "still there?")
    assert (await ann.replies(room, 2))[1] == "echo: still there?"
    assert not made.exists()


async def test_the_tools_used_stand_in_an_event_of_their_own(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    question = await ask(ann, room, made)
    await ann.react(room.room_id, question["event_id"], "✅")
    await ann.replies(room, 1)
    trace = await ann.beside(room, "trace")
    assert "<details><summary>" in formatted(trace)
    assert str(made) in formatted(trace)
    assert trace["content"]["msgtype"] == "m.notice"
    (reply,) = await ann.replies(room, 1)
    assert "details" not in reply
    word = f"and then {secrets.token_hex(4)}"
    await ann.send(room.room_id, word)
    await ann.replies(room, 2)
    told = whole_text(world.asked(word)[-1])
    for shown in ("<details", "🔧", "May I run", "allowed by"):
        assert shown not in told
    await ann.send(room.room_id, "!tools off")
    await ann.replies(room, 3)
    question = await ask(ann, room, made)
    await ann.react(room.room_id, question["event_id"], "✅")
    await ann.replies(room, 4)
    assert (await ann.beside(room, "trace"))["event_id"] == trace["event_id"]


async def test_a_line_tells_of_a_tool_while_it_runs(ann: Person, room: Room) -> None:
    nap = "import time; time.sleep(3); print('rested')"
    await ann.send(room.room_id, f'tool:Bash:python3 -c "{nap}"')
    question = await pending(ann, room)
    await ann.react(room.room_id, question["event_id"], "✅")
    running = await ann.beside(room, "trace")
    assert running["content"]["body"].startswith("🔧 `Bash`")
    assert await ann.replies(room, 0) == []
    (answer,) = await ann.replies(room, 1)
    assert "rested" in answer

    async def over() -> Json:
        return await ann.beside(room, "trace")

    trace = await eventually(over, lambda trace: "<details>" in formatted(trace))
    assert trace["event_id"] == running["event_id"]


async def test_the_homeserver_is_away_while_people_think(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    question = await ask(ann, room, made)
    await world.homeserver.restart()
    await ann.react(room.room_id, question["event_id"], "✅")
    (answer,) = await ann.replies(room, 1)
    assert answer.startswith("tool said:")
    assert made.exists()


async def test_what_cannot_be_shown_in_full_cannot_be_allowed(
    ann: Person, room: Room, made: Path
) -> None:
    await ann.send(room.room_id, f"tool:Bash:touch {made} # {'x' * 40_000}")
    (answer,) = await ann.replies(room, 1)
    assert "too long to be shown here in full" in answer
    question = await ann.beside(room, "approval")
    assert "too long to be shown here in full" in question["content"]["body"]
    await ann.react(room.room_id, question["event_id"], "✅")
    await ann.send(room.room_id, "!approve")
    assert "No approval waits here" in (await ann.replies(room, 2))[1]
    assert not made.exists()


async def test_in_a_group_only_who_asked_can_allow_it(
    world: LettaWorld, ann: Person, bob: Person, room: Room, made: Path
) -> None:
    carl = await new_person(world.homeserver, "carl")
    club = await bob.create_room(name="Club")
    await bob.bring(club, carl)
    await bob.call("POST", f"/rooms/{quote(club)}/invite", {"user_id": room.ghost})

    async def membership() -> str:
        return (await bob.members(club))[room.ghost]

    await eventually(membership, lambda it: it == "join")
    group = Room(room.agent, club, room.ghost)
    root = await bob.mention(club, f"tool:Bash:touch {made}", room.ghost)
    question = await pending(bob, group)
    assert question["thread"] == root
    await carl.react(club, question["event_id"], "✅")
    await carl.say_in_thread(club, root, "yes")
    await asyncio.sleep(1)
    assert not made.exists()
    await bob.react(club, question["event_id"], "✅")
    assert (await bob.replies(group, 1, root))[0].startswith("tool said:")
    assert made.exists()


async def test_two_that_wait_are_told_apart(ann: Person, room: Room, tmp_path: Path) -> None:
    roots = [await ann.send(room.room_id, "a root", msgtype="m.notice") for _ in range(2)]
    files = [tmp_path / "first", tmp_path / "second"]
    for root, file in zip(roots, files, strict=True):
        await ann.say_in_thread(room.room_id, root, f"tool:Bash:touch {file}")

    async def asked() -> list[Json]:
        said = await ann.said_by(room.room_id, room.ghost)
        return [one for one in said if one["beside"] == "approval"]

    await eventually(asked, lambda both: len(both) == 2)
    await ann.send(room.room_id, "!approve")
    assert "Say which one" in (await ann.replies(room, 1))[0]
    questions = {one["thread"]: one["event_id"] for one in await asked()}
    await ann.react(room.room_id, questions[roots[1]], "✅")
    assert (await ann.replies(room, 1, roots[1]))[0].startswith("tool said:")
    assert files[1].exists()
    assert not files[0].exists()
    await ann.say_in_thread(room.room_id, roots[0], "!deny")
    assert any("Denied" in one for one in await ann.replies(room, 2, roots[0]))
    assert not files[0].exists()


async def test_a_question_comes_anew_when_the_app_server_went_unanswered(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    question = await ask(ann, room, made)
    world.letta.kill()
    await world.letta.server.start()
    again = await pending(ann, room, question["event_id"])
    await ann.react(room.room_id, again["event_id"], "❌")
    assert "Denied by" in (await ann.replies(room, 1))[0]
    assert not made.exists()


async def test_nothing_runs_when_the_app_server_goes_while_people_think(
    world: LettaWorld, ann: Person, room: Room, made: Path
) -> None:
    question = await ask(ann, room, made)
    world.letta.kill()
    await ann.react(room.room_id, question["event_id"], "✅")
    await world.letta.server.start()
    await ann.send(room.room_id, "still there?")

    async def said() -> list[str]:
        return await ann.replies(room, 0)

    answers = await eventually(said, lambda all_: "echo: still there?" in all_)
    reason = "the App Server went away while a tool ran"
    assert answers == [notices.lost(reason, tools_started=True), "echo: still there?"]
    assert not made.exists()
    said_all = await ann.said_by(room.room_id, room.ghost)
    offer = next(one for one in said_all if one["content"]["body"] == answers[0])
    await ann.react(room.room_id, offer["event_id"], "🔁")
    again = await pending(ann, room, question["event_id"])
    await ann.react(room.room_id, again["event_id"], "❌")
    assert "Denied by" in (await ann.replies(room, 3))[2]
    assert not made.exists()


async def test_time_runs_out(world: LettaWorld, ann: Person, room: Room, made: Path) -> None:
    world.settings["conversations"]["approval_timeout"] = 2
    await world.restart()
    question = await ask(ann, room, made)
    (answer,) = await ann.replies(room, 1)
    assert "nobody answered within 2 seconds" in answer
    assert "nobody answered within 2 seconds" in await outcome(ann, room)
    await ann.react(room.room_id, question["event_id"], "✅")
    await asyncio.sleep(1)
    assert not made.exists()
