"""One turn from wherever it stands to its end, on a homeserver that really speaks HTTP."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import agent, config_for, message
from tests.fake_homeserver import FakeHomeserver, until
from tests.scripts import obey

from letta_matrix.conversations import notices
from letta_matrix.conversations.routing import new_turn
from letta_matrix.conversations.turn_runner import TurnRunner
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.memory import MemoryRuntime, echo
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    ApprovalRequested,
    ConversationGone,
    RuntimeRefused,
    RuntimeUnavailable,
    SaveTurnState,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnLost,
    TurnRequest,
    TurnStarted,
    TurnState,
)
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.database import Database
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox
from letta_matrix.store.turns import Outcome, Turn, TurnStatus, TurnStore

ROOM = "!1:test"
DONE = TurnFinished(StopReason.END_TURN)


class Denying(MemoryRuntime):
    """A runtime whose agent asks for an approval, and remembers the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[tuple[str, bool, str]] = []
        self.pending = True

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        await save({})
        yield TurnStarted()
        yield ApprovalRequested("a1", "Bash")
        yield TextDelta("0", "I may not.")
        yield DONE

    async def answer_approval(
        self, request: TurnRequest, approval_id: str, *, allow: bool, message: str = ""
    ) -> None:
        if not self.pending:
            raise RuntimeRefused("no longer pending")
        self.answers.append((approval_id, allow, message))


class Stage:
    """Everything one turn needs."""

    def __init__(
        self, database: Database, directory: AgentDirectory, homeserver: Homeserver, **settings: Any
    ) -> None:
        self.database, self.directory, self.homeserver = database, directory, homeserver
        self.turns, self.outbox = TurnStore(database), Outbox(database)
        self.use(MemoryRuntime(script=obey), **settings)

    def use(self, runtime: MemoryRuntime, **settings: Any) -> None:
        self.runtime = runtime
        runtime.add(AgentInfo("agent-1", "Agent 1"))
        conversations = {"edit_interval": 0.02, **settings}
        config = config_for(Path(), conversations=conversations).conversations
        self.runner = TurnRunner(
            config, self.homeserver, {"memory": runtime}, self.directory, self.turns, self.outbox
        )

    async def turn(self, text: str | None, **fields: Any) -> Turn:
        """A turn as it was admitted."""
        event = message(text, **fields)
        new = new_turn(event, "agent-1", text)
        entry = InboxEntry(new.event_id, ROOM, event, InboxState.ROUTED, new)
        return (await Inbox(self.database).admit(new.event_id, [entry]))[0]

    async def run(self, text: str | None, *, recovered: bool = False, **fields: Any) -> Turn:
        turn = await self.turn(text, **fields)
        await self.runner.run(turn, recovered=recovered)
        return turn

    async def outcome(self, turn: Turn) -> Outcome:
        query = "SELECT status, outcome FROM turns WHERE turn_id = ?"
        values = (turn.turn_id,)
        row = await self.database.read(lambda db: db.exec_driver_sql(query, values).one())
        assert row.status == "done"
        return Outcome(row.outcome)


@pytest.fixture
async def known(directory: AgentDirectory) -> Agent:
    one = agent(1)
    await directory.reserve([one])
    return one


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, known: Agent
) -> AsyncGenerator[Stage]:
    made = Stage(database, directory, homeserver)
    yield made
    await made.runner.close()


async def test_an_answer(stage: Stage, fake: FakeHomeserver) -> None:
    turn = await stage.run("hello")
    assert fake.bodies(ROOM) == ["echo: hello"]
    assert await stage.outcome(turn) is Outcome.ANSWERED
    marker = fake.messages(ROOM)[0]["content"][MARKER]
    assert marker["run_id"] == f"run-{turn.event_id}"


async def test_a_room_keeps_its_conversation(stage: Stage) -> None:
    await stage.run("one")
    await stage.run("two")
    one, two = stage.runtime.asked
    assert one.conversation_id == two.conversation_id
    assert await stage.runtime.list_conversations("agent-1") == [one.conversation_id]


async def test_parts_of_an_answer_are_paragraphs(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.run("tools")
    assert fake.bodies(ROOM) == ["Let me look.\n\nFound it."]


@pytest.mark.parametrize(
    ("text", "bodies", "outcome"),
    [
        ("nothing", [notices.NO_WORDS], Outcome.ANSWERED),
        ("fail no credit", ["I was about to", notices.failed("no credit")], Outcome.FAILED),
        (None, [notices.UNREADABLE], Outcome.FAILED),
    ],
)
async def test_ends_that_are_told(
    stage: Stage, fake: FakeHomeserver, text: str | None, bodies: list[str], outcome: Outcome
) -> None:
    turn = await stage.run(text)
    assert fake.bodies(ROOM) == bodies
    assert await stage.outcome(turn) is outcome


async def test_an_old_message_gets_a_notice(stage: Stage, fake: FakeHomeserver) -> None:
    two_days_ago = int((time.time() - 2 * 86_400) * 1000)
    turn = await stage.run("hello", origin_server_ts=two_days_ago)
    assert fake.bodies(ROOM) == [notices.expired(24.0)]
    assert await stage.outcome(turn) is Outcome.EXPIRED
    assert stage.runtime.asked == []


async def test_an_old_turn_that_was_begun_is_finished(stage: Stage, fake: FakeHomeserver) -> None:
    turn = await stage.turn("hello", origin_server_ts=1)
    turn.conversation_id = "c1"
    await stage.turns.run(turn, {"message_id": turn.message_id})
    stage.runtime.asked.append(TurnRequest("agent-1", "c1", turn.message_id, "hello"))
    await stage.runner.run(turn, recovered=True)
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_a_turn_in_flight_is_followed_not_asked_again(
    stage: Stage, fake: FakeHomeserver
) -> None:
    turn = await stage.turn("stream 10 0.05")
    task = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await until(lambda: fake.messages(ROOM))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (again,) = await stage.turns.unfinished()
    await stage.runner.run(again, recovered=True)
    assert fake.bodies(ROOM) == [" ".join(f"word{number}" for number in range(10))]
    assert len(stage.runtime.asked) == 1


async def test_a_frozen_reply_needs_no_runtime(stage: Stage, fake: FakeHomeserver) -> None:
    fake.slow["PUT .*/send/"] = 0.2
    turn = await stage.turn("hello")
    task = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await until(lambda: turn.status is TurnStatus.REPLYING)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    stage.runtime.available = False
    (again,) = await stage.turns.unfinished()
    await stage.runner.run(again, recovered=True)
    assert fake.bodies(ROOM) == ["echo: hello"]


@pytest.mark.parametrize("always", [False, True])
async def test_a_conversation_that_is_gone_is_replaced_once(
    stage: Stage, fake: FakeHomeserver, always: bool
) -> None:
    def gone(request: TurnRequest) -> Iterator[TurnEvent]:
        if always or request.conversation_id == "conversation-1":
            raise ConversationGone("it was deleted")
        yield TextDelta("0", "Anew.")
        yield DONE

    stage.runtime.script = gone
    await stage.run("hello")
    refused = notices.refused("it was deleted")
    assert fake.bodies(ROOM) == ([refused] if always else ["Anew."])


async def test_a_short_outage_late_in_a_turn_is_no_news(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.conversations.turn_runner._PATIENCE", 0.3)
    tries: list[TurnRequest] = []

    def flap(request: TurnRequest) -> Iterator[TurnEvent | float]:
        tries.append(request)
        yield TextDelta("0", "Still")
        if len(tries) == 1:
            yield 0.5
            raise RuntimeUnavailable("gone for a moment")
        yield TextDelta("0", " here.")
        yield DONE

    stage.runtime.script = flap
    await stage.run("hello")
    assert fake.bodies(ROOM) == ["Still here."]
    assert len(tries) == 2


async def test_a_runtime_that_is_away(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.conversations.turn_runner._PATIENCE", 0.1)
    stage.runtime.available = False
    running = asyncio.create_task(stage.run("hello"))
    await until(lambda: fake.bodies(ROOM) == [notices.UNAVAILABLE])
    await asyncio.sleep(0.8)
    stage.runtime.available = True
    await running
    assert fake.bodies(ROOM) == [notices.UNAVAILABLE, "echo: hello"]


async def test_a_short_absence_is_not_worth_a_word(stage: Stage, fake: FakeHomeserver) -> None:
    stage.runtime.available = False
    running = asyncio.create_task(stage.run("hello"))
    await asyncio.sleep(0.3)
    stage.runtime.available = True
    await running
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_a_refusal_is_told(stage: Stage, fake: FakeHomeserver) -> None:
    stage.runtime.remove("agent-1")
    turn = await stage.run("hello")
    assert fake.bodies(ROOM) == [notices.refused("there is no agent agent-1")]
    assert await stage.outcome(turn) is Outcome.FAILED


async def test_a_runtime_that_is_no_longer_configured(
    stage: Stage, fake: FakeHomeserver, known: Agent
) -> None:
    known.runtime = "gone"
    await stage.run("hello")
    assert "'gone' is no longer configured" in fake.bodies(ROOM)[0]


async def test_a_stream_that_ends_early_is_followed_again(
    stage: Stage, fake: FakeHomeserver
) -> None:
    def cut_once(_request: TurnRequest) -> Iterator[TurnEvent]:
        yield TextDelta("0", "And then")
        if len(tries) > 0:
            yield TextDelta("0", " the end.")
            yield DONE
        tries.append(1)

    tries = list[int]()
    stage.runtime.script = cut_once
    await stage.run("hello")
    assert fake.bodies(ROOM) == ["And then the end."]
    assert len(stage.runtime.asked) == 1


@pytest.mark.parametrize("tools", [True, False])
async def test_a_lost_turn(stage: Stage, fake: FakeHomeserver, tools: bool) -> None:
    def lose(request: TurnRequest) -> Iterator[TurnEvent]:
        if request.message_id.endswith("#1"):
            yield TextDelta("0", "Second try.")
            yield DONE
        raise TurnLost("it restarted", tools_started=tools, fresh_conversation="fork")

    stage.runtime.script = lose
    turn = await stage.run("hello")
    if tools:
        assert fake.bodies(ROOM) == [notices.lost("it restarted", tools_started=True)]
        offer = fake.messages(ROOM)[0]["event_id"]
        assert (await stage.outbox.offered_by(offer)) is not None
        stage.runtime.script = echo
        await stage.run("next")
        assert stage.runtime.asked[-1].conversation_id == "fork"
    else:
        assert fake.bodies(ROOM) == ["Second try."]
        assert [one.conversation_id for one in stage.runtime.asked][1] == "fork"
    assert await stage.outcome(turn) is (Outcome.FAILED if tools else Outcome.ANSWERED)


async def test_a_turn_lost_twice_is_not_asked_for_ever(stage: Stage, fake: FakeHomeserver) -> None:
    def lose(_request: TurnRequest) -> Iterator[TurnEvent]:
        raise TurnLost("it restarted", tools_started=False)

    stage.runtime.script = lose
    await stage.run("hello")
    assert fake.bodies(ROOM) == [notices.lost("it restarted", tools_started=False)]
    assert len(stage.runtime.asked) == 2


async def test_a_silent_model(stage: Stage, fake: FakeHomeserver) -> None:
    stage.use(stage.runtime, idle_timeout=0.2)
    turn = await stage.run("slow 5")
    assert fake.bodies(ROOM) == [notices.silent(0.0)]
    assert await stage.outcome(turn) is Outcome.FAILED


async def test_a_turn_without_end(stage: Stage, fake: FakeHomeserver) -> None:
    stage.use(stage.runtime, turn_timeout=0.4)
    turn = await stage.run("stream 500 0.02")
    said, notice = fake.bodies(ROOM)
    assert said.startswith("word0 word1")
    assert notice == notices.too_long(0.0)
    assert await stage.outcome(turn) is Outcome.FAILED


@pytest.mark.parametrize("pending", [True, False])
async def test_approvals_are_denied_with_a_word(
    stage: Stage, fake: FakeHomeserver, pending: bool
) -> None:
    runtime = Denying()
    runtime.pending = pending
    stage.use(runtime)
    await stage.run("delete all")
    denial = notices.approval_denied("Bash")
    assert fake.bodies(ROOM) == [denial, "I may not."]
    assert runtime.answers == ([("a1", False, denial)] if pending else [])


async def test_a_removed_agent_is_silent(stage: Stage, fake: FakeHomeserver, known: Agent) -> None:
    known.status = AgentStatus.REMOVED
    turn = await stage.run("hello")
    assert fake.requests == []
    assert await stage.outcome(turn) is Outcome.DROPPED


async def test_giving_up_is_told_once(stage: Stage, fake: FakeHomeserver) -> None:
    turn = await stage.turn("hello")
    await stage.runner.give_up(turn)
    assert fake.bodies(ROOM) == [notices.BROKEN]
    assert await stage.outcome(turn) is Outcome.FAILED


async def test_a_slow_turn_shows_typing_and_a_receipt(stage: Stage, fake: FakeHomeserver) -> None:
    turn = await stage.run("slow 0.6")
    await until(lambda: len(fake.matching("typing")) == 2)
    assert [one.body["typing"] for one in fake.matching("typing")] == [True, False]
    (receipt,) = fake.matching("receipt")
    assert receipt.path.endswith(f"/m.read/{turn.event_id}")


async def test_a_quick_turn_costs_one_request(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.run("hello")
    await asyncio.sleep(0.4)
    assert [one.line.split("/")[-3:-1] for one in fake.requests] == [["send", "m.room.message"]]
