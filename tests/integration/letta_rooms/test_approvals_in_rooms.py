"""People allow and deny an agent's own tools: a real App Server's Bash, asked for in a room."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.integration.bridge_world import Json, Person, Room, new_person
from tests.integration.letta_rooms.acts import ask, invite, outcome, pending, word
from tests.integration.letta_world import LettaWorld, formatted, whole_text

from letta_matrix.conversations import notices


@pytest.fixture(scope="module")
async def own(world: LettaWorld, ann: Person, bob: Person) -> Room:
    """An agent's room for the whole file, with somebody in it who asks for nothing."""
    met = await world.meet()
    await ann.bring(met.room_id, bob)
    return met


@pytest.fixture
def made() -> Iterator[Path]:
    """The file that the tool makes when it runs; its path is so short that rooms show it whole."""
    with TemporaryDirectory() as directory:
        yield Path(directory) / "made"


async def test_everything_that_would_run_is_shown(ann: Person, place: Room, made: Path) -> None:
    command = f"touch {made}; echo '`x` <b>*y*</b> @room' # {'long ' * 60}end"
    await ann.say(place, f"tool:Bash:{command}")
    question = await ann.beside(place, "approval")
    body, marker = question["content"]["body"], question["content"]["org.letta.matrix"]
    assert command in body
    assert "a test command" in body
    assert "<b>" not in formatted(question)
    assert question["content"]["m.mentions"] == {"user_ids": [ann.user_id]}
    assert (marker["agent_id"], marker["beside"]) == (place.agent.agent_id, "approval")

    async def offered() -> Json:
        return await ann.reactions(place.room_id, question["event_id"])

    keys = await ann.watch(place.room_id, offered, lambda keys: {"✅", "❌"} <= keys.keys())
    assert set(keys.values()) == {place.ghost}
    await ann.say(place, "!status")
    (status,) = await ann.replies(place, 1)
    assert "Bash" in status
    assert "left" in status
    await ann.react(place.room_id, question["event_id"], "❌")
    denied = (await ann.replies(place, 2))[1]
    assert f"Denied by {ann.user_id}" in denied
    assert not made.exists()
    assert "❌" in await outcome(ann, place)


async def test_only_who_asked_can_allow_it(
    ann: Person, bob: Person, place: Room, made: Path
) -> None:
    question = await ask(ann, place, made)
    for key in ("✅", "♾️", "❌"):
        await bob.react(place.room_id, question["event_id"], key)
    await bob.reply(place.room_id, question["event_id"], "yes", place.thread)
    (refusal,) = await ann.replies(place, 1)
    assert "to allow or deny" in refusal
    assert not made.exists()
    assert (await ann.beside(place, "approval"))["content"]["body"].startswith("May I run")
    await ann.react(place.room_id, question["event_id"], "✅")
    answer = (await ann.replies(place, 2))[1]
    assert answer.startswith("tool said:")
    assert made.exists()
    # The first answer that counts is the one that is named.
    assert await outcome(ann, place) == f"✅ `Bash` (`touch {made}`) allowed by `{ann.user_id}`"


async def test_a_reply_of_yes_allows(ann: Person, own: Room, made: Path) -> None:
    before = len(await ann.replies(own, 0))
    question = await ask(ann, own, made)
    await ann.reply(own.room_id, question["event_id"], "Yes.")
    replies = (await ann.replies(own, before + 2))[before:]
    assert any(reply.startswith("tool said:") for reply in replies)
    assert made.exists()


async def test_a_reason_reaches_the_model(
    world: LettaWorld, ann: Person, place: Room, made: Path
) -> None:
    await ask(ann, place, made)
    await ann.say(place, "!deny the disk is full")
    replies = await ann.replies(place, 2)
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


async def test_each_call_is_asked_for_by_itself(ann: Person, place: Room, made: Path) -> None:
    first = await ask(ann, place, made, "tool2")
    await ann.react(place.room_id, first["event_id"], "✅")
    question = await pending(ann, place, first["event_id"])
    made.unlink()
    await ann.react(place.room_id, first["event_id"], "♾️")
    await ann.react(place.room_id, question["event_id"], "❌")
    (answer,) = await ann.replies(place, 1)
    assert "Denied by" in answer
    assert not made.exists()


async def test_the_stop_sign_ends_a_turn_that_waits(ann: Person, place: Room, made: Path) -> None:
    question = await ask(ann, place, made)
    await ann.react(place.room_id, question["event_id"], "🛑")
    assert await ann.replies(place, 1) == [notices.STOPPED]
    assert "not answered before the turn ended" in await outcome(ann, place)
    await ann.react(place.room_id, question["event_id"], "✅")
    await ann.say(place, "still there?")
    assert (await ann.replies(place, 2))[1] == "echo: still there?"
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
    summary, call, *_ = trace["content"]["body"].split("\n")
    assert summary.startswith("🔧 1 tool · ")
    assert call.startswith("  ✓ `Bash` ok · ")
    (reply,) = await ann.replies(room, 1)
    assert "details" not in reply
    more = word("and then")
    await ann.send(room.room_id, more)
    await ann.replies(room, 2)
    told = whole_text(world.asked(more)[-1])
    for shown in ("<details", "🔧", "May I run", "allowed by"):
        assert shown not in told
    await ann.send(room.room_id, "!tools off")
    await ann.replies(room, 3)
    question = await ask(ann, room, made)
    await ann.react(room.room_id, question["event_id"], "✅")
    await ann.replies(room, 4)
    assert (await ann.beside(room, "trace"))["event_id"] == trace["event_id"]


async def test_a_line_tells_of_a_tool_while_it_runs(ann: Person, place: Room, made: Path) -> None:
    nap = f"[time.sleep(0.1) for _ in iter(lambda: os.path.exists('{made}'), True)]"
    await ann.say(place, f"tool:Bash:python3 -c \"import os, time; {nap}; print('rested')\"")
    question = await pending(ann, place)
    await ann.react(place.room_id, question["event_id"], "✅")
    running = await ann.beside(place, "trace")
    assert running["content"]["body"].startswith("🔧 `Bash`")
    assert await ann.replies(place, 0) == []
    made.touch()
    (answer,) = await ann.replies(place, 1)
    assert "rested" in answer

    async def over() -> Json:
        return await ann.beside(place, "trace")

    trace = await ann.watch(place.room_id, over, lambda trace: "<details>" in formatted(trace))
    # Where the answer's first words stand below the line by then, the trace stands below both;
    # where the answer comes as a whole, the line itself becomes the trace. There is one.
    said = [one["event_id"] for one in await ann.said(place)]
    assert trace["event_id"] in (running["event_id"], said[-1])
    traces = [one for one in await ann.said(place) if "<details>" in formatted(one)]
    assert [one["event_id"] for one in traces] == [trace["event_id"]]


async def test_what_cannot_be_shown_in_full_cannot_be_allowed(
    ann: Person, place: Room, made: Path
) -> None:
    await ann.say(place, f"tool:Bash:touch {made} # {'x' * 40_000}")
    (answer,) = await ann.replies(place, 1)
    assert "too long to be shown here in full" in answer
    question = await ann.beside(place, "approval")
    assert "too long to be shown here in full" in question["content"]["body"]
    await ann.react(place.room_id, question["event_id"], "✅")
    await ann.say(place, "!approve")
    assert "No approval waits here" in (await ann.replies(place, 2))[1]
    assert not made.exists()


async def test_in_a_group_only_who_asked_can_allow_it(
    world: LettaWorld, bob: Person, own: Room, made: Path
) -> None:
    carl = await new_person(world.homeserver, "carl")
    club = await bob.create_room(name="Club")
    await bob.bring(club, carl)
    group = await invite(bob, own, club)
    root = await bob.mention(club, f"tool:Bash:touch {made}", own.ghost)
    group = replace(group, thread=root)
    question = await pending(bob, group)
    await carl.react(club, question["event_id"], "✅")
    await carl.say_in_thread(club, root, "yes")
    assert not made.exists()
    await bob.react(club, question["event_id"], "✅")
    assert (await bob.replies(group, 1))[0].startswith("tool said:")
    assert made.exists()
    assert f"allowed by `{bob.user_id}`" in await outcome(bob, group)


async def test_two_that_wait_are_told_apart(ann: Person, room: Room, tmp_path: Path) -> None:
    roots = [await ann.send(room.room_id, "a root", msgtype="m.notice") for _ in range(2)]
    files = [tmp_path / "first", tmp_path / "second"]
    for root, file in zip(roots, files, strict=True):
        await ann.say_in_thread(room.room_id, root, f"tool:Bash:touch {file}")

    async def asked() -> list[Json]:
        said = await ann.said_by(room.room_id, room.ghost)
        return [one for one in said if one["beside"] == "approval"]

    await ann.watch(room.room_id, asked, lambda both: len(both) == 2)
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
