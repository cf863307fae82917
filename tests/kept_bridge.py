"""A bridge to back up, and what is typed for that. The fixtures are named in the files that use
them."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.builders import config_for
from typer.testing import CliRunner

from letta_matrix.cli.backup.archive import is_encrypted
from letta_matrix.cli.backup.contents import Source
from letta_matrix.cli.backup.restoring import PutBack, Target, restore
from letta_matrix.cli.backup.taking import Taken, take
from letta_matrix.cli.commands import app

SECRET = "a passphrase"
WORDS = {"LETTA_MATRIX_BACKUP_PASSPHRASE": SECRET}


@pytest.fixture
def bridge(tmp_path: Path, migrated: Path) -> Path:
    """The configuration of a bridge, with its database."""
    folder = tmp_path / "bridge"
    folder.mkdir(mode=0o700)
    settings = {
        "homeserver": {"url": "http://127.0.0.1:9", "domain": "test"},
        "appservice": {"as_token": "as-secret", "hs_token": "hs-secret"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "registration.yaml").write_text("id: letta-matrix\n")
    shutil.copy(migrated, folder / "letta-matrix.db")
    return folder / "config.yaml"


@pytest.fixture
def stack(bridge: Path) -> Path:
    """The same as the folder of an `up`, with servers."""
    folder = bridge.parent
    for name in ("synapse/media/local", "letta/.letta/memory/.git/refs", "letta/tmp", "workspace"):
        (folder / name).mkdir(parents=True)
    for name in ("up.lock", "stack.json", "app-server.token", "synapse/homeserver.pid"):
        (folder / name).write_text("of this start")
    for name in (
        *("admin.password", "synapse/signing.key", "synapse/media/local/picture"),
        *("letta/.letta/agent.json", "letta/.letta/memory/.git/HEAD", "workspace/notes.db"),
    ):
        (folder / name).write_text(f"kept: {name}")
    (folder / "synapse/homeserver.log").write_text("noise")
    (folder / "letta/tmp/rest").write_text("noise")
    (folder / "workspace/way-out").symlink_to("/etc")
    (folder / "workspace/passwords").symlink_to("/etc/passwd")
    return bridge


def source(config: Path) -> Source:
    return Source(config, config_for(config.parent))


def taken(config: Path, file: Path, passphrase: str | None = SECRET, **how: Any) -> Taken:
    how = {"servers": False, "work": 1, **how}
    return take(source(config), file, passphrase, **how)


async def restored(file: Path, config: Path, **how: Any) -> PutBack:
    passphrase = SECRET if is_encrypted(file) else None
    return await asyncio.to_thread(restore, file, passphrase, Target(config), **how)


async def typed(*words: object, env: dict[str, str] | None = None) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, app, [str(one) for one in words], env=env)


def tree(folder: Path) -> dict[str, bytes]:
    """All files but for those that are locked."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and path.suffix != ".lock"
    }
