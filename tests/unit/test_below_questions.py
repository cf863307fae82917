"""What follows an approval stands below it, and what waits is told."""

from collections.abc import Generator
from typing import Any

import pytest
from tests.builders import message, reaction, said_in
from tests.stage import Stage
from tests.waiting import Clock, eventually, settled

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
BEFORE, AFTER = "I will look.", "\n\nThere it is."


def ask_in_between(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """Says something, asks, and goes on in the same message."""
    if not request.text.endswith("look"):
        yield TextDelta("0", f"echo: {request.text}")
    else:
        yield TextDelta("0", BEFORE)
        call = ApprovalRequested(f"call {request.message_id}", "Bash", {"command": "ls"}, False)
        answer = (yield call) or Answer(False)
        yield TextDelta("0", AFTER if answer.allow else "\n\nThen not.")
    yield TurnFinished(StopReason.END_TURN)


@pytest.fixture
async def asking(stage: Stage) -> Stage:
    stage.runtime.script = ask_in_between
    return stage


async def question(stage: Stage) -> dict[str, Any]:
    stage.fake.members.setdefault(ROOM, {"@ann:test", "@agent_1:test"})
    await stage.admit(message("look"))

    def asked() -> list[dict[str, Any]]:
        return [one for one in stage.fake.messages(ROOM) if "May I run" in str(one["content"])]

    (found,) = await eventually(asked)
    # Our own reactions offer the answers once the question's event is known.
    await eventually(lambda: len(stage.fake.messages(ROOM, "m.reaction")) == 2)
    return found


async def test_what_follows_stands_below_the_question(asking: Stage) -> None:
    asked = await question(asking)
    await asking.tell(reaction(asked["event_id"], "✅"))
    before, shown, after = asking.fake.bodies(ROOM)
    assert (before, after) == (BEFORE, AFTER.strip())
    assert shown.startswith("✅ `Bash`")
    # Whole by the time of the question: nothing above it changes afterwards.
    edits = [one for one in asking.fake.messages(ROOM) if "m.new_content" in one["content"]]
    first = asking.fake.messages(ROOM)[0]["event_id"]
    places = [one["content"]["m.relates_to"]["event_id"] for one in edits]
    assert first not in places[places.index(asked["event_id"]) :]


async def test_it_stands_below_after_a_crash_too(asking: Stage) -> None:
    asked = await question(asking)
    await asking.recover()
    await asking.tell(reaction(asked["event_id"], "✅"))
    bodies = asking.fake.bodies(ROOM)
    assert [body for body in bodies if "Bash" not in body] == [BEFORE, AFTER.strip()]


async def test_the_question_pings_those_who_may_answer(asking: Stage) -> None:
    asking.fake.members[ROOM] = {"@ann:test", "@bob:test", "@root:test", "@agent_1:test"}
    asked = await question(asking)
    content = asked["content"]
    assert content["msgtype"] == "m.text"
    assert content["m.mentions"] == {"user_ids": ["@ann:test"]}
    await asking.tell(reaction(asked["event_id"], "❌"))
    edits = [one["content"] for one in asking.fake.messages(ROOM) if "❌" in str(one["content"])]
    assert edits[-1]["m.new_content"]["m.mentions"] == {}


async def test_what_waits_behind_a_question_is_told_once(asking: Stage) -> None:
    asked = await question(asking)
    await asking.admit(message("and what about this?"))
    await eventually(lambda: ANSWER_FIRST in asking.fake.bodies(ROOM))
    # Neither words that may mean anything, nor others' words.
    await asking.admit(message("ok, hello?"), message("yes", sender="@bob:test"))
    await settled()
    assert asking.fake.bodies(ROOM).count(ANSWER_FIRST) == 1
    await asking.tell(reaction(asked["event_id"], "✅"))
    assert [one.text.rpartition("\n")[2] for one in asking.runtime.asked][1:] == [
        "and what about this?",
        "ok, hello?",
        "yes",
    ]


async def test_a_word_is_an_answer_and_no_question(asking: Stage) -> None:
    await question(asking)
    await asking.tell(message("ok"))
    assert [one.text for one in asking.runtime.asked] == ["look"]
    assert asking.fake.bodies(ROOM)[-1] == AFTER.strip()
    # Once it is answered, the same word is a message.
    await asking.tell(message("ok"))
    assert asking.fake.bodies(ROOM)[-1] == "echo: ok"


async def test_a_word_elsewhere_is_a_message(asking: Stage) -> None:
    asked = await question(asking)
    await asking.admit(said_in("$a", "yes"))
    await eventually(lambda: "echo: yes" in asking.fake.bodies(ROOM))
    await asking.tell(reaction(asked["event_id"], "❌"))
    assert asking.fake.bodies(ROOM)[-1] == "Then not."


@pytest.mark.parametrize(
    "again", ["Let me see.", "", "All begins from the start.", f"{BEFORE} Again, and more closely."]
)
async def test_what_is_told_anew_loses_nothing(asking: Stage, clock: Clock, again: str) -> None:
    """Who is asked anew after a restart says other words before and after the question."""
    await question(asking)

    def anew(_: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
        yield TextDelta("0", again)
        yield ApprovalRequested("anew", "Bash", {"command": "ls"}, False)
        yield TextDelta("0", " 12 o'clock")
        yield TurnFinished(StopReason.END_TURN)

    # A runtime that has forgotten the turn begins it anew.
    await asking.use(MemoryRuntime(script=anew))
    await asking.dispatcher.recover()

    def bodies() -> list[str]:
        return asking.fake.bodies(ROOM)

    await eventually(lambda: sum("Bash" in body for body in bodies()) == 2)
    await clock.until(lambda: any("ask again below" in body for body in bodies()))
    await asking.tell(message("yes"))
    said = [body for body in bodies() if "Bash" not in body]
    new = again.removeprefix(BEFORE).strip()
    assert said == [BEFORE, *([new] if new else []), "12 o'clock"]


async def test_its_status_says_that_it_waits(asking: Stage) -> None:
    asked = await question(asking)
    await asking.admit(message("!status"))
    told = await eventually(
        lambda: [body for body in asking.fake.bodies(ROOM) if "- Now:" in body], what="the status"
    )
    assert "waiting for an answer to its question" in told[0]
    assert "Approvals that wait" in told[0]
    await asking.tell(reaction(asked["event_id"], "✅"))
