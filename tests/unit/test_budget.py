"""The budget of bytes in flight: who has its turn, and when."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Message
from tests.waiting import Clock, eventually, settled

from letta_matrix.web import budget as module
from letta_matrix.web.budget import SMALL, Budget, BudgetSpent

LARGE = SMALL + 1


@pytest.fixture
def budget() -> Budget:
    return Budget(2 * LARGE)


class Bodies:
    """Holds some of a budget until told; `begun` are the sizes whose turn has come."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.done = asyncio.Event()
        self.begun: list[int] = []

    def begin(self, size: int) -> asyncio.Task[None]:
        return asyncio.create_task(self._hold(size))

    async def _hold(self, size: int) -> None:
        async with self._budget.held(size):
            self.begun.append(size)
            await self.done.wait()


async def test_large_ones_come_in_order_and_small_ones_at_once(budget: Budget) -> None:
    bodies = Bodies(budget)
    sizes = (LARGE, LARGE + 1, LARGE, SMALL)
    tasks = [bodies.begin(size) for size in sizes]
    await eventually(lambda: bodies.begun == [LARGE, SMALL])
    await settled(tasks[2])
    bodies.done.set()
    await asyncio.gather(*tasks)
    assert bodies.begun == [LARGE, SMALL, LARGE + 1, LARGE]


async def test_who_waits_too_long_is_told_and_who_goes_makes_way(
    budget: Budget, clock: Clock
) -> None:
    bodies = Bodies(budget)
    first = bodies.begin(LARGE)
    await eventually(lambda: bodies.begun)
    gone, late = bodies.begin(2 * LARGE), bodies.begin(2 * LARGE)
    await settled(late)
    gone.cancel()
    clock.advance(module.PATIENCE)
    with pytest.raises(BudgetSpent, match="Try again in 10 seconds"):
        await late
    second = bodies.begin(LARGE)
    await eventually(lambda: len(bodies.begun) == 2)
    bodies.done.set()
    await asyncio.gather(first, second)
    whole = bodies.begin(2 * LARGE)
    await whole


async def test_one_that_goes_as_its_turn_comes_takes_nothing_along(budget: Budget) -> None:
    bodies = Bodies(budget)
    first = bodies.begin(2 * LARGE)
    await eventually(lambda: bodies.begun)
    second = bodies.begin(2 * LARGE)
    await settled(second)
    bodies.done.set()
    first.add_done_callback(lambda _: second.cancel())
    await asyncio.gather(first, second, return_exceptions=True)
    await bodies.begin(2 * LARGE)


async def test_what_is_larger_than_all_of_it_has_its_turn_alone(budget: Budget) -> None:
    async with budget.held(100 * LARGE):
        pass


async def test_bodies_in_circles_do_not_stay(
    budget: Budget, request: pytest.FixtureRequest
) -> None:
    class Body:
        again: "Body"

    gc.disable()
    request.addfinalizer(gc.enable)
    body = Body()
    body.again = body
    known = weakref.ref(body)
    async with budget.held(LARGE):
        del body
    await settled()
    assert known() is None


def _chunks(*sizes: int) -> tuple[list[int], Callable[[], Coroutine[Any, Any, Message]]]:
    """The sizes that were not read yet, and what reads them."""
    left = list(sizes)

    async def receive() -> Message:
        size = left.pop(0)
        return {"type": "http.request", "body": b"x" * size, "more_body": bool(left)}

    return left, receive


async def test_a_body_of_unknown_length_counts_once_it_is_not_small(
    budget: Budget, clock: Clock
) -> None:
    scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
    async with budget.held(2 * LARGE):
        _, receive = _chunks(SMALL // 2, SMALL // 2)
        async with budget.body(scope, receive, LARGE) as body:
            assert [len((await body())["body"]) for _ in range(2)] == [SMALL // 2] * 2
        left, receive = _chunks(LARGE, LARGE)

        async def read() -> None:
            async with budget.body(scope, receive, LARGE):
                pass

        waiting = asyncio.create_task(read())
        await settled(waiting)
        assert left == [LARGE]
        clock.advance(module.PATIENCE)
        with pytest.raises(BudgetSpent):
            await waiting
