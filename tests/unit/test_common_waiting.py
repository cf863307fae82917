"""Work that goes on unless something else happens first, and when it is tried again."""

import asyncio
from itertools import islice

import pytest

from letta_matrix.common.backoff import Backoff
from letta_matrix.common.waiting import ends_before, unless


async def test_work_that_ends_first_is_told_with_what_it_came_to() -> None:
    async def work() -> str:
        return "done"

    done = await unless(asyncio.Event(), work())
    assert done is not None
    assert done.result() == "done"


async def test_what_work_raises_is_raised_where_it_is_asked_for() -> None:
    async def work() -> None:
        raise LookupError

    done = await unless(asyncio.Event(), work())
    assert done is not None
    with pytest.raises(LookupError):
        done.result()


async def test_work_is_ended_where_the_event_comes_first() -> None:
    event, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        event.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    assert await unless(event, work()) is None
    assert ended.is_set()


async def test_a_task_goes_on_when_the_time_is_up() -> None:
    task = asyncio.ensure_future(asyncio.Event().wait())
    assert not await ends_before(task, asyncio.Event(), within=0.0)
    assert not task.done()
    task.cancel()


def test_pauses_grow_to_the_longest_and_begin_anew_each_time() -> None:
    pauses = Backoff(0.5, longest=3.0)
    assert list(islice(pauses, 5)) == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert next(iter(pauses)) == 0.5
