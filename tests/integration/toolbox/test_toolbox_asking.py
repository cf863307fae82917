"""Questions of agents and of holders of tokens to people, on a real homeserver."""

import asyncio
import secrets
from typing import Any

import pytest
from tests.integration.bridge_world import Json
from tests.integration.toolbox.toolbox_bench import Bench
from tests.waiting import Clock, settled, within

from letta_matrix.access.faults import Fault, ToolError
from letta_matrix.store.agents import Agent

BOT = "@letta:localhost"


@pytest.fixture
def why() -> str:
    """A question of a test's own."""
    return f"Why {secrets.token_hex(3)}?"


async def refused(bench: Bench, who: Agent | None, **arguments: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await bench.call_as(who, "ask_human", **arguments)
    return caught.value


async def given_up(asking: asyncio.Task[Any]) -> None:
    asking.cancel()
    await asyncio.wait([asking])


async def test_what_the_last_speaker_says_next_answers_no_later_question(
    bench: Bench, ada: Agent, why: str
) -> None:
    room_id = str(ada.room_id)
    conversation = await bench.talk(ada, room_id, done=True)
    asking = asyncio.create_task(bench.call(ada, "ask_human", "", conversation, question=why))
    await bench.question_of(room_id, ada.user_id, why)
    since = len(await bench.ann.timeline(room_id))
    await bench.ann.send(room_id, "something else")
    assert not await bench.offer_new(room_id, since)
    await given_up(asking)


async def test_a_person_chooses_by_reaction(bench: Bench, ada: Agent) -> None:
    room_id = await bench.room(ada)
    root = await bench.ann.send(room_id, "go on")
    conversation = await bench.talk(ada, room_id, root)
    since = len(await bench.ann.timeline(room_id))
    asking = asyncio.create_task(
        bench.call(
            ada, "ask_human", "", conversation, question="Tea?", options=["Yes", "No", "Both"]
        )
    )
    question = await bench.question_of(room_id, ada.user_id, "Tea?", options=3)
    assert question["content"]["m.relates_to"]["event_id"] == root
    assert question["content"]["body"].startswith("Tea?\n\n1️⃣ Yes\n2️⃣ No\n3️⃣ Both\n\n*React")
    reactions = [e["content"] for e in await bench.ann.timeline(room_id, "m.reaction")]
    assert [one["m.relates_to"]["key"] for one in reactions] == ["1️⃣", "2️⃣", "3️⃣"]
    assert not await bench.offer_new(room_id, since), "an agent's own reactions choose nothing"
    await bench.ann.react(room_id, question["event_id"], "2⃣")
    assert await bench.offer_new(room_id, since)
    ok, told = await within(asking)
    assert ok
    assert (told["answer"], told["option"], told["by"]) == ("No", 2, bench.ann.user_id)
    shown = (await bench.ann.bodies(room_id, ada.user_id))[-1]
    assert shown.endswith(f"**2️⃣ No**\n\n*Answered by {bench.ann.user_id}.*")


async def test_other_words_stay_words_and_are_told_what_waits(
    bench: Bench, ada: Agent, why: str
) -> None:
    room_id = await bench.room(ada)
    conversation = await bench.talk(ada, room_id)
    since = len(await bench.ann.timeline(room_id))
    wanted: Json = {"question": why, "options": ["Tea", "Coffee"]}
    asking = asyncio.create_task(bench.call(ada, "ask_human", "", conversation, **wanted))
    await bench.question_of(room_id, ada.user_id, why, options=2)
    for words in ("what is there?", "and cake?"):
        await bench.ann.send(room_id, words)
        event = (await bench.ann.timeline(room_id, "m.room.message"))[-1]
        bench.toolbox.event_bus.publish({**event, "room_id": room_id})
    assert not await bench.offer_new(room_id, since)

    async def notices() -> list[str]:
        return [body for body in await bench.ann.bodies(room_id, ada.user_id) if body != why]

    await bench.ann.watch(
        room_id, notices, lambda said: [one for one in said if one.startswith("I wait for")]
    )
    await bench.ann.send(room_id, "coffee")
    assert await bench.offer_new(room_id, since)
    _, told = await within(asking)
    assert (told["answer"], told["by"]) == ("Coffee", bench.ann.user_id)
    reminders = [one for one in await notices() if one.startswith("I wait for")]
    assert len(reminders) == 1


async def test_an_answer_given_while_the_bridge_was_away_counts(
    bench: Bench, ada: Agent, why: str
) -> None:
    room_id, once = str(ada.room_id), secrets.token_hex(8)
    asking = asyncio.create_task(bench.call(ada, "ask_human", once, question=why))
    question = await bench.question_of(room_id, ada.user_id, why)
    await given_up(asking)
    bench.restart()
    await bench.ann.reply(room_id, question["event_id"], "Because.")
    ok, told = await bench.call(ada, "ask_human", once, question=why)
    assert ok
    assert told["answer"] == "Because."
    said = await bench.ann.bodies(room_id, ada.user_id)
    assert len([body for body in said if body.startswith(why)]) == 1


async def test_what_was_said_before_a_question_does_not_answer_it(
    bench: Bench, ada: Agent, why: str
) -> None:
    room_id, once = await bench.room(ada), secrets.token_hex(8)
    conversation = await bench.talk(ada, room_id)
    wanted: Json = {"question": why, "options": ["before", "after"]}
    await bench.ann.send(room_id, "before")
    asking = asyncio.create_task(bench.call(ada, "ask_human", once, conversation, **wanted))
    await bench.question_of(room_id, ada.user_id, why)
    await given_up(asking)
    bench.restart()
    await bench.ann.send(room_id, "something else")
    await bench.ann.send(room_id, "After")
    _, told = await bench.call(ada, "ask_human", once, conversation, **wanted)
    assert told["answer"] == "after"


async def test_an_answer_that_came_in_time_counts_though_it_is_stored_later(
    bench: Bench, ada: Agent, why: str, clock: Clock
) -> None:
    room_id = str(ada.room_id)
    asking = asyncio.create_task(bench.call(ada, "ask_human", question=why, timeout_seconds=60))
    question = await bench.question_of(room_id, ada.user_id, why)
    await bench.ann.reply(room_id, question["event_id"], "Yes.")
    event = (await bench.ann.timeline(room_id, "m.room.message"))[-1]
    stored = bench.toolbox.questions.match({**event, "room_id": room_id})
    assert stored is not None
    clock.stop()
    clock.advance(61)
    await settled(asking)
    stored()
    clock.go()
    _, told = await within(asking)
    assert told["answer"] == "Yes."


async def test_a_question_nobody_answers_ends(
    bench: Bench, ada: Agent, why: str, clock: Clock
) -> None:
    room_id = str(ada.room_id)
    asking = asyncio.create_task(bench.call(ada, "ask_human", question=why, timeout_seconds=280))
    await bench.question_of(room_id, ada.user_id, why)
    clock.advance(200)
    await settled(asking)
    clock.advance(80)
    ok, told = await within(asking)
    assert ok
    assert told["answer"] is None
    assert "Nobody answered within 280 seconds" in told["note"]
    over = f"{why}\n\n*Nobody answered in time; a reply still reaches me as a message.*"
    assert over in await bench.ann.bodies(room_id, ada.user_id)


async def test_a_person_answers_a_script_by_reaction(bench: Bench, ada: Agent, why: str) -> None:
    room_id = str(ada.room_id)
    for who, sender, where in ((None, BOT, {"room_id": room_id}), (ada, ada.user_id, {})):
        since = len(await bench.ann.timeline(room_id))
        arguments: Json = {"question": why, "options": ["Now", "Later"], **where}
        asking = asyncio.create_task(bench.call_as(who, "ask_human", rooms={room_id}, **arguments))
        question = await bench.question_of(room_id, sender, why, options=2)
        await bench.ann.send(room_id, "something else")
        assert not await bench.offer_new(room_id, since)
        await bench.ann.react(room_id, question["event_id"], "2️⃣")
        assert await bench.offer_new(room_id, since)
        told = await within(asking)
        assert (told["answer"], told["option"], told["by"]) == ("Later", 2, bench.ann.user_id)
        assert (told["room_id"], told["event_id"]) == (room_id, question["event_id"])
        shown = (await bench.ann.bodies(room_id, sender))[-1]
        assert shown.endswith(f"*Answered by {bench.ann.user_id}.*")


async def test_a_question_in_a_thread_is_answered_in_words(
    bench: Bench, ada: Agent, why: str
) -> None:
    room_id = str(ada.room_id)
    root = await bench.ann.send(room_id, "a topic")
    since = len(await bench.ann.timeline(room_id))
    arguments: Json = {"room_id": room_id, "question": why}
    asking = asyncio.create_task(bench.call_as(None, "ask_human", thread=root, **arguments))
    question = await bench.question_of(room_id, BOT, why)
    relation = question["content"]["m.relates_to"]
    assert (relation["rel_type"], relation["event_id"]) == ("m.thread", root)
    await bench.ann.reply(room_id, question["event_id"], "Because.")
    assert await bench.offer_new(room_id, since)
    told = await within(asking)
    assert (told["answer"], told.get("option"), "untrusted" in told) == ("Because.", None, True)
    error = await refused(bench, None, thread="$nowhere", **arguments)
    assert (error.fault, "no message $nowhere" in str(error)) == (Fault.NOT_FOUND, True)


async def test_a_question_needs_a_room_the_asker_is_in(bench: Bench, ada: Agent) -> None:
    error = await refused(bench, None, question="Where?")
    assert "Give a `room_id`" in str(error)
    room_id = await bench.room()
    for who in (None, ada):
        error = await refused(bench, who, question="Where?", room_id=room_id)
        assert (error.fault, "You are not in" in str(error)) == (Fault.FORBIDDEN, True)
    assert await bench.ann.timeline(room_id, "m.room.message") == []


async def test_what_is_said_in_another_room_answers_no_question_there(
    bench: Bench, ada: Agent, why: str
) -> None:
    elsewhere = await bench.room(ada)
    conversation = await bench.talk(ada, str(ada.room_id))
    since = len(await bench.ann.timeline(elsewhere))
    asking = asyncio.create_task(
        bench.call(ada, "ask_human", "", conversation, question=why, room_id=elsewhere)
    )
    await bench.question_of(elsewhere, ada.user_id, why)
    await bench.ann.send(elsewhere, "good morning all")
    assert not await bench.offer_new(elsewhere, since)
    await given_up(asking)


async def test_a_question_whose_asker_has_gone_is_closed(
    bench: Bench, ada: Agent, why: str
) -> None:
    room_id = str(ada.room_id)
    asking = asyncio.create_task(bench.call_as(None, "ask_human", question=why, room_id=room_id))
    question = await bench.question_of(room_id, BOT, why)
    await given_up(asking)
    closed = f"{why}\n\n*Nobody answered in time.*"
    await bench.ann.watch(
        room_id, lambda: bench.ann.bodies(room_id, BOT), lambda said: closed in said
    )
    assert question["event_id"] not in bench.toolbox._asking._standing
