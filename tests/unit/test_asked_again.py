"""An agent that had to begin anew asks again: one question stands, and people are heard."""

from collections.abc import Callable, Generator
from typing import Any

import pytest
from tests.builders import PERSON, message, reaction, reply_to
from tests.stage import Stage
from tests.unit.test_approval_flow import offered, question
from tests.waiting import Clock, eventually

from letta_matrix.conversations.approval_text import ANSWER_FIRST
from letta_matrix.runtimes.memory import Answer, MemoryRuntime
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)

ROOM = "!1:test"
SUPERSEDED = "⌛ `Bash` (`ls`) did not run: I had to begin anew, and ask again below"
Script = Callable[[TurnRequest], Generator[TurnEvent | float, Answer | None]]


def asking(call_id: str, *commands: str) -> Script:
    """Asks for each command, one after the other, and says which were allowed."""

    def script(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
        ran = [f"{request.text}:"]
        for number, command in enumerate(commands if request.text == "look" else ()):
            name, arguments = f"{call_id} {command} {number}", {"command": command}
            answer = yield ApprovalRequested(name, "Bash", arguments)
            ran += [command] if answer and answer.allow else []
        yield TextDelta("0", " ".join(ran))
        yield TurnFinished(StopReason.END_TURN)

    return script


async def first(stage: Stage) -> str:
    """The question of a process that ends, and of a runtime that forgets it."""
    stage.fake.members[ROOM] = {"@agent_1:test", PERSON}
    stage.runtime.script = asking("first", "ls")
    return await question(stage)


async def forget(stage: Stage, *commands: str) -> None:
    """Another process, where the agent asks for these once the turn is taken up."""
    await stage.use(MemoryRuntime(script=asking("second", *commands)))


async def stands(stage: Stage, command: str = "ls") -> str:
    """The second question's event, once it can be answered."""

    async def alone() -> bool:
        waiting = await stage.stores.approvals.waiting_at(ROOM, "")
        return [one.approval_id[:-2] for one in waiting] == [f"second {command}"]

    await eventually(alone)
    asked = [one for one in stage.fake.messages(ROOM) if "May I run" in one["content"]["body"]]
    event_id = str(asked[-1]["event_id"])
    await eventually(lambda: offered(stage, event_id) == ["✅", "❌"])
    return event_id


async def test_the_one_below_is_the_one_that_a_word_answers(stage: Stage) -> None:
    await first(stage)
    await stage.admit(message("hm"))
    await eventually(lambda: ANSWER_FIRST in stage.fake.bodies(ROOM))
    await forget(stage, "ls")
    await stage.dispatcher.recover()
    await stands(stage)
    await eventually(lambda: SUPERSEDED in stage.fake.bodies(ROOM))
    await stage.admit(message("well"))
    await stage.tell(message("yes"))
    said = stage.fake.bodies(ROOM, "m.text")
    assert said == ["look: ls", "hm:", "well:"]
    assert stage.fake.bodies(ROOM).count(ANSWER_FIRST) == 1
    assert stage.fake.bodies(ROOM).count(SUPERSEDED) == 1


async def test_what_ended_takes_no_answer(stage: Stage) -> None:
    ended = await first(stage)
    await forget(stage, "ls")
    await stage.dispatcher.recover()
    asked = await stands(stage)
    await stage.admit(reaction(ended, "✅"))
    await eventually(lambda: len(stage.dispatcher.queues.unfinished()) == 1)
    assert stage.runtime.answers == {}
    await stage.tell(reaction(asked, "❌"))
    assert stage.fake.bodies(ROOM, "m.text") == ["look:"]
    assert SUPERSEDED in stage.fake.bodies(ROOM)


WAYS: dict[str, Callable[[str], Any]] = {
    "tap": lambda asked: reaction(asked, "✅"),
    "word": lambda _: message("yes"),
    "reply": lambda asked: reply_to(asked, "yes"),
}


@pytest.mark.parametrize("way", WAYS)
async def test_who_answered_before_it_began_anew_need_not_again(
    stage: Stage, clock: Clock, way: str
) -> None:
    asked = await first(stage)
    await forget(stage, "ls", "rm")
    # A new process asks who is in the room; what it is not told in time makes a word no answer.
    clock.stop()
    await stage.admit(WAYS[way](asked))
    clock.go()
    await answered(stage)
    await stage.dispatcher.recover()
    other = await stands(stage, "rm")
    await stage.tell(reaction(other, "❌"))
    assert stage.fake.bodies(ROOM, "m.text") == ["look: ls"]
    shown = [one for one in stage.fake.bodies(ROOM) if "`Bash` (" in one]
    assert shown == [
        f"✅ `Bash` (`ls`) allowed by `{PERSON}`",
        f"❌ `Bash` (`rm`) denied by `{PERSON}`",
    ]


async def test_an_answer_is_to_that_call_alone(stage: Stage) -> None:
    asked = await first(stage)
    await forget(stage, "rm")
    await stage.admit(reaction(asked, "✅"))
    await answered(stage)
    await stage.dispatcher.recover()
    other = await stands(stage, "rm")
    assert stage.runtime.answers == {}
    await stage.tell(reaction(other, "❌"))
    shown = [one for one in stage.fake.bodies(ROOM) if "(`ls`)" in one]
    assert shown == [
        "⌛ `Bash` (`ls`) did not run: the turn ended before the answer could reach it"
    ]


async def test_one_answer_is_to_one_call(stage: Stage) -> None:
    asked = await first(stage)
    await forget(stage, "ls", "ls")
    await stage.admit(reaction(asked, "✅"))
    await answered(stage)
    await stage.dispatcher.recover()
    await stage.tell(reaction(await stands(stage), "❌"))
    assert stage.fake.bodies(ROOM, "m.text") == ["look: ls"]


async def answered(stage: Stage) -> None:
    """Nothing waits for a person, and no turn but the one that was left.

    An answer that is a message has a turn of its own: what is taken up while it runs, runs twice.
    """

    async def all_said() -> bool:
        return not await stage.stores.approvals.pending()

    await eventually(all_said)
    await stage.idle()
