"""A tool's approval from the question in the room to the agent's answer, as people give it."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from tests.builders import message, reaction, reply_to, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

from letta_matrix.conversations import notices
from letta_matrix.runtimes.memory import Answer
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    TextDelta,
    ToolReturned,
    ToolStarted,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)
from letta_matrix.store.approvals import Approval, ApprovalStatus
from letta_matrix.store.outbox import OutboxEntry

ROOM = "!1:test"
BOB = "@bob:test"


def ask_for_bash(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """Wants to run Bash, and says what came of it."""
    yield from asking_for(request, always=False)


def ask_for_bash_for_good(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """The same where the runtime offers "always"."""
    yield from asking_for(request, always=True)


def asking_for(
    request: TurnRequest, *, always: bool
) -> Generator[TurnEvent | float, Answer | None]:
    call_id, arguments = f"call {request.message_id}", {"command": "ls"}
    answer = yield ApprovalRequested(call_id, "Bash", arguments, always=always)
    answer = answer or Answer(False)
    word = "Ran it." if answer.allow else f"I may not: {answer.message}"
    yield TextDelta("0", word)
    yield TurnFinished(StopReason.END_TURN)


@pytest.fixture
async def asking(stage: Stage) -> Stage:
    stage.runtime.script = ask_for_bash
    return stage


async def question(stage: Stage, event: Any = None) -> str:
    """Tell agent 1 to look; the event that asks whether it may."""
    before = len(stage.fake.messages(ROOM))
    await stage.admit(event or message("look"))
    await eventually(lambda: len(stage.fake.messages(ROOM)) > before)
    asked = stage.fake.messages(ROOM)[before]
    assert "Bash" in asked["content"]["body"]
    assert "ls" in asked["content"]["body"]
    # Our own reactions offer the answers once the question's event is known.
    await eventually(lambda: offered(stage, asked["event_id"]) == ["✅", "❌"])
    return str(asked["event_id"])


def offered(stage: Stage, asked: str) -> list[str]:
    """The answers that our reactions offer, without the one for good."""
    relations = [
        event["content"]["m.relates_to"] for event in stage.fake.messages(ROOM, "m.reaction")
    ]
    return [one["key"] for one in relations if one["event_id"] == asked][:2]


def said(stage: Stage) -> list[str]:
    """The agent's own words, without what stands beside them."""
    return stage.fake.bodies(ROOM, "m.text")


TAP: Callable[[str], Any] = partial(reaction, key="✅")
WORD: Callable[[str], Any] = partial(reply_to, body="yes")


@pytest.mark.parametrize("answer", [TAP, WORD], ids=["tap", "word"])
async def test_an_answer_may_come_before_the_questions_id_is_stored(
    asking: Stage, monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], Any]
) -> None:
    """People see the question at once, however late the homeserver's word to us is."""
    confirm, stored = asking.stores.outbox.confirm, asyncio.Event()

    async def slowly(entry: OutboxEntry, event_id: str) -> None:
        await stored.wait()
        await confirm(entry, event_id)

    monkeypatch.setattr(asking.stores.outbox, "confirm", slowly)
    await asking.admit(message("look"))
    (asked,) = await eventually(lambda: asking.fake.messages(ROOM))
    (approval,) = await asking.stores.approvals.waiting_at(ROOM, "")
    await asking.admit(answer(asked["event_id"]))

    async def allowed() -> bool:
        now = await asking.stores.approvals.get(approval.key)
        return now is not None and now.status is ApprovalStatus.ALLOWED

    await eventually(allowed)
    stored.set()
    await asking.idle()
    assert said(asking)[-1] == "Ran it."


async def nothing_happens(stage: Stage) -> None:
    """All is done but the turn that asks, and that goes on asking."""

    def asks() -> bool:
        left = stage.dispatcher.queues.unfinished()
        return len(left) == 1 and stage.parts.approvals.waits(left[0].turn_id)

    await eventually(asks)
    await settled()
    assert len(await stage.stores.approvals.pending()) == 1
    assert stage.runtime.answers == {}
    assert said(stage) == []


Way = Callable[[str], dict[str, Any]]
"""An event that refers to a question."""

ANSWERS: dict[str, tuple[Way, str]] = {
    "✅": (lambda asked: reaction(asked, "✅"), "Ran it."),
    "❌": (lambda asked: reaction(asked, "❌"), "I may not: "),
    "👍🏽": (lambda asked: reaction(asked, "👍🏽"), "Ran it."),
    "☑️": (lambda asked: reaction(asked, "☑️"), "Ran it."),
    "👎": (lambda asked: reaction(asked, "👎"), "I may not: "),
    "yes": (lambda asked: reply_to(asked, "yes"), "Ran it."),
    "a word": (lambda _: message("Yes."), "Ran it."),
    "a sign": (lambda _: message("👍🏿"), "Ran it."),
    "a no": (lambda _: message("NO!"), "I may not: "),
    "no": (lambda asked: reply_to(asked, "no, not now"), "I may not: "),
    "!approve": (lambda _: message("!approve"), "Ran it."),
    "!deny": (lambda _: message("!deny not now"), "I may not: "),
    "admin": (lambda asked: reaction(asked, "✅", sender="@root:test"), "Ran it."),
}
FOREIGN: dict[str, Way] = {
    "stranger": lambda asked: reaction(asked, "✅", sender=BOB),
    "blocked": lambda asked: reaction(asked, "✅", sender="@ann:elsewhere"),
    "the agent": lambda asked: reaction(asked, "✅", sender="@agent_1:test"),
    "another agent": lambda asked: reaction(asked, "✅", sender="@agent_2:test"),
    "another room": lambda asked: reaction(asked, "✅", "!2:test"),
    "another sign": lambda asked: reaction(asked, "👀"),
    "always, which is not offered": lambda asked: reaction(asked, "♾️"),
    "stranger's reply": lambda asked: reply_to(asked, "yes", sender=BOB),
    "stranger's command": lambda _: message("!approve", sender=BOB),
    "command in another room": lambda _: message("!approve", "!2:test"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_person_answers(fake: FakeHomeserver, database_file: Path, name: str) -> None:
    way, words = ANSWERS[name]
    permissions = {"test": "user", "@root:test": "admin"}
    stage = Stage(fake, database_file, permissions=permissions)
    stage.runtime.script = ask_for_bash
    await stage.open()
    await stage.add(1)
    fake.members[ROOM] = {"@ann:test", "@agent_1:test"}
    asked = await question(stage)
    await stage.tell(way(asked))
    (reply,) = said(stage)
    assert reply.startswith(words)
    await stage.close()


async def test_for_good_is_for_admins(fake: FakeHomeserver, database_file: Path) -> None:
    permissions = {"test": "user", "@root:test": "admin"}
    stage = Stage(fake, database_file, permissions=permissions)
    stage.runtime.script = ask_for_bash_for_good
    await stage.open()
    await stage.add(1)
    asked = await question(stage)
    assert "♾️ (admins) this very call for good" in fake.bodies(ROOM)[0]
    await stage.admit(reaction(asked, "♾️"), reply_to(asked, "always"))
    await nothing_happens(stage)
    await stage.tell(reaction(asked, "♾️", sender="@root:test"))
    assert said(stage) == ["Ran it."]
    await stage.close()


@pytest.fixture
async def kept(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Stage]:
    """Agent 1 may run `ls` for good."""
    permissions = {"test": "user", "@root:test": "admin"}
    stage = Stage(fake, database_file, permissions=permissions)
    stage.runtime.script = ask_for_bash_for_good
    await stage.open()
    await stage.add(1)
    asked = await question(stage, message("look", sender="@root:test"))
    await stage.tell(reaction(asked, "♾️", sender="@root:test"))
    yield stage
    await stage.close()


async def test_what_is_allowed_for_good_asks_no_admin_again(kept: Stage) -> None:
    await kept.tell(message("look again", sender="@root:test"))
    assert said(kept) == ["Ran it.", "Ran it."]
    assert len([body for body in kept.fake.bodies(ROOM) if "Bash" in body]) == 1


async def test_what_is_allowed_for_good_asks_when_others_want_it(kept: Stage) -> None:
    await question(kept, message("look"))
    assert said(kept) == ["Ran it."]


@pytest.mark.parametrize("change", [{"command": "ls -l"}, {"command": "ls", "background": True}])
async def test_another_call_asks(kept: Stage, change: dict[str, object]) -> None:
    def other(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
        yield ApprovalRequested("other", "Bash", change, always=True)
        yield TurnFinished(StopReason.END_TURN)

    kept.runtime.script = other
    await question(kept, message("look", sender="@root:test"))


async def test_what_was_allowed_for_good_is_taken_back(kept: Stage) -> None:
    (approval,) = await kept.stores.approvals.kept("agent-1")
    await kept.tell(message(f"!deny {approval.key[:6]}", sender="@root:test"))
    assert await kept.stores.approvals.kept() == []
    await question(kept, message("look", sender="@root:test"))


async def test_what_is_allowed_for_good_outlives_its_turn(kept: Stage) -> None:
    await kept.stores.inbox.prune(time.time() + 1)
    await kept.tell(message("look again", sender="@root:test"))
    assert said(kept) == ["Ran it.", "Ran it."]
    assert await kept.stores.approvals.pending() == []


async def test_a_denials_reason_reaches_the_agent(asking: Stage) -> None:
    asked = await question(asking)
    await asking.tell(reply_to(asked, "no, use the trash instead"))
    (reply,) = said(asking)
    assert "use the trash instead" in reply


@pytest.mark.parametrize("name", FOREIGN)
async def test_what_does_not_count_changes_nothing(asking: Stage, name: str) -> None:
    asked = await question(asking)
    await asking.admit(FOREIGN[name](asked))
    await nothing_happens(asking)
    await asking.tell(reaction(asked, "✅"))
    assert said(asking) == ["Ran it."]


async def test_the_first_answer_counts(asking: Stage) -> None:
    asked = await question(asking)
    await asking.tell(reaction(asked, "❌"), reaction(asked, "✅"), reply_to(asked, "yes"))
    assert said(asking)[0].startswith("I may not: ")
    assert len(asking.runtime.answers) == 1


async def test_answers_are_taken_in_the_order_they_were_given(
    asking: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await question(asking)
    approvals, begun, gate = asking.parts.approvals, list[ApprovalStatus](), asyncio.Event()
    answer = approvals.answer

    async def slowly(approval: Approval, status: ApprovalStatus, **more: str) -> bool:
        begun.append(status)
        await gate.wait()
        return await answer(approval, status, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(approvals, "answer", slowly)
    await asking.admit(reaction(asked, "❌"), reaction(asked, "✅"))
    await eventually(lambda: begun)
    for _ in range(10):
        # As long as the other would take to come as far.
        await asking.stores.approvals.pending()
    assert begun == [ApprovalStatus.DENIED]
    gate.set()
    await asking.idle()
    assert begun == [ApprovalStatus.DENIED, ApprovalStatus.ALLOWED]
    assert said(asking)[0].startswith("I may not: ")


@pytest.mark.parametrize("key", ["✅", "❌"])
async def test_a_restart_in_between_changes_nothing(asking: Stage, key: str) -> None:
    asked = await question(asking)
    await asking.recover()
    await nothing_happens(asking)
    await asking.tell(reaction(asked, key))
    (reply,) = said(asking)
    assert reply.startswith("Ran it." if key == "✅" else "I may not: ")
    questions = [body for body in asking.fake.bodies(ROOM) if "Bash" in body]
    assert len(questions) == 1


async def test_an_answer_given_while_we_were_away_counts(asking: Stage) -> None:
    """It comes with the first transaction after the start, when the turn may not ask yet."""
    asked = await question(asking)
    await asking.recover()
    await asking.tell(reaction(asked, "✅"))
    assert said(asking) == ["Ran it."]


async def test_nobody_answers_in_time(asking: Stage, clock: Clock) -> None:
    asked = await question(asking)
    clock.advance(1200)
    await nothing_happens(asking)
    clock.advance(600)
    await asking.idle()
    (reply,) = said(asking)
    assert reply.startswith("I may not: ")
    await asking.tell(reaction(asked, "✅"))
    assert [answer.allow for answer in asking.runtime.answers.values()] == [False]


async def test_it_times_out_while_we_are_away(asking: Stage) -> None:
    asked = await question(asking)
    await asking.again()
    over = text("UPDATE approvals SET expires_at = :now").bindparams(now=time.time())
    await asking.stores.database.execute(over)
    await asking.dispatcher.recover()
    await asking.tell(reaction(asked, "✅"))
    assert [answer.allow for answer in asking.runtime.answers.values()] == [False]


async def test_two_threads_ask_side_by_side(asking: Stage) -> None:
    first = await question(asking, said_in("$a", "look"))
    second = await question(asking, said_in("$b", "look"))
    await asking.admit(reaction(second, "✅"))
    await eventually(lambda: said(asking) == ["Ran it."])
    await eventually(lambda: asking.dispatcher.queues.waiting == 1)
    await asking.tell(reaction(first, "❌"))
    assert said(asking)[1].startswith("I may not: ")


def ask_for_bash_and_tell(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """The same, as runtimes tell it: a call that was denied has failed without running."""
    answer = (yield ApprovalRequested("a", "Bash", {"command": "ls"})) or Answer(False)
    yield ToolStarted("c", "Bash", '{"command": "ls"}')
    yield ToolReturned("c", answer.allow, answer.message or "note")
    yield ToolStarted("d", "Read", "{}")
    yield ToolReturned("d", False, "Denied by the disk")
    yield TextDelta("0", "Ran it." if answer.allow else "I may not.")
    yield TurnFinished(StopReason.END_TURN)


@pytest.mark.parametrize(("tap", "tools"), [("✅", 2), ("❌", 1)])
async def test_a_denied_call_is_told_by_its_question_and_is_no_tool_in_use(
    asking: Stage, tap: str, tools: int
) -> None:
    asking.runtime.script = ask_for_bash_and_tell
    asked = await question(asking)
    await asking.tell(reaction(asked, tap))
    (trace,) = [one for one in asking.fake.bodies(ROOM) if one.startswith("🔧")]
    assert trace.startswith(f"🔧 {tools} tool")
    assert trace.count("Bash") == tools - 1
    assert sum(one.startswith(tap) for one in asking.fake.bodies(ROOM)) == 1


@pytest.mark.parametrize("call_id", ["c", ""])
@pytest.mark.parametrize("tool", ["Bash", "Read"])
async def test_what_only_prints_a_denial_is_a_tool_in_use(
    asking: Stage, call_id: str, tool: str
) -> None:
    """Nobody hides what has run by repeating what a denied call was told."""

    def script(_: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
        answer = yield ApprovalRequested("a", "Bash", {"command": "ls"}, call_id=call_id)
        denial = "" if answer is None else answer.message
        yield ToolStarted("c", "Bash", '{"command": "ls"}')
        yield ToolReturned("c", False, denial)
        yield ToolStarted("d", tool, '{"command": "wipe"}')
        yield ToolReturned("d", False, f"wiped. {denial}")
        yield TextDelta("0", "I may not.")
        yield TurnFinished(StopReason.END_TURN)

    asking.runtime.script = script
    await asking.tell(reaction(await question(asking), "❌"))
    (trace,) = [one for one in asking.fake.bodies(ROOM) if one.startswith("🔧")]
    assert trace.startswith("🔧 1 tool")
    assert "wiped." in trace


@pytest.mark.parametrize("target", ["question", "message"])
async def test_a_stop_sign_ends_it(asking: Stage, target: str) -> None:
    event = message("look")
    asked = await question(asking, event)
    await asking.tell(reaction(asked if target == "question" else event["event_id"], "🛑"))
    assert asking.runtime.answers == {}
    assert notices.STOPPED in asking.fake.bodies(ROOM)
    await asking.tell(reaction(asked, "✅"))
    assert asking.runtime.answers == {}


async def test_an_agents_message_is_nobodys_wish(asking: Stage) -> None:
    """What another agent asked for, only an admin may approve."""
    event = message("look", sender="@agent_2:test")
    event["content"]["org.letta.matrix"] = {"prompts": "agent-1", "hops": 1}
    asked = await question(asking, event)
    await asking.admit(reaction(asked, "✅"), reaction(asked, "✅", sender="@agent_2:test"))
    await nothing_happens(asking)


@pytest.mark.parametrize("command", ["!cancel", "!letta cancel"])
async def test_a_command_stops_what_runs(stage: Stage, fake: FakeHomeserver, command: str) -> None:
    await stage.admit(message("ramble"))
    await eventually(lambda: fake.messages(ROOM))
    await stage.tell(message(command))
    assert notices.STOPPED in fake.bodies(ROOM)
    assert stage.dispatcher.counters["turns_done"] == 2
