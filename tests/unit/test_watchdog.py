"""The wait for a turn ends, for the right reason and not before."""

import asyncio
from collections.abc import Callable

import pytest
from tests.waiting import Clock, settled

from letta_matrix.conversations.watchdog import Bite, Watchdog

LONG = 60.0
TICK = 0.25
LOOK = 1.0
"""Seconds after which the watchdog looks at the latest."""


class Person:
    """Somebody a turn may wait for: for an approval, or in a tool (`is_called`)."""

    is_asked = False
    is_called = False


class Turns:
    """Turns under one watchdog, while no time passes but theirs."""

    def __init__(self, clock: Clock, person: Person) -> None:
        self._clock, self._person = clock, person
        clock.stop()

    def watch(self, idle: float = LONG, total: float = LONG) -> Watchdog:
        person = self._person
        self.watchdog = Watchdog(idle, total, lambda: person.is_asked, lambda: person.is_called)
        return self.watchdog

    async def run(
        self, seconds: float = LONG, tick: Callable[[float], None] | None = None
    ) -> float:
        """How long a turn that does nothing was let run; `tick` is called again and again with
        the seconds it has run."""
        began = self._clock.now()
        turn = asyncio.create_task(self._turn(seconds))
        await settled()
        while not turn.done():
            self._clock.advance(TICK)
            await settled()
            if tick is not None:
                tick(self._clock.now() - began)
        await turn
        return self._clock.now() - began

    async def _turn(self, seconds: float) -> None:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        try:
            async with self.watchdog.running():
                await over.wait()
        except TimeoutError:
            assert self.watchdog.bite is not None
        else:
            assert self.watchdog.bite is None


@pytest.fixture
def person() -> Person:
    return Person()


@pytest.fixture
async def turns(clock: Clock, person: Person) -> Turns:
    return Turns(clock, person)


def after(least: float, most: float | None = None) -> object:
    """What a turn ended by then ran."""
    most = least if most is None else most
    return pytest.approx((least + most) / 2, abs=(most - least) / 2 + TICK)


def later(seconds: float, owner: object, name: str, value: object) -> None:
    asyncio.get_running_loop().call_later(seconds, setattr, owner, name, value)


async def test_a_silent_turn_is_ended(turns: Turns) -> None:
    watchdog = turns.watch(idle=4)
    assert await turns.run() == after(4)
    assert watchdog.bite is Bite.SILENT


async def test_a_turn_without_end_is_ended(turns: Turns) -> None:
    watchdog = turns.watch(total=4)
    assert await turns.run() == after(4)
    assert watchdog.bite is Bite.TOO_LONG


async def test_a_turn_that_ends_in_time_is_left_alone(turns: Turns, clock: Clock) -> None:
    watchdog = turns.watch(idle=4, total=4)
    assert await turns.run(3.5) == after(3.5)
    clock.advance(5)
    await settled()
    assert watchdog.bite is None


async def test_whoever_is_heard_of_is_not_silent(turns: Turns) -> None:
    watchdog = turns.watch(idle=4)
    assert await turns.run(tick=lambda ran: watchdog.heard() if ran <= 6 else None) == after(10)
    assert watchdog.bite is Bite.SILENT


async def test_being_heard_of_is_no_reason_to_run_for_ever(turns: Turns) -> None:
    watchdog = turns.watch(idle=1, total=3)
    assert await turns.run(tick=lambda _: watchdog.heard()) == after(3)
    assert watchdog.bite is Bite.TOO_LONG


async def test_no_time_passes_while_a_person_is_asked(turns: Turns, person: Person) -> None:
    watchdog = turns.watch(idle=4, total=6)
    person.is_asked = True
    later(12, person, "is_asked", False)
    assert await turns.run() == after(16 - LOOK, 16)
    assert watchdog.bite is Bite.SILENT


async def test_the_time_before_a_question_counts(turns: Turns, person: Person) -> None:
    watchdog = turns.watch(total=6)
    later(4, person, "is_asked", True)
    later(20, person, "is_asked", False)
    assert await turns.run() == after(22 - LOOK, 22 + LOOK)
    assert watchdog.bite is Bite.TOO_LONG


async def test_a_tool_that_waits_may_be_silent(turns: Turns, person: Person) -> None:
    watchdog = turns.watch(idle=4)
    person.is_called = True
    later(12, person, "is_called", False)
    assert await turns.run() == after(16 - LOOK, 16)
    assert watchdog.bite is Bite.SILENT


async def test_a_tool_that_waits_again_and_again_does_not_keep_a_turn_for_ever(
    turns: Turns, person: Person
) -> None:
    watchdog = turns.watch(idle=1, total=4)
    person.is_called = True
    assert await turns.run() == after(4)
    assert watchdog.bite is Bite.TOO_LONG


async def test_several_runs_share_their_time(turns: Turns, clock: Clock) -> None:
    watchdog = turns.watch(total=6)
    await turns.run(2.5)
    clock.advance(6)
    await turns.run(2.5)
    assert await turns.run() == after(1, 1 + 2 * TICK)
    assert watchdog.bite is Bite.TOO_LONG


async def test_a_new_run_is_not_silent_from_the_start(turns: Turns, clock: Clock) -> None:
    turns.watch(idle=4)
    await turns.run(2)
    clock.advance(10)
    assert await turns.run() == after(4)


async def test_a_cancelled_turn_may_end_by_itself(turns: Turns, clock: Clock) -> None:
    watchdog = turns.watch()
    asyncio.get_running_loop().call_later(1, watchdog.stop, 3)
    assert await turns.run(3.5) == after(3.5)
    clock.advance(5)
    await settled()
    assert watchdog.bite is None


async def test_a_cancelled_turn_that_goes_on_is_ended(turns: Turns) -> None:
    watchdog = turns.watch()
    asyncio.get_running_loop().call_later(1, watchdog.stop, 3)
    assert await turns.run() == after(4)
    assert watchdog.bite is Bite.CANCELLED


async def test_a_turn_cancelled_while_a_person_is_asked_is_ended(
    turns: Turns, person: Person
) -> None:
    watchdog = turns.watch()
    person.is_asked = True
    asyncio.get_running_loop().call_later(1, watchdog.stop, 3)
    assert await turns.run() == after(4)
    assert watchdog.bite is Bite.CANCELLED


async def test_a_turn_cancelled_between_two_runs_is_ended_in_the_next(turns: Turns) -> None:
    watchdog = turns.watch()
    watchdog.stop(3)
    assert await turns.run() == after(3)
    assert watchdog.bite is Bite.CANCELLED


async def test_a_fault_inside_comes_through(turns: Turns) -> None:
    watchdog = turns.watch()
    with pytest.raises(ZeroDivisionError):
        async with watchdog.running():
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with watchdog.running():
            raise TimeoutError
    assert watchdog.bite is None


async def test_when_it_was_heard_of(turns: Turns, clock: Clock) -> None:
    watchdog = turns.watch()
    begun = clock.now()
    assert not watchdog.ran_since(begun)
    clock.advance(1)
    watchdog.heard()
    assert watchdog.ran_since(begun)
    assert not watchdog.ran_since(clock.now())
