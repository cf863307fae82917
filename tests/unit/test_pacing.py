"""Messages first, and one budget for interim edits."""

import asyncio

import pytest
from tests.waiting import Clock, settled, within

from letta_matrix.matrix.pacing import _MAX_YIELD, Pacer


async def test_background_work_waits_for_a_gap_between_messages(clock: Clock) -> None:
    pacer = Pacer(8)
    clock.stop()
    async with pacer.urgent():
        background = asyncio.create_task(pacer.background())
        async with pacer.urgent():
            await settled(background)
        await settled(background)
    await settled()
    assert background.done()


async def test_background_work_does_not_starve(clock: Clock) -> None:
    pacer = Pacer(8)
    clock.stop()
    async with pacer.urgent():
        background = asyncio.create_task(pacer.background())
        await settled(background)
        clock.advance(_MAX_YIELD - 0.01)
        await settled(background)
        clock.advance(0.02)
        await within(background)


async def test_background_work_goes_at_once_when_nobody_sends() -> None:
    background = asyncio.create_task(Pacer(8).background())
    await settled()
    assert background.done()


async def test_a_message_that_failed_opens_the_gap_too() -> None:
    pacer = Pacer(8)
    with pytest.raises(ValueError, match="refused"):
        async with pacer.urgent():
            raise ValueError("refused")
    background = asyncio.create_task(pacer.background())
    await settled()
    assert background.done()


async def test_all_streams_share_one_budget_of_edits_in_order(clock: Clock) -> None:
    pacer, order = Pacer(50), list[int]()

    async def edit(number: int) -> None:
        await pacer.edit_turn()
        order.append(number)

    clock.stop()
    edits = asyncio.gather(*(edit(number) for number in range(70)))
    # One second's worth is there at once after a pause; the rest comes at the rate.
    for seconds, done in ((0.0, 51), (0.19, 60), (0.2, 70)):
        clock.advance(seconds)
        await settled()
        assert order == list(range(done))
    await edits


async def test_a_slow_homeserver_stretches_edits_and_recovers() -> None:
    pacer = Pacer(8)
    assert pacer.stretch == 1.0
    pacer._observe(2.0)
    pacer._observe(2.0)
    assert pacer.latency == pytest.approx(0.72)
    assert pacer.stretch == pytest.approx(1.8)
    for _ in range(30):
        pacer._observe(0.05)
    assert pacer.stretch == 1.0


async def test_an_outage_does_not_slow_edits_for_long() -> None:
    pacer = Pacer(8)
    pacer._observe(3600.0)
    assert pacer.stretch <= 2.0


async def test_sending_is_what_is_observed(clock: Clock) -> None:
    pacer = Pacer(8)
    clock.stop()
    async with pacer.urgent():
        clock.advance(0.5)
    assert pacer.latency == pytest.approx(0.1)
