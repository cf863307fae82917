"""A tap on 🔁 wishes a message again; it makes nobody's words the tapper's, nor their rights."""

from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import pytest
from tests.builders import message, reaction, redaction
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.matrix.reactions import ASK_AGAIN
from letta_matrix.runtimes.faults import TurnLost
from letta_matrix.runtimes.memory import Answer
from letta_matrix.runtimes.protocol import (
    ApprovalRequested,
    StopReason,
    TextDelta,
    TurnEvent,
    TurnFinished,
    TurnRequest,
)
from letta_matrix.store.turns import Turn

ROOM, ADMIN, BOB, EVE = "!1:test", "@root:test", "@bob:test", "@eve:test"

OFFERED = ("✅", "❌", "♾️")


def run_ls(request: TurnRequest) -> Generator[TurnEvent | float, Answer | None]:
    """Wants to run `ls`, and says what came of it."""
    call = ApprovalRequested(f"call {request.message_id}", "Bash", {"command": "ls"}, always=True)
    answer = (yield call) or Answer(False)
    yield TextDelta("0", "Ran it." if answer.allow else "I may not.")
    yield TurnFinished(StopReason.END_TURN)


def lose(_request: object) -> Any:
    raise TurnLost("it restarted", tools_started=True)


@pytest.fixture
async def kept(fake: FakeHomeserver, database_file: Path) -> AsyncGenerator[Stage]:
    """An admin has allowed agent 1 `ls` for good, and Bob's message that wants it was lost."""
    stage = Stage(fake, database_file, permissions={"test": "user", ADMIN: "admin"})
    stage.runtime.script = run_ls
    await stage.open()
    await stage.add(1)
    await stage.admit(message("look", sender=ADMIN))
    # Our own reactions offer the answers once the question's event is known.
    await eventually(lambda: len(fake.messages(ROOM, "m.reaction")) == len(OFFERED))
    (question,) = fake.messages(ROOM)
    await stage.tell(reaction(question["event_id"], "♾️", sender=ADMIN))
    assert fake.bodies(ROOM, "m.text") == ["Ran it."]
    stage.runtime.script = lose
    await stage.tell(message("look for me", sender=BOB))
    stage.runtime.script = run_ls
    yield stage
    await stage.close()


def offer(stage: Stage) -> str:
    return str(stage.fake.messages(ROOM)[-1]["event_id"])


async def wished(stage: Stage, tap: dict[str, Any]) -> Turn:
    """The turn that a tap on the offer starts, once it asks."""
    await stage.admit(tap)
    await eventually(stage.stores.approvals.pending)
    (turn,) = stage.dispatcher.queues.unfinished()
    return turn


@pytest.mark.parametrize("tapper", [ADMIN, BOB, EVE])
async def test_a_users_message_asks_whoever_wishes_it_again(kept: Stage, tapper: str) -> None:
    turn = await wished(kept, reaction(offer(kept), ASK_AGAIN, sender=tapper))
    (approval,) = await kept.stores.approvals.pending()
    assert (turn.prompt, turn.sender, approval.requester) == ("look for me", BOB, BOB)
    assert kept.fake.bodies(ROOM, "m.text") == ["Ran it."]


async def test_an_admins_message_stays_the_admins(kept: Stage) -> None:
    kept.runtime.script = lose
    await kept.tell(message("look", sender=ADMIN))
    kept.runtime.script = run_ls
    await kept.tell(reaction(offer(kept), ASK_AGAIN, sender=BOB))
    assert await kept.stores.approvals.pending() == []
    assert kept.fake.bodies(ROOM, "m.text") == ["Ran it.", "Ran it."]


async def test_the_author_may_stop_it_and_the_tapper_may_not(kept: Stage) -> None:
    turn = await wished(kept, reaction(offer(kept), ASK_AGAIN, sender=EVE))
    await kept.admit(message("!cancel", sender=EVE))
    await eventually(lambda: any("asked by others" in body for body in kept.fake.bodies(ROOM)))
    await eventually(lambda: kept.dispatcher.queues.unfinished() == [turn])
    assert turn.outcome is None
    await kept.tell(message("!cancel", sender=BOB))
    assert kept.dispatcher.queues.unfinished() == []
    assert kept.fake.bodies(ROOM, "m.text").count("Ran it.") == 1


async def test_who_takes_the_tap_back_takes_the_wish_back(
    kept: Stage, fake: FakeHomeserver
) -> None:
    tap = reaction(offer(kept), ASK_AGAIN, sender=EVE)
    fake.events[ROOM].append(tap)
    turn = await wished(kept, tap)
    await kept.admit(redaction(tap["event_id"], sender="@dan:test"))
    await eventually(lambda: fake.matching(rf"GET .*/event/.*{tap['event_id'][1:]}"))
    await eventually(lambda: kept.dispatcher.queues.unfinished() == [turn])
    assert turn.outcome is None
    fake.redact(ROOM, tap["event_id"])
    await kept.tell(redaction(tap["event_id"], sender=EVE))
    assert kept.dispatcher.queues.unfinished() == []
    assert kept.fake.bodies(ROOM, "m.text").count("Ran it.") == 1
