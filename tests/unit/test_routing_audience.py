"""Whom a message is for, where several are in a room: by name, by reply, by thread."""

from pathlib import Path
from typing import Any

import pytest
from tests.builders import PERSON, agent, config_for, message, reply_to, said_in
from tests.routing_kit import NO_PORTALS, Known, KnownConversations, KnownRooms

from letta_matrix.conversations.audience import NOTHING, Refers
from letta_matrix.conversations.routing import Router
from letta_matrix.store.agents import AgentStatus
from letta_matrix.store.places import Place
from letta_matrix.store.turns import TurnKind

BOT, ADA, BEA, GONE = "@letta:test", "@agent_1:test", "@agent_3:test", "@agent_2:test"
BOB = "@bob:test"
OWN, LONELY, DIRECT, GROUP = "!1:test", "!3:test", "!direct:test", "!group:test"
THREAD = "$thread"
ROUTER = Router(
    config_for(Path()),
    Known(agent(1), agent(2, status=AgentStatus.REMOVED), agent(3)),
    KnownRooms(
        {
            OWN: {BEA: False},
            DIRECT: {ADA: True, BOT: True, GONE: True},
            GROUP: {ADA: False, BEA: False},
            "!bot:test": {BOT: True, GONE: True},
        },
        people={OWN: [PERSON, BOB], LONELY: [PERSON], DIRECT: [PERSON], GROUP: [PERSON, BOB]},
    ),
    KnownConversations(Place("agent-1", GROUP, THREAD), Place("agent-3", GROUP, THREAD)),
    NO_PORTALS,
)


def for_whom(event: dict[str, Any], refers: Refers = NOTHING) -> list[tuple[str, str]]:
    """The agents that an event is for, with the threads they answer in."""
    entry = ROUTER.route(event, refers)
    assert entry is not None
    return [(turn.agent_id, turn.thread_id) for turn in entry.turns]


def mention(event: dict[str, Any], *users: str) -> dict[str, Any]:
    event["content"]["m.mentions"] = {"user_ids": list(users)}
    return event


def test_alone_with_a_person_the_bot_and_who_is_gone_do_not_count() -> None:
    assert for_whom(message("hello", DIRECT)) == [("agent-1", "")]
    entry = ROUTER.route(message("status", "!bot:test"))
    assert entry is not None
    assert [turn.kind for turn in entry.turns] == [TurnKind.COMMAND]


@pytest.mark.parametrize(("room_id", "else_for"), [(OWN, [("agent-1", "")]), (GROUP, [])])
def test_who_is_named_by_hand_counts_though_the_client_names_nobody(
    room_id: str, else_for: list[tuple[str, str]]
) -> None:
    for text in ("@agent_3:test what is this?", "@agent_3: what is this?"):
        ((who, _),) = for_whom(mention(message(text, room_id)))
        assert who == "agent-3"
    for text in ("`@agent_3:test` is an id", "> @agent_3:test said\n\nhm"):
        assert for_whom(mention(message(text, room_id))) == else_for


def test_in_its_own_room_an_agent_keeps_out_of_what_is_for_another_person() -> None:
    assert for_whom(message("hello", OWN)) == [("agent-1", "")]
    assert for_whom(mention(message("Bob?", OWN), BOB)) == []
    assert for_whom(message("@bob:test?", OWN)) == []
    assert for_whom(reply_to("$bobs", "yes", OWN), Refers(replied_to=BOB)) == []
    assert for_whom(said_in("$x", "Bob?", OWN)) == [("agent-1", "$x")]
    assert for_whom(mention(said_in("$x", "Bob?", OWN), BOB)) == []


def test_who_names_the_agent_too_is_answered() -> None:
    assert for_whom(mention(message("x", OWN), BOB, ADA)) == [("agent-1", "")]
    both = mention(reply_to("$bobs", "x", OWN), BOB, ADA)
    assert for_whom(both, Refers(replied_to=BOB)) == [("agent-1", "")]
    typed = mention(reply_to("$bobs", "@agent_1 what does he mean?", OWN), BOB)
    assert for_whom(typed, Refers(replied_to=BOB)) == [("agent-1", "")]


@pytest.mark.parametrize("user", [PERSON, "@carl:test", BOT, GONE])
def test_who_is_oneself_or_not_there_is_no_other_person(user: str) -> None:
    assert for_whom(mention(message("x", OWN), user)) == [("agent-1", "")]
    assert for_whom(reply_to("$x", "x", OWN), Refers(replied_to=user)) == [("agent-1", "")]


def test_a_lone_person_always_talks_to_the_agent() -> None:
    for room_id, who in ((LONELY, "agent-3"), (DIRECT, "agent-1")):
        assert for_whom(mention(message("ask Bob", room_id), BOB)) == [(who, "")]
        own = Refers(replied_to=PERSON)
        assert for_whom(reply_to("$mine", "and?", room_id), own) == [(who, "")]


def test_in_an_agents_thread_of_a_group_people_may_talk_among_themselves() -> None:
    both = [("agent-1", THREAD), ("agent-3", THREAD)]
    assert for_whom(said_in(THREAD, "go on", GROUP)) == both
    assert for_whom(mention(said_in(THREAD, "Bob?", GROUP), BOB)) == []
    assert for_whom(said_in(THREAD, "no", GROUP), Refers(replied_to=BOB)) == []
    assert for_whom(said_in(THREAD, "more", GROUP), Refers(replied_to=PERSON)) == both
    assert for_whom(said_in(THREAD, "why?", GROUP), Refers(replied_to=BEA)) == [("agent-3", THREAD)]


def test_a_thread_on_an_agents_own_message_is_talk_with_it() -> None:
    assert for_whom(said_in("$bobs", "what is that?", GROUP), Refers(root_by=BOB)) == []
    event = said_in("$adas", "what is that?", GROUP)
    assert for_whom(mention(event, BOB), Refers(root_by=ADA)) == []
    assert for_whom(mention(event, BEA), Refers(root_by=ADA)) == [("agent-3", "$adas")]
    event = said_in("$adas2", "what is that?", GROUP)
    assert for_whom(event, Refers(root_by=ADA)) == [("agent-1", "$adas2")]


@pytest.mark.parametrize("room_id", [OWN, DIRECT, GROUP])
def test_a_reply_to_what_an_agent_said_in_a_thread_goes_on_there(room_id: str) -> None:
    refers = Refers(replied_to=ADA, reply_thread="$far")
    event = reply_to("$adas", "and then?", room_id)
    assert for_whom(event, refers) == [("agent-1", "$far")]


def test_in_a_group_a_reply_to_an_agent_is_for_it() -> None:
    event = reply_to("$adas", "why?", GROUP)
    assert for_whom(event, Refers(replied_to=ADA)) == [("agent-1", event["event_id"])]
    other = mention(reply_to("$adas", "is that so?", GROUP), BEA)
    refers = Refers(replied_to=ADA, reply_thread="$far")
    assert for_whom(other, refers) == [("agent-3", other["event_id"])]


def test_where_a_person_said_it_a_reply_stays_outside_of_the_thread() -> None:
    refers = Refers(replied_to=PERSON, reply_thread="$far")
    assert for_whom(reply_to("$mine", "x", LONELY), refers) == [("agent-3", "")]


def test_a_reply_to_another_agent_in_an_agents_room_is_for_that_one() -> None:
    event = reply_to("$beas", "why?", OWN)
    assert for_whom(event, Refers(replied_to=BEA)) == [("agent-3", event["event_id"])]


def test_what_is_no_text_is_for_whom_a_text_would_be() -> None:
    sticker = {"body": "Hi", "url": "mxc://test/1"}
    assert for_whom(message(type="m.sticker", room_id=DIRECT, content=sticker)) == [("agent-1", "")]
    event = mention(message(type="m.sticker", room_id=GROUP, content=dict(sticker)), ADA)
    assert for_whom(event) == [("agent-1", event["event_id"])]
    assert for_whom(message(type="m.sticker", room_id=GROUP, content=sticker)) == []
