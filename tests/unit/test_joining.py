"""Files and the words that belong to them are asked together."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import edit, message, reaction, redaction
from tests.scripts import held, obey
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.conversations.joining import joined
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.runtimes.protocol import StopReason, TurnEvent, TurnFinished, TurnRequest
from letta_matrix.store.turns import Outcome, Turn

ROOM = "!1:test"
FILE = {"msgtype": "m.file", "body": "list.txt", "url": "mxc://test/1", "info": {"size": 3}}


def file(**fields: Any) -> dict[str, Any]:
    return message(content=dict(FILE), **fields)


def turn(kind: str, at: float, sender: str = "@ann:test") -> Turn:
    """A waiting turn: a `file` without words, or `text`."""
    is_file = kind == "file"
    made = new_turn(message(sender=sender), "agent-1", "" if is_file else "words")
    made.attachment, made.sent_at = (FILE if is_file else None), at
    return made


def test_a_file_takes_the_words_around_it() -> None:
    head, *behind = turn("text", 0), turn("file", 0.5), turn("file", 1.2), turn("text", 2)
    assert joined(head, behind, 1.0) == behind


def test_words_alone_are_questions_of_their_own() -> None:
    head, *behind = turn("file", 0), turn("text", 0.1), turn("text", 0.2)
    assert joined(head, behind, 1.0) == behind[:1]
    assert joined(behind[0], behind[1:], 1.0) == []


def test_only_the_same_persons_count_and_only_at_once() -> None:
    head = turn("file", 0)
    assert joined(head, [turn("text", 0.1, "@bob:test"), turn("text", 0.2)], 1.0) == []
    assert joined(head, [turn("text", 1.1)], 1.0) == []
    assert joined(head, [turn("text", -1.1)], 1.0) == []
    gone = turn("file", 0.1)
    gone.outcome = str(Outcome.WITHDRAWN)
    assert joined(head, [gone, last := turn("text", 0.2)], 1.0) == [last]


def test_what_a_server_stamped_a_hair_earlier_belongs_too() -> None:
    """They come in the order of the room, whatever a clock that was set back says."""
    head, words = turn("file", 0), turn("text", -0.1)
    assert joined(head, [words], 1.0) == [words]


def test_of_a_long_queue_no_more_is_looked_at_than_the_first() -> None:
    """A look at all of them for each would be the square of them all."""
    waiting = iter([turn("text", number) for number in range(1, 100)])
    assert joined(turn("text", 0), waiting, 1.0) == []
    assert len(list(waiting)) == 98


@given(st.lists(st.tuples(st.sampled_from(["file", "text"]), st.floats(0, 3)), max_size=30))
def test_whatever_waits_the_order_stays_and_nothing_is_taken_twice(
    sent: list[tuple[str, float]],
) -> None:
    head, at = turn("file", 0), 0.0
    behind: list[Turn] = []
    for kind, pause in sent:
        at += pause
        behind.append(turn(kind, at))
    found = joined(head, behind, 1.0)
    assert found == behind[: len(found)]
    assert len(found) < 20


async def test_files_and_the_question_about_them_are_one_prompt(stage: Stage) -> None:
    await stage.again(join_messages=3600)
    first = file()
    await stage.admit(first)
    await stage.admit(file(), message("what is in these?"))
    await stage.idle()
    (asked,) = stage.runtime.asked
    assert asked.message_id == first["event_id"]
    assert asked.text.count("list.txt") == 2
    assert asked.text.index("list.txt") < asked.text.index("what is in these?")
    assert len(stage.fake.bodies(ROOM, "m.text")) == 1


async def test_a_file_alone_is_asked_about_too(stage: Stage) -> None:
    old = file(origin_server_ts=0)
    await stage.again(max_event_age=10**9)
    await stage.tell(old)
    (asked,) = stage.runtime.asked
    assert "list.txt" in asked.text


async def test_nothing_is_joined_where_that_is_off(stage: Stage) -> None:
    await stage.again(join_messages=0)
    await stage.tell(file(), message("what is it?"))
    assert len(stage.runtime.asked) == 2


async def test_a_joined_message_that_is_removed_stops_the_question(stage: Stage) -> None:
    released = asyncio.Event()

    def hold(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(released) if "what" in request.text else obey(request)

    stage.runtime.script = hold
    words = message("what is it?")
    await stage.admit(file(), words)
    await eventually(lambda: stage.fake.bodies(ROOM, "m.text"))
    # Its rest never came.
    await stage.tell(redaction(words["event_id"]))
    assert len(stage.runtime.asked) == 1


async def test_what_was_joined_survives_the_process(stage: Stage) -> None:
    stage.runtime.available = False
    await stage.admit(file(), message("what is it?"))
    stage.runtime.available = True
    await stage.recover()
    await stage.idle()
    (asked,) = stage.runtime.asked
    assert "what is it?" in asked.text


async def test_a_clock_that_is_ahead_holds_nobody_up(stage: Stage, clock: Clock) -> None:
    ahead = int((time.time() + 10**6) * 1000)
    await stage.admit(file(origin_server_ts=ahead))
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0)
    assert len(stage.runtime.asked) == 1


async def test_words_about_files_are_corrected_and_asked_anew_with_them(stage: Stage) -> None:
    words = message("what is it?")
    await stage.tell(file(), words)
    await stage.tell(edit(words["event_id"], "what colour is it?"))
    await eventually(lambda: stage.fake.messages(ROOM, "m.reaction"))
    await stage.tell(reaction(words["event_id"], "🔁"))
    _, again = stage.runtime.asked
    assert "list.txt" in again.text
    assert again.text.endswith("what colour is it?")
    assert len(stage.fake.bodies(ROOM, "m.text")) == 1


@pytest.mark.parametrize("removed", ["while it is answered", "afterwards"])
async def test_what_is_left_is_asked_anew_where_the_first_was_removed(
    stage: Stage, removed: str
) -> None:
    released = asyncio.Event()

    def hold(_: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(released)

    stage.runtime.script = hold
    first, words = file(), message("what is it?")
    await stage.admit(first, words)
    await eventually(lambda: stage.fake.bodies(ROOM, "m.text"))
    if removed == "afterwards":
        released.set()
        await stage.idle()
    await stage.tell(redaction(first["event_id"]))
    stage.runtime.script = obey
    await stage.tell(reaction(words["event_id"], "🔁"))
    _, again = stage.runtime.asked
    assert again.text == "what is it?"
    assert stage.fake.bodies(ROOM, "m.text")[-1] == "echo: what is it?"


async def test_nothing_is_asked_anew_where_nothing_is_left(stage: Stage) -> None:
    first, words = file(), message("what is it?")
    await stage.tell(first, words)
    await stage.tell(redaction(first["event_id"]), redaction(words["event_id"]))
    await stage.tell(reaction(words["event_id"], "🔁"))
    assert len(stage.runtime.asked) == 1


async def test_a_failure_is_asked_anew_with_its_files_as_far_as_they_are_there(
    stage: Stage,
) -> None:
    def fail(_: TurnRequest) -> Iterable[TurnEvent | float]:
        return [TurnFinished(StopReason.ERROR, error="no")]

    stage.runtime.script = fail
    gone = file()
    words = message("what is it?")
    await stage.tell(words, file(), gone)
    (offer,) = [
        one
        for one in stage.fake.messages(ROOM)
        if one["content"].get("org.letta.matrix", {}).get("offer")
    ]
    stage.runtime.script = obey
    await stage.tell(redaction(gone["event_id"]))
    await stage.tell(reaction(offer["event_id"], "🔁"))
    assert stage.runtime.asked[-1].text.count("list.txt") == 1
