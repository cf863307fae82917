"""Transactions become turns: stored first, in order, once, side by side."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from tests.builders import PERSON, agent, config_for, message
from tests.fake_homeserver import FakeHomeserver, Fault, until
from tests.scripts import obey

from letta_matrix.conversations import notices
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.conversations.routing import ASK_AGAIN, Router
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo, TurnLost
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import TurnStore


class House:
    """A dispatcher with all it stands on; `again()` is the next process over the same database."""

    def __init__(
        self, database: Database, directory: AgentDirectory, homeserver: Homeserver
    ) -> None:
        self.database, self.directory, self.homeserver = database, directory, homeserver
        self.runtime = MemoryRuntime(script=obey)
        self.dispatcher = self.again()

    def again(self) -> Dispatcher:
        config = config_for(Path(), conversations={"edit_interval": 0.02})
        turns, outbox = TurnStore(self.database), Outbox(self.database)
        runtimes = {"memory": self.runtime}
        runner = TurnRunner(
            config.conversations, self.homeserver, runtimes, self.directory, turns, outbox
        )
        router = Router(config, self.directory)
        self.dispatcher = Dispatcher(router, Inbox(self.database), outbox, turns, runner)
        return self.dispatcher

    async def add(self, number: int) -> None:
        await self.directory.reserve([agent(number)])
        self.runtime.add(AgentInfo(f"agent-{number}", f"Agent {number}"))

    async def idle(self) -> None:
        await until(lambda: self.dispatcher.waiting == 0)


@pytest.fixture
async def house(
    database: Database, directory: AgentDirectory, homeserver: Homeserver
) -> AsyncGenerator[House]:
    made = House(database, directory, homeserver)
    await made.add(1)
    await made.add(2)
    yield made
    await made.dispatcher.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without their pauses."""
    monkeypatch.setattr("letta_matrix.conversations.dispatcher._LONGEST_PAUSE", 0.02)
    monkeypatch.setattr("letta_matrix.conversations.dispatcher._FIRST_PAUSE", 0.02)


async def test_messages_of_a_room_are_answered_in_order(house: House, fake: FakeHomeserver) -> None:
    await house.dispatcher.admit("t1", [message("slow 0.1"), message("two")])
    await house.dispatcher.admit("t2", [message("three")])
    assert house.dispatcher.waiting == 3
    await house.idle()
    assert fake.bodies("!1:test") == ["echo: slow 0.1", "echo: two", "echo: three"]
    assert house.dispatcher.counters["turns_done"] == 3


async def test_rooms_are_answered_side_by_side(house: House, fake: FakeHomeserver) -> None:
    await house.dispatcher.admit("t1", [message("slow 1"), message("quick", "!2:test")])
    await until(lambda: fake.bodies("!2:test") == ["echo: quick"], 0.9)
    assert fake.bodies("!1:test") == []


async def test_what_comes_twice_is_answered_once(house: House, fake: FakeHomeserver) -> None:
    event = message("once")
    for txn_id in ("t1", "t1", "t2"):
        await house.dispatcher.admit(txn_id, [event, event])
    await house.idle()
    assert fake.bodies("!1:test") == ["echo: once"]


async def test_the_next_process_takes_up_what_was_left(house: House, fake: FakeHomeserver) -> None:
    house.runtime.available = False
    await house.dispatcher.admit("t1", [message("one"), message("two")])
    await house.dispatcher.close()
    house.runtime.available = True
    await house.again().recover()
    await house.dispatcher.admit("t2", [message("three")])
    await house.idle()
    assert fake.bodies("!1:test") == ["echo: one", "echo: two", "echo: three"]
    assert len(house.runtime.asked) == 3


async def test_words_for_a_room_that_is_not_known_yet_wait(
    house: House, fake: FakeHomeserver
) -> None:
    await house.dispatcher.admit("t1", [message("early", "!3:test"), message("bird", "!3:test")])
    assert house.dispatcher.waiting == 0
    await house.add(3)
    await house.dispatcher.room_known("!3:test")
    await house.idle()
    await house.dispatcher.room_known("!3:test")
    await house.idle()
    assert fake.bodies("!3:test") == ["echo: early", "echo: bird"]


async def test_parked_words_survive_a_crash_after_the_room_was_saved(
    house: House, fake: FakeHomeserver
) -> None:
    await house.dispatcher.admit("t1", [message("early", "!3:test")])
    await house.dispatcher.admit("t2", [message("to nobody", "!unknown:test")])
    await house.add(3)
    await house.dispatcher.close()
    await house.again().recover()
    await house.idle()
    assert fake.bodies("!3:test") == ["echo: early"]
    assert fake.bodies("!unknown:test") == []


async def test_our_own_events_are_no_prompts(house: House, fake: FakeHomeserver) -> None:
    own = [message(sender="@agent_1:test"), message(sender="@letta:test")]
    await house.dispatcher.admit("t1", own)
    assert house.dispatcher.waiting == 0
    assert house.dispatcher.counters == {"events_own": 2}


async def test_events_are_counted(house: House) -> None:
    events = [message("a"), message("b", "!x:test"), message(sender="@x:far"), {"x": 1}]
    await house.dispatcher.admit("t1", events)
    assert house.dispatcher.counters == {
        "events_routed": 1,
        "events_parked": 1,
        "events_ignored": 1,
        "events_malformed": 1,
    }
    await house.idle()


@pytest.mark.parametrize("odd", [[], {}, {"a": [1]}, 7, None, True])
async def test_an_odd_event_does_not_hold_up_the_others(
    house: House, fake: FakeHomeserver, odd: object
) -> None:
    events = [message(msgtype=odd), message(), message("after")]
    events[0]["content"] = {"msgtype": odd, "body": "x"}
    events[1]["content"] = {"msgtype": "m.text", "body": odd, "m.relates_to": odd}
    await house.dispatcher.admit("t1", events)
    await house.idle()
    assert fake.bodies("!1:test") == ["echo: after"]


async def test_an_event_that_breaks_the_router_is_skipped(
    house: House, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = Router.route

    def fragile(router: Router, event: Any) -> Any:
        if event["content"]["body"] == "poison":
            raise ZeroDivisionError
        return route(router, event)

    monkeypatch.setattr(Router, "route", fragile)
    await house.dispatcher.admit("t1", [message("poison"), message("fine")])
    await house.idle()
    assert fake.bodies("!1:test") == ["echo: fine"]
    assert house.dispatcher.counters["events_failed"] == 1


async def test_a_turn_that_cannot_be_run_ends_with_a_word_and_stops_nobody(
    house: House, fake: FakeHomeserver, quick: None
) -> None:
    def broken(_request: object) -> Any:
        raise ZeroDivisionError

    house.runtime.script = broken
    await house.dispatcher.admit("t1", [message("boom")])
    await until(lambda: house.dispatcher.counters["turns_given_up"] == 1)
    house.runtime.script = obey
    await house.dispatcher.admit("t2", [message("next")])
    await house.idle()
    assert fake.bodies("!1:test") == [notices.BROKEN, "echo: next"]


async def test_a_turn_is_not_given_up_for_a_locked_database(
    house: House, fake: FakeHomeserver, database_file: Path, quick: None
) -> None:
    await _impatient(house.database)
    await house.dispatcher.admit("t1", [message("slow 0.1")])
    other = sqlite3.connect(database_file, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreUnavailable):
        await house.dispatcher.admit("t2", [message("refused")])
    await asyncio.sleep(1.0)
    other.execute("ROLLBACK")
    other.close()
    await house.idle()
    assert fake.bodies("!1:test") == ["echo: slow 0.1"]
    assert house.dispatcher.counters["turns_given_up"] == 0
    assert len(house.runtime.asked) == 1


async def test_a_refused_reply_does_not_stop_the_room(house: House, fake: FakeHomeserver) -> None:
    fake.fail("PUT .*/send/", Fault(403, {"errcode": "M_FORBIDDEN", "error": "not joined"}))
    await house.dispatcher.admit("t1", [message("one"), message("two")])
    await house.idle()
    assert fake.bodies("!1:test") == ["echo: two"]


def reaction(target: str, **fields: Any) -> dict[str, Any]:
    content = {"m.relates_to": {"event_id": target, "key": ASK_AGAIN}}
    return message(type="m.reaction", content=content) | fields


async def test_an_offer_is_taken_up_once_a_reaction(house: House, fake: FakeHomeserver) -> None:
    def lose(_request: object) -> Any:
        raise TurnLost("it restarted", tools_started=True)

    house.runtime.script = lose
    await house.dispatcher.admit("t1", [message("do it")])
    await house.idle()
    house.runtime.script = obey
    offer = fake.messages("!1:test")[0]["event_id"]
    wish = reaction(offer)
    elsewhere = reaction(offer, room_id="!2:test")
    await house.dispatcher.admit("t2", [wish, reaction("$other"), elsewhere])
    await house.dispatcher.admit("t3", [wish])
    await house.idle()
    assert fake.bodies("!1:test") == [
        notices.lost("it restarted", tools_started=True),
        "echo: do it",
    ]
    assert fake.bodies("!2:test") == []


any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
any_event = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["m.room.message", "m.reaction", "m.room.encrypted"]) | any_json,
        "event_id": st.text(st.characters(), max_size=5) | any_json,
        "room_id": st.sampled_from(["!1:test", "!x:test"]) | any_json,
        "sender": st.sampled_from([PERSON, "@agent_1:test"]) | any_json,
        "origin_server_ts": st.integers() | st.floats() | any_json,
        "content": st.dictionaries(
            st.sampled_from(["body", "msgtype", "m.relates_to"]), st.just("m.text") | any_json
        )
        | any_json,
    },
)
_numbers = iter(range(1_000_000))


@given(st.lists(any_event, max_size=4))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_any_transaction_is_admitted(house: House, events: list[dict[str, Any]]) -> None:
    await house.dispatcher.admit(f"any{next(_numbers)}", events)


async def _impatient(database: Database) -> None:
    await database.execute(text("PRAGMA busy_timeout = 50"))
