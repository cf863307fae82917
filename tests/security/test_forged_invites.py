"""Invitations that nobody can have sent put no agent out of a room that it is in."""

import pytest
from tests.builders import invite
from tests.stage import Stage

GHOST, EVIL = "@agent_1:test", "@evil:elsewhere"


@pytest.mark.parametrize("room_id", ["!1:test", "!guest:test"])
async def test_a_forged_invitation_is_no_reason_to_leave(stage: Stage, room_id: str) -> None:
    """Into an agent's own room, and into one that it was invited to."""
    if room_id != "!1:test":
        await stage.tell(invite(GHOST, room_id))
    await stage.tell(invite(GHOST, room_id, sender=EVIL))
    assert stage.fake.matching("POST .*/leave") == []
    await stage.tell(invite(GHOST, "!trap:test", sender=EVIL))
    assert len(stage.fake.matching("POST .*/leave")) == 1
