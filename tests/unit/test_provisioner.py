"""Reconciling agents with a homeserver: each step once, whatever happens between them."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from mautrix.errors import MForbidden
from tests.agents_site import FORBIDDEN, Site, later
from tests.builders import PERSON
from tests.fake_homeserver import LOST_ANSWER, FakeHomeserver, Fault, failing
from tests.waiting import Clock, eventually, settled

from letta_matrix.agents.decoration import RARELY
from letta_matrix.agents.own_rooms import SERVICE
from letta_matrix.agents.provisioner import _BACK, _REMOVED
from letta_matrix.agents.server_help import ADMIN_WANTED
from letta_matrix.app.checks import encryption
from letta_matrix.matrix.api import RateLimited
from letta_matrix.matrix.errors import refusal
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import AgentDirectory, AgentStatus
from letta_matrix.store.database import Database, StoreUnavailable
from letta_matrix.store.forgetting import forget_home
from letta_matrix.store.meta import Meta


@pytest.fixture
async def site(
    database: Database, directory: AgentDirectory, homeserver: Homeserver
) -> AsyncGenerator[Site]:
    made = Site(database, directory, homeserver)
    await made.home.ensure()
    yield made
    await made.provisioner.close()


async def test_the_bridges_own_rooms_are_made_once(
    site: Site, fake: FakeHomeserver, database: Database
) -> None:
    assert set(fake.aliases) == {"#letta_agents:test", "#letta_control:test"}
    assert fake.profiles["@letta:test"] == {"displayname": "Letta"}
    fake.requests.clear()
    again = site.home_again()
    await again.ensure()
    assert fake.requests == []
    assert (again.space_id, again.control_room_id) == (
        site.home.space_id,
        site.home.control_room_id,
    )


async def test_the_space_has_a_picture_and_admins_once(
    site: Site, fake: FakeHomeserver, database: Database
) -> None:
    space = site.home.space_id
    levels = {"users": {"@letta:test": 100, "@bob:test": 50}, "ban": 50}
    fake.set_state(space, "m.room.power_levels", levels)
    await site.home.adorn()
    state = {one["type"]: one["content"] for one in fake.events[space] if "state_key" in one}
    assert state["m.room.avatar"]["url"].startswith("mxc://")
    assert state["m.room.power_levels"] == {
        "users": {"@letta:test": 100, "@bob:test": 50, PERSON: 100},
        "ban": 50,
    }
    fake.requests.clear()
    await site.home_again().adorn()
    assert fake.requests == []


async def test_a_picture_of_the_space_stays(site: Site, fake: FakeHomeserver) -> None:
    fake.set_state(site.home.space_id, "m.room.avatar", {"url": "mxc://test/own"})
    await site.home.adorn()
    assert not fake.matching("upload")


async def test_a_space_without_decoration_is_one(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.fail("upload", Fault(403, {"errcode": "M_FORBIDDEN", "error": "no media here"}))
    await site.home.adorn()
    await site.home.adorn()
    assert len(fake.matching("upload")) == 1
    assert "the space's picture" in site.home.decoration.troubles[0]
    later(monkeypatch, RARELY)
    await site.home.decorate_again()
    assert [one["type"] for one in fake.events[site.home.space_id]][-1] == "m.room.avatar"
    assert site.home.decoration.troubles == []


@pytest.mark.parametrize("version", [11, None])
async def test_rooms_have_the_version_that_is_wanted(
    database: Database,
    directory: AgentDirectory,
    homeserver: Homeserver,
    fake: FakeHomeserver,
    version: int | None,
) -> None:
    site = Site(database, directory, homeserver, room_version=version)
    await site.home.ensure()
    await site.new()
    await site.reconcile()
    made = fake.matching("POST .*/createRoom")[-1].body
    assert made.get("room_version") == (None if version is None else "11")
    assert ("creation_content" in made) == (version is None)


async def test_an_agent_gets_all_of_it_and_then_nothing_more(
    site: Site, fake: FakeHomeserver
) -> None:
    await site.new()
    one = await site.reconcile()
    assert fake.users >= {"@agent_1:test"}
    assert fake.profiles["@agent_1:test"]["displayname"] == "Agent 1"
    assert fake.profiles["@agent_1:test"]["avatar_url"].startswith("mxc://")
    assert one.room_id is not None
    assert one.room_id == fake.aliases["#agent_1:test"]
    assert fake.members[one.room_id] == {"@agent_1:test", "@letta:test", PERSON, "@bob:test"}
    assert site.rooms == [one.room_id]
    (child,) = fake.messages(site.home.space_id, "m.space.child")
    assert child["content"] == {"via": ["test"]}
    fake.requests.clear()
    await site.reconcile()
    assert fake.requests == []


@pytest.mark.parametrize("version", [11, 12])
async def test_creators_have_power_in_each_room_version(
    database: Database,
    directory: AgentDirectory,
    homeserver: Homeserver,
    fake: FakeHomeserver,
    version: int,
) -> None:
    fake.room_version = str(version)
    site = Site(database, directory, homeserver)
    await site.home.ensure()
    await site.new()
    await site.reconcile()
    body = fake.matching("createRoom")[-1].body
    powers = body["power_level_content_override"]["users"]
    if version == 12:
        assert body["creation_content"] == {"additional_creators": ["@letta:test"]}
        assert powers == {PERSON: 100, "@bob:test": 10}
    else:
        assert "creation_content" not in body
        ours = {"@letta:test": 100, "@agent_1:test": 100}
        assert powers == {PERSON: 100, "@bob:test": 10, **ours}


async def test_a_rename_touches_names_only(site: Site, fake: FakeHomeserver) -> None:
    await site.new()
    one = await site.reconcile()
    room_id = one.room_id
    fake.requests.clear()
    await site.change(name="Renamed")
    await site.reconcile()
    lines = sorted(request.line.rpartition("/")[2] for request in fake.requests)
    assert lines == ["displayname", "m.room.name", "m.room.topic"]
    assert one.room_id == room_id


@pytest.mark.parametrize(
    "step", ["register", "upload", "avatar_url", "createRoom", "m.space.child"]
)
async def test_a_set_up_cut_short_anywhere_makes_nothing_twice(
    site: Site, fake: FakeHomeserver, step: str, clock: Clock
) -> None:
    await site.new()
    # Twice: aiohttp tries a request again by itself when its connection breaks.
    fake.fail(step, LOST_ANSWER, LOST_ANSWER, failing(500))
    reconciling = asyncio.create_task(site.reconcile())
    await clock.until(reconciling.done)
    one = await reconciling
    assert list(fake.aliases) == ["#letta_control:test", "#letta_agents:test", "#agent_1:test"]
    assert one.room_id == fake.aliases["#agent_1:test"]


async def test_a_room_that_exists_is_adopted(site: Site, fake: FakeHomeserver) -> None:
    fake.place("#agent_1:test", "!before:test", "@agent_1:test")
    await site.new()
    one = await site.reconcile()
    assert one.room_id == "!before:test"
    assert fake.members["!before:test"] == {"@agent_1:test", "@letta:test", PERSON, "@bob:test"}
    written = sorted(e["type"] for e in fake.events["!before:test"])
    access = ["m.room.history_visibility", "m.room.power_levels"]
    assert written == sorted([*access, SERVICE, "m.room.create", "m.room.name", "m.room.topic"])
    (told,) = fake.messages("!before:test", SERVICE)
    assert told["content"] == {"service_members": ["@letta:test"]}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["@other:test", 7, None], ["@other:test", "@letta:test"]),
        ("@other:test", ["@letta:test"]),
        (["@letta:test", "@other:test"], None),
    ],
)
async def test_service_members_of_others_stay(
    site: Site, fake: FakeHomeserver, before: object, after: list[str] | None
) -> None:
    fake.place("#agent_1:test", "!before:test", "@agent_1:test")
    fake.set_state("!before:test", SERVICE, {"service_members": before})
    await site.new()
    await site.reconcile()
    told = [one["content"] for one in fake.messages("!before:test", SERVICE)[1:]]
    assert told == ([{"service_members": after}] if after else [])


@pytest.mark.parametrize("maker", ["@mallory:test", "@agent_2:test", PERSON])
async def test_a_room_of_somebody_else_is_not_adopted(
    site: Site, fake: FakeHomeserver, maker: str
) -> None:
    aliases = ("#agent_1:test", "#letta_agents:test", "#letta_control:test")
    for number, alias in enumerate(aliases):
        fake.place(alias, f"!theirs{number}:test", maker)
    await forget_home(Meta(site.database))
    home = site.home_again()
    await home.ensure()
    await site.new()
    one = await site.reconcile()
    taken = [fake.aliases[alias].startswith("!theirs") for alias in aliases]
    # An admin may have moved it.
    assert taken == [maker == PERSON] * 3
    assert fake.aliases["#agent_1:test"] == one.room_id
    for number in range(3):
        ours = fake.members[f"!theirs{number}:test"] & {"@agent_1:test", "@letta:test"}
        assert bool(ours) is (maker == PERSON)
    assert home.space_id == fake.aliases["#letta_agents:test"]


@pytest.mark.parametrize("status", [403, 500])
async def test_trouble_makes_no_second_room(
    site: Site, fake: FakeHomeserver, status: int, clock: Clock
) -> None:
    await site.new()
    one = await site.reconcile()
    created = len(fake.matching("createRoom"))
    applied = {key: value for key, value in one.applied.items() if key != "bot_joined"}
    await site.change(applied=applied)
    fake.fail("/join", *[Fault(status, {"errcode": "M_FORBIDDEN", "error": "no"})] * 2)
    clock.stop()
    await site.provisioner.request([one])
    if status == 403:
        await eventually(lambda: "agent-1" in site.provisioner.trouble)
        assert site.provisioner.trouble["agent-1"] == (
            "POST client/v3/rooms/*/join: the homeserver refused: M_FORBIDDEN: no" + ADMIN_WANTED
        )
    await clock.until(lambda: not site.provisioner.busy)
    assert site.provisioner.trouble == {}
    assert len(fake.matching("createRoom")) == created


async def test_a_person_who_cannot_be_invited_stops_nobody(
    site: Site, fake: FakeHomeserver
) -> None:
    await site.new()
    fake.place("#agent_1:test", "!before:test", "@agent_1:test")
    fake.fail("POST .*/invite", Fault(403, {"errcode": "M_FORBIDDEN", "error": "banned"}))
    await site.reconcile()
    assert len(fake.members["!before:test"] & {PERSON, "@bob:test"}) == 1


async def test_removal_and_return_are_announced_once_each(site: Site, fake: FakeHomeserver) -> None:
    await site.new()
    one = await site.reconcile()
    assert one.room_id is not None
    for status in (AgentStatus.REMOVED, AgentStatus.ACTIVE) * 2:
        await site.change(status=status)
        await site.reconcile()
        await site.reconcile()
    assert fake.bodies(one.room_id) == [_REMOVED, _BACK] * 2
    types = {event["content"]["msgtype"] for event in fake.messages(one.room_id)}
    assert types == {"m.notice"}


async def test_an_agent_removed_before_it_had_a_room(site: Site, fake: FakeHomeserver) -> None:
    await site.new(status=AgentStatus.REMOVED)
    fake.requests.clear()
    await site.reconcile()
    assert fake.requests == []


async def test_few_are_set_up_at_a_time(site: Site, fake: FakeHomeserver) -> None:
    released = fake.hold("createRoom")
    agents = [await site.new(number) for number in range(1, 21)]
    fake.requests.clear()
    await site.provisioner.request(agents)
    few = site.config.agents.provision_concurrency
    await eventually(lambda: len(fake.matching("createRoom")), few.__eq__)
    await settled()
    assert len(fake.matching("register")) == few
    assert 2 <= few < 20
    released.set()
    await eventually(lambda: not site.provisioner.busy)
    assert len(set(fake.aliases.values())) == 22
    assert len(fake.matching("capabilities")) == 1


async def test_a_change_while_an_agent_is_set_up_is_not_missed(
    site: Site, fake: FakeHomeserver
) -> None:
    released = fake.hold("createRoom")
    one = await site.new()
    fake.requests.clear()
    await site.provisioner.request([one])
    await eventually(lambda: fake.matching("createRoom"))
    await site.change(name="Renamed")
    await site.provisioner.request([one])
    released.set()
    await eventually(lambda: not site.provisioner.busy)
    assert fake.profiles["@agent_1:test"]["displayname"] == "Renamed"
    assert fake.matching("m.room.name")


async def test_the_bot_is_invited_to_a_room_it_may_not_join(
    site: Site, fake: FakeHomeserver
) -> None:
    fake.place("#agent_1:test", "!before:test", "@agent_1:test")
    fake.fail("POST .*!before.*/join", Fault(200, {"room_id": "!before:test"}), FORBIDDEN)
    await site.new()
    await site.reconcile()
    invited = [r.body["user_id"] for r in fake.matching("POST .*!before.*/invite")]
    assert "@letta:test" in invited
    assert fake.members["!before:test"] == {"@letta:test", PERSON, "@bob:test"}


async def test_a_room_that_keeps_the_bot_out_still_gets_its_members(
    site: Site, fake: FakeHomeserver
) -> None:
    await site.new(applied={"members": []})
    fake.fail("POST .*/join", *[FORBIDDEN] * 2)
    with pytest.raises(MForbidden):
        await site.reconcile()
    assert site.one.applied["members"] == [PERSON, "@bob:test"]
    assert site.one.applied["room_name"]


async def test_what_could_not_be_stored_is_not_believed(
    site: Site, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise StoreUnavailable("the database cannot be used now: disk full")

    await site.new()
    with monkeypatch.context() as patched:
        patched.setattr(database, "execute", full)
        with pytest.raises(StoreUnavailable):
            await site.reconcile()
    assert site.one.applied == {}
    await site.reconcile()
    assert site.one.room_id is not None
    assert site.rooms == [site.one.room_id]


async def test_a_room_is_told_of_until_it_was_heard(site: Site) -> None:
    await site.new()
    site.deaf = True
    with pytest.raises(StoreUnavailable):
        await site.reconcile()
    assert site.one.room_id is not None
    site.deaf = False
    await site.reconcile()
    await site.reconcile()
    assert site.rooms == [site.one.room_id]


async def test_a_removal_while_the_return_is_announced_is_not_lost(
    site: Site, fake: FakeHomeserver
) -> None:
    await site.new()
    await site.reconcile()
    await site.change(status=AgentStatus.REMOVED)
    await site.reconcile()
    await site.change(status=AgentStatus.ACTIVE)
    released = fake.hold("PUT .*/send/")
    await site.provisioner.request([site.one])
    await eventually(lambda: len(fake.matching("PUT .*/send/")) == 2)
    await site.change(status=AgentStatus.REMOVED)
    await site.provisioner.request([site.one])
    released.set()
    await eventually(lambda: not site.provisioner.busy)
    assert fake.bodies(str(site.one.room_id)) == [_REMOVED, _BACK, _REMOVED]


async def test_refusals_read_as_one_line() -> None:
    assert "registration.yaml" in refusal(_error("M_UNKNOWN_TOKEN"))
    assert refusal(_error("M_FORBIDDEN")) == "the homeserver refused: M_FORBIDDEN: why"


def _error(errcode: str) -> RateLimited:
    error = RateLimited(1.0)
    error.errcode, error.message = errcode, "why"  # type: ignore[assignment]
    return error


async def test_a_room_that_is_encrypted_from_the_start_is_known(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Intent.create_room

    async def forced(self: Intent, content: Any, **more: Any) -> str:
        room_id = await make(self, content, **more)
        fake.set_state(room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
        return room_id

    await site.new(1)
    await site.new(2)
    await site.provisioner.reconcile("agent-2")
    monkeypatch.setattr(Intent, "create_room", forced)
    await site.reconcile()
    trouble = encryption(site.directory.all())
    assert trouble is not None
    assert trouble.who == "Agent 1"
    assert "encryption_enabled_by_default_for_room_type: off" in trouble.remedy
    assert "letta-matrix forget AGENT --new-room" in trouble.remedy
    await site.change(status=AgentStatus.REMOVED)
    assert encryption(site.directory.all()) is None
