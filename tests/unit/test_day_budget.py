"""What a day's budgets count, of whom."""

from tests.portal_kit import BOB, GHOST, PORTAL, opened, said, with_bridge
from tests.sms_kit import CONTACT, texts_with, with_line
from tests.stage import Stage

from letta_matrix.portals.day_budget import DayBudget, Spent
from letta_matrix.store.portals import Portal

GROUP = "!group:test"


def _budget(stage: Stage) -> DayBudget:
    return DayBudget(
        stage.parts.portals, stage.stores.turns, stage.stores.sent, stage.parts.portals.now
    )


def _portal(stage: Stage, room_id: str) -> Portal:
    portal = stage.stores.portals.portal(room_id)
    assert portal is not None
    return portal


async def test_a_question_that_is_tried_again_counts_once(stage: Stage) -> None:
    bridged = await with_bridge(stage, contact_per_day=1)
    await opened(bridged)
    budget, portal = _budget(bridged), _portal(bridged, PORTAL)
    turn = await bridged.turn("hello", said("hello"))
    assert [await budget.ask(turn, portal) for _ in range(2)] == [None, None]
    other = await bridged.turn("more", said("more"))
    assert await budget.ask(other, portal) is Spent.CONTACT


async def test_pictures_in_a_group_count_to_whoever_is_answered(stage: Stage) -> None:
    bridged = await with_bridge(stage, groups=True, contact_per_day=2)
    await opened(bridged)
    is_group = {"com.beeper.room_type": "group"}
    await opened(bridged, is_group, room_id=GROUP, ghosts=(BOB, GHOST))
    budget, group = _budget(bridged), _portal(bridged, GROUP)
    assert not group.direct
    sent = [await budget.text(group, f"to bob {number}", BOB) for number in range(3)]
    assert sent == [None, None, Spent.CONTACT]
    # Another's number is not used up by that.
    assert await budget.text(group, "to ann", GHOST) is None
    turn = await bridged.turn("hello", said("hello"))
    assert await budget.ask(turn, _portal(bridged, PORTAL)) is None
    assert await budget.text(group, "to ann again", GHOST) is Spent.CONTACT


async def test_whom_a_talk_is_with_need_not_be_known(stage: Stage) -> None:
    line = await with_line(stage, contact_per_day=1)
    await texts_with(line)
    await line.tell(said("hello", CONTACT, "!sms:test"))
    budget = _budget(line)
    await line.stores.portals.learn(Portal("!new:test", "sms", direct=True))
    assert await budget.text(_portal(line, "!new:test"), "a text") is None
    assert await budget.text(_portal(line, "!new:test"), "another") is Spent.CONTACT
