"""Work beside what has started it, and its end."""

import asyncio

from tests.waiting import settled, within

from letta_matrix.common.tasks import Tasks


async def test_what_ends_is_held_no_more() -> None:
    tasks = Tasks()
    over = asyncio.Event()
    task = tasks.start(over.wait())
    await settled(task)
    assert list(tasks) == [task]
    over.set()
    await settled()
    assert task.done()
    assert not tasks


async def test_what_one_starts_while_it_ends_is_ended_too() -> None:
    tasks = Tasks()
    begun = list[str]()

    async def work(*others: str) -> None:
        begun.append("work")
        try:
            await asyncio.Event().wait()
        finally:
            if others:
                started.append(tasks.start(work(*others[1:])))
                await settled()

    started = [tasks.start(work("second", "third"))]
    await settled(started[0])
    await within(tasks.cancel())
    assert not tasks
    assert len(started) == len(begun) == 3
    assert all(one.cancelled() for one in started)


async def test_what_has_not_begun_is_ended_too() -> None:
    tasks = Tasks()
    began = asyncio.Event()

    async def work() -> None:
        began.set()

    task = tasks.start(work())
    await within(tasks.cancel())
    assert task.cancelled()
    assert not began.is_set()
