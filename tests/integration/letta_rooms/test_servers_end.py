"""The App Server or a model ends in the midst of things."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.integration.bridge_world import Json, Person, Room
from tests.integration.letta_rooms.acts import ask, call, pending, question_of, tell, told, word
from tests.integration.letta_rooms.scenes import Cast, Scene, finish, play
from tests.integration.letta_world import LettaWorld

from letta_matrix.conversations import notices

LOST = notices.lost("the App Server went away while a tool ran", tools_started=True)


async def a_question_that_nobody_answered_comes_anew(cast: Cast) -> AsyncGenerator[None]:
    ann, place = cast.ann, await cast.ann.begin_thread(cast.own)
    question = await ask(ann, place, cast.made)
    yield
    yield
    await pending(ann, place, question["event_id"])
    # The one that came anew is the only one that a word can mean.
    await ann.say(place, "no")
    assert "Denied by" in (await ann.replies(place, 1))[0]
    assert not cast.made.exists()

    async def first() -> str:
        said = await ann.said(place)
        return next(o["content"]["body"] for o in said if o["event_id"] == question["event_id"])

    await ann.watch(place.room_id, first, lambda body: "ask again below" in body)


async def nothing_runs_that_was_allowed_meanwhile(cast: Cast) -> AsyncGenerator[None]:
    ann, place = cast.ann, await cast.ann.begin_thread(cast.own)
    question = await ask(ann, place, cast.made)
    yield
    await ann.react(place.room_id, question["event_id"], "✅")
    yield
    await ann.say(place, "still there?")
    assert await ann.replies(place, 2) == [LOST, "echo: still there?"]
    assert not cast.made.exists()
    offer = next(one for one in await ann.said(place) if one["content"]["body"] == LOST)
    await ann.react(place.room_id, offer["event_id"], "🔁")
    again = await pending(ann, place, question["event_id"])
    await ann.react(place.room_id, again["event_id"], "❌")
    assert "Denied by" in (await ann.replies(place, 3))[2]
    assert not cast.made.exists()


async def a_question_of_a_lost_turn_takes_no_answers(cast: Cast) -> AsyncGenerator[None]:
    ann, place, text = cast.ann, await cast.ann.begin_thread(cast.own), word("Here or there?")
    await ann.say(place, call("ask_human", question=text))
    await question_of(ann, place, text)
    yield
    yield
    assert "🔁" in (await ann.replies(place, 2))[1]
    assert await tell(ann, place, "something else") == "echo: something else"


async def tools_are_there_again(cast: Cast) -> AsyncGenerator[None]:
    ann, place = cast.ann, await cast.ann.begin_thread(cast.own)
    assert place.ghost in await told(ann, place, "matrix_whoami")
    yield
    yield
    assert place.ghost in await told(ann, place, "matrix_whoami")


SCENES: list[Scene] = [
    a_question_that_nobody_answered_comes_anew,
    nothing_runs_that_was_allowed_meanwhile,
    a_question_of_a_lost_turn_takes_no_answers,
    tools_are_there_again,
]


@pytest.fixture(scope="module")
async def playing(
    world: LettaWorld, ann: Person, bob: Person
) -> AsyncGenerator[dict[Scene, AsyncGenerator[None]]]:
    """All scenes; the App Server was killed in their midst and started again."""
    own = await world.meet()
    with TemporaryDirectory() as directory:
        cast = Cast(world, ann, bob, own, Path(directory))
        scenes = {one: replace(cast, made=cast.made / str(n)) for n, one in enumerate(SCENES)}
        yield await play(scenes, world.letta.kill, world.letta.server.start)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_the_app_server_is_killed(
    playing: dict[Scene, AsyncGenerator[None]], scene: Scene
) -> None:
    await finish(playing[scene])


async def test_a_dead_model_is_told_of_while_it_is_tried_again(
    world: LettaWorld, ann: Person, room: Room
) -> None:
    await ann.say(room, "error:500")
    (failed,) = await ann.replies(room, 1)
    assert "HTTP 500" in failed
    assert "🔁" in failed

    event_id = await ann.say(room, "cutoff")

    async def words() -> list[Json]:
        said = await ann.said(room)
        return [one["content"] for one in said if "does not answer" in one["content"]["body"]]

    (early,) = await ann.watch(room.room_id, words, what="a word before it is over")
    assert "🔁" in early["body"]
    assert "llm_api_error" not in early["body"]
    assert early["org.letta.matrix"]["offer"] is True
    # It goes on, and can be stopped.
    await ann.react(room.room_id, event_id, "🛑")
    assert notices.STOPPED in await ann.replies(room, 2)
