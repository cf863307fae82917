"""In encrypted rooms it is said once that nothing is read there, and where it is."""

import time
from typing import Any

import pytest
from tests.builders import PERSON, invite, message, said_in
from tests.fake_homeserver import FakeHomeserver
from tests.stage import Stage

from letta_matrix.conversations import notices
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.turns import Outcome

NEW, OWN = "!new:test", "!1:test"
GHOST, BOT = "@agent_1:test", "@letta:test"
LINK = "[my own room](https://matrix.to/#/%23agent_1%3Atest), or one without encryption"
CIPHER = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x"}


def encrypted(room_id: str = NEW, **fields: Any) -> dict[str, Any]:
    return message(room_id=room_id, **{"type": "m.room.encrypted", "content": CIPHER, **fields})


def about(rel_type: str) -> dict[str, Any]:
    relation = {"rel_type": rel_type, "event_id": "$x"}
    return encrypted(content={**CIPHER, "m.relates_to": relation})


def encrypt(fake: FakeHomeserver, room_id: str = NEW) -> dict[str, Any]:
    """Encryption is switched on in a room; the event."""
    return fake.set_state(room_id, "m.room.encryption", {"algorithm": CIPHER["algorithm"]})


@pytest.mark.parametrize("others", [set[str](), {"@bob:test", "@eve:test"}])
async def test_it_is_said_on_coming(stage: Stage, fake: FakeHomeserver, others: set[str]) -> None:
    fake.members[NEW] = {PERSON} | others
    encrypt(fake)
    await stage.tell(invite(GHOST, NEW))
    assert fake.bodies(NEW, "m.notice") == [notices.encrypted(LINK)]
    assert fake.messages(NEW)[0]["sender"] == GHOST


async def test_the_bot_has_no_room_of_its_own(stage: Stage, fake: FakeHomeserver) -> None:
    encrypt(fake)
    await stage.tell(invite(BOT, NEW))
    assert fake.bodies(NEW) == [notices.encrypted("a room without encryption")]


async def test_it_is_said_once_through_a_crash(stage: Stage, fake: FakeHomeserver) -> None:
    encrypt(fake)
    turn = await stage.turn(GHOST, invite(GHOST, NEW))
    for recovered in (False, True):
        await stage.parts.invitations.run(turn, recovered=recovered)
    assert len(fake.bodies(NEW)) == 1


async def test_nothing_is_said_where_all_can_be_read(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.tell(invite(GHOST, NEW))
    assert fake.bodies(NEW) == []


async def test_it_is_said_as_a_room_is_encrypted(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.tell(encrypt(fake, OWN))
    assert fake.bodies(OWN, "m.notice") == [notices.encrypted("a room without encryption")]
    await stage.tell(encrypted(OWN))
    assert len(fake.bodies(OWN)) == 1, "just said"


async def test_a_message_is_answered_once_a_day(stage: Stage, fake: FakeHomeserver) -> None:
    await stage.tell(encrypted(OWN), encrypted(OWN))
    first = await stage.run(None, encrypted(OWN))
    assert await stage.outcome(first) is Outcome.DROPPED
    assert fake.bodies(OWN) == [notices.UNREADABLE]
    await stage.run(None, encrypted(OWN, sender="@bob:test"))
    assert len(fake.bodies(OWN)) == 2, "to each person"


async def test_on_another_day_it_is_said_again(stage: Stage, fake: FakeHomeserver) -> None:
    yesterday = int((time.time() - 90_000) * 1000)
    await stage.run(None, encrypted(OWN, origin_server_ts=yesterday))
    await stage.run(None, encrypted(OWN))
    assert fake.bodies(OWN) == [notices.UNREADABLE] * 2


async def test_in_a_room_for_two_the_way_is_told(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[NEW] = {PERSON}
    an_hour_ago = int((time.time() - 3600) * 1000)
    await stage.tell(invite(GHOST, NEW, origin_server_ts=an_hour_ago))
    await stage.tell(encrypted())
    assert fake.bodies(NEW) == [notices.encrypted(LINK)]


@pytest.mark.parametrize("rel_type", ["m.replace", "m.reference", "m.annotation"])
async def test_edits_and_references_are_no_messages(
    stage: Stage, fake: FakeHomeserver, rel_type: str
) -> None:
    event = about(rel_type)
    await stage.tell({**event, "room_id": OWN})
    assert fake.bodies(OWN) == []


async def test_a_thread_is_answered_there(stage: Stage, fake: FakeHomeserver) -> None:
    event = said_in("$root")
    relation = event["content"]["m.relates_to"]
    await stage.tell({**event, "type": "m.room.encrypted", "content": {"m.relates_to": relation}})
    (answer,) = fake.messages(OWN)
    assert answer["content"]["m.relates_to"]["event_id"] == "$root"


async def test_it_is_said_on_coming_by_a_tool(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[NEW] = {PERSON, GHOST}
    encrypt(fake)
    ghost = Intent(stage.parts.homeserver, GHOST)
    for _ in range(2):
        await stage.parts.toolbox.membership.entered(ghost, NEW)
    assert fake.bodies(NEW, "m.notice") == [notices.encrypted(LINK)]


async def test_a_tool_succeeds_though_it_cannot_be_said(stage: Stage, fake: FakeHomeserver) -> None:
    fake.members[NEW] = {PERSON, GHOST}
    encrypt(fake)
    stage.refuse("PUT .*/send/m.room.message")
    await stage.parts.toolbox.membership.entered(Intent(stage.parts.homeserver, GHOST), NEW)
    assert stage.stores.rooms.ours_in(NEW) == {GHOST: True}
