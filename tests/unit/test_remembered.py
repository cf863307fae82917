"""What is remembered of the homeserver, and what becomes of it when the homeserver knows it not."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from mautrix.errors import MatrixRequestError, MForbidden
from tests.builders import PERSON
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.unit.test_provisioner import FORBIDDEN, Site
from tests.waiting import Clock, settled

from letta_matrix.agents.doubts import _AGAIN, Doubts
from letta_matrix.agents.losses import _TOLD_FOR, Loss
from letta_matrix.matrix.homeserver import Homeserver, HomeserverUnavailable
from letta_matrix.matrix.intent import Intent
from letta_matrix.store.agents import Agent, AgentDirectory, AgentStatus
from letta_matrix.store.audit import AuditStore
from letta_matrix.store.database import Database
from letta_matrix.store.forgetting import forget_agents, forget_home
from letta_matrix.store.meta import Meta
from letta_matrix.store.places import Place
from letta_matrix.store.rooms import RoomSettings

ALIAS, SPACE, CONTROL = "#agent_1:test", "#letta_agents:test", "#letta_control:test"
GHOST, BOT = "@agent_1:test", "@letta:test"


class Remembering(Site):
    """A site whose first agent has all of it; doubted agents are reconciled at once."""

    def __init__(self, database: Database, directory: AgentDirectory, server: Homeserver) -> None:
        super().__init__(database, directory, server)
        self.rooms_of_ours, self.conversations = self.stores
        self.audit = AuditStore(database)
        self.meta = Meta(database)
        self.remembered.on_doubt = self._reconcile_all
        self.doubts = Doubts(BOT, directory, self.rooms_of_ours, self.home, self.remembered)
        server.retries.on_refusal = self.doubts.refused

    async def _reconcile_all(self, agents: list[Agent]) -> None:
        for one in agents:
            await self.provisioner.reconcile(one.agent_id)

    async def lose_sight(self) -> None:
        """Something gives cause for doubt in the first agent."""
        await self.remembered.doubt([self.one])

    async def audited(self) -> list[str]:
        return [one.tool for one in await self.audit.newest(9)][::-1]


@pytest.fixture
async def site(
    database: Database, directory: AgentDirectory, homeserver: Homeserver, fake: FakeHomeserver
) -> AsyncGenerator[Remembering]:
    made = Remembering(database, directory, homeserver)
    await made.remembered.check()
    await made.new()
    await made.reconcile()
    fake.requests.clear()
    yield made
    await made.provisioner.close()


async def _later(_agents: list[Agent]) -> None:
    """They are reconciled another time."""


def writes(fake: FakeHomeserver) -> list[str]:
    return [one.line for one in fake.requests if one.method != "GET"]


async def test_what_is_there_takes_one_question(site: Remembering, fake: FakeHomeserver) -> None:
    await site.remembered.check()
    assert [one.line for one in fake.requests] == ["GET /_matrix/client/v3/joined_rooms"]
    await site.reconcile()
    assert len(fake.requests) == 1


@pytest.mark.parametrize("aliases", [True, False])
async def test_a_purged_room_is_made_anew_and_talk_goes_on(
    site: Remembering, fake: FakeHomeserver, aliases: bool
) -> None:
    old = str(site.one.room_id)
    await site.conversations.begin(Place("agent-1", old), "conv-1", "a talk")
    await site.rooms_of_ours.change_settings("agent-1", old, paused=True)
    fake.purge(old, aliases=aliases)
    await site.remembered.check()
    new = str(site.one.room_id)
    assert fake.aliases[ALIAS] == new != old
    assert site.conversations.current(Place("agent-1", new)) == "conv-1"
    assert site.rooms_of_ours.settings("agent-1", new) == RoomSettings(paused=True)
    assert "room_before" not in site.one.applied
    assert await site.audited() == [Loss.ROOM_MADE]
    assert "rooms made anew: 1" in site.losses.trouble
    fake.requests.clear()
    await site.remembered.check()
    await site.reconcile()
    assert writes(fake) == []


async def test_health_tells_of_it_for_a_while(
    site: Remembering, fake: FakeHomeserver, clock: Clock
) -> None:
    fake.purge(str(site.one.room_id))
    await site.remembered.check()
    clock.advance(_TOLD_FOR - 60)
    assert site.losses.trouble
    clock.advance(61)
    assert not site.losses.trouble


@pytest.mark.parametrize("aliases", [True, False])
async def test_the_bots_own_rooms_are_made_anew(
    site: Remembering, fake: FakeHomeserver, aliases: bool
) -> None:
    old = {fake.aliases[SPACE], fake.aliases[CONTROL]}
    for room_id in old:
        fake.purge(room_id, aliases=aliases)
    await site.remembered.check()
    assert site.home.rooms == {fake.aliases[SPACE], fake.aliases[CONTROL]}
    assert site.home.rooms.isdisjoint(old)
    # The agents' rooms stand in the new space, and say so.
    own = str(site.one.room_id)
    parents = [one for one in fake.events[own] if one["type"] == "m.space.parent"]
    shown = {one["state_key"]: bool(one["content"]) for one in parents}
    assert shown[site.home.space_id]
    assert not any(on for space, on in shown.items() if space != site.home.space_id)
    children = [one for one in fake.events[site.home.space_id] if one["type"] == "m.space.child"]
    assert [one["state_key"] for one in children] == [own]


async def test_a_room_that_the_alias_leads_to_is_taken_for_the_lost_one(
    site: Remembering, fake: FakeHomeserver
) -> None:
    fake.purge(str(site.one.room_id))
    fake.place(ALIAS, "!other:test", GHOST)
    fake.members["!other:test"] = {PERSON}
    await site.remembered.check()
    assert site.one.room_id == "!other:test"
    assert GHOST in fake.members["!other:test"]
    assert await site.audited() == [Loss.ROOM_FOUND]


@pytest.mark.parametrize("by", [PERSON, BOT])
async def test_who_was_put_out_of_its_room_gets_no_other(
    site: Remembering, fake: FakeHomeserver, by: str
) -> None:
    own = str(site.one.room_id)
    fake.members[own].discard(GHOST)
    fake.set_state(own, "m.room.member", {"membership": "leave"}, GHOST, by)
    fake.aliases.clear()
    await site.lose_sight()
    assert site.one.room_id == own
    assert writes(fake) == []
    assert site.remembered.troubles["agent-1"] == (
        f"it is not in its room {own} any more (removed by {by}): invite {GHOST} there"
    )
    fake.members[own].add(GHOST)
    await site.lose_sight()
    assert site.remembered.troubles == {}


async def test_a_closed_door_alone_is_no_loss(site: Remembering, fake: FakeHomeserver) -> None:
    own = str(site.one.room_id)
    fake.members[own].discard(GHOST)
    fake.fail("GET .*/state/m.room.member", FORBIDDEN)
    fake.fail("POST .*/join", FORBIDDEN)
    await site.lose_sight()
    assert site.one.room_id == own
    assert "it is not in its room" in site.remembered.troubles["agent-1"]


@pytest.mark.parametrize(
    "question", ["GET .*/joined_rooms", "GET .*/m.room.member", "GET .*/directory", "POST .*/join"]
)
async def test_what_is_not_answered_is_not_known(
    site: Remembering, fake: FakeHomeserver, clock: Clock, question: str
) -> None:
    fake.purge(str(site.one.room_id))
    fake.fail(question, *[Fault(503, {"errcode": "M_UNKNOWN", "error": "maintenance"})] * 50)
    before = site.one
    with pytest.raises(HomeserverUnavailable, match="maintenance"):
        await clock.through(site.lose_sight())
    assert site.one == before


async def test_an_account_that_is_gone_is_made_anew(
    site: Remembering, fake: FakeHomeserver
) -> None:
    await site.rooms_of_ours.joined("!guests:test", GHOST, direct=True)
    fake.users.clear()
    fake.profiles.clear()
    for room_id in list(fake.events):
        fake.purge(room_id)
    fake.fail("GET .*/joined_rooms", *[Fault(200, {"joined_rooms": []}), FORBIDDEN])
    await site.remembered.check()
    assert fake.users == {BOT, GHOST}
    assert fake.profiles[GHOST]["displayname"] == "Agent 1"
    assert fake.profiles[GHOST]["avatar_url"]
    assert fake.profiles[BOT] == {"displayname": "Letta"}
    assert fake.aliases[ALIAS] == site.one.room_id
    assert site.rooms_of_ours.rooms_of(GHOST) == []


async def test_an_account_that_is_there_and_may_nothing_stays(
    site: Remembering, fake: FakeHomeserver
) -> None:
    own = site.one.room_id
    fake.purge(str(own))
    fake.fail("GET .*/joined_rooms", FORBIDDEN)
    with pytest.raises(MForbidden):
        await site.lose_sight()
    assert site.one.room_id == own
    assert await site.audited() == []


async def test_of_a_removed_agent_nothing_is_made_anew(
    site: Remembering, fake: FakeHomeserver
) -> None:
    await site.change(status=AgentStatus.REMOVED)
    await site.reconcile()
    fake.purge(str(site.one.room_id))
    fake.fail("GET .*/joined_rooms", *[Fault(200, {"joined_rooms": []}), FORBIDDEN])
    fake.requests.clear()
    await site.remembered.check()
    assert site.one.room_id is None
    assert not fake.matching("agent_1.*createRoom|register")
    await site.change(status=AgentStatus.ACTIVE)
    await site.reconcile()
    assert fake.aliases[ALIAS] == site.one.room_id


async def test_visits_are_verified(site: Remembering, fake: FakeHomeserver) -> None:
    for room_id in ("!left:test", "!kept:test"):
        await site.rooms_of_ours.joined(room_id, GHOST, direct=True)
    fake.members |= {"!kept:test": {GHOST, PERSON}, "!new:test": {GHOST, PERSON, "@bob:test"}}
    await site.lose_sight()
    assert set(site.rooms_of_ours.rooms_of(GHOST)) == {"!kept:test", "!new:test"}
    assert not site.rooms_of_ours.ours_in("!new:test")[GHOST]
    assert await site.audited() == [Loss.MEMBERSHIP_FORGOTTEN, Loss.MEMBERSHIP_FOUND]


async def test_the_bot_comes_back_where_nobody_removed_it(
    site: Remembering, fake: FakeHomeserver
) -> None:
    own = str(site.one.room_id)
    fake.members[own].discard(BOT)
    await site.remembered.check()
    assert BOT in fake.members[own]
    fake.members[own].discard(BOT)
    fake.set_state(own, "m.room.member", {"membership": "leave"}, BOT, PERSON)
    fake.requests.clear()
    await site.remembered.check()
    assert writes(fake) == []


async def test_a_bot_that_was_put_out_of_the_space_says_so(
    site: Remembering, fake: FakeHomeserver
) -> None:
    space = site.home.space_id
    fake.members[space].discard(BOT)
    fake.set_state(space, "m.room.member", {"membership": "ban"}, BOT, PERSON)
    await site.remembered.check()
    assert "invite @letta:test" in site.home.trouble
    assert site.home.space_id == space
    fake.members[space].add(BOT)
    await site.remembered.check()
    assert not site.home.trouble


async def test_agents_follow_a_new_server_name(
    site: Remembering, fake: FakeHomeserver, directory: AgentDirectory
) -> None:
    old = str(site.one.room_id)
    await site.conversations.begin(Place("agent-1", old), "conv-1", "a talk")
    await site.change(user_id="@agent_1:before.test", room_id="!old:before.test")
    await site.conversations.move("agent-1", old, "!old:before.test")
    await site.rooms_of_ours.joined("!guests:before.test", "@agent_1:before.test", direct=True)
    fake.aliases.clear()
    fake.members.clear()
    await site.remembered.check()
    await site.reconcile()
    assert site.one.user_id == GHOST
    assert directory.by_user("@agent_1:before.test") is None
    assert directory.by_user(GHOST) is site.one
    assert fake.aliases[ALIAS] == site.one.room_id
    assert site.conversations.current(Place("agent-1", str(site.one.room_id))) == "conv-1"
    assert site.rooms_of_ours.all() == []
    assert Loss.ACCOUNT_RENAMED in await site.audited()


async def test_a_name_that_the_homeserver_does_not_answer_to_changes_nothing(
    site: Remembering, fake: FakeHomeserver
) -> None:
    await site.change(user_id="@agent_1:before.test")
    fake.fail("GET .*/joined_rooms", FORBIDDEN)
    with pytest.raises(MForbidden):
        await site.remembered.check()
    assert site.one.user_id == "@agent_1:before.test"


async def test_a_refusal_has_the_room_looked_at_once(
    site: Remembering, fake: FakeHomeserver, clock: Clock
) -> None:
    own, ghost = str(site.one.room_id), Intent(site.bot.homeserver, GHOST)
    fake.purge(own)
    looking = asyncio.create_task(site.doubts.run())
    fake.fail("PUT .*/send/", FORBIDDEN)
    with pytest.raises(MatrixRequestError):
        await ghost.send(own, "m.room.message", {}, "txn")
    await clock.until(lambda: site.one.room_id not in (None, own))
    looking.cancel()


async def test_only_refusals_in_rooms_are_told(
    site: Remembering, fake: FakeHomeserver, homeserver: Homeserver
) -> None:
    own, told = str(site.one.room_id), list[str]()
    homeserver.retries.on_refusal = told.append
    ghost = Intent(homeserver, GHOST)
    missing = Fault(404, {"errcode": "M_NOT_FOUND", "error": "no room"})
    assert await ghost.state(own, "m.room.encryption") == {}
    fake.fail("PUT .*/rooms/", FORBIDDEN, missing)
    for _ in range(2):
        with pytest.raises(MatrixRequestError):
            await ghost.set_state(own, "m.room.topic", {})
    fake.fail("GET .*/rooms/", FORBIDDEN)
    with pytest.raises(MForbidden):
        await ghost.state(own, "m.room.topic")
    assert told == [own] * 3
    fake.fail("PUT .*/profile/", FORBIDDEN)
    with pytest.raises(MForbidden):
        await ghost.set_displayname("Eve")
    assert len(told) == 3


async def test_who_leaves_its_room_and_comes_back_is_noticed(
    site: Remembering, fake: FakeHomeserver, clock: Clock
) -> None:
    own, reconcile, under_way = str(site.one.room_id), site.remembered.on_doubt, asyncio.Lock()

    async def alone(agents: list[Agent]) -> None:
        async with under_way:
            await reconcile(agents)

    site.remembered.on_doubt = alone
    looking = asyncio.create_task(site.doubts.run())
    fake.members[own].discard(GHOST)
    site.doubts.heard(fake.set_state(own, "m.room.member", {"membership": "leave"}, GHOST))
    await clock.until(lambda: site.remembered.troubles)
    fake.members[own].add(GHOST)
    site.doubts.heard(fake.set_state(own, "m.room.member", {"membership": "join"}, GHOST))
    await clock.until(lambda: not site.remembered.troubles and not under_way.locked())
    # Others may come and go.
    fake.requests.clear()
    site.doubts.heard(fake.set_state(own, "m.room.member", {"membership": "leave"}, PERSON))
    clock.advance(2 * _AGAIN)
    await settled()
    assert fake.requests == []
    looking.cancel()


async def test_an_alias_that_outlived_its_room_is_taken_back(
    site: Remembering, fake: FakeHomeserver
) -> None:
    # The database was lost, too.
    for room_id in (str(site.one.room_id), *site.home.rooms):
        fake.purge(room_id, aliases=False)
    await forget_home(site.meta)
    await site.change(room_id=None, applied={})
    site.remembered.on_doubt = _later
    await site.remembered.check()
    assert site.home.rooms == {fake.aliases[SPACE], fake.aliases[CONTROL]}
    with pytest.raises(MatrixRequestError):
        await site.reconcile()
    site.remembered.refused("agent-1")
    await site.reconcile()
    assert fake.aliases[ALIAS] == site.one.room_id


class Killed(Exception):
    """We are, before we know what came of a request."""


@pytest.mark.parametrize("at", ["create_room", "remove_alias", None])
async def test_another_room_is_made_once(
    site: Remembering,
    fake: FakeHomeserver,
    directory: AgentDirectory,
    monkeypatch: pytest.MonkeyPatch,
    at: str | None,
) -> None:
    old, before = str(site.one.room_id), set(fake.events)
    await forget_agents(directory, ["agent-1"], new_room=True)
    if at is not None:
        request = getattr(Intent, at)

        async def killed(*given: object) -> None:
            await request(*given)
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Intent, at, killed)
            with pytest.raises(Killed):
                await site.reconcile()
    await site.reconcile()
    assert site.one.room_id == fake.aliases[ALIAS] != old
    assert len(fake.events.keys() - before) == 1
    replaced = [one for one in fake.events[old] if one["type"] == "m.room.tombstone"]
    assert replaced[0]["content"]["replacement_room"] == site.one.room_id
    assert GHOST in site.rooms_of_ours.ours_in(old)
    # Its account is not taken for somebody else's.
    assert site.home.accounts.troubles == []
