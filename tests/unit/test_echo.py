"""When the homeserver is asked, by an event, whether it pushes."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from tests.waiting import Clock, settled

from letta_matrix.app.echo import Echo
from letta_matrix.matrix.appservice import Appservice


class Asked:
    """A homeserver that takes every event, and pushes as a test says; `at` is when one came."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.at: list[float] = []
        self.sweeps: list[float] = []
        self.pings: bool | None = True
        self.service = Appservice("h", cast("Any", None))
        self.echo = Echo(
            cast("Any", self), self.service, "http://us", lambda: self.pings, self._sweep
        )

    async def wake(self, _txn_id: str) -> bool:
        self.at.append(self.clock.now())
        return True

    def push(self, *, stored: bool = True) -> None:
        self.service.pushed_at = self.clock.now()
        if stored:
            self.service.counters["transactions"] += 1
            self.service.stored_at = self.clock.now()
        else:
            self.service.refused_at = self.clock.now()

    async def after(self, seconds: int) -> int:
        """How many events came in that time."""
        before = len(self.at)
        for _ in range(seconds // 5):
            self.clock.advance(5)
            await settled()
        return len(self.at) - before

    def _sweep(self) -> None:
        self.sweeps.append(self.clock.now())


@pytest.fixture
async def asked(clock: Clock) -> AsyncGenerator[Asked]:
    clock.stop()
    one = Asked(clock)
    await one.echo.begin("start", 0)
    running = asyncio.create_task(one.echo.run())
    await settled()
    yield one
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    clock.go()


async def test_silence_is_asked_about_less_and_less_often(asked: Asked) -> None:
    await asked.after(3600 * 4)
    gaps = [later - one for one, later in zip(asked.at, asked.at[1:], strict=False)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 65
    assert 800 < gaps[-1] <= 900 + 65
    assert len(asked.at) < 30
    assert len(asked.sweeps) < 30
    asked.push()
    assert asked.echo.trouble is None
    assert await asked.after(1800) == 0


async def test_a_homeserver_that_can_be_pinged_and_falls_silent_is_noticed(asked: Asked) -> None:
    asked.push()
    assert await asked.after(1800) == 0
    assert await asked.after(2400) > 0
    assert asked.echo.trouble is not None


async def test_what_was_refused_is_asked_for_until_it_is_stored(asked: Asked) -> None:
    asked.push()
    await asked.after(5)
    asked.push(stored=False)
    assert await asked.after(130) >= 1
    asked.push()
    assert await asked.after(600) == 0


async def test_what_is_wanted_is_sent_at_once(asked: Asked) -> None:
    asked.push()
    asked.echo.wanted.set()
    await settled()
    assert len(asked.at) == 2


async def test_each_connect_begins_anew(asked: Asked) -> None:
    await asked.after(600)
    assert asked.echo.trouble is not None
    asked.pings = None
    assert asked.echo.trouble is None
    await asked.echo.begin("again", 0)
    asked.pings = True
    assert asked.echo.trouble is None
    assert await asked.after(65) == 1


async def test_what_came_as_the_last_of_what_was_refused_did_is_looked_for_once(
    asked: Asked,
) -> None:
    """Synapse may put it aside with those, and send it with the next that it keeps."""
    await asked.after(5)
    asked.push(stored=False)
    await asked.after(120)
    assert asked.sweeps == []
    asked.push()
    await asked.after(120)
    assert len(asked.sweeps) == 1
    asked.push()
    await asked.after(1800)
    assert len(asked.sweeps) == 1


@pytest.mark.parametrize(("transactions", "sweeps"), [(1, 0), (2, 1)])
async def test_what_came_as_the_last_of_what_was_kept_before_a_start_did_is_looked_for_once(
    asked: Asked, transactions: int, sweeps: int
) -> None:
    """Nothing was kept where nothing comes but what we have sent ourselves."""
    await asked.after(5)
    for _ in range(transactions):
        asked.push()
    await asked.after(60)
    assert len(asked.sweeps) == sweeps
    await asked.after(1800)
    assert len(asked.sweeps) == sweeps
