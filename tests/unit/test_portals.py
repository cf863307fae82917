"""Rooms of other networks: who is heard there, and what goes out."""

from typing import Any

import pytest
from tests.builders import PERSON, agent, invite, message
from tests.fake_homeserver import FakeHomeserver
from tests.portal_kit import (
    AGENT,
    BOB,
    BOT,
    GHOST,
    LINE,
    PORTAL,
    SELF,
    bridge_state,
    opened,
    out,
    said,
    with_bridge,
)
from tests.stage import Stage
from tests.waiting import eventually

from letta_matrix.store.portals import Portal


async def test_a_contact_is_answered_by_the_agent_that_the_route_names(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    assert bridged.stores.portals.portal(PORTAL) == Portal(
        PORTAL, "irc", "irc", "ann", "", direct=True
    )
    await bridged.tell(said("hello"))
    (answer,) = fake.messages(PORTAL)
    assert answer["sender"] == LINE
    content = answer["content"]
    assert (content["msgtype"], content["body"]) == ("m.text", "echo: hello")
    assert content["com.beeper.per_message_profile"] == {"id": "agent-1", "displayname": "Agent 1"}
    assert "formatted_body" not in content
    assert "m.relates_to" not in content


async def test_a_lines_account_is_made_once(bridged: Stage, fake: FakeHomeserver) -> None:
    fake.users.discard(LINE)
    for _ in range(2):
        await bridged.parts.lookout.prepare()
    assert LINE in fake.users
    assert len(fake.matching("POST .*/register")) == 1


async def test_an_agent_in_the_portal_itself_answers_as_itself(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage, line=None)
    await opened(bridged, invited=AGENT)
    await bridged.tell(said("hello"))
    (answer,) = fake.messages(PORTAL)
    assert answer["sender"] == AGENT
    assert "com.beeper.per_message_profile" not in answer["content"]


@pytest.mark.parametrize("agent_is_there", [False, True])
async def test_what_is_said_before_the_room_is_known_as_a_portal_waits(
    bridged: Stage, fake: FakeHomeserver, agent_is_there: bool
) -> None:
    if agent_is_there:
        await bridged.stores.rooms.joined(PORTAL, "@agent_2:test", direct=False)
    fake.members[PORTAL] = {BOT, GHOST}
    fake.set_state(PORTAL, "m.bridge", bridge_state(), "irc://ann", BOT)
    looks = fake.hold("GET .*/context/")
    await bridged.admit(invite(LINE, PORTAL, sender=BOT))
    await eventually(lambda: fake.matching("/context/"))
    await bridged.admit(said("hello"))
    looks.set()
    await bridged.idle()
    assert out(fake) == ["echo: hello"]


async def test_a_switch_of_protocol_while_the_room_is_looked_at_is_followed(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    fake.members[PORTAL] = {BOT, GHOST}
    fake.set_state(PORTAL, "m.bridge", bridge_state(), "irc://ann", BOT)
    reads = fake.hold(f"GET .*/profile/{GHOST}")
    await bridged.admit(invite(LINE, PORTAL, sender=BOT))
    await eventually(lambda: fake.matching("/profile/"))
    # The room's state was read before that.
    switched = bridge_state(channel={"id": "#ann"})
    await bridged.admit(fake.set_state(PORTAL, "m.bridge", switched, "irc://ann", BOT))
    reads.set()
    await bridged.idle()
    portal = bridged.stores.portals.portal(PORTAL)
    assert portal is not None
    assert portal.channel == "#ann"


async def test_what_others_than_the_bot_say_makes_no_portal(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged, sender=PERSON)
    forged = fake.set_state(PORTAL, "uk.half-shot.bridge", bridge_state(), "x", PERSON)
    await bridged.tell(forged, said("hello"))
    by_ghost = fake.set_state(PORTAL, "m.bridge", bridge_state(), "y", GHOST)
    await bridged.tell(by_ghost, said("hello"))
    assert bridged.stores.portals.all() == []
    assert fake.messages(PORTAL) == []
    told = fake.set_state(PORTAL, "m.bridge", bridge_state(), "z", BOT)
    await bridged.tell(told, said("hello"))
    assert out(fake) == ["echo: hello"]


async def test_another_protocol_or_another_bot_is_no_portal_of_this_bridge(stage: Stage) -> None:
    bridged = await with_bridge(stage, protocols=["irc"])
    await opened(bridged, protocol="telegram")
    await opened(bridged, room_id="!b:test", bridgebot="@other:test")
    assert bridged.stores.portals.all() == []


async def test_protocols_are_followed_and_what_ends_is_forgotten(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage, protocols=["sms", "rcs"])
    await opened(bridged, protocol="sms")
    changed = fake.set_state(PORTAL, "m.bridge", bridge_state("rcs"), "irc://ann", BOT)
    await bridged.tell(changed)
    assert [one.protocol for one in bridged.stores.portals.all()] == ["rcs"]
    await bridged.again()
    assert [one.protocol for one in bridged.stores.portals.all()] == ["rcs"]
    ended = fake.set_state(PORTAL, "m.bridge", {}, "irc://ann", BOT)
    await bridged.tell(ended, said("hello"))
    assert fake.messages(PORTAL) == []


async def test_who_has_no_route_gets_silence(stage: Stage, fake: FakeHomeserver) -> None:
    bridged = await with_bridge(stage, routes={"ann": "Agent 1"})
    await opened(bridged, ghosts=(GHOST, BOB))
    await bridged.tell(said("hello", BOB), said("help", BOB), said("stop", BOB))
    assert bridged.runtime.asked == []
    assert fake.messages(PORTAL) == []
    await bridged.tell(said("hello"))
    assert out(fake) == ["echo: hello"]


async def test_neither_the_line_itself_nor_the_bot_nor_notices_are_heard(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged, ghosts=(GHOST, SELF))
    notice = {"msgtype": "m.notice", "body": "away"}
    await bridged.tell(said("a", SELF), said("b", BOT), said("", content=notice))
    assert bridged.runtime.asked == []


async def test_a_bridges_users_are_nobody_elsewhere(bridged: Stage, fake: FakeHomeserver) -> None:
    fake.members["!1:test"] = {AGENT, GHOST, PERSON}
    await bridged.tell(message("hello", sender=GHOST), message("!help", sender=BOT))
    await bridged.tell(invite(AGENT, "!new:test", sender=PERSON))
    await bridged.tell(message("hello", "!new:test", sender=GHOST))
    assert bridged.runtime.asked == []


async def test_the_bridge_brings_only_its_line_and_routed_agents_into_rooms(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage)
    await bridged.tell(invite("@agent_2:test", PORTAL, sender=BOT))
    await bridged.tell(invite("@letta:test", PORTAL, sender=GHOST))
    await bridged.tell(invite(LINE, "!other:test", sender=PERSON))
    assert bridged.stores.rooms.all() == []
    await bridged.tell(invite(AGENT, PORTAL, sender=GHOST))
    assert bridged.stores.rooms.all() == [PORTAL]


async def test_a_contact_gives_no_commands_and_answers_no_question(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    await bridged.tell(said("!help"))
    await bridged.tell(said("!letta cancel"))
    assert out(fake) == ["echo: !help", "echo: !letta cancel"]


async def test_people_in_a_portal_talk_to_the_network_alone(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    await bridged.tell(message(f"hello {LINE}", PORTAL), message("!status", PORTAL))
    assert bridged.runtime.asked == []
    assert fake.messages(PORTAL) == []


async def test_in_groups_agents_answer_if_that_is_wanted_and_they_are_addressed(
    stage: Stage, fake: FakeHomeserver
) -> None:
    group = {"com.beeper.room_type": "group", "channel": {"id": "#lobby"}}
    bridged = await with_bridge(stage)
    await opened(bridged, group, ghosts=(GHOST, BOB))
    await bridged.tell(said("Agent 1: hello"))
    assert bridged.runtime.asked == []
    bridged = await with_bridge(stage, groups=True, routes={"#lobby": "Agent 1"})
    await bridged.tell(said("hello"), said("so said Agent 1: hello"), said("Agent 12: hello"))
    assert bridged.runtime.asked == []
    pill = {"m.mentions": {"user_ids": [LINE]}, "msgtype": "m.text", "body": "letta: you too"}
    await bridged.tell(said("agent 1, hello"))
    await bridged.tell(said("", BOB, content=pill))
    assert len(bridged.runtime.asked) == len(fake.messages(PORTAL)) == 2


async def test_two_ghosts_with_one_number_are_routed_by_their_own_ids_alone(
    stage: Stage, fake: FakeHomeserver
) -> None:
    number = {"com.beeper.bridge.identifiers": ["tel:+1 555-123 4567"]}
    bridged = await with_bridge(stage, routes={"+1555*": "Agent 1"})
    fake.profiles[GHOST] = number
    await opened(bridged)
    await bridged.tell(said("one"))
    assert out(fake) == ["echo: one"]
    fake.profiles[BOB] = number
    await opened(bridged, room_id="!b:test", ghosts=(BOB,), channel={"id": "bob"})
    await bridged.tell(said("two"), said("three", BOB, "!b:test"))
    assert out(fake) + out(fake, "!b:test") == ["echo: one"]


async def test_names_that_contacts_give_themselves_route_nobody(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage, routes={"+15551234567": "Agent 1"})
    fake.profiles[GHOST] = {"displayname": "+15551234567"}
    await opened(bridged)
    renamed: Any = invite(GHOST, PORTAL, sender=GHOST)
    renamed["content"] = {"membership": "join", "displayname": "+15551234567"}
    await bridged.tell(renamed, said("hello"))
    assert bridged.runtime.asked == []
    bridged = await with_bridge(stage, routes={"+15551234567": "Agent 1"}, identifier=r"^(\+\d+)$")
    await bridged.tell(renamed | {"event_id": "$again"}, said("hello"))
    assert out(fake) == ["echo: hello"]


async def test_a_portal_that_is_made_again_goes_on(bridged: Stage, fake: FakeHomeserver) -> None:
    await opened(bridged)
    await bridged.tell(said("one"))
    await opened(bridged, room_id="!anew:test")
    await bridged.tell(said("two", room_id="!anew:test"))
    assert len({one.conversation_id for one in bridged.runtime.asked}) == 1
    assert [one.room_id for one in bridged.stores.portals.all()] == ["!anew:test"]


async def test_rooms_of_a_bot_without_bridge_state_count_by_who_made_them(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage, proof="creator")
    for room_id, maker, name in (
        (PORTAL, BOT, "ann (net)"),
        ("!forged:test", PERSON, "ann (net)"),
        ("!group:test", BOT, "#lobby (net)"),
    ):
        fake.members[room_id] = {BOT, GHOST}
        fake.set_state(room_id, "m.room.create", {}, "", maker)
        fake.set_state(room_id, "m.room.name", {"name": name}, "", BOT)
        await bridged.tell(invite(LINE, room_id, sender=BOT))
        await bridged.tell(said("hello", room_id=room_id))
    assert [len(fake.messages(one)) for one in (PORTAL, "!forged:test", "!group:test")] == [1, 0, 0]


async def test_no_request_is_made_to_decide_who_is_heard(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged, ghosts=(GHOST, BOB))
    before = len(fake.requests)
    router = bridged.parts.router
    for sender in (GHOST, BOB, BOT, SELF, PERSON):
        router.route(said("hello", sender))
    assert len(fake.requests) == before


async def test_what_is_not_the_answer_is_said_in_the_agents_own_room(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    await bridged.tell(said("fail it broke"))
    assert fake.messages(PORTAL) == []
    assert agent(1).room_id == "!1:test"
    (notice,) = fake.messages("!1:test")
    assert notice["sender"] == AGENT
