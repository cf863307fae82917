"""Talking to a bridge's bot as its line: what it answers is heard, not looked for."""

import asyncio
from typing import Any

import pytest
from tests.fake_homeserver import FakeHomeserver
from tests.fake_homeserver import Fault as Failure
from tests.portal_kit import BOT, LINE
from tests.stage import Stage
from tests.waiting import Clock, eventually

from letta_matrix.access.faults import ToolError
from letta_matrix.access.principal import Principal, Scope

ADMIN = Principal("token:a", "", frozenset(Scope))


async def tell(stage: Stage, text: str, key: str = "") -> Any:
    wanted = {"text": text}
    return await stage.parts.toolbox.do(
        ADMIN, "portals.tell", wanted, door="api", transaction_id=key
    )


async def heard(stage: Stage, fake: FakeHomeserver, text: str) -> str:
    """The room where the line says something, once it does."""

    def where() -> str:
        rooms = [room for room in fake.events if text in fake.bodies(room)]
        return rooms[0] if rooms else ""

    return await eventually(where)


async def answer(stage: Stage, fake: FakeHomeserver, room_id: str, text: str) -> None:
    content = {"msgtype": "m.notice", "body": text}
    await stage.admit(fake.set_state(room_id, "m.room.message", content, sender=BOT))


async def test_what_the_bot_says_until_it_pauses_is_told(
    bridged: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    for number, text in enumerate(("help", "list")):
        clock.stop()
        telling = asyncio.create_task(tell(bridged, text))
        room_id = await heard(bridged, fake, text)
        assert fake.members[room_id] == {LINE, BOT}
        for said in (f"first to {text}", f"second to {text}"):
            await answer(bridged, fake, room_id, said)
        await clock.until(telling.done)
        done = await telling
        assert done["answers"] == [f"first to {text}", f"second to {text}"]
        # It is asked once, when all is said; and the room is made once.
        assert len(fake.matching(f"GET .*/{room_id}/messages")) == number + 1
        clock.go()
    assert len(fake.matching("POST .*/createRoom")) == 1


async def test_a_bot_that_is_silent_is_waited_for_so_long(
    bridged: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    telling = asyncio.create_task(tell(bridged, "help"))
    await heard(bridged, fake, "help")
    await clock.until(telling.done)
    assert (await telling)["answers"] == []


async def asked_for_help(bridged: Stage, fake: FakeHomeserver, clock: Clock) -> str:
    """The room in which the line and the bot are by then."""
    telling = asyncio.create_task(tell(bridged, "help"))
    room_id = await heard(bridged, fake, "help")
    await clock.until(telling.done)
    return room_id


async def test_a_bot_that_is_not_in_its_room_is_asked_into_it_again(
    bridged: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    room_id = await asked_for_help(bridged, fake, clock)
    fake.members[room_id].discard(BOT)
    second = asyncio.create_task(tell(bridged, "list"))
    assert await heard(bridged, fake, "list") == room_id
    await clock.until(second.done)
    assert fake.members[room_id] == {LINE, BOT}


async def test_while_the_bridge_is_away_its_bot_is_invited_to_one_room(
    bridged: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    fake.fail("GET .*/joined_members", *[Failure(200, {"joined": {LINE: {}}})] * 20)
    for _ in range(3):
        telling = asyncio.create_task(tell(bridged, "help"))
        await clock.until(telling.done, step=5)
        with pytest.raises(ToolError, match="does not come"):
            await telling
        (room_id,) = (one for one in fake.members if LINE in fake.members[one])
        fake.set_state(room_id, "m.room.member", {"membership": "invite"}, BOT, LINE)
    assert len(fake.matching("POST .*/createRoom")) == 1
    # An invite alone would be none to a bot that has missed the one before.
    asked = [one.line.rpartition("/")[2] for one in fake.matching("POST .*/(kick|invite)")]
    assert asked == ["kick", "invite"] * 2


async def test_a_bot_that_was_banned_from_its_room_is_invited_to_another(
    bridged: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    room_id = await asked_for_help(bridged, fake, clock)
    fake.set_state(room_id, "m.room.member", {"membership": "ban"}, BOT, LINE)
    second = asyncio.create_task(tell(bridged, "list"))
    assert await heard(bridged, fake, "list") != room_id
    await clock.until(second.done)


async def test_a_call_that_comes_again_says_nothing_twice_and_has_the_answers(
    bridged: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    clock.stop()
    telling = asyncio.create_task(tell(bridged, "help", "k1"))
    room_id = await heard(bridged, fake, "help")
    await answer(bridged, fake, room_id, "yes?")
    await clock.until(telling.done)
    again = asyncio.create_task(tell(bridged, "help", "k1"))
    await clock.until(again.done)
    assert await again == await telling
    assert fake.bodies(room_id).count("help") == 1
