"""Whose event is it? Silence is the default, and no event can break the decision."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.builders import PERSON, agent, config_for, message

from letta_matrix.conversations.routing import ASK_AGAIN, AskAgain, Router, new_turn
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.inbox import InboxEntry, InboxState


class Known(AgentDirectory):
    """A directory of these agents, without a database."""

    def __init__(self, *agents: Agent) -> None:
        self._agents, self._by_room, self._by_user = {}, {}, {}
        for one in agents:
            self._index(one)


REMOVED = agent(2, status=AgentStatus.REMOVED)
ROUTER = Router(
    config_for(Path(), permissions={"test": "user", "@troll:test": "block", "far": "block"}),
    Known(agent(1), REMOVED),
)


def routed(event: dict[str, Any]) -> InboxEntry:
    entry = ROUTER.route(event)
    assert entry is not None
    return entry


def prompt_of(event: dict[str, Any]) -> str | None:
    entry = routed(event)
    assert entry.state is InboxState.ROUTED
    assert entry.turn is not None
    return entry.turn.prompt


def test_a_message_in_an_agents_room_is_a_turn() -> None:
    event = message("  hello there\n", origin_server_ts=1_700_000_000_500)
    turn = routed(event).turn
    assert turn is not None
    assert (turn.agent_id, turn.room_id, turn.event_id, turn.sender, turn.prompt, turn.sent_at) == (
        "agent-1",
        "!1:test",
        event["event_id"],
        PERSON,
        "hello there",
        1_700_000_000.5,
    )
    assert turn.message_id == event["event_id"]


def test_the_turns_id_follows_from_event_and_agent() -> None:
    event = message()
    first, again = new_turn(event, "agent-1", "x"), new_turn(event, "agent-1", "y")
    assert first.turn_id == again.turn_id
    assert first.turn_id != new_turn(event, "agent-2", "x").turn_id


def test_a_message_in_an_unknown_room_is_parked() -> None:
    entry = routed(message(room_id="!unknown:test"))
    assert (entry.state, entry.turn) == (InboxState.PARKED, None)


@pytest.mark.parametrize(
    "event",
    [
        message(sender="@troll:test"),
        message(sender="@ann:far"),
        message(sender="@ann:elsewhere"),
        message(room_id="!2:test"),
        message(content={"msgtype": "m.notice", "body": "I am a bot"}),
        message(content={"msgtype": "m.text", "body": ""}),
        message(content={"msgtype": "m.text", "body": " \n\t"}),
        message(content={"msgtype": "m.text", "body": 7}),
        message(content={"msgtype": "m.text"}),
        message(content={"msgtype": "org.example.poll", "body": "x"}),
        message(content={}),
        message(content=None),
        message(content=["m.text"]),
        message(state_key=""),
        message(type="m.room.member", state_key=PERSON),
        message(type="m.reaction"),
        message(type="m.room.redaction"),
        message(
            content={
                "msgtype": "m.text",
                "body": "* x",
                "m.relates_to": {"rel_type": "m.replace", "event_id": "$1"},
            }
        ),
    ],
    ids=lambda event: f"{event['sender']} {event['type']} {event['content']}"[:60],
)
def test_silence(event: dict[str, Any]) -> None:
    entry = routed(event)
    assert (entry.state, entry.turn) == (InboxState.IGNORED, None)


@pytest.mark.parametrize("msgtype", ["m.image", "m.file", "m.audio", "m.video", "m.location"])
def test_what_cannot_be_read_is_a_turn_without_words(msgtype: str) -> None:
    assert prompt_of(message(content={"msgtype": msgtype, "body": "cat.png"})) is None


def test_an_encrypted_message_is_a_turn_without_words() -> None:
    assert prompt_of(message(type="m.room.encrypted", content={"ciphertext": "x"})) is None


def test_an_emote_shows_as_one() -> None:
    assert prompt_of(message(content={"msgtype": "m.emote", "body": "waves"})) == "* waves"


def test_the_quote_before_a_reply_is_not_said_again() -> None:
    relation = {"m.in_reply_to": {"event_id": "$1"}}
    body = "> <@bob:test> old words\n> more\n\nnew words"
    content = {"msgtype": "m.text", "body": body, "m.relates_to": relation}
    assert prompt_of(message(content=content)) == "new words"
    assert prompt_of(message("> a quote\n\nof my own")) == "> a quote\n\nof my own"


def test_a_huge_message_is_cut() -> None:
    prompt = prompt_of(message("x" * 1_000_000))
    assert prompt is not None
    assert len(prompt) == 200_000


@pytest.mark.parametrize(
    "fields",
    [
        {"event_id": None},
        {"event_id": 7},
        {"event_id": ""},
        {"event_id": "$" + "x" * 255},
        {"room_id": None},
        {"room_id": ["!1:test"]},
        {"sender": None},
        {"sender": {}},
        {"event_id": "$\ud800"},
        {"room_id": "!\udfff:test"},
        {"sender": "@\ud800:test"},
    ],
    ids=repr,
)
def test_an_event_without_proper_ids_is_none(fields: dict[str, Any]) -> None:
    assert ROUTER.route(message(**fields)) is None


@pytest.mark.parametrize(
    "sent_at", [None, "now", [], {}, float("nan"), float("inf"), -float("inf"), 10**400, True]
)
def test_an_odd_timestamp_harms_nobody(sent_at: Any) -> None:
    turn = routed(message(origin_server_ts=sent_at)).turn
    assert turn is not None
    assert 0 <= turn.sent_at < 1e13


def test_half_a_character_becomes_one_that_can_be_stored() -> None:
    prompt = prompt_of(message("half \ud83d of a smile"))
    assert prompt is not None
    prompt.encode()
    assert prompt.startswith("half ")


@pytest.mark.parametrize(
    ("sender", "own"),
    [
        ("@letta:test", True),
        ("@letta_sms:test", True),
        ("@agent_1:test", True),
        ("@agent_2:test", True),
        ("@agent_1:elsewhere", False),
        ("@letta:elsewhere", False),
        ("@lettas:test", False),
        ("@agents:test", False),
        (PERSON, False),
        ("", False),
        (None, False),
        (7, False),
    ],
)
def test_our_own_users_are_known_by_their_ids(sender: Any, own: bool) -> None:
    assert ROUTER.is_own(message(sender=sender)) is own


def reaction(**fields: Any) -> dict[str, Any]:
    relation = {"rel_type": "m.annotation", "event_id": "$offer", "key": ASK_AGAIN}
    return message(type="m.reaction", content={"m.relates_to": relation}) | fields


def test_the_reaction_that_asks_again() -> None:
    event = reaction()
    wish = AskAgain(event["event_id"], "$offer", PERSON, "!1:test")
    assert ROUTER.ask_again(event) == wish


@pytest.mark.parametrize(
    "event",
    [
        reaction(sender="@troll:test"),
        reaction(content={"m.relates_to": {"event_id": "$offer", "key": "👍"}}),
        reaction(content={"m.relates_to": {"event_id": 7, "key": ASK_AGAIN}}),
        reaction(content={"m.relates_to": {"event_id": "$\ud800", "key": ASK_AGAIN}}),
        reaction(content={"m.relates_to": [ASK_AGAIN]}),
        reaction(content=None),
        reaction(event_id=None),
        reaction(room_id=3),
        message(),
    ],
)
def test_reactions_that_ask_nothing(event: dict[str, Any]) -> None:
    assert ROUTER.ask_again(event) is None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
words = st.sampled_from(["m.text", "m.emote", "m.image", "m.replace", ASK_AGAIN, "$1", "!1:test"])
events = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["m.room.message", "m.reaction", "m.room.encrypted"]) | anything,
        "event_id": st.just("$1") | anything,
        "room_id": st.just("!1:test") | anything,
        "sender": st.just(PERSON) | anything,
        "state_key": anything,
        "origin_server_ts": anything,
        "content": st.fixed_dictionaries(
            {},
            optional={
                "msgtype": words | anything,
                "body": anything,
                "m.relates_to": st.dictionaries(
                    st.sampled_from(["key", "event_id", "rel_type", "m.in_reply_to"]),
                    words | anything,
                )
                | anything,
            },
        )
        | anything,
    },
)


@given(events)
@example({"type": ["m.room.message"], "content": {"msgtype": {}, "body": []}})
@settings(max_examples=100, deadline=None)
def test_no_event_breaks_the_router(event: dict[str, Any]) -> None:
    ROUTER.is_own(event)
    ROUTER.ask_again(event)
    entry = ROUTER.route(event)
    if entry is not None:
        assert (entry.turn is not None) is (entry.state is InboxState.ROUTED)
        f"{entry.event_id}{entry.room_id}{entry.turn}".encode()
