"""Large bodies in flight: who has its turn, and when."""

import asyncio
import gc
import secrets
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Message
from tests.waiting import Clock, eventually, settled

from letta_matrix.doors.web import in_flight as module
from letta_matrix.doors.web.in_flight import SMALL, InFlight, TooMuchInFlight

LARGE = SMALL + 1


@pytest.fixture
def in_flight() -> InFlight:
    return InFlight(2 * LARGE)


class Bodies:
    """Holds some of what there is until told; `begun` are the sizes whose turn has come."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self.done = asyncio.Event()
        self.begun: list[int] = []

    def begin(self, size: int, caller: str = "") -> asyncio.Task[None]:
        """As `caller`, or as somebody else each time."""
        return asyncio.create_task(self._hold(caller or secrets.token_hex(4), size))

    async def _hold(self, caller: str, size: int) -> None:
        async with self._in_flight.held(caller, size):
            self.begun.append(size)
            await self.done.wait()


async def test_large_ones_come_in_order_and_small_ones_at_once(in_flight: InFlight) -> None:
    bodies = Bodies(in_flight)
    sizes = (LARGE, LARGE + 1, LARGE, SMALL)
    tasks = [bodies.begin(size) for size in sizes]
    await eventually(lambda: bodies.begun == [LARGE, SMALL])
    await settled(tasks[2])
    bodies.done.set()
    await asyncio.gather(*tasks)
    assert bodies.begun == [LARGE, SMALL, LARGE + 1, LARGE]


async def test_who_waits_too_long_is_told_and_who_goes_makes_way(
    in_flight: InFlight, clock: Clock
) -> None:
    bodies = Bodies(in_flight)
    first = bodies.begin(LARGE)
    await eventually(lambda: bodies.begun)
    gone, late = bodies.begin(2 * LARGE), bodies.begin(2 * LARGE)
    await settled(late)
    gone.cancel()
    clock.advance(module.PATIENCE)
    with pytest.raises(TooMuchInFlight, match="Try again in 10 seconds"):
        await late
    second = bodies.begin(LARGE)
    await eventually(lambda: len(bodies.begun) == 2)
    bodies.done.set()
    await asyncio.gather(first, second)
    whole = bodies.begin(2 * LARGE)
    await whole


async def test_one_caller_leaves_room_for_others() -> None:
    bodies = Bodies(InFlight(5 * LARGE))
    greedy = [bodies.begin(LARGE, "greedy") for _ in range(6)]
    await eventually(lambda: bodies.begun == [LARGE, LARGE])
    others = [bodies.begin(2 * LARGE), bodies.begin(LARGE)]
    await eventually(lambda: bodies.begun[2:] == [2 * LARGE, LARGE])
    bodies.done.set()
    await asyncio.gather(*greedy, *others)


async def test_who_holds_nothing_comes_first() -> None:
    bodies = Bodies(InFlight(4 * LARGE))
    slow = Bodies(bodies._in_flight)
    tasks = [slow.begin(LARGE, "greedy"), bodies.begin(3 * LARGE)]
    await eventually(lambda: slow.begun and bodies.begun)
    tasks += [slow.begin(LARGE, "greedy"), slow.begin(2 * LARGE, "patient")]
    await settled(tasks[-1])
    bodies.done.set()
    await eventually(lambda: slow.begun == [LARGE, 2 * LARGE, LARGE])
    slow.done.set()
    await asyncio.gather(*tasks)


async def test_one_that_goes_as_its_turn_comes_takes_nothing_along(in_flight: InFlight) -> None:
    bodies = Bodies(in_flight)
    first = bodies.begin(2 * LARGE)
    await eventually(lambda: bodies.begun)
    second = bodies.begin(2 * LARGE)
    await settled(second)
    bodies.done.set()
    first.add_done_callback(lambda _: second.cancel())
    await asyncio.gather(first, second, return_exceptions=True)
    await bodies.begin(2 * LARGE)


async def test_what_is_larger_than_all_of_it_has_its_turn_alone(in_flight: InFlight) -> None:
    async with in_flight.held("one", 100 * LARGE):
        pass


async def test_bodies_in_circles_do_not_stay(
    in_flight: InFlight, request: pytest.FixtureRequest
) -> None:
    class Body:
        again: "Body"

    gc.disable()
    request.addfinalizer(gc.enable)
    body = Body()
    body.again = body
    known = weakref.ref(body)
    async with in_flight.held("one", LARGE):
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
    in_flight: InFlight, clock: Clock
) -> None:
    scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
    async with in_flight.held("one", 2 * LARGE):
        _, receive = _chunks(SMALL // 2, SMALL // 2)
        async with in_flight.body("other", scope, receive, LARGE) as body:
            assert [len((await body())["body"]) for _ in range(2)] == [SMALL // 2] * 2
        left, receive = _chunks(LARGE, LARGE)

        async def read() -> None:
            async with in_flight.body("other", scope, receive, LARGE):
                pass

        waiting = asyncio.create_task(read())
        await settled(waiting)
        assert left == [LARGE]
        clock.advance(module.PATIENCE)
        with pytest.raises(TooMuchInFlight):
            await waiting
