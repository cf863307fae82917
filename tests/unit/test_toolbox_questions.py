"""Which events answer a question that an agent has asked."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.builders import PERSON, config_for, message

from letta_matrix.operations.toolbox.questions import KEYS, Answer, Question, Questions
from letta_matrix.operations.toolbox.timeline import entry, is_message, said

PERMISSIONS = {"test": "user", "@bad:test": "block", "@other:else": "admin"}
QUESTION = Question("$question", "!1:test", ("Yes", "No"))


def questions() -> Questions:
    return Questions(config_for(Path(), permissions=PERMISSIONS))


def reply(body: str, thread: str = "", **fields: Any) -> dict[str, Any]:
    relation: dict[str, Any] = {"m.in_reply_to": {"event_id": "$question"}}
    if thread:
        relation |= {"rel_type": "m.thread", "event_id": thread, "is_falling_back": True}
    content = {"msgtype": "m.text", "body": body, "m.relates_to": relation}
    return message(content=content, **fields)


def reaction(key: Any, target: str = "$question", **fields: Any) -> dict[str, Any]:
    relation = {"rel_type": "m.annotation", "event_id": target, "key": key}
    return message(type="m.reaction", content={"m.relates_to": relation}, **fields)


def taken(open_questions: Questions, event: dict[str, Any]) -> bool:
    """Whether an event answers a question, which it does at once."""
    answer = open_questions.match(event)
    if answer is not None:
        answer()
    return answer is not None


@pytest.mark.parametrize(
    ("event", "answer"),
    [
        (reaction("1️⃣"), Answer(PERSON, "Yes", 1)),
        (reaction("2⃣"), Answer(PERSON, "No", 2)),
        (reply("no"), Answer(PERSON, "No", 2)),
        (reply("1"), Answer(PERSON, "Yes", 1)),
        (reply("2."), Answer(PERSON, "No", 2)),
        (reply("2️⃣"), Answer(PERSON, "No", 2)),
        (reply("Not now"), Answer(PERSON, "Not now")),
        (reply("> <@x:test> Yes?\n> quoted\n\nno"), Answer(PERSON, "No", 2)),
        (reply("Yes", thread="$root"), Answer(PERSON, "Yes", 1)),
        (reply("Yes", sender="@other:else"), Answer("@other:else", "Yes", 1)),
        (message("yes"), Answer(PERSON, "Yes", 1)),
        (message("2"), Answer(PERSON, "No", 2)),
    ],
)
async def test_answers_are_taken(event: dict[str, Any], answer: Answer) -> None:
    open_questions = questions()
    with open_questions.open(QUESTION) as future:
        assert taken(open_questions, event)
        assert future.result() == answer
        assert not taken(open_questions, event), "only the first answer counts"
    assert not taken(open_questions, event), "it is over"


async def test_an_answer_counts_once_it_is_stored() -> None:
    open_questions, event = questions(), reply("Yes")
    with open_questions.open(QUESTION) as future:
        assert not open_questions.is_being_answered(QUESTION)
        assert open_questions.match(event) is not None
        assert not future.done()
        assert open_questions.is_being_answered(QUESTION)
        # It could not be stored, and comes again; what comes with it is for others.
        again = open_questions.match(event)
        assert open_questions.match(reply("No")) is None
        assert again is not None
        again()
        assert future.result() == Answer(PERSON, "Yes", 1)
    assert not open_questions.is_being_answered(QUESTION)


async def test_an_answer_stored_too_late_does_no_harm() -> None:
    open_questions = questions()
    with open_questions.open(QUESTION) as future:
        late = open_questions.match(reply("Yes"))
        open_questions.withdraw(QUESTION.event_id)
    assert late is not None
    late()
    assert future.cancelled()


@pytest.mark.parametrize(
    "event",
    [
        message("Yes, if it is cheap"),
        message("3"),
        reaction("3️⃣"),
        reaction("👍"),
        reaction(7),
        reaction("1️⃣", target="$other"),
        reply(""),
        reply("Yes", room_id="!2:test"),
        reply("Yes", sender="@bad:test"),
        reply("Yes", sender="@who:nowhere"),
        reply("Yes", sender="@letta:test"),
        reply("Yes", sender="@agent_1:test"),
        reaction("1️⃣", sender="@agent_1:test"),
        reply("Yes", type="m.room.name"),
        message(content={"m.relates_to": {"rel_type": "m.replace", "event_id": "$question"}}),
    ],
)
async def test_everything_else_is_left_to_others(event: dict[str, Any]) -> None:
    open_questions = questions()
    with open_questions.open(QUESTION) as future:
        assert not taken(open_questions, event)
        assert not future.done()


def thread_message(body: str, root: str) -> dict[str, Any]:
    event = reply(body, thread=root)
    event["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] = "$earlier"
    return event


@pytest.mark.parametrize(
    ("thread", "event"),
    [("", message("Yes")), ("$root", thread_message("Yes", "$root"))],
)
async def test_an_option_in_the_words_of_the_one_spoken_with_is_the_answer(
    thread: str, event: dict[str, Any]
) -> None:
    open_questions = questions()
    question = Question("$question", "!1:test", ("Yes", "No"), thread, PERSON)
    with open_questions.open(question) as future:
        assert not taken(open_questions, {**event, "sender": "@eve:test"})
        assert not taken(open_questions, {**event, "room_id": "!2:test"})
        assert taken(open_questions, event)
        assert future.result() == Answer(PERSON, "Yes", 1)


@pytest.mark.parametrize(
    ("thread", "event"),
    [
        ("", message("!cancel")),
        ("", thread_message("Yes", "$root")),
        ("$root", message("Yes")),
        ("$root", thread_message("Yes", "$else")),
        ("", message(content={"m.relates_to": {"m.in_reply_to": {"event_id": "$else"}}})),
        ("", message(content={"msgtype": "m.image", "body": "cat.png"})),
        ("", reaction("👍", target="$else")),
        ("", message("Maybe")),
        ("", message("Yes, but not today")),
    ],
)
async def test_what_they_say_elsewhere_or_otherwise_is_none(
    thread: str, event: dict[str, Any]
) -> None:
    open_questions = questions()
    question = Question("$question", "!1:test", ("Yes", "No"), thread, PERSON)
    with open_questions.open(question) as future:
        assert not taken(open_questions, event)
        assert not future.done()


@pytest.mark.parametrize(
    ("passed_over", "event"),
    [
        (True, message("Maybe")),
        (True, message("Yes, but not today")),
        (False, message("Yes")),
        (False, message("Maybe", sender="@eve:test")),
        (False, message("Maybe", room_id="!2:test")),
        (False, message("!status")),
        (False, thread_message("Maybe", "$root")),
        (False, reply("Maybe")),
        (False, reaction("1️⃣")),
    ],
)
def test_other_words_of_theirs_are_noticed(*, passed_over: bool, event: dict[str, Any]) -> None:
    question = Question("$question", "!1:test", ("Yes", "No"), "", PERSON)
    assert questions().is_passed_over(question, event) is passed_over


async def test_a_question_asked_twice_is_answered_for_both() -> None:
    open_questions = questions()
    with open_questions.open(QUESTION) as first, open_questions.open(QUESTION) as second:
        assert taken(open_questions, reply("Yes"))
        assert await asyncio.gather(first, second) == [Answer(PERSON, "Yes", 1)] * 2
    assert not open_questions._open


async def test_a_second_waiter_outlives_the_first() -> None:
    open_questions = questions()
    with open_questions.open(QUESTION) as second:
        with open_questions.open(QUESTION):
            pass
        assert taken(open_questions, reply("Yes"))
        assert second.done()


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.sampled_from(["$question", *KEYS]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["m.relates_to", "m.in_reply_to", "event_id", "key", "body", "msgtype"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["m.reaction", "m.room.message", "m.room.encrypted"]) | JSON,
        "sender": st.just(PERSON) | JSON,
        "room_id": st.just("!1:test") | JSON,
        "content": JSON,
        "unsigned": JSON,
        "origin_server_ts": JSON | st.integers(),
        "event_id": JSON,
    },
)


@given(EVENTS)
async def test_odd_events_do_no_harm(event: dict[str, Any]) -> None:
    open_questions = questions()
    with open_questions.open(QUESTION) as future:
        assert taken(open_questions, event) is future.done()
    if is_message(event):
        assert isinstance(said(event), str)
        assert len(str(entry(event, {}, 10)["text"])) < 30
