"""Messages first, and one budget for interim edits."""

import asyncio
import time

import pytest

from letta_matrix.matrix.pacing import Pacer


async def test_background_work_waits_for_a_gap_between_messages() -> None:
    pacer, order = Pacer(8), list[str]()

    async def background() -> None:
        await pacer.background()
        order.append("background")

    async with pacer.urgent():
        task = asyncio.create_task(background())
        async with pacer.urgent():
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)
        order.append("messages")
    await task
    assert order == ["messages", "background"]


async def test_background_work_does_not_starve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letta_matrix.matrix.pacing._MAX_YIELD", 0.05)
    pacer = Pacer(8)
    async with pacer.urgent(), asyncio.timeout(1):
        await pacer.background()


async def test_background_work_goes_at_once_when_nobody_sends() -> None:
    async with asyncio.timeout(0.05):
        await Pacer(8).background()


async def test_a_message_that_failed_opens_the_gap_too() -> None:
    pacer = Pacer(8)
    with pytest.raises(ValueError, match="refused"):
        async with pacer.urgent():
            raise ValueError("refused")
    async with asyncio.timeout(0.05):
        await pacer.background()


async def test_all_streams_share_one_budget_of_edits() -> None:
    pacer, rate = Pacer(50), 50
    started = time.monotonic()
    # One second's worth is there at once after a pause; the rest comes at the rate.
    await asyncio.gather(*(pacer.edit_turn() for _ in range(rate + 20)))
    assert 0.3 < time.monotonic() - started < 1.0


async def test_edits_get_their_places_in_order() -> None:
    pacer, order = Pacer(40), list[int]()

    async def edit(number: int) -> None:
        await pacer.edit_turn()
        order.append(number)

    await asyncio.gather(*(edit(number) for number in range(45)))
    assert order == list(range(45))


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


async def test_sending_is_what_is_observed() -> None:
    pacer = Pacer(8)
    async with pacer.urgent():
        await asyncio.sleep(0.05)
    assert 0.005 < pacer.latency < 0.1
