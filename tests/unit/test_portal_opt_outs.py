"""STOP of contacts holds from when it is heard, in whichever order a portal, its agent and what was
said there become known."""

import time

from tests.builders import invite
from tests.fake_homeserver import FakeHomeserver
from tests.portal_kit import (
    AGENT,
    BOB,
    BOT,
    GHOST,
    LINE,
    PORTAL,
    SELF,
    admin,
    bridge_state,
    opened,
    out,
    said,
    with_bridge,
)
from tests.stage import Stage
from tests.waiting import eventually

DAY = 86_400
STOPPED = "You get no more messages from here. Send START to go on."
STARTED = "You get messages from here again. Send STOP to end them."


async def test_stop_and_start_are_honoured_answered_once_and_remembered(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    await bridged.tell(said("STOP"), said("stop"))
    await bridged.tell(said("hello"), said("Stop."))
    assert out(fake) == [STOPPED]
    await bridged.again()
    await bridged.tell(said("hello"))
    assert bridged.runtime.asked == []
    await bridged.tell(said("START"))
    await bridged.tell(said("start"))
    await bridged.tell(said("hello"))
    # The second `start` is a word like any other.
    assert out(fake) == [STOPPED, STARTED, "echo: start", "echo: hello"]


async def test_stop_ends_the_answer_under_way(bridged: Stage, fake: FakeHomeserver) -> None:
    await opened(bridged)
    await bridged.admit(said("hang"))
    await eventually(lambda: bridged.runtime.asked)
    await bridged.tell(said("stop"))
    assert out(fake) == [STOPPED]


async def test_stop_holds_for_the_number_though_its_ghost_is_another(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage)
    fake.profiles[GHOST] = {"com.beeper.bridge.identifiers": ["tel:+15551234567"]}
    await opened(bridged)
    await bridged.tell(said("stop"))
    fake.profiles[BOB] = fake.profiles.pop(GHOST)
    await opened(bridged, room_id="!b:test", ghosts=(BOB,), channel={"id": "bob"})
    await bridged.tell(said("hello", BOB, "!b:test"))
    assert fake.messages("!b:test") == []


async def test_who_wants_nothing_is_remembered_though_nobody_answers_yet(
    ruled: Stage, fake: FakeHomeserver
) -> None:
    await opened(ruled)
    await ruled.tell(admin("!portal block ann"))
    await ruled.tell(said("Stop"))
    await ruled.tell(admin('!portal allow ann "Agent 1"'))
    await ruled.tell(said("hello"))
    assert out(fake) == []
    await ruled.tell(said("START"))
    await ruled.tell(said("hello"))
    assert out(fake) == [STARTED, "echo: hello"]
    await ruled.tell(admin("!portal block ann"))
    await ruled.tell(said("stop"), said("start"))
    await ruled.tell(admin('!portal allow ann "Agent 1"'))
    await ruled.tell(said("again"))
    assert out(fake)[2:] == ["echo: again"]


async def test_who_wants_nothing_before_their_portal_is_known_is_remembered(
    ruled: Stage, fake: FakeHomeserver
) -> None:
    await ruled.tell(admin("!portal block ann"))
    await ruled.tell(said("start"), said("Stop"))
    await opened(ruled)
    await ruled.tell(admin('!portal allow ann "Agent 1"'))
    await ruled.tell(said("hello"))
    assert out(fake) == []


async def test_what_was_said_first_counts_first_though_it_is_looked_at_later(
    ruled: Stage, fake: FakeHomeserver
) -> None:
    await ruled.tell(admin("!portal block ann"))
    await ruled.tell(said("start"))
    fake.members[PORTAL] = {BOT, GHOST}
    told = fake.set_state(PORTAL, "m.bridge", bridge_state(), "irc://ann", BOT)
    first = fake.hold(f"GET .*{PORTAL}/context/")
    await ruled.admit(invite(LINE, PORTAL, sender=BOT))
    await eventually(lambda: fake.matching(f"{PORTAL}/context/"))
    # So it has to look once more, when it knows of the portal.
    again = fake.hold(f"GET .*{PORTAL}/joined_members")
    await ruled.admit(told)
    first.set()
    await eventually(ruled.stores.portals.all)
    await ruled.admit(said("stop"))
    again.set()
    await ruled.idle()
    await ruled.tell(admin('!portal allow ann "Agent 1"'))
    await ruled.tell(said("hello"))
    assert out(fake) == []


async def test_stop_holds_though_the_agent_came_later(stage: Stage, fake: FakeHomeserver) -> None:
    bridged = await with_bridge(stage, line=None)
    await bridged.tell(said("stop"))
    await opened(bridged, invited=AGENT)
    await bridged.tell(said("hello"))
    assert out(fake) == []


async def test_stop_holds_before_it_is_answered(bridged: Stage, fake: FakeHomeserver) -> None:
    await opened(bridged)
    await bridged.admit(said("stop"), said("start"))
    await bridged.idle()
    assert out(fake) == [STOPPED, STARTED]
    answers = fake.hold(f"PUT .*{PORTAL}/send/")
    await bridged.admit(said("stop"))
    assert bridged.stores.portals.contacts("irc")[0].stopped
    answers.set()
    await bridged.idle()
    assert out(fake) == [STOPPED, STARTED, STOPPED]


async def test_a_stop_that_comes_again_undoes_no_start(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    stop, start = said("stop"), said("start")
    start["origin_server_ts"] = stop["origin_server_ts"] + 1
    for _ in range(2):
        await bridged.tell(stop, start)
    await bridged.tell(said("hello"))
    assert out(fake) == [STOPPED, STARTED, "echo: hello"]


async def test_what_a_bridge_tells_of_long_ago_stops_nobody(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    await bridged.tell(said("Cancel", origin_server_ts=int((time.time() - 40 * DAY) * 1000)))
    await bridged.tell(said("hello"))
    assert out(fake) == ["echo: hello"]


async def test_stop_and_start_just_before_the_agent_came_count_in_their_order(
    bridged: Stage, fake: FakeHomeserver
) -> None:
    await opened(bridged)
    earlier = [int((time.time() - seconds) * 1000) for seconds in (600, 300)]
    await bridged.tell(said("stop", origin_server_ts=earlier[0]))
    await bridged.tell(said("hello"))
    await bridged.tell(said("start", origin_server_ts=earlier[1]))
    await bridged.tell(said("hello again"))
    assert out(fake) == ["echo: hello again"]


async def test_who_typed_by_hand_before_the_portal_is_known_is_not_talked_over(
    stage: Stage, fake: FakeHomeserver
) -> None:
    bridged = await with_bridge(stage, takeover=600)
    await bridged.tell(said("I am here", SELF))
    await opened(bridged, ghosts=(GHOST, SELF))
    await bridged.tell(said("hello"))
    assert out(fake) == []
