"""Questions to people about tools, and that whatever goes wrong, the tool does not run."""

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.builders import APPROVABLE, PERSON, InSight, agent, config_for, message
from tests.fake_homeserver import FakeHomeserver, Fault, Json
from tests.waiting import Clock, eventually, settled, within

from letta_matrix.conversations.approval_question import LOOK
from letta_matrix.conversations.approval_text import CHANGED, TOO_LONG
from letta_matrix.conversations.approvals import Approvals, approval_key
from letta_matrix.conversations.approvers import Approvers
from letta_matrix.conversations.new_turns import new_turn
from letta_matrix.conversations.reply import Reply
from letta_matrix.conversations.roster import Roster
from letta_matrix.matrix.content import BESIDE, MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.runtimes.memory import Answer, MemoryRuntime
from letta_matrix.runtimes.protocol import (
    AgentInfo,
    ApprovalRequested,
    StopReason,
    TurnEvent,
    TurnFinished,
    TurnRequest,
    TurnState,
)
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.approvals import Approval, ApprovalStatus, ApprovalStore
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.inbox import Inbox, InboxEntry, InboxState
from letta_matrix.store.outbox import Outbox, OutboxEntry
from letta_matrix.store.turns import Turn

ROOM = "!1:test"
SEND = "PUT .*/send/"
GHOST = "@agent_1:test"
BASH = ApprovalRequested("call-1", "Bash", {"command": "ls -la"}, always=True)
DONE = TurnFinished(StopReason.END_TURN)


class Stage:
    """One turn whose agent asks for approvals, and the bridge around it, which may be restarted."""

    def __init__(
        self, database: Database, homeserver: Homeserver, turn: Turn, fake: FakeHomeserver
    ) -> None:
        self.database, self.homeserver, self.turn, self.fake = database, homeserver, turn, fake
        self.store, self.outbox = ApprovalStore(database), Outbox(database)
        self.events: list[TurnEvent] = []
        self.followed: asyncio.Task[None] | None = None
        self.asks(BASH)
        self.start()

    def asks(self, *questions: ApprovalRequested) -> None:
        """Let the agent ask for these, one after the other."""

        self.runtime = MemoryRuntime(script=lambda _: [*questions, DONE])
        self.runtime.add(AgentInfo("agent-1", "Agent 1"))

    def start(self, entries: list[OutboxEntry] | None = None, **settings: Any) -> None:
        self.config = config_for(
            Path(),
            conversations=APPROVABLE | settings,
            permissions={"test": "user", "@root:test": "admin", "@bad:test": "block"},
        )
        self.approvals = Approvals(self.config, self.store, InSight(), Roster(self.homeserver))
        self.reply = Reply(self.turn, Intent(self.homeserver, GHOST), self.outbox, 0.02, entries)

    async def restart(self, **settings: Any) -> None:
        """The bridge ends and starts; the runtime goes on."""
        await self.stop()
        self.start(await self.outbox.of_turn(self.turn.turn_id), **settings)

    async def stop(self) -> None:
        if self.followed is not None:
            self.followed.cancel()
            await asyncio.gather(self.followed, return_exceptions=True)
        await self.approvals.close()

    def follow(self) -> None:
        self.followed = asyncio.create_task(self._follow())

    async def asked(self, event: ApprovalRequested = BASH) -> Approval:
        """Follow the turn until its question is in the room."""
        self.follow()
        key = approval_key(self.turn.turn_id, event.approval_id)

        async def shown() -> Approval | None:
            approval = await self.store.get(key)
            return approval if approval and await self._event_id(approval) else None

        approval = await eventually(shown)
        assert approval is not None
        return approval

    async def stored(self, event: ApprovalRequested = BASH) -> Approval:
        approval = await self.store.get(approval_key(self.turn.turn_id, event.approval_id))
        assert approval is not None
        return approval

    async def done(self) -> None:
        """Wait for the turn's end, and end it."""
        assert self.followed is not None
        await within(self.followed)
        assert self.events[-1] == DONE
        await self.end()

    async def end(self) -> None:
        await self.approvals.ended(self.turn, self.reply)
        await self.reply.freeze("done")
        await self.reply.deliver()

    async def _event_id(self, approval: Approval) -> str | None:
        entries = await self.outbox.of_turn(self.turn.turn_id)
        return next((e.event_id for e in entries if e.txn_id == approval.prompt_txn), None)

    async def _follow(self) -> None:
        request = TurnRequest("agent-1", "c1", self.turn.message_id, "hello")

        async def save(_: TurnState) -> None:
            pass

        async for event in self.runtime.run_turn(request, None, save):
            self.events.append(event)
            if isinstance(event, ApprovalRequested):
                await self.approvals.requested(event, request, self.runtime, self.reply)


@pytest.fixture
async def stage(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> AsyncGenerator[Stage]:
    await directory.reserve([agent(1)])
    event = message()
    new = new_turn(event, "agent-1", "hello")
    entry = InboxEntry(new.event_id, new.room_id, event, InboxState.ROUTED, [new])
    (turn,) = (await Inbox(database).admit("t1", [entry])).turns
    made = Stage(database, homeserver, turn, fake)
    yield made
    await made.stop()


def notices(fake: FakeHomeserver) -> list[Json]:
    """Questions as they were first sent."""
    contents = [event["content"] for event in fake.messages(ROOM)]
    asked = [c for c in contents if c[MARKER].get(BESIDE) == "approval"]
    return [c for c in asked if "m.new_content" not in c]


def reactions(fake: FakeHomeserver) -> list[str]:
    relations = [e["content"]["m.relates_to"] for e in fake.messages(ROOM, "m.reaction")]
    return [relation["key"] for relation in relations]


async def test_a_question_shows_everything_and_can_be_tapped(
    stage: Stage, fake: FakeHomeserver
) -> None:
    approval = await stage.asked()
    (question,) = notices(fake)
    for words in ("Bash", "ls -la", PERSON, "✅", "❌", "♾️", "30 minutes"):
        assert words in question["body"]
    assert question["m.mentions"] == {}
    assert fake.messages(ROOM)[0]["sender"] == GHOST
    await eventually(lambda: reactions(fake) == ["✅", "❌", "♾️"])
    (event,) = fake.messages(ROOM)
    first = fake.messages(ROOM, "m.reaction")[0]
    assert first["sender"] == GHOST
    assert first["content"]["m.relates_to"]["event_id"] == event["event_id"]
    assert await stage.store.asked_in(event["event_id"]) == approval
    assert stage.approvals.waits(stage.turn.turn_id)
    assert not stage.approvals.waits("turn-other")


@pytest.mark.parametrize(
    ("status", "answer", "shown"),
    [
        (ApprovalStatus.ALLOWED, Answer(True), f"✅ `Bash` (`ls -la`) allowed by `{PERSON}`"),
        (
            ApprovalStatus.ALWAYS,
            Answer(True),
            f"♾️ `Bash` (`ls -la`) allowed for good by `{PERSON}`",
        ),
        (
            ApprovalStatus.DENIED,
            Answer(False, message=f"Denied by {PERSON}: not today"),
            f"❌ `Bash` (`ls -la`) denied by `{PERSON}`: not today",
        ),
    ],
)
async def test_what_a_person_says_reaches_the_runtime_and_is_shown(
    stage: Stage, fake: FakeHomeserver, status: ApprovalStatus, answer: Answer, shown: str
) -> None:
    approval = await stage.asked()
    reason = "not today" if status is ApprovalStatus.DENIED else ""
    assert await stage.approvals.answer(approval, status, by=PERSON, reason=reason)
    await stage.done()
    assert stage.runtime.answers == {"call-1": answer}
    assert fake.bodies(ROOM) == [shown, "done"]
    assert not stage.approvals.waits(stage.turn.turn_id)
    stored = await stage.stored()
    assert (stored.status, stored.decided_by, stored.reason) == (status, PERSON, reason)


async def test_the_first_answer_counts(stage: Stage) -> None:
    approval = await stage.asked()
    answers = [
        stage.approvals.answer(approval, ApprovalStatus.DENIED, by=PERSON),
        stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by="@bob:test"),
    ]
    denied, allowed = await asyncio.gather(*answers)
    assert denied != allowed
    await stage.done()
    assert stage.runtime.answers["call-1"].allow is allowed


async def test_what_is_taken_back_before_the_question_stands_does_not_run(
    stage: Stage, fake: FakeHomeserver
) -> None:
    posting = fake.hold(SEND)
    stage.follow()
    await eventually(lambda: fake.matching(SEND))
    assert await stage.approvals.answer(await stage.stored(), ApprovalStatus.ALWAYS, by=PERSON)
    assert await stage.approvals.answer(await stage.stored(), ApprovalStatus.DENIED, by=PERSON)
    posting.set()
    await eventually(lambda: stage.runtime.answers)
    assert not stage.runtime.answers["call-1"].allow


async def test_what_the_runtime_does_not_offer_cannot_be_chosen(
    stage: Stage, fake: FakeHomeserver
) -> None:
    stage.asks(ApprovalRequested("call-1", "Bash", {"command": "ls"}, always=False))
    approval = await stage.asked()
    assert "♾️" not in notices(fake)[0]["body"]
    with pytest.raises(ValueError, match="Bash"):
        await stage.approvals.answer(approval, ApprovalStatus.ALWAYS, by=PERSON)
    await eventually(lambda: reactions(fake) == ["✅", "❌"])
    assert (await stage.stored()).status is ApprovalStatus.PENDING


async def test_nobody_answers_in_time(stage: Stage, fake: FakeHomeserver) -> None:
    stage.start(approval_timeout=0.1)
    await stage.asked()
    await eventually(lambda: stage.runtime.answers)
    assert not stage.approvals.waits(stage.turn.turn_id)
    await stage.done()
    assert not stage.runtime.answers["call-1"].allow
    assert "nobody answered" in stage.runtime.answers["call-1"].message
    assert fake.bodies(ROOM)[0].startswith("⌛ `Bash` (`ls -la`) denied: nobody answered")
    assert (await stage.stored()).status is ApprovalStatus.EXPIRED


async def test_too_late_is_too_late(stage: Stage) -> None:
    """Also where nobody has noticed yet that the time is over."""
    late = replace(await stage.asked(), expires_at=time.time())
    assert not await stage.approvals.answer(late, ApprovalStatus.ALLOWED, by=PERSON)
    assert (await stage.stored()).status is ApprovalStatus.PENDING


async def test_a_clock_that_jumps_leaves_nothing_to_answer(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """A machine that slept: no second of waiting has passed, and the time is up."""
    asked = await stage.asked()
    clock.stop()
    monkeypatch.setattr(time, "time", lambda: asked.expires_at)
    assert await stage.store.pending() == []
    assert not (await stage.stored()).is_open
    clock.advance(LOOK)
    clock.go()
    await stage.done()
    assert not stage.runtime.answers["call-1"].allow
    assert (await stage.stored()).status is ApprovalStatus.EXPIRED


async def test_several_questions_of_one_turn(stage: Stage, fake: FakeHomeserver) -> None:
    second = ApprovalRequested("call-2", "Write", {"path": "/tmp/x"})
    stage.asks(BASH, second)
    one = await stage.asked()
    assert await stage.approvals.answer(one, ApprovalStatus.ALLOWED, by=PERSON)
    key = approval_key(stage.turn.turn_id, "call-2")
    await eventually(lambda: len(notices(fake)) == 2)
    two = await stage.stored(second)
    assert two.key == key != one.key
    assert await stage.approvals.answer(two, ApprovalStatus.DENIED, by=PERSON)
    await stage.done()
    assert [answer.allow for answer in stage.runtime.answers.values()] == [True, False]


async def test_a_question_that_is_reported_again_is_asked_once(
    stage: Stage, fake: FakeHomeserver
) -> None:
    approval = await stage.asked()
    request = TurnRequest("agent-1", "c1", stage.turn.message_id, "hello")
    await stage.approvals.requested(BASH, request, stage.runtime, stage.reply)
    assert await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    await stage.done()
    assert len(notices(fake)) == 1
    assert len(fake.messages(ROOM)) == 3


async def test_a_runtime_that_begins_anew_asks_by_another_id(
    stage: Stage, fake: FakeHomeserver
) -> None:
    before = await stage.asked()
    stage.approvals.begun_anew(stage.turn)
    assert not stage.approvals.waits(stage.turn.turn_id)
    request = TurnRequest("agent-1", "c1", stage.turn.message_id, "hello")
    again = replace(BASH, approval_id="call-2")
    await stage.approvals.requested(again, request, stage.runtime, stage.reply)

    async def alone() -> bool:
        here = await stage.store.waiting_at(ROOM, "")
        return [one.approval_id for one in here] == ["call-2"]

    await eventually(alone)
    await eventually(lambda: any("ask again below" in body for body in fake.bodies(ROOM)))
    assert not await stage.approvals.answer(before, ApprovalStatus.ALLOWED, by=PERSON)
    approval = await stage.stored(again)
    assert await stage.approvals.answer(approval, ApprovalStatus.DENIED, by=PERSON)
    await stage.stop()
    await stage.end()
    assert fake.bodies(ROOM)[:2] == [
        "⌛ `Bash` (`ls -la`) did not run: I had to begin anew, and ask again below",
        f"❌ `Bash` (`ls -la`) denied by `{PERSON}`",
    ]


async def test_what_ends_before_it_begins_leaves_nothing_behind(stage: Stage) -> None:
    await stage.asked()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        stage.approvals.begun_anew(stage.turn)
        await stage.approvals.close()
        # Of a coroutine that nobody awaits, it is told when it is collected.
        gc.collect()
    assert [str(one.message) for one in told] == []


async def test_a_question_does_not_change_while_it_waits(stage: Stage) -> None:
    approval = await stage.asked()
    request = TurnRequest("agent-1", "c1", stage.turn.message_id, "hello")
    other = replace(BASH, arguments={"command": "rm -rf ~"})
    await stage.approvals.requested(other, request, stage.runtime, stage.reply)
    await stage.done()
    assert CHANGED in stage.runtime.answers["call-1"].message
    assert not await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)


async def test_a_runtime_that_asks_again_is_told_again(stage: Stage) -> None:
    told: list[bool] = []

    class Forgetful(MemoryRuntime):
        async def answer_approval(
            self,
            request: TurnRequest,
            approval_id: str,
            *,
            allow: bool,
            message: str = "",
        ) -> None:
            told.append(allow)

    approval = await stage.asked()
    assert await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    await stage.done()
    stage.start(await stage.outbox.of_turn(stage.turn.turn_id))
    request = TurnRequest("agent-1", "c1", stage.turn.message_id, "hello")
    for count in (1, 2):
        await stage.approvals.requested(BASH, request, Forgetful(), stage.reply)
        await eventually(lambda count=count: told == [True] * count)


async def test_the_bridge_restarts_while_a_person_is_awaited(
    stage: Stage, fake: FakeHomeserver
) -> None:
    before = await stage.asked()
    await stage.restart(approval_timeout=1)
    approval = await stage.asked()
    assert approval == before, "the time to answer was not stored"
    await eventually(lambda: stage.approvals.waits(stage.turn.turn_id))
    assert await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    await stage.done()
    assert stage.runtime.answers["call-1"].allow
    assert len(notices(fake)) == 1
    assert fake.bodies(ROOM) == [f"✅ `Bash` (`ls -la`) allowed by `{PERSON}`", "done"]


@pytest.mark.parametrize("answered", [False, True])
async def test_what_was_allowed_is_what_was_shown(stage: Stage, *, answered: bool) -> None:
    approval = await stage.asked()
    await stage.restart()
    if answered:
        assert await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    stage.asks(ApprovalRequested("call-1", "Bash", {"command": "rm -rf ~"}))
    stage.follow()
    await stage.done()
    assert not stage.runtime.answers["call-1"].allow
    assert CHANGED in stage.runtime.answers["call-1"].message


async def test_an_answer_given_before_the_turn_is_followed_again(
    stage: Stage, fake: FakeHomeserver
) -> None:
    approval = await stage.asked()
    await stage.restart()
    assert await stage.approvals.answer(approval, ApprovalStatus.DENIED, by=PERSON)
    stage.follow()
    await stage.done()
    assert not stage.runtime.answers["call-1"].allow
    assert fake.bodies(ROOM)[0].startswith("❌")


async def test_time_away_counts(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.asked()
    await stage.restart()
    over = text("UPDATE approvals SET expires_at = :now").bindparams(now=time.time())
    await stage.database.execute(over)
    stage.follow()
    await stage.done()
    assert not stage.runtime.answers["call-1"].allow
    assert fake.bodies(ROOM)[0].startswith("⌛")


async def test_killed_after_the_question_was_frozen(stage: Stage, fake: FakeHomeserver) -> None:
    sent = fake.hold(SEND)
    stage.follow()
    await eventually(lambda: fake.matching(SEND))
    await stage.restart()
    sent.set()
    approval = await stage.asked()
    assert await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    await stage.done()
    assert len(notices(fake)) == 1
    assert stage.runtime.answers["call-1"].allow


async def test_arguments_that_cannot_be_shown_are_denied(
    stage: Stage, fake: FakeHomeserver
) -> None:
    stage.asks(ApprovalRequested("call-1", "Bash", {"command": "x" * 70_000}))
    stage.follow()
    await stage.done()
    assert not stage.runtime.answers["call-1"].allow
    assert TOO_LONG in stage.runtime.answers["call-1"].message
    assert fake.bodies(ROOM) == [f"❌ `Bash` denied: {TOO_LONG}", "done"]
    assert reactions(fake) == []
    assert len(fake.messages(ROOM)) == 2, "there was nothing to edit"


async def test_a_question_that_the_homeserver_refuses_is_a_denial(
    stage: Stage, fake: FakeHomeserver
) -> None:
    fake.fail(SEND, Fault(403, {"errcode": "M_FORBIDDEN", "error": "no"}))
    stage.follow()
    await stage.done()
    assert not stage.runtime.answers["call-1"].allow
    assert (await stage.stored()).status is ApprovalStatus.DENIED


async def test_the_database_fails_when_it_is_to_be_asked(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(_: str) -> Approval | None:
        raise StoreUnavailable("on purpose")

    monkeypatch.setattr(stage.store, "get", unavailable)
    stage.follow()
    await eventually(lambda: stage.runtime.answers)
    assert not stage.runtime.answers["call-1"].allow
    assert not stage.approvals.waits(stage.turn.turn_id)


async def test_what_could_not_be_stored_waits_no_longer_than_its_turn(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object, **__: object) -> None:
        raise StoreUnavailable("on purpose")

    with monkeypatch.context() as patch:
        patch.setattr(stage.outbox, "freeze", unavailable)
        stage.follow()
        await eventually(lambda: stage.runtime.answers)
    assert not stage.runtime.answers["call-1"].allow
    await stage.done()
    assert stage.store.waiting == 0


async def test_the_database_fails_when_a_person_has_answered(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    approval = await stage.asked()

    async def unavailable(_: str) -> Approval | None:
        raise StoreUnavailable("on purpose")

    monkeypatch.setattr(stage.store, "get", unavailable)
    assert await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    await eventually(lambda: stage.runtime.answers)
    assert stage.runtime.answers["call-1"].allow


async def test_a_runtime_that_is_away_is_told_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    tries, answer = list[bool](), stage.runtime.answer_approval

    async def counted(request: TurnRequest, approval_id: str, **more: Any) -> None:
        tries.append(stage.runtime.available)
        await answer(request, approval_id, **more)

    monkeypatch.setattr(stage.runtime, "answer_approval", counted)
    approval = await stage.asked()
    stage.runtime.available = False
    assert await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    await clock.until(lambda: len(tries) > 1)
    assert stage.runtime.answers == {}
    stage.runtime.available = True
    await clock.until(lambda: stage.runtime.answers)
    await stage.done()
    assert tries.count(True) == 1
    assert stage.runtime.answers["call-1"].allow


async def test_a_turn_that_ends_takes_its_questions_along(
    stage: Stage, fake: FakeHomeserver
) -> None:
    approval = await stage.asked()
    await stage.end()
    assert not stage.approvals.waits(stage.turn.turn_id)
    assert (await stage.stored()).status is ApprovalStatus.LAPSED
    assert not await stage.approvals.answer(approval, ApprovalStatus.ALLOWED, by=PERSON)
    assert stage.runtime.answers == {}
    shown = "⌛ `Bash` (`ls -la`) was not answered before the turn ended"
    assert fake.bodies(ROOM) == [shown, "done"]


async def test_killed_between_the_lapse_and_the_replys_end(
    stage: Stage, fake: FakeHomeserver
) -> None:
    await stage.asked()
    await stage.approvals.ended(stage.turn, stage.reply)
    await stage.restart()
    await stage.end()
    assert fake.bodies(ROOM)[0].startswith("⌛")


async def test_a_turn_ends_while_its_question_is_on_its_way(
    stage: Stage, fake: FakeHomeserver
) -> None:
    sent = fake.hold(SEND)
    stage.follow()
    await eventually(lambda: fake.matching(SEND))
    ending = asyncio.create_task(stage.end())
    await settled(ending)
    sent.set()
    await within(ending)
    assert len(notices(fake)) == 1
    assert fake.bodies(ROOM)[0].startswith("⌛")
    assert await stage.store.pending() == []


async def test_a_turn_ends_while_its_question_is_stored(
    stage: Stage, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze, frozen, go_on = stage.outbox.freeze, asyncio.Event(), asyncio.Event()

    async def slow(entries: list[OutboxEntry], **more: Any) -> None:
        await freeze(entries, **more)
        frozen.set()
        await go_on.wait()

    monkeypatch.setattr(stage.outbox, "freeze", slow)
    stage.follow()
    await within(frozen.wait())
    ending = asyncio.create_task(stage.end())
    await settled(ending)
    go_on.set()
    await within(ending)
    assert len(notices(fake)) == 1
    assert fake.bodies(ROOM)[0].startswith("⌛")


async def test_a_turn_without_an_agent_ends_without_a_reply(stage: Stage) -> None:
    await stage.asked()
    await stage.approvals.ended(stage.turn)
    assert (await stage.stored()).status is ApprovalStatus.LAPSED


async def test_the_stream_never_waits_for_the_homeserver(
    stage: Stage, fake: FakeHomeserver
) -> None:
    sent = fake.hold(SEND)
    request = TurnRequest("agent-1", "c1", stage.turn.message_id, "hello")
    await within(stage.approvals.requested(BASH, request, stage.runtime, stage.reply))
    await eventually(lambda: fake.matching(SEND))
    assert stage.approvals.waits(stage.turn.turn_id)
    assert fake.messages(ROOM) == []
    sent.set()


@pytest.mark.parametrize(
    ("approvers", "requester", "allowed"),
    [
        ("requester", PERSON, {PERSON, "@root:test"}),
        ("requester", "@bad:test", {"@root:test"}),
        ("requester", GHOST, {"@root:test"}),
        ("users", PERSON, {PERSON, "@bob:test", "@root:test"}),
        ("users", GHOST, {"@root:test"}),
        ("admins", PERSON, {"@root:test"}),
    ],
)
async def test_who_may_answer(
    stage: Stage, approvers: str, requester: str, allowed: set[str]
) -> None:
    people = {PERSON, "@bob:test", "@root:test", "@bad:test", "@eve:elsewhere"}
    people |= {GHOST, "@agent_2:test", "@letta:test", "@letta_sms:test", "", "nobody"}
    approval = replace(await stage.asked(), requester=requester)
    await stage.restart(approvers=approvers)

    def may(status: ApprovalStatus, room_id: str = ROOM) -> set[str]:
        may_answer = stage.approvals.approvers.may_answer
        return {who for who in people if may_answer(approval, status, by=who, room_id=room_id)}

    assert may(ApprovalStatus.ALLOWED) == may(ApprovalStatus.DENIED) == allowed
    # It holds for all agents of the runtime.
    assert may(ApprovalStatus.ALWAYS) == {"@root:test"}
    # Who is elsewhere may not be in the room at all, and does not see what asks.
    assert may(ApprovalStatus.ALLOWED, "!2:test") == may(ApprovalStatus.ALWAYS, "!2:test") == set()
    assert may(ApprovalStatus.DENIED, "!2:test") == {"@root:test"}
    assert ("admin" in stage.approvals.approvers.who_may(approval)) == (len(allowed) < 3)


async def test_our_own_users_may_not_answer_even_as_admins(stage: Stage) -> None:
    approvers = Approvers(config_for(Path(), permissions={"*": "admin"}))
    approval = replace(await stage.asked(), requester=GHOST)
    for who in (PERSON, GHOST, "@letta:test"):
        may = approvers.may_answer(approval, ApprovalStatus.ALLOWED, by=who, room_id=ROOM)
        assert may == (who == PERSON)


@pytest.mark.parametrize(
    ("approvers", "requester", "sign"),
    [
        ("requester", PERSON, "♾️ (admins) this very call"),
        ("requester", "@root:test", "♾️ this very call"),
        ("users", "@root:test", "♾️ (admins) this very call"),
        ("admins", PERSON, "♾️ this very call"),
    ],
)
async def test_the_question_tells_who_may_allow_it_for_good(
    stage: Stage, fake: FakeHomeserver, approvers: str, requester: str, sign: str
) -> None:
    stage.turn.sender = requester
    stage.start(approvers=approvers)
    approval = await stage.asked()
    body = notices(fake)[0]["body"]
    assert f" · {sign} for good, whenever an admin asks\n" in body
    assert f"`!approve {approval.key[:6]}`" in body


async def test_when_an_approval_could_be_answered(stage: Stage) -> None:
    approval = await stage.asked()
    before, asked_at = approval.asked_at - 1, approval.asked_at

    async def open_at(when: float, thread_id: str = "") -> bool:
        return approval.key in [o.key for o in await stage.store.open_at(ROOM, thread_id, when)]

    assert await open_at(asked_at)
    assert not await open_at(before)
    assert not await open_at(asked_at, "$thread")
    assert await stage.approvals.answer(approval, ApprovalStatus.DENIED, by=PERSON)
    assert await open_at(asked_at)
    assert not await open_at(time.time())
