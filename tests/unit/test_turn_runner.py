"""One turn from wherever it stands to its end, on a homeserver that really speaks HTTP."""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.builders import PERSON, message, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import DONE, FOR_EVER
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.conversations import notices, turn_runner
from letta_matrix.matrix.content import MARKER
from letta_matrix.runtimes.faults import (
    AgentGone,
    ConversationGone,
    CredentialsRefused,
    RateLimited,
    RuntimeBusy,
    RuntimeRefused,
    RuntimeUnavailable,
    TurnLost,
)
from letta_matrix.runtimes.memory import Answer, MemoryRuntime, echo
from letta_matrix.runtimes.protocol import (
    ABORT_GRACE,
    ApprovalRequested,
    ImagesDropped,
    SaveTurnState,
    TextDelta,
    TurnEvent,
    TurnRequest,
    TurnState,
)
from letta_matrix.store.agents import AgentStatus
from letta_matrix.store.approvals import Approval, ApprovalStatus
from letta_matrix.store.outbox import OutboxEntry
from letta_matrix.store.turns import Outcome, Turn, TurnStatus

ROOM = "!1:test"


@pytest.fixture
def tries(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the runtime was asked to do, whether it could or not."""
    made, runtime = list[str](), stage.runtime

    def counted(name: str) -> None:
        method = getattr(runtime, name)

        def call(*args: Any) -> Any:
            made.append(name)
            return method(*args)

        monkeypatch.setattr(runtime, name, call)

    counted("create_conversation")
    counted("run_turn")
    return made


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
    assert stage.runtime.conversations == {one.conversation_id: "agent-1"}


async def test_parts_of_an_answer_are_paragraphs(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.run("tools")
    reply, trace = fake.bodies(ROOM)
    assert reply == "Let me look.\n\nFound it."
    assert fake.bodies(ROOM, "m.notice") == [trace]
    assert "Bash" in trace


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
    await stage.stores.turns.run(turn, {"message_id": turn.message_id})
    stage.runtime.asked.append(TurnRequest("agent-1", "c1", turn.message_id, "hello"))
    await stage.runner.run(turn, recovered=True)
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_a_turn_in_flight_is_followed_not_asked_again(
    stage: Stage, fake: FakeHomeserver
) -> None:
    pauses = [FOR_EVER, 0.0]

    def half_then_all(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield TextDelta("0", "One,")
        yield pauses.pop(0)
        yield TextDelta("0", " two.")
        yield DONE

    stage.runtime.script = half_then_all
    task = asyncio.create_task(stage.run("count"))
    await eventually(lambda: fake.messages(ROOM))
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    (again,) = await stage.stores.turns.unfinished()
    await stage.runner.run(again, recovered=True)
    assert fake.bodies(ROOM) == ["One, two."]
    assert len(stage.runtime.asked) == 1


async def test_an_end_does_not_wait_for_a_homeserver_that_is_away(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    def growing(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield TextDelta("0", "One,")
        yield FOR_EVER

    stage.runtime.script = growing
    fake.hold("PUT .*/send/")
    clock.stop()
    task = asyncio.create_task(stage.run("count"))
    await clock.until(lambda: fake.matching("PUT .*/send/"), step=0.1)
    task.cancel()
    await settled(task)
    clock.advance(turn_runner._FAREWELL)
    await asyncio.gather(within(task), return_exceptions=True)
    assert task.cancelled()


async def test_a_frozen_reply_needs_no_runtime(stage: Stage, fake: FakeHomeserver) -> None:
    sent = fake.hold("PUT .*/send/")
    turn = await stage.turn("hello")
    task = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await eventually(lambda: turn.status is TurnStatus.REPLYING)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    sent.set()
    stage.runtime.available = False
    (again,) = await stage.stores.turns.unfinished()
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
    stage: Stage, fake: FakeHomeserver, clock: Clock, tries: list[str]
) -> None:
    def flap(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield TextDelta("0", "Still")
        if tries.count("run_turn") < 3:
            yield 5.0
            raise RuntimeUnavailable("gone for a moment")
        yield TextDelta("0", " here.")
        yield DONE

    stage.runtime.script = flap
    running = asyncio.create_task(stage.run("hello"))
    await clock.until(running.done)
    assert fake.bodies(ROOM) == ["Still here."]
    assert tries.count("run_turn") == 3


async def test_a_runtime_that_is_away_for_long(
    stage: Stage, fake: FakeHomeserver, clock: Clock, tries: list[str]
) -> None:
    stage.runtime.available = False
    running = asyncio.create_task(stage.run("hello"))
    await clock.until(lambda: fake.bodies(ROOM) == [notices.UNAVAILABLE])
    told = len(tries)
    await clock.until(lambda: len(tries) > told + 1, step=2)
    stage.runtime.available = True
    await clock.until(running.done, step=2)
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, "echo: hello"]


async def test_a_short_absence_is_not_worth_a_word(
    stage: Stage, fake: FakeHomeserver, tries: list[str], clock: Clock
) -> None:
    stage.runtime.available = False
    clock.stop()
    running = asyncio.create_task(stage.run("hello"))
    await eventually(lambda: tries)
    clock.advance(2.9)
    await eventually(lambda: len(tries) == 2)
    await settled(running)
    stage.runtime.available = True
    clock.advance(0.5)
    await within(running)
    assert fake.bodies(ROOM) == ["echo: hello"]


@pytest.mark.parametrize(
    ("error", "notice"),
    [
        (RuntimeRefused("no such tool"), notices.refused("no such tool")),
        (CredentialsRefused("the key expired"), notices.credentials("the key expired")),
        (AgentGone("there is no agent-1"), notices.GONE),
    ],
)
async def test_a_refusal_is_told_once(
    stage: Stage, fake: FakeHomeserver, error: RuntimeRefused, notice: str
) -> None:
    asked = list[TurnRequest]()

    def refuse(request: TurnRequest) -> Iterator[TurnEvent]:
        asked.append(request)
        raise error
        yield DONE

    stage.runtime.script = refuse
    turn = await stage.run("hello")
    assert fake.bodies(ROOM) == [notice]
    assert await stage.outcome(turn) is Outcome.FAILED
    assert len(asked) == 1


async def test_an_agent_that_its_runtime_no_longer_has(stage: Stage, fake: FakeHomeserver) -> None:
    stage.runtime.remove("agent-1")
    turn = await stage.run("hello")
    assert fake.bodies(ROOM) == [notices.GONE]
    assert await stage.outcome(turn) is Outcome.FAILED


async def test_what_was_said_before_a_refusal_is_kept(stage: Stage, fake: FakeHomeserver) -> None:
    def refuse(_request: TurnRequest) -> Iterator[TurnEvent]:
        yield TextDelta("0", "I was about to")
        raise CredentialsRefused("the key expired")

    stage.runtime.script = refuse
    await stage.run("hello")
    assert fake.bodies(ROOM) == ["I was about to", notices.credentials("the key expired")]


class Reluctant(MemoryRuntime):
    """Does not take the first messages."""

    def __init__(self, error: Exception, times: int = 1) -> None:
        super().__init__()
        self._errors = [error] * times
        self.tries = 0

    async def run_turn(
        self, request: TurnRequest, state: TurnState | None, save: SaveTurnState
    ) -> AsyncGenerator[TurnEvent]:
        self.tries += 1
        if self._errors:
            raise self._errors.pop()
        async for event in super().run_turn(request, state, save):
            yield event


@pytest.mark.parametrize(
    ("error", "notice", "afterwards"),
    [
        (RuntimeBusy("something else runs"), notices.BUSY, notices.WAS_BUSY),
        (RateLimited("too many requests"), notices.RATE_LIMITED, notices.HAD_TO_WAIT),
        (RuntimeUnavailable("nobody listens"), notices.UNAVAILABLE, notices.WAS_AWAY),
    ],
)
async def test_a_message_that_is_not_taken_now_is_given_again(
    stage: Stage,
    fake: FakeHomeserver,
    clock: Clock,
    error: Exception,
    notice: str,
    afterwards: str,
) -> None:
    await stage.use(Reluctant(error, 4))
    clock.stop()
    running = asyncio.create_task(stage.run("hello"))
    await clock.until(running.done, step=2)
    assert fake.messages(ROOM)[0]["content"]["body"] == notice
    assert fake.bodies(ROOM) == [afterwards, "echo: hello"]
    assert await stage.outcome(await running) is Outcome.ANSWERED


async def test_a_runtime_that_breaks_at_once_is_not_hurried(
    stage: Stage, fake: FakeHomeserver, tries: list[str], clock: Clock
) -> None:
    """It takes the message and breaks, again and again."""
    broken: list[TurnRequest] = []

    def breaks(request: TurnRequest) -> Iterator[TurnEvent]:
        broken.append(request)
        raise RuntimeUnavailable("it broke")
        yield DONE

    stage.runtime.script = breaks
    clock.stop()
    running = asyncio.create_task(stage.run("hello"))
    for number, pause in enumerate((0.2, 0.4, 0.8, 1.6), start=1):
        await eventually(lambda number=number: len(broken) == number)
        await settled(running)
        clock.advance(pause - 0.01)
        await settled(running)
        assert tries.count("run_turn") == number
        clock.advance(0.02)
    await clock.until(lambda: fake.bodies(ROOM) == [notices.UNAVAILABLE])
    stage.runtime.script = echo
    await clock.until(running.done)
    assert fake.bodies(ROOM) == [notices.WAS_AWAY, "echo: hello"]


async def test_a_moment_of_being_busy_is_not_worth_a_word(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.use(Reluctant(RuntimeBusy("something else runs")))
    await stage.run("hello")
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_a_rate_limit_is_kept(stage: Stage, fake: FakeHomeserver, clock: Clock) -> None:
    runtime = Reluctant(RateLimited("too many requests", retry_after=5.0))
    await stage.use(runtime)
    clock.stop()
    running = asyncio.create_task(stage.run("hello"))
    await eventually(lambda: runtime.tries)
    await settled(running)
    clock.advance(4.9)
    await settled(running)
    assert runtime.tries == 1
    clock.advance(0.2)
    await within(running)
    assert fake.bodies(ROOM) == ["echo: hello"]


async def test_a_runtime_that_is_no_longer_configured(stage: Stage, fake: FakeHomeserver) -> None:
    await change(stage, runtime="gone")
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
        assert (await stage.stores.outbox.offered_by(offer)) is not None
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
    await stage.again(idle_timeout=0.1)
    turn = await stage.run("hang")
    assert fake.bodies(ROOM) == [notices.silent(0.0)]
    assert await stage.outcome(turn) is Outcome.FAILED


async def test_a_turn_without_end(stage: Stage, fake: FakeHomeserver, clock: Clock) -> None:
    await stage.again(turn_timeout=60)
    running = asyncio.create_task(stage.run("ramble"))
    await eventually(lambda: "word1" in "".join(fake.bodies(ROOM)))
    clock.advance(61)
    turn = await within(running)
    said, notice = fake.bodies(ROOM)
    assert said.startswith("word0 word1")
    assert notice == notices.too_long(1.0)
    assert await stage.outcome(turn) is Outcome.FAILED


def ask_for_bash(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """Wants to run Bash, and says what came of it."""
    yield TextDelta("0", "I'd like to look. ")
    answer = yield ApprovalRequested("a1", "Bash", {"command": "ls"})
    allowed = answer is not None and answer.allow
    yield TextDelta("1", "Done." if allowed else "I may not.")
    yield DONE


async def pending(stage: Stage) -> Approval:
    """The approval that waits, once its question is in the room."""
    await eventually(lambda: any("Bash" in body for body in stage.fake.bodies(ROOM)))
    (approval,) = await stage.stores.approvals.pending()
    return approval


@pytest.mark.parametrize("allow", [True, False])
async def test_an_approval_is_asked_for_and_goes_on(
    stage: Stage, fake: FakeHomeserver, allow: bool
) -> None:
    stage.runtime.script = ask_for_bash
    running = asyncio.create_task(stage.run("look"))
    approval = await pending(stage)
    status = ApprovalStatus.ALLOWED if allow else ApprovalStatus.DENIED
    assert await stage.parts.approvals.answer(approval, status, by=PERSON)
    await running
    assert any(body.endswith("Done." if allow else "I may not.") for body in fake.bodies(ROOM))
    assert [answer.allow for answer in stage.runtime.answers.values()] == [allow]


async def test_no_time_passes_while_a_person_is_asked(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await stage.again(idle_timeout=60, turn_timeout=100)
    stage.runtime.script = ask_for_bash
    running = asyncio.create_task(stage.run("look"))
    approval = await pending(stage)
    await eventually(lambda: len(fake.messages(ROOM, "m.reaction")) == 2)
    for _ in range(15):
        clock.advance(10)
        await settled(running)
    await stage.parts.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    turn = await within(running)
    assert await stage.outcome(turn) is Outcome.ANSWERED


async def test_a_turn_that_ends_answers_its_questions(stage: Stage, fake: FakeHomeserver) -> None:
    """Cancelled while it waits for a person: nobody can allow it any more."""
    stage.runtime.script = ask_for_bash
    turn = await stage.turn("look")
    running = asyncio.create_task(stage.runner.run(turn, recovered=False))
    approval = await pending(stage)
    assert await stage.runner.cancel(turn)
    await running
    assert not await stage.parts.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    assert await stage.stores.approvals.pending() == []
    assert stage.runtime.answers == {}
    assert notices.STOPPED in fake.bodies(ROOM)


async def test_a_removed_agent_says_so(stage: Stage, fake: FakeHomeserver) -> None:
    await change(stage, status=AgentStatus.REMOVED)
    turn = await stage.run("hello")
    assert fake.bodies(ROOM) == [notices.GONE]
    assert stage.runtime.asked == []
    assert await stage.outcome(turn) is Outcome.FAILED


async def change(stage: Stage, **fields: Any) -> None:
    """Change what is known of agent-1."""
    directory = stage.stores.directory
    await directory.change(["agent-1"], lambda one: replace(one, **fields))


async def test_giving_up_is_told_once(stage: Stage, fake: FakeHomeserver) -> None:
    turn = await stage.turn("hello")
    await stage.runner.give_up(turn)
    assert fake.bodies(ROOM) == [notices.BROKEN]
    assert await stage.outcome(turn) is Outcome.FAILED


async def test_a_slow_turn_shows_typing_and_a_receipt(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    turn = await stage.turn("slow 1")
    running = await begun(stage, turn)
    await clock.until(lambda: len(fake.matching("typing")) == 2, step=0.25)
    await within(running)
    assert [one.body["typing"] for one in fake.matching("typing")] == [True, False]
    (receipt,) = fake.matching("receipt")
    assert receipt.path.endswith(f"/m.read/{turn.event_id}")


@pytest.mark.parametrize(("refused", "shown"), [("receipt", "typing"), ("typing", "receipt")])
async def test_a_hint_that_is_refused_holds_up_nothing(
    stage: Stage, fake: FakeHomeserver, clock: Clock, refused: str, shown: str
) -> None:
    stage.refuse(f"/{refused}/", times=9)
    running = await begun(stage, await stage.turn("slow 1"))
    await clock.until(lambda: fake.matching(f"/{refused}/") and fake.matching(f"/{shown}/"))
    await clock.until(running.done, step=0.25)
    await within(running)
    assert fake.bodies(ROOM) == ["echo: slow 1"]


async def test_a_quick_turn_costs_one_request(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await stage.run("hello")
    fake.requests.clear()
    clock.stop()
    # From the second on: who is in the room is known then.
    running = await begun(stage, await stage.turn("slow 0.2"))
    clock.advance(0.2)
    await within(running)
    await eventually(lambda: not stage.runner._asking._background)
    assert [one.line.split("/")[-3:-1] for one in fake.requests] == [["send", "m.room.message"]]


async def begun(stage: Stage, turn: Turn) -> asyncio.Task[None]:
    """The turn runs, and has reached the agent."""
    running = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await eventually(lambda: any(one.message_id == turn.message_id for one in stage.runtime.asked))
    return running


async def test_a_turn_that_runs_is_stopped_and_keeps_what_was_said(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    turn = await stage.turn("ramble")
    running = await begun(stage, turn)
    await eventually(lambda: fake.messages(ROOM))
    # It is not for a limit that it ends.
    clock.stop()
    assert await stage.runner.cancel(turn)
    await within(running)
    said, notice = fake.bodies(ROOM)
    assert said.startswith("word0")
    assert notice == notices.STOPPED
    await stage.run("next")
    assert fake.bodies(ROOM)[2:] == ["echo: next"]


async def test_a_turn_that_waits_for_its_place_is_stopped(
    stage: Stage, fake: FakeHomeserver
) -> None:
    turn = await stage.turn("hello")
    assert await stage.runner.cancel(turn)
    await stage.runner.run(turn, recovered=False)
    assert fake.bodies(ROOM) == [notices.STOPPED]
    (word,) = fake.messages(ROOM)
    assert word["content"]["m.relates_to"] == {"m.in_reply_to": {"event_id": turn.event_id}}
    assert stage.runtime.asked == []


async def test_a_turn_that_was_stopped_while_it_waited_stays_so_through_a_restart(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.runner.cancel(await stage.turn("hello"))
    await stage.recover()
    await stage.idle()
    assert fake.bodies(ROOM) == [notices.STOPPED]
    assert stage.runtime.asked == []


async def test_a_turn_is_stopped_at_the_very_moment_it_begins(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning, go_on = asyncio.Event(), asyncio.Event()

    async def of_turn(_turn_id: str) -> list[OutboxEntry]:
        beginning.set()
        await go_on.wait()
        return []

    monkeypatch.setattr(stage.stores.outbox, "of_turn", of_turn)
    turn = await stage.turn("hang")
    running = asyncio.create_task(stage.runner.run(turn, recovered=True))
    await beginning.wait()
    assert await stage.runner.cancel(turn)
    go_on.set()
    await within(running)
    assert fake.bodies(ROOM) == [notices.STOPPED]


async def test_a_turn_is_stopped_while_its_conversation_is_made(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    making, go_on = asyncio.Event(), asyncio.Event()

    async def create(_agent_id: str, _title: str) -> str:
        making.set()
        await go_on.wait()
        return "c1"

    monkeypatch.setattr(stage.runtime, "create_conversation", create)
    turn = await stage.turn("hello")
    running = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await making.wait()
    assert await stage.runner.cancel(turn)
    go_on.set()
    await running
    assert fake.bodies(ROOM) == [notices.STOPPED]
    assert stage.runtime.asked == []


async def test_a_turn_whose_runtime_is_away_is_stopped_at_once(
    stage: Stage, fake: FakeHomeserver, tries: list[str], clock: Clock
) -> None:
    stage.runtime.available = False
    turn = await stage.turn("hello")
    clock.stop()
    running = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await eventually(lambda: tries)
    assert await stage.runner.cancel(turn)
    await within(running)
    assert len(tries) == 1
    assert fake.bodies(ROOM) == [notices.STOPPED]
    stage.runtime.available = True
    await stage.run("next")
    assert [one.text for one in stage.runtime.asked] == ["next"]


async def test_a_runtime_that_does_not_stop_is_left_alone(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    async def ignore(_agent_id: str, conversation_id: str) -> None:
        told.append(conversation_id)

    told = list[str]()
    monkeypatch.setattr(stage.runtime, "cancel_turn", ignore)
    turn = await stage.turn("ramble")
    running = await begun(stage, turn)
    await eventually(lambda: fake.messages(ROOM))
    clock.stop()
    await stage.runner.cancel(turn)
    watchdog = stage.runner._running[turn.turn_id].watchdog
    clock.advance(2.9)
    await settled(running)
    assert watchdog.bite is None
    clock.advance(0.2)
    await within(running)
    assert fake.bodies(ROOM)[1:] == [notices.STOPPED]
    assert told == [turn.conversation_id]


async def test_a_turn_that_is_settled_cannot_be_stopped(stage: Stage) -> None:
    turn = await stage.run("hello")
    assert not await stage.runner.cancel(turn)


async def test_a_thread_is_a_conversation_of_its_own(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.run("main")
    await stage.run("one", said_in("$root", "one"))
    await stage.run("two", said_in("$root", "two"))
    await stage.run("other", said_in("$other", "other"))
    main, one, two, other = (request.conversation_id for request in stage.runtime.asked)
    assert one == two
    assert len({main, one, other}) == 3
    replies = [event["content"] for event in fake.messages(ROOM)]
    relation = next(one["m.relates_to"] for one in replies if "one" in one["body"])
    assert (relation["rel_type"], relation["event_id"]) == ("m.thread", "$root")


async def test_what_the_agent_is_told_of_the_room_does_not_leak(
    stage: Stage, fake: FakeHomeserver
) -> None:
    fake.members[ROOM] = {PERSON, "@bob:test", "@agent_1:test"}

    def parrot(request: TurnRequest) -> Iterator[TurnEvent]:
        for number in range(0, len(request.text), 7):
            yield TextDelta("0", request.text[number : number + 7])
        yield DONE

    stage.runtime.script = parrot
    await stage.run("hello there, who are you?")
    (request,) = stage.runtime.asked
    assert PERSON in request.text
    assert request.text.endswith("hello there, who are you?")
    assert fake.bodies(ROOM) == ["hello there, who are you?"]
    assert not any(PERSON in str(event["content"].get("body")) for event in fake.messages(ROOM))


async def test_alone_the_agent_is_told_the_words_alone(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[ROOM] = {PERSON, "@letta:test", "@agent_1:test"}
    await stage.run("hello")
    assert [one.text for one in stage.runtime.asked] == ["hello"]


async def test_a_picture_that_the_model_did_not_get_is_told(
    stage: Stage, fake: FakeHomeserver
) -> None:
    def blind(request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield ImagesDropped("my model cannot see")
        yield ImagesDropped("my model cannot see")
        yield from echo(request)

    stage.runtime.script = blind
    await stage.run("hello")
    assert fake.bodies(ROOM) == [notices.not_shown("my model cannot see"), "echo: hello"]


async def test_a_file_that_cannot_be_read_is_told_and_described(
    stage: Stage, fake: FakeHomeserver
) -> None:
    content = {"msgtype": "m.file", "body": "notes.txt", "url": "mxc://test/gone"}
    await stage.run("", message(content=content))
    (request,) = stage.runtime.asked
    assert "notes.txt" in request.text
    notice, reply = fake.bodies(ROOM)
    assert fake.bodies(ROOM, "m.notice") == [notice]
    assert "notes.txt" in notice
    assert reply.startswith("echo: ")


@pytest.mark.parametrize(
    ("configured", "here", "shown"),
    [(True, None, 1), (False, None, 0), (True, False, 0), (False, True, 1)],
)
async def test_tools_are_shown_where_people_want_it(
    stage: Stage, fake: FakeHomeserver, configured: bool, here: bool | None, shown: int
) -> None:
    await stage.again(tool_activity=configured)
    await stage.stores.rooms.change_settings("agent-1", ROOM, tool_activity=here)
    await stage.run("tools")
    assert len(fake.bodies(ROOM)) == 1 + shown


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("grows", [True, False])
async def test_an_agents_words_ping_members_only_where_that_is_allowed(
    stage: Stage, fake: FakeHomeserver, clock: Clock, allowed: bool, grows: bool
) -> None:
    await stage.again(agent_mentions=allowed)
    fake.members[ROOM] = {PERSON, "@bob:test", "@agent_1:test"}

    def call(_request: TurnRequest) -> Iterator[TurnEvent | float]:
        yield TextDelta("0", "Ask @bob:test, @eve:test, @agent_1:test or @room.")
        if grows:
            yield 60
        yield DONE

    stage.runtime.script = call
    running = asyncio.create_task(stage.run("whom?"))
    if grows:
        await eventually(lambda: fake.messages(ROOM))
        clock.advance(60)
    await within(running)
    pinged = [event["content"]["m.mentions"] for event in fake.messages(ROOM)]
    assert not grows or len(pinged) == 2
    assert pinged[-1] == ({"user_ids": ["@bob:test"]} if allowed else {})
    assert not any(pinged[:-1])


async def test_a_stop_outlives_the_bridge(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped between two tries, or in the last moment of a process: the runtime is told."""
    turn = await stage.turn("hello")
    turn.conversation_id = "c1"
    await stage.stores.turns.run(turn, {"message_id": turn.event_id})
    await stage.stores.turns.stop(turn)
    await stage.again()
    (left,) = await stage.stores.turns.unfinished()
    told = list[str]()

    async def cancel(_agent_id: str, conversation_id: str) -> None:
        told.append(conversation_id)

    monkeypatch.setattr(stage.runtime, "cancel_turn", cancel)
    await stage.runner.run(left, recovered=True)
    assert told == ["c1"]
    assert fake.bodies(ROOM) == [notices.STOPPED]
    assert stage.runtime.asked == []


async def test_a_stop_that_the_runtime_did_not_hear_is_not_called_one(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = await stage.turn("hello")
    turn.conversation_id = "c1"
    await stage.stores.turns.run(turn, {"message_id": turn.event_id})
    await stage.stores.turns.stop(turn)

    async def away(_agent_id: str, _conversation_id: str) -> None:
        raise RuntimeUnavailable("gone fishing")

    monkeypatch.setattr(stage.runtime, "cancel_turn", away)
    await stage.runner.run(turn, recovered=True)
    assert fake.bodies(ROOM) == [notices.UNREACHED]


async def test_a_stop_that_a_runtime_leaves_unanswered_is_not_called_one(
    stage: Stage, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes requests and answers none, as one that hangs does."""
    asked, heard = asyncio.Event(), asyncio.Event()

    def silent(_request: TurnRequest) -> list[TurnEvent | float]:
        return [FOR_EVER]

    stage.runtime.script = silent

    async def hang(_agent_id: str, _conversation_id: str) -> None:
        asked.set()
        await heard.wait()

    monkeypatch.setattr(stage.runtime, "cancel_turn", hang)
    turn = await stage.turn("hello")
    running = asyncio.create_task(stage.runner.run(turn, recovered=False))
    await eventually(lambda: stage.runtime.asked)
    stopping = asyncio.create_task(stage.runner.cancel(turn))
    await asked.wait()
    # Its turn has some time to end by itself, and it some more to take what it is told.
    for seconds in (3, 6):
        await settled()
        clock.advance(seconds)
    await within(running)
    assert fake.bodies(ROOM)[-1] == notices.UNREACHED
    heard.set()
    assert await stopping


async def test_a_stop_is_one_though_the_turn_is_slow_to_end(
    stage: Stage, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has just begun follows the turn no more: its runtime alone is waited for."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def stop(_agent_id: str, _conversation_id: str) -> None:
        asked.set()
        await ended.wait()

    monkeypatch.setattr(stage.runtime, "cancel_turn", stop)
    stage.runtime.available = False
    turn = await stage.turn("hello")
    turn.conversation_id = "c1"
    await stage.stores.turns.run(turn, {"message_id": turn.event_id})
    clock.stop()
    running = asyncio.create_task(stage.runner.run(turn, recovered=True))
    await eventually(lambda: turn.turn_id in stage.runner._running)
    stopping = asyncio.create_task(stage.runner.cancel(turn))
    await asked.wait()
    await settled()
    clock.advance(ABORT_GRACE + 0.5)
    await settled()
    ended.set()
    assert await stopping
    await within(running)
    assert fake.bodies(ROOM)[-1] == notices.STOPPED
