"""Commands that change what a bridge holds in memory have a PostgreSQL database for themselves."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml
from sqlalchemy import URL
from tests.builders import agent
from typer.testing import CliRunner, Result

from letta_matrix.cli.commands import app
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database


@pytest.fixture
def settings(tmp_path: Path, postgres_url: URL) -> Path:
    path, url = tmp_path / "config.yaml", postgres_url.set(drivername="postgresql")
    written = {
        "homeserver": {"url": "http://127.0.0.1:9", "domain": "test"},
        "appservice": {"as_token": "as-secret", "hs_token": "hs-secret"},
        "runtimes": [{"type": "memory", "agents": 1}],
        "database": {"url": url.render_as_string(hide_password=False)},
    }
    path.write_text(yaml.safe_dump(written))
    (tmp_path / "old.json").write_text(json.dumps({"agent-1": {"room_id": "!old:test"}}))
    return path


async def run(settings: Path, *words: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, [*words, "-c", str(settings)])


async def test_nothing_is_changed_beneath_a_bridge(settings: Path, postgres_url: URL) -> None:
    bridge = Database(postgres_url)
    await bridge.open()
    await (await AgentDirectory(bridge).load()).reserve([agent(1, name="Ada")])
    for words in (["forget", "Ada"], ["import-mappings", str(settings.parent / "old.json"), "-y"]):
        done = await run(settings, *words)
        assert done.exit_code == 1
        assert "in use by another letta-matrix" in str(done.exception)
        assert "stop every bridge" in str(done.exception)
    (ada,) = (await AgentDirectory(bridge).load()).all()
    assert ada.room_id == "!1:test"
    await bridge.close()
    done = await run(settings, "forget", "Ada")
    assert done.exit_code == 0, done.output
