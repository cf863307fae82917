"""An agent's model that fails: told early, asked again once more by a tap, seen in health."""

import asyncio
from collections.abc import Iterable

import pytest
from tests.builders import message, reaction
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import DONE, until
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.app.checks import watch_parts
from letta_matrix.conversations.listening import Models
from letta_matrix.matrix.reactions import ASK_AGAIN
from letta_matrix.runtimes.memory import echo
from letta_matrix.runtimes.protocol import (
    ModelRetried,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)

ROOM = "!1:test"
EARLY = "My model does not answer (Connection error). I try again by myself"
AFTERWARDS = "My model did not answer at first, and I tried again."


class Model:
    """Fails, and then `ends` the turn so when the test says so."""

    def __init__(self, *ends: TurnEvent) -> None:
        self.ends = ends
        self.decided = asyncio.Event()

    def __call__(self, _request: TurnRequest) -> Iterable[TurnEvent | float]:
        yield ModelRetried("Connection error.")
        yield from until(self.decided)
        yield from self.ends


FAILS = TurnFinished(StopReason.ERROR, "Connection error.")


async def early_word(stage: Stage, fake: FakeHomeserver, model: Model) -> str:
    """The id of the word that says that the model fails, while the turn goes on."""
    stage.runtime.script = model
    await stage.admit(message("hello"))
    (word,) = await eventually(lambda: fake.messages(ROOM))
    assert word["content"]["body"].startswith(EARLY)
    assert ASK_AGAIN in word["content"]["body"]
    assert word["content"]["org.letta.matrix"]["offer"] is True
    return str(word["event_id"])


async def test_what_is_asked_again_after_all_failed_is_asked_once(
    stage: Stage, fake: FakeHomeserver
) -> None:
    model = Model(FAILS)
    early = await early_word(stage, fake, model)
    await stage.admit(reaction(early, ASK_AGAIN))
    await stage.admit(reaction(early, ASK_AGAIN, sender="@bob:test"))
    stage.runtime.script = echo
    model.decided.set()
    await stage.idle()
    bodies = fake.bodies(ROOM)
    assert bodies[0] == AFTERWARDS
    assert bodies[1].startswith("I could not finish: Connection error.")
    assert bodies[2:] == ["echo: hello"]
    # What both words offer is one offer.
    (last,) = [one for one in fake.messages(ROOM) if "could not finish" in one["content"]["body"]]
    await stage.tell(reaction(last["event_id"], ASK_AGAIN))
    assert len(fake.bodies(ROOM)) == 3


async def test_what_came_to_an_answer_is_not_asked_again(
    stage: Stage, fake: FakeHomeserver
) -> None:
    model = Model(TextDelta("0", "Hello."), DONE)
    early = await early_word(stage, fake, model)
    await stage.admit(reaction(early, ASK_AGAIN))
    model.decided.set()
    await stage.idle()
    assert fake.bodies(ROOM) == [AFTERWARDS, "Hello."]
    assert len(stage.runtime.asked) == 1
    await stage.tell(message("and you?"))
    assert len(stage.runtime.asked) == 2


@pytest.mark.parametrize("ends", [(FAILS,), (TextDelta("0", "Hello."), DONE)])
async def test_health_tells_whose_model_fails(
    stage: Stage, fake: FakeHomeserver, ends: tuple[TurnEvent, ...]
) -> None:
    vitals = stage.vitals
    watch_parts(stage.parts, [])
    model = Model(*ends)
    await early_word(stage, fake, model)
    trouble = vitals.of("models")
    assert trouble is not None
    assert trouble.says == "the model of 1 agent does not answer"
    assert trouble.who == "Agent 1: Connection error."
    assert "provider" in trouble.remedy
    model.decided.set()
    await stage.idle()
    assert (vitals.of("models") is not None) is (ends == (FAILS,))
    stage.runtime.script = echo
    await stage.tell(message("hello"))
    assert vitals.of("models") is None


async def test_a_failure_that_nobody_meets_again_is_forgotten(clock: Clock) -> None:
    clock.stop()
    models = Models()
    models.failed("agent-1", "no")
    clock.advance(899)
    models.failed("agent-2", "neither")
    assert models.failing == {"agent-1": "no", "agent-2": "neither"}
    clock.advance(1)
    assert models.failing == {"agent-2": "neither"}
