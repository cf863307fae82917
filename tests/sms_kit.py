"""A phone line, as the homeserver shows it."""

from typing import Any

from tests.builders import invite
from tests.fake_homeserver import FakeHomeserver, Json
from tests.stage import Stage
from tests.waiting import eventually

BOT, LINE = "@gmessagesbot:test", "@letta_sms:test"
CONTACT, PHONE = "@gmessages_1.2:test", "@gmessages_1.1:test"
NUMBER, PORTAL = "+15551234567", "!sms:test"
ENCRYPTED: Json = {"algorithm": "m.megolm.v1.aes-sha2"}


def identified(number: str = NUMBER) -> Json:
    """The profile of somebody with a number."""
    return {"com.beeper.bridge.identifiers": [f"tel:{number}"]}


async def with_line(stage: Stage, envelope: str = "", **changes: Any) -> Stage:
    """The stage's next process has a phone line, whose routes lead everybody to the first agent."""
    stage._sections |= {"sms": {"default_agent": "agent-1", "join_messages": 0} | changes}
    await stage.again(envelope=envelope)
    return stage


async def texts_with(
    stage: Stage,
    contact: str = CONTACT,
    number: str = NUMBER,
    room_id: str = PORTAL,
    invited: str = LINE,
    *,
    channel: str = "",
    encrypted: bool = False,
) -> None:
    """The bridge makes a portal for a talk with a number, and invites one of us."""
    fake: FakeHomeserver = stage.fake
    if number:
        fake.profiles[contact] = identified(number)
    fake.members[room_id] = {BOT, contact}
    told: Json = {
        "bridgebot": BOT,
        "protocol": {"id": "gmessages-sms"},
        "channel": {"id": channel or room_id, "receiver": "phone-1"},
        "com.beeper.room_type": "dm",
    }
    fake.set_state(room_id, "m.bridge", told, "fi.mau.gmessages", BOT)
    if encrypted:
        fake.set_state(room_id, "m.room.encryption", ENCRYPTED, "", BOT)
    await stage.admit(invite(invited, room_id, sender=BOT))
    portals, ours_in = stage.stores.portals, stage.stores.rooms.ours_in
    await eventually(
        lambda: portals.portal(room_id) and invited in ours_in(room_id), what="the portal"
    )
