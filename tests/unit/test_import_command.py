"""`letta-matrix import-mappings`: what it shows, asks and does, and what stops it."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from tests.builders import config_for
from tests.fake_homeserver import FakeHomeserver, Fault
from tests.waiting import Clock, settled
from typer.testing import CliRunner, Result

from letta_matrix.agents.migration.found import Living
from letta_matrix.agents.migration.importing import NotAllowed, importing
from letta_matrix.agents.migration.living import RuntimeSilent, living_in
from letta_matrix.agents.migration.mappings_file import OldMapping
from letta_matrix.cli.commands import app
from letta_matrix.cli.main import exit_status
from letta_matrix.common.identifiers import user_id
from letta_matrix.matrix.homeserver import Homeserver
from letta_matrix.runtimes.memory import MemoryRuntime
from letta_matrix.runtimes.protocol import AgentInfo
from letta_matrix.store.agents import ANSWERED_UNTIL, ROOM_BEFORE, AgentDirectory
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.passwords import PasswordStore

ADA, BO = "agent-00000001-0000", "agent-00000002-0000"
ROOM, BOT = "!ada:test", "@letta:test"
REFUSED = Fault(403, {"errcode": "M_FORBIDDEN", "error": "not yours"})


@pytest.fixture
def settings(tmp_path: Path, fake: FakeHomeserver, database_file: Path) -> Path:
    """A configuration with an empty database and two agents; one of them has a room of old."""
    assert database_file.parent == tmp_path
    ghost = user_id(ADA, "test")
    fake.set_state(ROOM, "m.room.create", {"room_version": "10"}, sender=ghost)
    fake.set_state(ROOM, "m.room.power_levels", {"users": {ghost: 100}}, sender=ghost)
    fake.members[ROOM] = {ghost, BOT, "@ann:test"}
    fake.users.add(ghost)
    fake.devices[ghost] = ["OLD"]
    path = tmp_path / "config.yaml"
    written = {
        "homeserver": {"url": fake.url, "domain": "test"},
        "appservice": {"as_token": "as-secret", "hs_token": "hs-secret"},
        "runtimes": [{"type": "memory", "agents": 2}],
    }
    path.write_text(yaml.safe_dump(written))
    entries = {
        ADA: {"agent_name": "Ada", "matrix_user_id": ghost, "room_id": ROOM},
        "agent-gone": {"agent_name": "Eve\x1b[2J", "room_id": "!eve:test"},
    }
    (tmp_path / "old.json").write_text(json.dumps(entries))
    return path


async def run(settings: Path, *words: str) -> Result:
    arguments = [*words, "-c", str(settings)]
    return await asyncio.to_thread(CliRunner().invoke, app, arguments)


async def an_import(settings: Path, *options: str, file: str = "old.json") -> Result:
    return await run(settings, "import-mappings", str(settings.parent / file), *options)


async def rows(settings: Path) -> list[tuple[str, str | None]]:
    file = settings.parent / "letta-matrix.db"
    database = Database(database_url(f"sqlite:///{file}", file.parent))
    found = (await AgentDirectory(database).load()).all()
    await database.close()
    return [(one.agent_id, one.room_id) for one in found]


def writes(fake: FakeHomeserver) -> list[str]:
    return [one.line for one in fake.requests if one.method != "GET"]


async def test_a_dry_run_shows_the_plan_and_does_nothing(
    settings: Path, fake: FakeHomeserver
) -> None:
    done = await an_import(settings, "--dry-run")
    assert done.exit_code == 0, done.output
    assert f"Agent 1 ({ADA})\n  user @agent_00000001_0000:test\n  room {ROOM}\n" in done.stdout
    assert "  - 1 session of before end\n" in done.stdout
    assert "  - Eve\N{REPLACEMENT CHARACTER}[2J (agent-gone): no runtime has this" in done.stdout
    assert done.stdout.endswith("Nothing was changed.\n")
    assert (writes(fake), await rows(settings)) == ([], [])


async def test_without_a_word_nothing_is_done(settings: Path, fake: FakeHomeserver) -> None:
    done = await an_import(settings)
    assert isinstance(done.exception, Exception)
    assert exit_status(done.exception) == 2
    assert "say --yes" in str(done.exception)
    assert (writes(fake), await rows(settings)) == ([], [])


async def test_it_is_done_once_and_comes_back_by_an_export(
    settings: Path, fake: FakeHomeserver
) -> None:
    done = await an_import(settings, "--yes")
    assert done.exit_code == 0, done.output
    assert "Taken over: 1 agent, 1 of them with their rooms." in done.stdout
    assert await rows(settings) == [(ADA, ROOM)]
    assert fake.aliases == {"#agent_00000001_0000:test": ROOM}
    before = writes(fake)
    for file in ("old.json", "copy.json"):
        exported = await run(settings, "export-mappings", str(settings.parent / "copy.json"))
        assert exported.exit_code == 0, exported.output
        again = await an_import(settings, "--yes", file=file)
        assert "1 agent: nothing to do." in again.stdout
    assert (writes(fake), await rows(settings)) == (before, [(ADA, ROOM)])
    copy = json.loads((settings.parent / "copy.json").read_text())
    assert (copy[ADA]["room_id"], copy[ADA]["matrix_password"]) == (ROOM, "")


async def test_what_is_refused_is_told_and_holds_up_nothing(
    settings: Path, fake: FakeHomeserver
) -> None:
    fake.fail("PUT .*/directory/room", REFUSED)
    done = await an_import(settings, "--yes")
    assert "its alias: PUT client/v3/directory/room" in done.stdout
    assert "what to do: import again" in done.stdout
    assert await rows(settings) == [(ADA, ROOM)]
    assert (await an_import(settings, "--yes")).exit_code == 0
    assert fake.aliases == {"#agent_00000001_0000:test": ROOM}


async def test_a_room_that_cannot_be_entered_is_not_taken_over(
    settings: Path, fake: FakeHomeserver
) -> None:
    fake.members[ROOM] = {BOT, "@ann:test"}
    levels = {"users": {BOT: 100}}
    fake.set_state(ROOM, "m.room.power_levels", levels, sender=BOT)
    fake.fail("POST .*/join", REFUSED)
    done = await an_import(settings, "--yes")
    assert done.exit_code == 1
    assert "the homeserver refused: M_FORBIDDEN" in done.stdout
    assert await rows(settings) == []
    assert (await an_import(settings, "--yes")).exit_code == 0
    assert await rows(settings) == [(ADA, ROOM)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "ends in the middle"),
        ('{"name": "x"}', "is it another file?"),
        (None, "there is no such file"),
    ],
)
async def test_files_that_are_none(
    settings: Path, fake: FakeHomeserver, text: str | None, reason: str
) -> None:
    file = settings.parent / "old.json"
    file.unlink() if text is None else file.write_text(text)
    done = await an_import(settings, "--yes")
    assert isinstance(done.exception, Exception)
    assert exit_status(done.exception) == 2
    assert str(done.exception).startswith(f"{file}: ")
    assert reason in str(done.exception)
    assert fake.requests == []


async def test_a_running_bridge_is_to_be_stopped_first(
    settings: Path, fake: FakeHomeserver, database: Database
) -> None:
    for option in ("--dry-run", "--yes"):
        done = await an_import(settings, option)
        assert isinstance(done.exception, Exception)
        assert exit_status(done.exception) == 1
        assert "stop that one first" in str(done.exception)
    assert fake.requests == []


async def test_a_runtime_that_tells_nothing_says_nothing_of_who_is_gone(
    settings: Path, fake: FakeHomeserver
) -> None:
    written = yaml.safe_load(settings.read_text())
    # Somebody else answers there.
    written["runtimes"].append({"type": "letta_api", "name": "far", "url": fake.url})
    settings.write_text(yaml.safe_dump(written))
    done = await an_import(settings, "--yes")
    assert isinstance(done.exception, Exception)
    assert exit_status(done.exception) == 1
    assert "the agents of the runtime 'far' cannot be listed" in str(done.exception)
    assert (writes(fake), await rows(settings)) == ([], [])


async def test_a_runtime_that_is_away_is_waited_for(clock: Clock) -> None:
    runtime = MemoryRuntime("slow", 1)
    runtime.available = False
    with pytest.raises(RuntimeSilent, match="'slow' cannot be listed"):
        await clock.through(living_in([runtime]))
    waiting = asyncio.ensure_future(living_in([runtime]))
    await settled(waiting)
    runtime.available = True
    assert list(await clock.through(waiting)) == [ADA]


async def test_a_homeserver_that_is_away_or_knows_nothing_of_us(
    settings: Path, fake: FakeHomeserver, homeserver: Homeserver, database: Database, clock: Clock
) -> None:
    directory = await AgentDirectory(database).load()
    passwords = PasswordStore(database)
    async with importing(config_for(settings.parent), homeserver, directory, passwords) as work:
        fake.fail("whoami", *[Fault(401, {"errcode": "M_UNKNOWN_TOKEN"})] * 100)
        with pytest.raises(NotAllowed, match="does not know our as_token"):
            await clock.through(work.plan([], {}))
        await fake.go_away()
        with pytest.raises(NotAllowed, match="the homeserver does not answer"):
            await clock.through(work.plan([], {}))


async def test_a_homeserver_that_goes_away_in_between_ends_it_and_it_goes_on_later(
    settings: Path, fake: FakeHomeserver, homeserver: Homeserver, database: Database, clock: Clock
) -> None:
    config = config_for(settings.parent)
    directory = await AgentDirectory(database).load()
    mappings = [OldMapping(1, ADA, "Ada", user_id(ADA, "test"), ROOM)]
    living = {ADA: Living("memory", AgentInfo(ADA, "Ada"))}
    passwords = PasswordStore(database)
    async with importing(config, homeserver, directory, passwords) as work:
        plan = await work.plan(mappings, living)
        await fake.go_away()
        (outcome,) = await clock.through(work.carry_out(plan), 20)
        assert not outcome.is_whole
        assert "not done: the homeserver does not answer" in outcome.notes[0].what
        assert directory.all() == []
        await fake.start()
        (outcome,) = await work.carry_out(await work.plan(mappings, living))
        assert outcome.is_whole
    assert directory.now(ADA).room_id == ROOM


async def test_what_was_answered_and_where_it_talked_is_remembered(
    settings: Path, fake: FakeHomeserver, homeserver: Homeserver, database: Database
) -> None:
    config = config_for(settings.parent)
    directory = await AgentDirectory(database).load()
    ghost = user_id(ADA, "test")
    answer = fake.set_state(ROOM, "m.room.message", {"body": "an answer"}, sender=ghost)
    mapping = OldMapping(1, ADA, "Ada", ghost, ROOM)
    living = {ADA: Living("memory", AgentInfo(ADA, "Ada"))}
    passwords = PasswordStore(database)
    async with importing(config, homeserver, directory, passwords) as work:
        await work.carry_out(await work.plan([mapping], living))
    until = answer["origin_server_ts"] / 1000
    assert directory.now(ADA).applied[ANSWERED_UNTIL] == until
    other = "!other:test"
    fake.set_state(other, "m.room.create", {})
    fake.set_state(other, "m.room.power_levels", {"users": {ghost: 100}}, sender="@ann:test")
    fake.members[other] = {ghost, BOT}
    moved = OldMapping(1, ADA, "Ada", ghost, other)
    async with importing(config, homeserver, directory, passwords, replaces_rooms=True) as work:
        await work.carry_out(await work.plan([moved], living))
    now = directory.now(ADA)
    assert (now.room_id, now.applied[ROOM_BEFORE]) == (other, ROOM)
    assert ANSWERED_UNTIL not in now.applied


async def test_what_an_old_user_has_answered_is_remembered_without_a_way_to_act_as_it(
    settings: Path, fake: FakeHomeserver, homeserver: Homeserver, database: Database
) -> None:
    """Who has said goodbye already, in an import that was killed behind it, has answered nobody
    by that."""
    directory = await AgentDirectory(database).load()
    old = "@newton:test"
    answer = fake.set_state(ROOM, "m.room.message", {"body": "an answer"}, sender=old)
    goodbye = {"body": "Goodbye", "org.letta.matrix": {"goodbye": ADA}}
    fake.set_state(ROOM, "m.room.message", goodbye, sender=old)
    living = {ADA: Living("memory", AgentInfo(ADA, "Ada"))}
    passwords = PasswordStore(database)
    async with importing(config_for(settings.parent), homeserver, directory, passwords) as work:
        await work.carry_out(await work.plan([OldMapping(1, ADA, "Ada", old, ROOM)], living))
    assert directory.now(ADA).applied[ANSWERED_UNTIL] == answer["origin_server_ts"] / 1000
