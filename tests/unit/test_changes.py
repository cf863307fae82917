"""Waiting for what is remembered to become so."""

import asyncio

from tests.waiting import Clock, settled

from letta_matrix.common.changes import Changes


async def test_who_waits_looks_at_each_change_and_gets_what_is_found(clock: Clock) -> None:
    clock.stop()
    changes, known = Changes(), list[str]()
    looks = 0

    def found() -> str | None:
        nonlocal looks
        looks += 1
        return known[0] if known else None

    waiting = [asyncio.create_task(changes.until(found, 5)) for _ in range(2)]
    await settled()
    changes.tell()
    await settled()
    assert (looks, [one.done() for one in waiting]) == (4, [False, False])
    known.append("it")
    changes.tell()
    assert await asyncio.gather(*waiting) == ["it", "it"]
    assert await changes.until(found, 0) == "it"


async def test_what_does_not_come_is_not_waited_for_longer(clock: Clock) -> None:
    clock.stop()
    changes = Changes()
    waiting = asyncio.create_task(changes.until(lambda: None, 5))
    await settled()
    clock.advance(4)
    await settled()
    assert not waiting.done()
    clock.advance(2)
    assert await waiting is None
