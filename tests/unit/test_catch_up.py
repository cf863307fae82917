"""What the homeserver accepted and never pushed is found, once, and nothing else is."""

import time
from pathlib import Path

import pytest
from tests.builders import PERSON, agent, config_for, message
from tests.fake_homeserver import FakeHomeserver, until

from letta_matrix.conversations.catch_up import CatchUp, unanswered
from letta_matrix.conversations.dispatcher import Dispatcher
from letta_matrix.conversations.routing import Router
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox
from letta_matrix.store.meta import Meta
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import TurnStore

ROOM = "!1:test"
BOT = "@letta:test"


class Watch:
    """A catch-up with all it stands on; agent 1 answers in ROOM."""

    def __init__(
        self, database: Database, directory: AgentDirectory, homeserver: Homeserver
    ) -> None:
        config = config_for(Path())
        self.meta, turns, outbox = Meta(database), TurnStore(database), Outbox(database)
        self.runtime = MemoryRuntime()
        self.runtime.add(AgentInfo("agent-1", "Agent 1"))
        runtimes = {"memory": self.runtime}
        runner = TurnRunner(config.conversations, homeserver, runtimes, directory, turns, outbox)
        router = Router(config, directory)
        self.dispatcher = Dispatcher(router, Inbox(database), outbox, turns, runner)
        bot = Intent(homeserver, BOT)
        self.catch_up = CatchUp(bot, directory, turns, self.meta, self.dispatcher)

    async def asked(self) -> list[str]:
        await until(lambda: self.dispatcher.waiting == 0)
        return [request.text for request in self.runtime.asked]


@pytest.fixture
async def watch(database: Database, directory: AgentDirectory, homeserver: Homeserver) -> Watch:
    await directory.reserve([agent(1, created_at=time.time() - 7200)])
    return Watch(database, directory, homeserver)


async def _say(homeserver: Homeserver, text: str) -> None:
    """A person's message that reaches the homeserver, and never us."""
    content = {"msgtype": "m.text", "body": text}
    await Intent(homeserver, PERSON).send(ROOM, "m.room.message", content, f"person {text}")


async def test_a_message_never_pushed_is_answered_once(
    watch: Watch, homeserver: Homeserver, fake: FakeHomeserver
) -> None:
    await watch.catch_up.run()
    await _say(homeserver, "hello")
    await watch.catch_up.run()
    assert await watch.asked() == ["hello"]
    await watch.catch_up.run()
    assert await watch.asked() == ["hello"]
    assert fake.bodies(ROOM) == ["hello", "echo: hello"]


async def test_a_new_database_answers_nothing_of_the_past(
    watch: Watch, homeserver: Homeserver
) -> None:
    await _say(homeserver, "long ago")
    await watch.catch_up.run()
    await watch.catch_up.run()
    assert await watch.asked() == []


async def test_what_was_pushed_is_not_answered_again(watch: Watch, homeserver: Homeserver) -> None:
    await watch.catch_up.run()
    await _say(homeserver, "hello")
    (event,) = await Intent(homeserver, BOT).recent_events(ROOM)
    await watch.dispatcher.admit("t1", [{**event, "room_id": ROOM}])
    await watch.catch_up.run()
    assert await watch.asked() == ["hello"]


def test_only_what_is_new_and_unanswered_counts() -> None:
    now = time.time()
    old = message("old", origin_server_ts=int((now - 100) * 1000))
    done, missed = message("done"), message("missed")
    marker = {MARKER: {"in_reply_to": done["event_id"]}}
    reply = message("echo: done", sender="@agent_1:test")
    reply["content"] |= marker
    forged = message("x")
    forged["content"] |= {MARKER: {"in_reply_to": missed["event_id"]}}
    events = [old, done, reply, missed, forged, {"type": "odd"}]
    assert unanswered(events, "@agent_1:test", now - 50) == [reply, missed, forged]
