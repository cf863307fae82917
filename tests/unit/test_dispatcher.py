"""Transactions become turns: stored first, in order, once, side by side."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from structlog.testing import capture_logs
from tests.builders import PERSON, invite, message, reaction, said_in
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.scripts import held, obey
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.conversations import notices
from letta_matrix.conversations.queues import ANSWERS, AT_ONCE, IN_TURN
from letta_matrix.conversations.routing import Router
from letta_matrix.conversations.turn_queues import TRIES
from letta_matrix.doors.chat.registry import all_commands
from letta_matrix.matrix.content import CURSOR
from letta_matrix.matrix.reactions import ASK_AGAIN
from letta_matrix.runtimes.faults import TurnLost
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.places import Place


async def test_messages_of_a_room_are_answered_in_order(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await stage.admit(message("slow 60"), message("two"))
    await stage.admit(message("three"))
    assert stage.dispatcher.queues.waiting == 3
    await eventually(lambda: stage.runtime.asked)
    clock.advance(60)
    await stage.idle()
    assert fake.bodies("!1:test") == ["echo: slow 60", "echo: two", "echo: three"]
    assert stage.dispatcher.counters["turns_done"] == 3


async def test_rooms_are_answered_side_by_side(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.admit(message("hang"), message("quick", "!2:test"))
    await eventually(lambda: fake.bodies("!2:test") == ["echo: quick"])
    assert fake.bodies("!1:test") == []


async def test_what_comes_twice_is_answered_once(stage: Stage, fake: FakeHomeserver) -> None:
    event = message("once")
    for txn_id in ("t1", "t1", "t2"):
        await stage.dispatcher.admit(txn_id, [event, event])
    await stage.idle()
    assert fake.bodies("!1:test") == ["echo: once"]


async def test_the_next_process_takes_up_what_was_left(stage: Stage, fake: FakeHomeserver) -> None:
    stage.runtime.available = False
    await stage.admit(message("one"), message("two"))
    await stage.close()
    stage.runtime.available = True
    await stage.open()
    await stage.dispatcher.recover()
    await stage.admit(message("three"))
    await stage.idle()
    assert fake.bodies("!1:test") == ["echo: one", "echo: two", "echo: three"]
    assert len(stage.runtime.asked) == 3


async def test_words_for_a_room_that_is_not_known_yet_wait(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.admit(message("early", "!3:test"), message("bird", "!3:test"))
    assert stage.dispatcher.queues.waiting == 0
    await stage.add(3)
    await stage.dispatcher.room_known("!3:test")
    await stage.idle()
    await stage.dispatcher.room_known("!3:test")
    await stage.idle()
    assert fake.bodies("!3:test") == ["echo: early", "echo: bird"]


async def test_of_a_room_for_which_nothing_waits_the_database_is_not_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[str] = []
    unpark = stage.stores.inbox.unpark

    async def counted(room_id: str, *given: Any) -> Any:
        asked_for.append(room_id)
        return await unpark(room_id, *given)

    monkeypatch.setattr(stage.stores.inbox, "unpark", counted)
    await stage.admit(message("early", "!3:test"))
    await stage.add(3)
    for room_id in ("!1:test", "!3:test", "!3:test"):
        await stage.dispatcher.room_known(room_id)
    assert asked_for == ["!3:test"]


async def test_parked_words_survive_a_crash_after_the_room_was_saved(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.admit(message("early", "!3:test"))
    await stage.admit(message("to nobody", "!unknown:test"))
    await stage.add(3)
    await stage.recover()
    await stage.idle()
    assert fake.bodies("!3:test") == ["echo: early"]
    assert fake.bodies("!unknown:test") == []


async def test_our_own_events_are_no_prompts(stage: Stage, fake: FakeHomeserver) -> None:
    own = [message(sender="@agent_1:test"), message(sender="@letta:test")]
    await stage.admit(*own)
    assert stage.dispatcher.queues.waiting == 0
    assert stage.dispatcher.counters == {"events_own": 2}


async def test_events_are_counted(stage: Stage) -> None:
    events = [message("a"), message("b", "!x:test"), message(sender="@x:far"), {"x": 1}]
    await stage.admit(*events)
    assert stage.dispatcher.counters == {
        "events_routed": 1,
        "events_parked": 1,
        "events_ignored": 1,
        "events_malformed": 1,
    }
    await stage.idle()


@pytest.mark.parametrize("odd", [[], {}, {"a": [1]}, 7, None, True])
async def test_an_odd_event_does_not_hold_up_the_others(
    stage: Stage, fake: FakeHomeserver, odd: object
) -> None:
    events = [message(msgtype=odd), message(), message("after")]
    events[0]["content"] = {"msgtype": odd, "body": "x"}
    events[1]["content"] = {"msgtype": "m.text", "body": odd, "m.relates_to": odd}
    await stage.admit(*events)
    await stage.idle()
    assert fake.bodies("!1:test") == ["echo: after"]


async def test_an_event_that_breaks_the_router_is_skipped(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = Router.route

    def fragile(router: Router, event: Any, *refers: Any) -> Any:
        if event["content"]["body"] == "poison":
            raise ZeroDivisionError
        return route(router, event, *refers)

    monkeypatch.setattr(Router, "route", fragile)
    with capture_logs():
        await stage.admit(message("poison"), message("fine"))
    await stage.idle()
    assert fake.bodies("!1:test") == ["echo: fine"]
    assert stage.dispatcher.counters["events_failed"] == 1


async def test_a_turn_that_cannot_be_run_ends_with_a_word_and_stops_nobody(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    def broken(_request: object) -> Any:
        raise ZeroDivisionError

    stage.runtime.script = broken
    with capture_logs() as logs:
        await stage.admit(message("boom"))
        await clock.until(lambda: stage.dispatcher.counters["turns_given_up"], step=2)
    assert [line["attempt"] for line in logs if "attempt" in line] == [1, 2, 3, 4, 5]
    stage.runtime.script = obey
    await stage.admit(message("next"))
    await stage.idle()
    assert fake.bodies("!1:test") == [notices.BROKEN, "echo: next"]


async def test_a_turn_is_not_given_up_for_a_locked_database(
    stage: Stage, fake: FakeHomeserver, database_file: Path, clock: Clock
) -> None:
    await stage.stores.database.execute(text("PRAGMA busy_timeout = 20"))
    await stage.admit(message("slow 60"))
    await eventually(lambda: stage.runtime.asked)
    other = sqlite3.connect(database_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable):
        await stage.admit(message("refused"))
    clock.advance(60)
    with capture_logs() as logs:
        told = "a turn waits for the database"
        await clock.until(lambda: [line["event"] for line in logs].count(told) > TRIES, step=5)
    other.execute("ROLLBACK")
    other.close()
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0, step=5)
    assert fake.bodies("!1:test") == ["echo: slow 60"]
    assert stage.dispatcher.counters["turns_given_up"] == 0
    assert len(stage.runtime.asked) == 1


async def test_a_refused_reply_does_not_stop_the_room(stage: Stage, fake: FakeHomeserver) -> None:
    fake.fail("PUT .*/send/", Fault(403, {"errcode": "M_FORBIDDEN", "error": "not joined"}))
    await stage.admit(message("one"), message("two"))
    await stage.idle()
    assert fake.bodies("!1:test") == ["echo: two"]


async def test_an_offer_is_taken_up_once_a_reaction(stage: Stage, fake: FakeHomeserver) -> None:
    def lose(_request: object) -> Any:
        raise TurnLost("it restarted", tools_started=True)

    stage.runtime.script = lose
    await stage.admit(message("do it"))
    await stage.idle()
    stage.runtime.script = obey
    offer = fake.messages("!1:test")[0]["event_id"]
    wish = reaction(offer, ASK_AGAIN)
    elsewhere = reaction(offer, ASK_AGAIN, "!2:test")
    await stage.admit(wish, reaction("$other", ASK_AGAIN), elsewhere)
    await stage.admit(wish)
    await stage.idle()
    assert fake.bodies("!1:test") == [
        notices.lost("it restarted", tools_started=True),
        "echo: do it",
    ]
    assert fake.bodies("!2:test") == []


def notices_in(fake: FakeHomeserver, room_id: str) -> list[str]:
    return fake.bodies(room_id, "m.notice")


async def test_threads_of_a_room_are_answered_side_by_side(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.admit(
        message("hang"),
        said_in("$a", "slow 0.1"),
        said_in("$b", "b1"),
        said_in("$a", "a2"),
        said_in("$b", "b2"),
    )
    await eventually(lambda: len(fake.bodies("!1:test")) == 4)
    threads: dict[str, list[str]] = {}
    for event in fake.messages("!1:test"):
        relation = event["content"]["m.relates_to"]
        if relation["rel_type"] == "m.thread":
            body = event["content"]["body"].removesuffix(CURSOR)
            threads.setdefault(relation["event_id"], []).append(body)
    assert threads == {"$a": ["echo: slow 0.1", "echo: a2"], "$b": ["echo: b1", "echo: b2"]}
    asked = {one.text: one.conversation_id for one in stage.runtime.asked}
    assert asked["slow 0.1"] == asked["a2"] != asked["b1"] == asked["b2"] != asked["hang"]


async def test_commands_are_answered_beside_a_turn(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.admit(message("hang"), message("after"))
    await stage.admit(message("!help"))
    await eventually(lambda: notices_in(fake, "!1:test"))
    await eventually(lambda: stage.dispatcher.queues.waiting == 2)
    assert [turn.prompt for turn in stage.dispatcher.queues.unfinished()] == ["hang", "after"]


async def test_commands_of_a_room_are_answered_in_order(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.tell(message("!pause"), message("!whoami"), message("!resume"), message("!whoami"))
    first, who, second, again = notices_in(fake, "!1:test")
    assert who == again
    assert len({first, who, second}) == 3
    await stage.tell(message("hello"))
    assert fake.bodies("!1:test")[-1] == "echo: hello"


async def test_a_command_is_done_once_through_a_restart(stage: Stage, fake: FakeHomeserver) -> None:
    sent = fake.hold("PUT .*/send/")
    await stage.admit(message("!whoami"))
    await eventually(lambda: fake.matching("/send/"))
    await stage.close()
    sent.set()
    await stage.open()
    await stage.dispatcher.recover()
    await stage.idle()
    assert len(notices_in(fake, "!1:test")) == 1


async def test_what_answers_something_else_is_no_prompt(stage: Stage, fake: FakeHomeserver) -> None:
    answer, other = message("blue"), message("hello")
    waits, taken = True, list[str]()

    def takes(event: Mapping[str, Any]) -> Callable[[], None] | None:
        body = event["content"]["body"]
        return (lambda: taken.append(body)) if waits and body == "blue" else None

    stage.dispatcher.takes = takes
    await stage.tell(answer, other)
    assert (fake.bodies("!1:test"), taken) == (["echo: hello"], ["blue"])
    assert stage.dispatcher.counters["events_routed"] == 2
    waits = False
    await stage.tell(answer)
    assert fake.bodies("!1:test") == ["echo: hello"]


async def test_what_breaks_while_it_is_read_holds_up_nobody(
    stage: Stage, fake: FakeHomeserver
) -> None:
    def fragile(event: Mapping[str, Any]) -> None:
        if event["content"]["body"] == "poison":
            raise ZeroDivisionError

    stage.dispatcher.takes = fragile
    with capture_logs():
        await stage.tell(message("poison"), message("fine"))
    assert fake.bodies("!1:test") == ["echo: fine"]
    assert stage.dispatcher.counters["events_failed"] == 1


def member(user: str, membership: str, room_id: str = "!1:test", **fields: Any) -> dict[str, Any]:
    content = {"membership": membership}
    return invite(user, room_id, content=content, **fields)


@pytest.mark.parametrize(
    ("event", "changed"),
    [
        (member(PERSON, "join"), ["!1:test"]),
        (member("@agent_1:test", "join", sender="@agent_1:test"), ["!1:test"]),
        (message(type="m.room.name", state_key="", content={"name": "New"}), ["!1:test"]),
        (message(type="m.room.name", content={"name": "New"}), []),
        (message(type="m.room.topic", state_key="", content={}), []),
        (message(), []),
        (message(type="m.room.member", state_key="x") | {"room_id": 7}, []),
    ],
    ids=["joined", "joined itself", "named", "no state", "topic", "message", "no room"],
)
async def test_a_room_that_changes_is_looked_at_again(
    stage: Stage, event: dict[str, Any], changed: list[str]
) -> None:
    rooms = list[str]()
    stage.dispatcher.room_changed = rooms.append
    await stage.tell(event)
    assert rooms == changed


@pytest.mark.parametrize("membership", ["leave", "ban"])
async def test_whoever_is_sent_away_is_no_longer_there(
    stage: Stage, fake: FakeHomeserver, membership: str
) -> None:
    rooms, fake.members["!shared:test"] = stage.stores.rooms, {PERSON, "@bob:test"}
    await rooms.joined("!shared:test", "@agent_1:test", direct=False)
    await rooms.joined("!shared:test", "@agent_2:test", direct=False)
    await stage.tell(member("@agent_1:test", membership, "!shared:test"))
    assert set(rooms.ours_in("!shared:test")) == {"@agent_2:test"}
    left = member("@agent_2:test", "leave", "!shared:test", sender="@agent_2:test")
    await stage.tell(left)
    assert rooms.ours_in("!shared:test") == {}


async def test_two_agents_answer_the_message_that_names_both(
    stage: Stage, fake: FakeHomeserver
) -> None:
    for user in ("@agent_1:test", "@agent_2:test"):
        await stage.stores.rooms.joined("!shared:test", user, direct=False)
    await stage.tell(message("@agent_1 @agent_2 hello", "!shared:test"))
    assert len(fake.bodies("!shared:test")) == 2
    assert {event["sender"] for event in fake.messages("!shared:test")} == {
        "@agent_1:test",
        "@agent_2:test",
    }
    await stage.tell(message("hello", "!shared:test"))
    assert len(stage.runtime.asked) == 2


async def test_a_thread_in_a_shared_room_goes_on_through_a_restart(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.stores.rooms.joined("!shared:test", "@agent_1:test", direct=False)
    question = message("@agent_1 hello", "!shared:test")
    await stage.tell(question)
    await stage.again()
    await stage.tell(said_in(question["event_id"], "and now?", "!shared:test"))
    assert fake.bodies("!shared:test") == ["echo: Agent 1 hello", "echo: and now?"]
    first, second = stage.runtime.asked
    assert first.conversation_id == second.conversation_id


async def test_a_thread_is_known_through_a_restart_before_its_first_answer(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await stage.stores.rooms.joined("!shared:test", "@agent_1:test", direct=False)
    clock.stop()  # or the room would be told that its runtime is away
    stage.runtime.available = False
    question = message("@agent_1 hello", "!shared:test")
    await stage.admit(question)
    await stage.recover()
    await stage.admit(said_in(question["event_id"], "I forgot to say", "!shared:test"))
    stage.runtime.available = True
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0)
    assert fake.bodies("!shared:test") == ["echo: Agent 1 hello", "echo: I forgot to say"]


async def test_where_an_agent_was_addressed_survives_a_restart(
    stage: Stage, fake: FakeHomeserver
) -> None:
    """A fresh start in a thread (`!new`) is no end of it."""
    await stage.stores.rooms.joined("!shared:test", "@agent_1:test", direct=False)
    question = message("@agent_1 hello", "!shared:test")
    await stage.tell(question)
    await stage.tell(said_in(question["event_id"], "!letta new", "!shared:test"))
    await stage.again()
    await stage.tell(said_in(question["event_id"], "still there?", "!shared:test"))
    first, second = stage.runtime.asked
    assert second.text == "still there?"
    assert first.conversation_id != second.conversation_id


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
any_event = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["m.room.message", "m.reaction", "m.room.encrypted", "m.room.member", "m.room.name"]
        )
        | any_json,
        "state_key": st.just("@agent_1:test") | any_json,
        "event_id": st.text(st.characters(), max_size=5) | any_json,
        "room_id": st.sampled_from(["!1:test", "!x:test"]) | any_json,
        "sender": st.sampled_from([PERSON, "@agent_1:test"]) | any_json,
        "origin_server_ts": st.integers() | st.floats() | any_json,
        "content": st.dictionaries(
            st.sampled_from(["body", "msgtype", "m.relates_to", "membership"]),
            st.just("m.text") | any_json,
        )
        | any_json,
    },
)
_numbers = iter(range(1_000_000))


@given(st.lists(any_event, max_size=4))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_transaction_is_admitted(stage: Stage, events: list[dict[str, Any]]) -> None:
    counters = stage.dispatcher.counters

    def counted() -> int:
        return sum(counters[name] for name in counters if name.startswith("events_"))

    before = counted()
    await stage.dispatcher.admit(f"any{next(_numbers)}", events)
    assert counted() == before + len(events)
    assert counters["events_failed"] == 0


def test_the_queues_know_every_name_of_their_commands() -> None:
    names = {one.name: {one.name, *one.aliases} for one in all_commands()}
    assert names["new"] | names["conversations"] == IN_TURN
    assert names["cancel"] | {"react-cancel"} == AT_ONCE
    reactions = {"react-approve", "react-always", "react-deny"}
    assert names["approve"] | names["deny"] | reactions == ANSWERS


async def test_places_that_share_a_conversation_take_turns(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.tell(message("hello"))
    conversation_id = stage.runtime.asked[0].conversation_id
    there = Place("agent-1", "!1:test", "$thread")
    await stage.stores.conversations.begin(there, conversation_id, "shared")
    released = asyncio.Event()

    def first_is_held(request: TurnRequest) -> Iterable[TurnEvent | float]:
        return held(released) if request.text == "long" else obey(request)

    stage.runtime.script = first_is_held
    await stage.admit(message("long"))
    await eventually(lambda: len(stage.runtime.asked) == 2)
    await stage.admit(said_in("$thread", "short"))
    await settled()
    # Who shares nothing with them has been asked and answered meanwhile.
    await stage.admit(message("of another", "!2:test"))
    await eventually(lambda: fake.bodies("!2:test"))
    assert len(stage.runtime.asked) == 3
    released.set()
    await stage.idle()
    assert [one.conversation_id == conversation_id for one in stage.runtime.asked] == [
        *(True, True, False, True)
    ]
