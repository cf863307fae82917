"""`letta-matrix forget`: what it takes, and what it leaves to the next start."""

import asyncio
from pathlib import Path

import pytest
import yaml
from tests.builders import agent
from typer.testing import CliRunner, Result

from letta_matrix.cli.commands import app
from letta_matrix.cli.main import exit_status
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, database_url
from letta_matrix.store.meta import Meta


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    settings = {
        "homeserver": {"url": "http://127.0.0.1:9", "domain": "test"},
        "appservice": {"as_token": "as-secret", "hs_token": "hs-secret"},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


async def forget(configuration: Path, *arguments: str) -> Result:
    words = ["forget", *arguments, "-c", str(configuration)]
    return await asyncio.to_thread(CliRunner().invoke, app, words)


async def opened(database_file: Path) -> tuple[Database, AgentDirectory]:
    database = Database(database_url(f"sqlite:///{database_file}", database_file.parent))
    await database.open()
    directory = AgentDirectory(database)
    await directory.load()
    return database, directory


async def test_rooms_and_accounts_are_forgotten_and_the_rest_is_kept(
    configuration: Path, database_file: Path
) -> None:
    database, directory = await opened(database_file)
    applied = {"registered": True, "announcements": 2, "bot_joined": True}
    await directory.reserve([agent(1, name="Ada", applied=applied), agent(2, name="Bo")])
    of_the_bot = ("space", "bot_sole", "wanting")
    for key in of_the_bot:
        await Meta(database).set(key, "!space:test")
    await database.close()
    done = await forget(configuration, "Ada", "--new-room")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("forgotten: Ada\n")
    database, directory = await opened(database_file)
    ada, bo = directory.all()
    assert (ada.room_id, bo.room_id) == (None, "!2:test")
    marks = {"room_before": "!1:test", "doubted": True, "new_room": ""}
    assert ada.applied == {"registered": True, "announcements": 2, **marks}
    assert await Meta(database).get("space") == "!space:test"
    await database.close()
    done = await forget(configuration, "--all")
    assert done.stdout.startswith("forgotten: Ada, Bo\n")
    database, directory = await opened(database_file)
    ada, bo = directory.all()
    # What was forgotten before is not forgotten in favour of nothing.
    assert [one.applied["room_before"] for one in (ada, bo)] == ["!1:test", "!2:test"]
    assert [await Meta(database).get(key) for key in of_the_bot] == [None] * 3
    await database.close()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "name agents by id or name, or say --all"),
        (["Ada", "--all"], "name agents by id or name, or say --all"),
        (["Eve"], "there is no agent 'Eve'"),
    ],
)
async def test_what_it_does_not_take(
    configuration: Path, database_file: Path, arguments: list[str], reason: str
) -> None:
    database, directory = await opened(database_file)
    await directory.reserve([agent(1, name="Ada")])
    await database.close()
    done = await forget(configuration, *arguments)
    assert isinstance(done.exception, Exception)
    assert exit_status(done.exception) == 2
    assert reason in str(done.exception)


async def test_a_running_bridge_is_to_be_stopped_first(
    configuration: Path, database_file: Path
) -> None:
    database, _ = await opened(database_file)
    done = await forget(configuration, "--all")
    await database.close()
    assert isinstance(done.exception, Exception)
    assert exit_status(done.exception) == 1
    assert "stop that one first" in str(done.exception)
