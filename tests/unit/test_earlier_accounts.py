"""Accounts with our user ids that others have made are told of, with what to do."""

from collections.abc import AsyncGenerator

import pytest
from structlog.testing import capture_logs
from tests.agents_site import FORBIDDEN, Site, later
from tests.builders import invite, message
from tests.fake_homeserver import LOST_ANSWER, FakeHomeserver, failing
from tests.waiting import Clock, eventually

from letta_matrix.agents.decoration import SOON
from letta_matrix.agents.earlier_accounts import AccountTaken, EarlierAccounts
from letta_matrix.matrix.content import MARKER
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.matrix.intent import Intent
from letta_matrix.matrix.transactions import txn_id
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database
from letta_matrix.store.turn_ids import turn_id_of


@pytest.fixture
async def site(
    database: Database, directory: AgentDirectory, homeserver: Homeserver
) -> AsyncGenerator[Site]:
    made = Site(database, directory, homeserver)
    yield made
    await made.provisioner.close()


def told(site: Site) -> list[str]:
    return site.home.accounts.troubles + site.home.decoration.strangers


async def test_of_a_bot_that_others_are_signed_in_to_until_they_are_not(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.users.add("@letta:test")
    fake.devices["@letta:test"] = ["OLD", "OLDER"]
    with capture_logs() as logs:
        await site.home.ensure()
    assert any(one["log_level"] == "warning" for one in logs)
    assert site.home.control_room_id
    (line,) = told(site)
    for part in (
        "@letta:test was there before the bridge",
        "2 sessions",
        "/_synapse/admin/v2/users/@letta:test",
        '"logout_devices": true',
        "appservice.bot_username",
        "sender_localpart",
    ):
        assert part in line
    # A restarted bridge tells it again.
    again = site.home_again()
    await again.ensure()
    assert len(again.decoration.strangers) == 1
    fake.devices.clear()
    later(monkeypatch, SOON)
    await again.decorate_again()
    assert again.decoration.strangers == []
    last = site.home_again()
    fake.requests.clear()
    await last.ensure()
    assert fake.requests == []


async def test_of_a_bot_that_may_have_a_password(site: Site, fake: FakeHomeserver) -> None:
    fake.users.add("@letta:test")
    await site.home.ensure()
    (line,) = told(site)
    assert "may have a password" in line


async def test_an_account_that_an_earlier_database_of_ours_made_is_ours(
    site: Site, fake: FakeHomeserver
) -> None:
    fake.users |= {"@letta:test", "@agent_1:test"}
    fake.place("#letta_control:test", "!control:test", "@letta:test")
    fake.place("#agent_1:test", "!before:test", "@agent_1:test")
    fake.members["!before:test"] = {"@agent_1:test", "@letta:test"}
    fake.members["!control:test"] = {"@letta:test"}
    await site.home.ensure()
    await site.new()
    await site.reconcile()
    assert told(site) == []
    assert site.one.room_id == "!before:test"


async def test_an_account_whose_making_got_no_answer_is_ours(
    site: Site, fake: FakeHomeserver, clock: Clock
) -> None:
    # Twice: aiohttp tries a request again by itself when its connection breaks.
    fake.fail("register", LOST_ANSWER, LOST_ANSWER, failing(502))
    await clock.through(site.home.ensure())
    fake.fail("register", LOST_ANSWER, LOST_ANSWER, failing(502))
    await site.new()
    await clock.through(site.reconcile())
    assert told(site) == []


async def test_an_account_that_somebody_uses_is_not_taken(site: Site, fake: FakeHomeserver) -> None:
    await site.home.ensure()
    fake.users.add("@agent_1:test")
    fake.devices["@agent_1:test"] = ["PHONE"]
    one = await site.new()
    with pytest.raises(AccountTaken, match="import-mappings"):
        await site.reconcile()
    assert "@agent_1:test" not in fake.profiles
    assert site.one.applied == {}
    await site.provisioner.request([one])
    await eventually(lambda: "somebody is signed in" in site.provisioner.trouble.get("agent-1", ""))
    fake.devices.clear()
    await site.reconcile()
    assert site.one.room_id


@pytest.mark.parametrize("maker", ["@mallory:test", "@agent_1:test"])
async def test_a_room_that_somebody_prepared_makes_no_account_ours(
    site: Site, fake: FakeHomeserver, maker: str
) -> None:
    await site.home.ensure()
    fake.users.add("@agent_1:test")
    fake.devices["@agent_1:test"] = ["PHONE"]
    fake.place("#agent_1:test", "!theirs:test", maker)
    fake.members["!theirs:test"] = {"@agent_1:test", "@mallory:test"}
    await site.new()
    with pytest.raises(AccountTaken):
        await site.reconcile()
    fake.devices.clear()
    await site.reconcile()
    (line,) = told(site)
    assert "@agent_1:test was there before the bridge, and may have a password" in line


async def test_a_room_that_nobody_can_look_into_makes_no_account_ours(
    site: Site, fake: FakeHomeserver
) -> None:
    await site.home.ensure()
    fake.users.add("@agent_1:test")
    fake.devices["@agent_1:test"] = ["PHONE"]
    fake.place("#agent_1:test", "!theirs:test", "@mallory:test")
    fake.fail("!theirs:test/joined_members", FORBIDDEN)
    await site.new()
    with pytest.raises(AccountTaken):
        await site.reconcile()


async def test_a_control_room_of_somebody_else_makes_no_bot_ours(
    site: Site, fake: FakeHomeserver
) -> None:
    fake.users.add("@letta:test")
    fake.place("#letta_control:test", "!theirs:test", "@mallory:test")
    fake.members["!theirs:test"] = {"@letta:test", "@mallory:test"}
    await site.home.ensure()
    (line,) = told(site)
    assert "may have a password" in line


async def test_an_imported_account_works_and_is_told_of(
    site: Site, fake: FakeHomeserver, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.home.ensure()
    fake.users.add("@agent_1:test")
    fake.devices["@agent_1:test"] = ["BRIDGE"]
    await site.new()
    await site.change(room_id="!before:test")
    await site.reconcile()
    assert site.rooms == ["!before:test"]
    (line,) = told(site)
    assert line.startswith("earlier accounts of 1 agent: ")
    assert "logout_devices" in line
    fake.devices.clear()
    later(monkeypatch, SOON)
    await site.reconcile()
    assert told(site) == []
    fake.requests.clear()
    await site.reconcile()
    assert fake.requests == []


async def test_an_account_that_the_homeserver_asked_for_is_ours(site: Site) -> None:
    await site.home.ensure()
    await site.new()
    await site.home.accounts.make(Intent(site.homeserver, "@agent_1:test"))
    await site.reconcile()
    assert told(site) == []


async def test_of_persons_whose_user_ids_are_ours(site: Site) -> None:
    accounts = site.home.accounts
    await site.new()
    for sender in ("@letta:test", "@agent_1:test", "@ann:test", "@agent_bob:elsewhere", None):
        accounts.heard(message(sender=sender))
    joined = invite("@agent_bob:test", "!1:test", sender="@agent_bob:test")
    accounts.heard({**joined, "content": {"membership": "join"}})
    for marker in ({"turn_id": turn_id_of("$1", "agent-1")}, {"txn": txn_id("$1")}):
        content = {"body": "hi", MARKER: marker}
        accounts.heard(message(sender="@agent_bob:test", content=content))
    assert accounts.troubles == []
    forged = {"body": "hi", MARKER: {"turn_id": "turn-1", "txn": "lm", "agent_id": "bob"}}
    with capture_logs() as logs:
        accounts.heard(message(sender="@agent_bob:test", content=forged))
        assert accounts.troubles
        accounts.heard(message(sender="@agent_bob:test"))
    assert len(logs) == 1
    (line,) = accounts.troubles
    assert "@agent_bob:test writes to agents" in line
    assert "account with another name" in line


async def test_of_persons_in_the_configuration_who_turn_out_to_be_agents(
    site: Site, directory: AgentDirectory
) -> None:
    agents = site.config.agents.model_copy(update={"room_members": ["@agent_1:test"]})
    config = site.config.model_copy(update={"agents": agents})
    accounts = EarlierAccounts(config, directory)
    assert "@agent_1:test is named in the configuration" in accounts.troubles[0]
    await site.new()
    assert accounts.troubles == []


async def test_of_many_accounts_some_are_named(site: Site) -> None:
    for number in range(25):
        site.home.accounts.heard(message(sender=f"@agent_{number}:test"))
    assert len(site.home.accounts.troubles) == 21
    assert site.home.accounts.troubles[-1].startswith("5 more accounts")
