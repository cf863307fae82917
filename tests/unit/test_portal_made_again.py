"""A bridge makes another room for a talk, and the database fails anywhere in that; what is learnt
while a room is looked at."""

import asyncio

import pytest
from sqlalchemy import Executable
from tests.portal_kit import AGENT, BOT, LINE, PORTAL, with_bridge
from tests.stage import Stage
from tests.waiting import settled

from letta_matrix.store.database import StoreUnavailable
from letta_matrix.store.portals import Portal, PortalBook

MOST_WRITES = 5
UNTIL = 4_000_000_000.0


async def test_who_is_left_alone_stays_so_whatever_is_written(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridged = await with_bridge(stage)
    book, database, failed = bridged.stores.portals, bridged.stores.database, list[int]()
    execute = database.execute
    for fails_at in range(MOST_WRITES):
        channel, left = f"c{fails_at}", [fails_at]
        old = Portal(f"!old{channel}:test", "irc", channel=channel, direct=True, held=True)
        await book.learn(old)
        await book.typed(old.room_id, UNTIL)

        async def failing(*statements: Executable, left: list[int] = left) -> None:
            if not left[0]:
                raise StoreUnavailable("the disk is full")
            left[0] -= 1
            await execute(*statements)

        monkeypatch.setattr(database, "execute", failing)
        again = Portal(f"!new{channel}:test", "irc", channel=channel, direct=True)
        try:
            await bridged.parts.lookout._learn(again)
        except StoreUnavailable:
            failed.append(fails_at)
        monkeypatch.setattr(database, "execute", execute)
        after = PortalBook(database)
        await after.load()
        (kept,) = (one for one in after.all() if one.channel == channel)
        told = kept.held, after.typed_until(kept.room_id), old.room_id in after.rooms(kept)
        assert told == (True, UNTIL, True), fails_at
    assert failed
    assert len(failed) < MOST_WRITES


async def test_what_comes_while_two_of_us_look_is_looked_at(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridged = await with_bridge(stage)
    lookout, looked, release = bridged.parts.lookout, list[str](), asyncio.Event()

    async def look(_: str, user_id: str) -> None:
        looked.append(user_id)
        await release.wait()

    monkeypatch.setattr(lookout, "_look", look)
    first = asyncio.create_task(lookout.look(PORTAL, LINE))
    await settled()
    news = {"type": "m.room.name", "state_key": "", "sender": BOT, "room_id": PORTAL}
    await lookout.heard(news)
    second = asyncio.create_task(lookout.look(PORTAL, AGENT))
    await settled(second)
    release.set()
    await asyncio.gather(first, second)
    # What the first has read is old: it reads anew.
    assert looked == [LINE, LINE, AGENT]
