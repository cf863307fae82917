"""A turn has an end, whatever it takes; what cannot be ended is not forgotten."""

from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.builders import message
from tests.fake_homeserver import FakeHomeserver
from tests.scripts import obey
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.conversations.turn_queues import TRIES, Tries, TurnQueues
from letta_matrix.matrix.homeserver import HomeserverUnavailable
from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.turns import Turn, TurnKind


class Runner:
    """Fails in these ways, one after the other."""

    def __init__(self, *faults: Exception, ending: tuple[Exception, ...] = ()) -> None:
        self.faults, self.ending = [*faults], [*ending]
        self.runs: list[bool] = []

    async def run(self, turn: Turn, *, recovered: bool) -> None:
        self.runs.append(recovered)
        if self.faults:
            raise self.faults.pop(0)

    async def give_up(self, turn: Turn) -> None:
        if self.ending:
            raise self.ending.pop(0)


async def tried(stage: Stage, clock: Clock, runner: Runner) -> tuple[bool, Counter[str]]:
    counters: Counter[str] = Counter()
    turn = await stage.turn()
    with capture_logs():
        trying = Tries({TurnKind.MESSAGE: runner}, counters).run(turn, recovered=False)
        return await clock.through(trying, step=10), counters


@pytest.mark.parametrize("outage", [HomeserverUnavailable("a page"), StoreUnavailable("locked")])
async def test_an_outage_of_any_length_ends_no_turn(
    stage: Stage, clock: Clock, outage: Exception
) -> None:
    runner = Runner(*[outage] * 20)
    assert await tried(stage, clock, runner) == (True, Counter(turns_done=1))
    assert runner.runs == [False, *[True] * 20]


async def test_what_fails_at_the_homeserver_alone_is_given_up(stage: Stage, clock: Clock) -> None:
    runner = Runner(*[HomeserverUnavailable("HTTP 500", fails=True)] * 40)
    assert await tried(stage, clock, runner) == (True, Counter(turns_given_up=1))
    assert len(runner.runs) == TRIES


async def test_an_outage_does_not_keep_a_turn_from_being_given_up(
    stage: Stage, clock: Clock
) -> None:
    outages = (HomeserverUnavailable("a page"), StoreUnavailable("locked")) * 4
    runner = Runner(*[ZeroDivisionError()] * TRIES, ending=outages)
    assert await tried(stage, clock, runner) == (True, Counter(turns_given_up=1))
    assert runner.ending == []


async def test_what_cannot_be_given_up_is_said(stage: Stage, clock: Clock) -> None:
    runner = Runner(*[ZeroDivisionError()] * TRIES, ending=(ZeroDivisionError(),))
    assert await tried(stage, clock, runner) == (False, Counter(turns_given_up=1))


async def test_whatever_ends_is_told_of(stage: Stage, clock: Clock) -> None:
    """Such as an invitation, whose end opens the room that its beginning has closed."""
    inherited, fresh = await stage.turn(), await stage.turn(room_id="!2:test")
    runner = Runner(*[ZeroDivisionError()] * TRIES * 2, ending=(ZeroDivisionError(),) * 2)
    told: list[str] = []

    async def ended(turn: Turn) -> None:
        told.append(turn.turn_id)

    queues = TurnQueues({TurnKind.MESSAGE: runner}, Counter(), lambda _: None, ended)
    with capture_logs():
        queues.recover([inherited])
        queues.start([fresh])
        await clock.until(lambda: len(queues.unfinished()) == 2 and queues.trouble, step=5)
        await clock.until(lambda: queues.waiting == 0, step=5)
    assert sorted(told) == sorted([inherited.turn_id, fresh.turn_id])
    assert runner.runs[-2:] == [True, True]


async def test_a_message_that_cannot_be_ended_waits_beside_the_others(
    stage: Stage, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_request: object) -> Any:
        raise ZeroDivisionError

    async def unable(_turn: Turn) -> None:
        raise ZeroDivisionError

    stage.runtime.script = broken
    dispatcher = stage.dispatcher
    with capture_logs(), monkeypatch.context() as patch:
        patch.setattr(stage.runner, "give_up", unable)
        await stage.admit(message("odd"))
        await clock.until(lambda: dispatcher.queues.trouble, step=2)
        assert "1 messages can neither be answered nor refused" in dispatcher.queues.trouble
        stage.runtime.script = obey
        await stage.admit(message("next"))
        await eventually(lambda: fake.bodies("!1:test"), ["echo: next"].__eq__)
        await eventually(lambda: dispatcher.queues.waiting, (1).__eq__)
        await clock.until(lambda: dispatcher.queues.waiting == 0, step=5)
    assert fake.bodies("!1:test") == ["echo: next", "echo: odd"]
    assert dispatcher.queues.trouble == ""
