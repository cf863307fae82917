"""Every line that is logged about a turn names it, whichever part says it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from tests.builders import message
from tests.fake_homeserver import Fault
from tests.scripts import held
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.app.logs import configure_logging
from letta_matrix.common import log_repeats
from letta_matrix.config import Logging
from letta_matrix.conversations.journeys import Stage as Reached
from letta_matrix.runtimes.faults import RuntimeUnavailable
from letta_matrix.runtimes.protocol import TurnEvent, TurnRequest
from letta_matrix.store.turn_ids import turn_id_of

Lines = Callable[[], list[dict[str, Any]]]


def listening(capsys: pytest.CaptureFixture[str]) -> Lines:
    """From now on, what was logged since it was last asked."""
    configure_logging(Logging(format="json", level="debug"))
    return lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_two_turns_side_by_side_are_told_apart(
    stage: Stage, capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    lines = listening(capsys)
    free, is_told = asyncio.Event(), set[str]()

    def work(request: TurnRequest) -> Iterator[TurnEvent | float]:
        # The first try of each fails at its runtime.
        if request.agent_id not in is_told:
            is_told.add(request.agent_id)
            raise RuntimeUnavailable("gone for a moment")
        return held(free)

    stage.runtime.script = work
    events = [message("one"), message("two", "!2:test")]
    turns = [turn_id_of(event["event_id"], f"agent-{n}") for n, event in enumerate(events, 1)]
    busy = Fault(502, {"errcode": "M_UNKNOWN", "error": "x"})
    for number in (1, 2):
        stage.fake.fail(f"!{number}:test/send/m.room.message", busy, busy)
    await stage.admit(*events)
    await clock.until(lambda: len(stage.fake.matching("/send/m.room.message")) >= 6)
    await uses_a_tool(stage, "agent-1")
    free.set()
    await clock.until(lambda: stage.dispatcher.queues.waiting == 0)
    told = lines()
    assert [line for line in told if line.get("turn") not in turns] == []
    for turn, agent in zip(turns, ("agent-1", "agent-2"), strict=True):
        mine = [line for line in told if line["turn"] == turn]
        said = {line["event"] for line in mine}
        assert {"runtime unavailable", "homeserver request is tried again"} <= said
        assert [line["agent"] for line in mine if line["event"] == "a turn begins"] == [agent]
        reached = [line["stage"] for line in mine if line["event"] == "a turn goes on"]
        assert reached == [*Reached]
    (tool,) = [line for line in told if line["event"] == "an agent used a tool"]
    assert (tool["turn"], tool["agent"]) == (turns[0], "agent-1")


async def uses_a_tool(stage: Stage, agent_id: str) -> None:
    """In the conversation of its turn that runs."""
    (turn,) = [one for one in stage.dispatcher.queues.unfinished() if one.agent_id == agent_id]
    await stage.runtime.call_tool(agent_id, turn.conversation_id or "", "matrix_list_rooms", {})


async def test_what_repeats_itself_is_of_no_turn(
    capsys: pytest.CaptureFixture[str], clock: Clock
) -> None:
    lines, log = listening(capsys), structlog.get_logger()
    with structlog.contextvars.bound_contextvars(turn="turn-1"):
        log.warning("it fails")
        log.warning("it fails")
    with structlog.contextvars.bound_contextvars(turn="turn-2"):
        log.warning("it fails")
    clock.advance(log_repeats.SPAN + 1)
    told = lines()
    await eventually(lambda: told.extend(lines()) or len(told) > 1)
    assert [(line["event"], line.get("turn"), line.get("repeated")) for line in told] == [
        ("it fails", "turn-1", None),
        ("it fails", None, 2),
    ]
