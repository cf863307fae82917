"""The wait for a turn ends, for the right reason and not before."""

import asyncio
import time

import pytest

from letta_matrix.conversations.watchdog import Bite, Watchdog

LONG = 60.0
SOON = 5.0
"""Seconds within which a busy machine does what is due."""


class Person:
    """Somebody a turn may wait for: for an approval, or in a tool (`is_called`)."""

    is_asked = False
    is_called = False


async def wait(watchdog: Watchdog, seconds: float = LONG) -> float:
    """How long a turn that does nothing was let run, in seconds."""
    started = time.monotonic()
    try:
        async with watchdog.running():
            await asyncio.sleep(seconds)
    except TimeoutError:
        assert watchdog.bite is not None
    else:
        assert watchdog.bite is None
    return time.monotonic() - started


@pytest.fixture
def person() -> Person:
    return Person()


def dog(person: Person, idle: float = LONG, total: float = LONG) -> Watchdog:
    return Watchdog(idle, total, lambda: person.is_asked, lambda: person.is_called)


async def test_a_silent_turn_is_ended(person: Person) -> None:
    watchdog = dog(person, idle=0.1)
    assert 0.1 <= await wait(watchdog) < SOON
    assert watchdog.bite is Bite.SILENT


async def test_a_turn_without_end_is_ended(person: Person) -> None:
    watchdog = dog(person, total=0.1)
    assert 0.1 <= await wait(watchdog) < SOON
    assert watchdog.bite is Bite.TOO_LONG


async def test_a_turn_that_ends_in_time_is_left_alone(person: Person) -> None:
    watchdog = dog(person, idle=0.4, total=0.4)
    await wait(watchdog, 0.05)
    await asyncio.sleep(0.5)
    assert watchdog.bite is None


async def test_whoever_is_heard_of_is_not_silent(person: Person) -> None:
    watchdog = dog(person, idle=0.4)

    async def work() -> None:
        for _ in range(12):
            await asyncio.sleep(0.05)
            watchdog.heard()

    working = asyncio.create_task(work())
    assert 0.9 <= await wait(watchdog) < SOON
    await working
    assert watchdog.bite is Bite.SILENT


async def test_being_heard_of_is_no_reason_to_run_for_ever(person: Person) -> None:
    watchdog = dog(person, idle=0.1, total=0.3)

    async def work() -> None:
        while True:
            watchdog.heard()
            await asyncio.sleep(0.02)

    working = asyncio.create_task(work())
    assert 0.3 <= await wait(watchdog) < SOON
    working.cancel()
    assert watchdog.bite is Bite.TOO_LONG


async def test_no_time_passes_while_a_person_is_asked(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.conversations.watchdog._LONGEST_TICK", 0.02)
    watchdog = dog(person, idle=0.2, total=0.3)
    person.is_asked = True
    asyncio.get_running_loop().call_later(0.6, setattr, person, "is_asked", False)
    assert 0.75 <= await wait(watchdog) < SOON
    assert watchdog.bite is Bite.SILENT


async def test_the_time_before_a_question_counts(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.conversations.watchdog._LONGEST_TICK", 0.02)
    watchdog = dog(person, total=0.6)
    loop = asyncio.get_running_loop()
    loop.call_later(0.5, setattr, person, "is_asked", True)
    loop.call_later(0.8, setattr, person, "is_asked", False)
    assert 0.8 <= await wait(watchdog) < 1.3
    assert watchdog.bite is Bite.TOO_LONG


async def test_a_tool_that_waits_may_be_silent(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.conversations.watchdog._LONGEST_TICK", 0.02)
    watchdog = dog(person, idle=0.2)
    person.is_called = True
    asyncio.get_running_loop().call_later(0.6, setattr, person, "is_called", False)
    assert 0.75 <= await wait(watchdog) < SOON
    assert watchdog.bite is Bite.SILENT


async def test_a_tool_that_waits_again_and_again_does_not_keep_a_turn_for_ever(
    person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letta_matrix.conversations.watchdog._LONGEST_TICK", 0.02)
    watchdog = dog(person, idle=0.1, total=0.4)
    person.is_called = True
    assert 0.4 <= await wait(watchdog) < SOON
    assert watchdog.bite is Bite.TOO_LONG


async def test_several_runs_share_their_time(person: Person) -> None:
    watchdog = dog(person, total=0.6)
    await wait(watchdog, 0.25)
    await asyncio.sleep(0.6)
    await wait(watchdog, 0.25)
    assert 0 < await wait(watchdog) < 0.5
    assert watchdog.bite is Bite.TOO_LONG


async def test_a_new_run_is_not_silent_from_the_start(person: Person) -> None:
    watchdog = dog(person, idle=0.15)
    await wait(watchdog, 0.05)
    await asyncio.sleep(0.3)
    assert await wait(watchdog) >= 0.15


async def test_a_cancelled_turn_may_end_by_itself(person: Person) -> None:
    watchdog = dog(person)
    asyncio.get_running_loop().call_later(0.05, watchdog.stop, SOON)
    await wait(watchdog, 0.15)
    assert watchdog.bite is None


async def test_a_cancelled_turn_that_goes_on_is_ended(person: Person) -> None:
    watchdog = dog(person)
    asyncio.get_running_loop().call_later(0.05, watchdog.stop, 0.1)
    assert 0.15 <= await wait(watchdog) < SOON
    assert watchdog.bite is Bite.CANCELLED


async def test_a_turn_cancelled_while_a_person_is_asked_is_ended(person: Person) -> None:
    watchdog = dog(person)
    person.is_asked = True
    asyncio.get_running_loop().call_later(0.05, watchdog.stop, 0.1)
    assert await wait(watchdog) < SOON
    assert watchdog.bite is Bite.CANCELLED


async def test_a_turn_cancelled_between_two_runs_is_ended_in_the_next(person: Person) -> None:
    watchdog = dog(person)
    watchdog.stop(0.1)
    assert await wait(watchdog) < SOON
    assert watchdog.bite is Bite.CANCELLED


async def test_a_fault_inside_comes_through(person: Person) -> None:
    watchdog = dog(person)
    with pytest.raises(ZeroDivisionError):
        async with watchdog.running():
            raise ZeroDivisionError
    with pytest.raises(TimeoutError):
        async with watchdog.running():
            raise TimeoutError
    assert watchdog.bite is None


async def test_when_it_was_heard_of(person: Person) -> None:
    watchdog = dog(person)
    moment = time.monotonic()
    assert not watchdog.ran_since(moment)
    watchdog.heard()
    assert watchdog.ran_since(moment)
    assert not watchdog.ran_since(time.monotonic() + 1)
