"""What a homeserver refuses of looks holds up no agent: told once, tried again rarely."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from structlog.testing import capture_logs
from tests.agents_site import FORBIDDEN, Site, later
from tests.builders import PERSON
from tests.fake_homeserver import FakeHomeserver, Fault, failing
from tests.waiting import Clock, eventually

from letta_matrix.agents.decoration import RARELY, SOON
from letta_matrix.agents.provisioner import _HEADSTART, Provisioner
from letta_matrix.agents.server_help import server_help
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database

ALWAYS = 50
TOO_LARGE = Fault(413, {"errcode": "M_TOO_LARGE", "error": "Upload request body is too large"})
OFF = Fault(404, {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"})


@pytest.fixture
async def site(
    database: Database, directory: AgentDirectory, homeserver: Homeserver
) -> AsyncGenerator[Site]:
    made = Site(database, directory, homeserver)
    yield made
    await made.provisioner.close()


@pytest.mark.parametrize(
    ("pattern", "fault", "what"),
    [
        (
            "profile/@agent.*displayname",
            FORBIDDEN,
            "display names of 1 agent: PUT client/v3/profile/*/displayname: ",
        ),
        ("profile/@agent.*avatar_url", FORBIDDEN, "pictures of 1 agent"),
        ("upload", TOO_LARGE, "POST media/v3/upload: the homeserver refused: M_TOO_LARGE"),
        (
            "m.space.child",
            FORBIDDEN,
            "PUT client/v3/rooms/*/state/m.space.child/*: the homeserver refused",
        ),
        ("m.room.name", FORBIDDEN, "room names of 1 agent"),
        ("m.room.topic", FORBIDDEN, "room topics of 1 agent"),
        ("PUT .*m.room.history_visibility", FORBIDDEN, "who may invite and read in rooms"),
        ("PUT .*m.room.power_levels", FORBIDDEN, "who may invite and read in rooms"),
        (
            "POST .*!before.*/invite",
            FORBIDDEN,
            "invitations of agents.room_members of 1 agent: 2 cannot be invited (the log says who)",
        ),
    ],
)
async def test_what_is_refused_holds_up_nothing(
    site: Site,
    fake: FakeHomeserver,
    pattern: str,
    fault: Fault,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await site.home.ensure()
    fake.place("#agent_1:test", "!before:test", "@agent_1:test")
    fake.fail(pattern, *[fault] * ALWAYS)
    await site.new()
    with capture_logs() as logs:
        await site.reconcile()
        await site.reconcile()
    assert site.rooms == ["!before:test"]
    assert "@letta:test" in fake.members["!before:test"]
    (told,) = site.home.decoration.troubles
    assert what in told
    assert PERSON not in told
    assert len([one for one in logs if one["log_level"] == "warning"]) == 1
    later(monkeypatch, RARELY)
    fake.heal()
    await site.reconcile()
    assert site.home.decoration.troubles == []
    fake.requests.clear()
    await site.reconcile()
    assert fake.requests == []


async def test_a_restart_tries_nothing_again_before_its_time(
    site: Site, fake: FakeHomeserver, homeserver: Homeserver
) -> None:
    await site.home.ensure()
    fake.fail("profile/@agent|upload|m.space.child", *[FORBIDDEN] * ALWAYS)
    await site.new()
    await site.reconcile()
    again = site.home_again()
    await again.ensure()
    fake.requests.clear()
    no_help = server_help(site.config, homeserver, site.passwords)
    restarted = Provisioner(
        site.config, homeserver, site.directory, again, site.remembered, no_help, site._on_room
    )
    await restarted.reconcile("agent-1")
    assert fake.requests == []
    assert len(again.decoration.troubles) == 3


async def test_a_restarted_homeserver_is_asked_again(
    site: Site, fake: FakeHomeserver, clock: Clock
) -> None:
    fake.fail("displayname", FORBIDDEN, FORBIDDEN)
    await site.home.ensure()
    await site.new()
    await site.reconcile()
    assert len(site.home.decoration.troubles) == 2
    site.home.decoration.anew()
    await site.home.ensure()
    decorating = asyncio.create_task(site.provisioner.redecorate())
    await clock.until(lambda: site.home.decoration.troubles == [], step=10)
    assert fake.profiles["@agent_1:test"]["displayname"] == "Agent 1"
    decorating.cancel()


async def test_another_name_is_tried_at_once(site: Site, fake: FakeHomeserver) -> None:
    await site.home.ensure()
    fake.fail("displayname", FORBIDDEN)
    await site.new()
    await site.reconcile()
    await site.change(name="Better")
    await site.reconcile()
    assert fake.profiles["@agent_1:test"]["displayname"] == "Better"
    assert site.home.decoration.troubles == []


async def test_what_is_wanted_no_more_is_not_wanting(site: Site, fake: FakeHomeserver) -> None:
    await site.home.ensure()
    await site.new()
    await site.reconcile()
    fake.fail("displayname", FORBIDDEN)
    await site.change(name="Better")
    await site.reconcile()
    assert len(site.home.decoration.troubles) == 1
    await site.change(name="Agent 1")
    await site.reconcile()
    assert site.home.decoration.troubles == []


async def test_many_agents_are_told_of_in_one_line(site: Site, fake: FakeHomeserver) -> None:
    await site.home.ensure()
    fake.fail("profile/@agent.*displayname", *[FORBIDDEN] * ALWAYS)
    with capture_logs() as logs:
        for number in (1, 2, 3):
            await site.new(number)
            await site.provisioner.reconcile(f"agent-{number}")
    (told,) = site.home.decoration.troubles
    assert told.startswith("display names of 3 agents: ")
    assert told.endswith("; agents talk all the same")
    assert len([one for one in logs if one["log_level"] == "warning"]) == 1


async def test_media_that_hang_keep_one_agent_waiting_and_no_other(
    site: Site, fake: FakeHomeserver, clock: Clock
) -> None:
    await site.home.ensure()
    released = fake.hold("upload")
    await site.new(1)
    await site.new(2)
    clock.stop()
    first = asyncio.create_task(site.provisioner.reconcile("agent-1"))
    await eventually(lambda: fake.matching("upload"))
    clock.advance(_HEADSTART)
    await eventually(lambda: site.rooms)
    await clock.until(first.done)
    clock.stop()
    await site.provisioner.reconcile("agent-2")
    assert len(site.rooms) == 2
    assert "pictures of 2 agents: no answer in 75 s" in site.home.decoration.troubles[0]
    released.set()


async def test_a_room_gets_its_picture_when_there_is_one(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.home.ensure()
    fake.fail("upload", FORBIDDEN)
    await site.new()
    await site.reconcile()
    initial = fake.matching("createRoom")[-1].body["initial_state"]
    assert "m.room.avatar" not in [one["type"] for one in initial]
    later(monkeypatch, RARELY)
    await site.reconcile()
    (shown,) = fake.messages(str(site.one.room_id), "m.room.avatar")
    assert shown["content"] == {"url": site.one.applied["avatar"]}
    fake.requests.clear()
    await site.reconcile()
    assert fake.requests == []


async def test_media_that_are_off_hold_up_nothing(
    site: Site, fake: FakeHomeserver, clock: Clock
) -> None:
    await site.home.ensure()
    fake.fail("upload", *[OFF] * ALWAYS)
    await site.new()
    await clock.through(site.reconcile())
    assert site.one.room_id
    (told,) = site.home.decoration.troubles
    assert told.startswith("pictures of 1 agent: ")
    assert "M_UNRECOGNIZED" in told
    assert "enable_media_repo" in told
    assert "homeserver.url" not in told


async def test_odd_answers_are_no_condition_either(
    site: Site, fake: FakeHomeserver, clock: Clock
) -> None:
    await site.home.ensure()
    fake.fail("upload", *[Fault(200, {"odd": True})] * ALWAYS)
    await site.new()
    await clock.through(site.reconcile())
    assert site.one.room_id
    assert "pictures of 1 agent" in site.home.decoration.troubles[0]


async def test_a_picture_that_failed_comes_later_by_itself(
    site: Site, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.home.ensure()
    fake.fail("upload", *[failing(502)] * ALWAYS)
    one = await site.new()
    await clock.through(site.reconcile())
    decorating = asyncio.create_task(site.provisioner.redecorate())
    fake.heal()
    later(monkeypatch, SOON)
    clock.advance(SOON)
    await clock.until(lambda: "avatar_url" in fake.profiles["@agent_1:test"], step=10)
    assert not site.provisioner.busy
    assert one.agent_id == "agent-1"
    await eventually(lambda: site.home.decoration.troubles, list[str]().__eq__)
    decorating.cancel()


async def test_decorating_anew_does_not_count_as_busy(
    site: Site, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.home.ensure()
    fake.fail("upload", FORBIDDEN)
    await site.new()
    await site.reconcile()
    released = fake.hold("upload")
    later(monkeypatch, RARELY)
    decorating = asyncio.create_task(site.provisioner.redecorate())
    await clock.until(lambda: len(fake.matching("upload")) == 2, step=5)
    assert not site.provisioner.busy
    await site.provisioner.request([site.one])
    assert site.provisioner.busy
    released.set()
    decorating.cancel()


async def test_a_room_refused_with_all_that_belongs_to_it_is_made_without(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.home.ensure()
    fake.fail("createRoom", FORBIDDEN)
    await site.new()
    one = await site.reconcile()
    whole, bare = (request.body for request in fake.matching("createRoom")[-2:])
    assert "room_alias_name" in whole
    assert bare == {
        "preset": "private_chat",
        "creation_content": {
            "org.letta.matrix": {"agent_id": "agent-1"},
            "additional_creators": ["@letta:test"],
        },
    }
    assert one.room_id == fake.aliases["#agent_1:test"]
    assert fake.members[str(one.room_id)] == {"@agent_1:test", "@letta:test", PERSON, "@bob:test"}
    types = {event["type"] for event in fake.events[str(one.room_id)]}
    assert types >= {"m.room.name", "m.room.topic", "m.room.power_levels", "m.room.canonical_alias"}
    assert site.home.decoration.troubles == []


async def test_a_bare_room_is_not_made_twice(site: Site, fake: FakeHomeserver) -> None:
    await site.home.ensure()
    fake.fail("createRoom", FORBIDDEN, Fault(403, FORBIDDEN.body, takes_effect=True), FORBIDDEN)
    one = await site.new()
    await site.provisioner.request([one])
    await eventually(lambda: not site.provisioner.busy)
    made = [r for r in fake.matching("createRoom") if r.user_id == "@agent_1:test"]
    assert len(made) == 3
    rooms = [room for room, people in fake.members.items() if "@agent_1:test" in people]
    assert rooms == [site.one.room_id]


async def test_a_room_that_was_made_in_spite_of_a_refusal_is_taken(
    site: Site, fake: FakeHomeserver
) -> None:
    await site.home.ensure()
    fake.fail("createRoom", Fault(403, FORBIDDEN.body, takes_effect=True))
    await site.new()
    one = await site.reconcile()
    assert one.room_id == fake.aliases["#agent_1:test"]
    assert len(fake.matching("createRoom")) == 3


async def test_who_left_is_not_invited_again_for_anothers_sake(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.home.ensure()
    fake.place("#agent_1:test", "!before:test", "@agent_1:test")
    fake.fail("POST .*!before.*/invite", FORBIDDEN)
    await site.new()
    await site.reconcile()
    fake.members["!before:test"] -= {PERSON, "@bob:test"}
    later(monkeypatch, RARELY)
    fake.requests.clear()
    await site.reconcile()
    assert len(fake.matching("!before.*/invite")) == 1
    assert site.one.applied["members"] == sorted([PERSON, "@bob:test"])


async def test_without_a_space_agents_have_rooms_and_come_into_it_later(
    site: Site, fake: FakeHomeserver, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The control room is made first.
    fake.fail("createRoom", Fault(200, {"room_id": "!control:test"}), FORBIDDEN)
    await site.home.ensure()
    assert site.home.space_id == ""
    assert site.home.decoration.troubles[0].startswith("the space: POST client/v3/createRoom: ")
    await site.home.adorn()
    await site.new()
    await site.reconcile()
    content = fake.matching("createRoom")[-1].body
    assert "m.space.parent" not in [one["type"] for one in content["initial_state"]]
    later(monkeypatch, RARELY)
    decorating = asyncio.create_task(site.provisioner.redecorate())
    await clock.until(lambda: site.one.applied.get("space"), step=10)
    assert site.one.applied["space"] == site.home.space_id == fake.aliases["#letta_agents:test"]
    decorating.cancel()


async def test_without_a_control_room_the_space_wakes_the_homeserver(
    site: Site, fake: FakeHomeserver
) -> None:
    fake.fail("createRoom", FORBIDDEN)
    await site.home.ensure()
    await site.home.wake("t1")
    assert len(fake.messages(site.home.space_id, "org.letta.matrix.wake")) == 1
    site.home.space_id = ""
    await site.home.wake("t2")


async def test_the_bots_name_is_no_condition(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.fail("displayname", FORBIDDEN)
    await site.home.ensure()
    await site.home.ensure()
    assert len(fake.matching("displayname")) == 1
    assert site.home.control_room_id
    assert "the bot's display name: PUT client/v3/profile" in site.home.decoration.troubles[0]
    assert not await site.home.decorate_again()
    later(monkeypatch, RARELY)
    await site.home.decorate_again()
    assert fake.profiles["@letta:test"] == {"displayname": "Letta"}
    assert site.home.decoration.troubles == []


async def test_others_are_invited_to_the_space_at_once(site: Site, fake: FakeHomeserver) -> None:
    fake.fail("POST .*/invite", FORBIDDEN)
    site.config.agents.room_members[:] = []
    await site.home.ensure()
    site.config.agents.room_members[:] = [PERSON]
    await site.home_again().ensure()
    assert len(fake.matching("POST .*/invite")) == 1
    site.config.agents.room_members[:] = [PERSON, "@bob:test"]
    again = site.home_again()
    await again.ensure()
    await again.ensure()
    invited = [request.body["user_id"] for request in fake.matching("POST .*/invite")]
    assert sorted(invited[1:]) == sorted([PERSON, "@bob:test"])


async def test_what_a_jump_of_the_clock_put_far_off_is_tried(
    site: Site, fake: FakeHomeserver
) -> None:
    await site.home.ensure()
    fake.fail("displayname", FORBIDDEN)
    await site.new()
    await site.reconcile()

    wanting = {"displayname": {"value": "Agent 1", "reason": "no", "at": 9e9, "until": 9e12}}
    await site.change(applied={**site.one.applied, "wanting": wanting})
    assert site.home.decoration.is_due(site.one)
    await site.reconcile()
    assert "wanting" not in site.one.applied
