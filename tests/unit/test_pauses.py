"""An agent that is paused where somebody writes gives a sign, and is not asked."""

from typing import Any

from tests.builders import PERSON, edit, message, reaction
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage
from tests.waiting import Clock

from letta_matrix.conversations.refusals import PAUSED

ROOM = "!1:test"


def signs(fake: FakeHomeserver) -> list[Any]:
    found = fake.messages(ROOM, "m.reaction")
    assert all(one["content"]["m.relates_to"]["key"] == PAUSED for one in found)
    return [one["content"]["m.relates_to"]["event_id"] for one in found]


async def paused(stage: Stage, *, value: bool = True) -> None:
    await stage.stores.rooms.change_settings("agent-1", ROOM, paused=value)


async def test_each_person_sees_it_once_an_hour(
    stage: Stage, fake: FakeHomeserver, clock: Clock
) -> None:
    await paused(stage)
    first, second, others = message("one"), message("two"), message("me", sender="@bob:test")
    await stage.tell(first, second, others)
    assert signs(fake) == [first["event_id"], others["event_id"]]
    clock.advance(3601)
    later = message("three")
    await stage.tell(later)
    assert signs(fake)[2:] == [later["event_id"]]
    assert stage.runtime.asked == []
    assert fake.bodies(ROOM) == []


async def test_what_was_left_unanswered_stays_so(stage: Stage, fake: FakeHomeserver) -> None:
    await paused(stage)
    left = message("one")
    await stage.tell(left)
    await paused(stage, value=False)
    target = left["event_id"]
    await stage.tell(left, edit(target, "two"), reaction(target, "🔁"), message("three"))
    assert [one.text for one in stage.runtime.asked] == ["three"]
    turns = await stage.stores.turns.newest(9)
    assert {turn.prompt for turn in turns} == {"three", None}, "nothing of it is kept"


async def test_a_sign_that_is_refused_stops_nothing(stage: Stage, fake: FakeHomeserver) -> None:
    await paused(stage)
    stage.refuse("PUT .*/send/m.reaction")
    await stage.tell(message("one"))
    await stage.recover()
    assert await stage.stores.turns.unfinished() == []


async def test_status_tells_it(stage: Stage, fake: FakeHomeserver) -> None:
    await paused(stage)
    await stage.tell(message("!status", sender=PERSON))
    assert "Paused here" in fake.bodies(ROOM)[0]
