"""`letta-matrix backup` and `restore`: what is taken, what is put back, what stays as it was."""

import shutil
from pathlib import Path

import pytest
from tests import kept_bridge
from tests.builders import agent, config_for
from tests.busy_database import count, talking
from tests.kept_bridge import SECRET, WORDS, restored, taken, tree, typed

from letta_matrix.cli.backup.archive import read
from letta_matrix.cli.backup.contents import Source
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.cli.backup.taking import take
from letta_matrix.cli.main import exit_status
from letta_matrix.stack.lock import exclusive
from letta_matrix.store.agents import AgentDirectory
from letta_matrix.store.database import Database, StoreError, database_url

bridge, stack = kept_bridge.bridge, kept_bridge.stack


async def test_a_bridge_is_backed_up_and_put_back_elsewhere(bridge: Path, tmp_path: Path) -> None:
    database = Database(database_url("sqlite:///letta-matrix.db", bridge.parent))
    await database.open()
    await AgentDirectory(database).reserve([agent(1), agent(2)])
    # While it runs: most of it stands in the log still.
    done = await typed("backup", tmp_path / "b", "-c", bridge, env=WORDS)
    await database.close()
    assert done.exit_code == 0, done.output
    assert "3 files" in done.stdout
    assert "read back and whole" in done.stdout
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert b"as-secret" not in (tmp_path / "b").read_bytes()
    checked = await typed("backup", "--check", tmp_path / "b", env=WORDS)
    assert "is whole: 3 files" in checked.stdout
    there = tmp_path / "elsewhere"
    done = await typed("restore", tmp_path / "b", "--data", there, env=WORDS)
    assert done.exit_code == 0, done.output
    assert f"run -c {there}/config.yaml" in done.stdout
    assert (there / "config.yaml").read_bytes() == bridge.read_bytes()
    assert {*tree(there)} == {"config.yaml", "registration.yaml", "letta-matrix.db"}
    assert {path.stat().st_mode & 0o077 for path in (there, *there.iterdir())} == {0}
    database = Database(database_url("sqlite:///letta-matrix.db", there))
    await database.open()
    known = (await AgentDirectory(database).load()).all()
    assert [(one.agent_id, one.room_id) for one in known] == [("agent-1", None), ("agent-2", None)]
    await database.close()


async def test_a_stack_is_backed_up_while_its_servers_write(stack: Path, tmp_path: Path) -> None:
    folder, there = stack.parent, tmp_path / "there"
    with talking(folder / "synapse/homeserver.db") as written:
        before = len(written)
        done = taken(stack, tmp_path / "b", servers=True)
    assert sorted(done.left_out) == ["workspace/passwords", "workspace/way-out"]
    await restored(tmp_path / "b", there / "config.yaml")
    found = count(there / "synapse/homeserver.db")
    assert found % 2 == 0
    assert 300 + 2 * before <= found <= count(folder / "synapse/homeserver.db")
    of_a_start = ("stack.json", "app-server.token", "synapse/homeserver")
    wanted = {
        name: content
        for name, content in tree(folder).items()
        if not name.startswith((*of_a_start, "letta-matrix.db", "letta/tmp"))
    }
    laid = {name: content for name, content in tree(there).items() if name in wanted}
    assert laid == wanted
    assert {*tree(there)} - {*wanted} == {"letta-matrix.db", "synapse/homeserver.db"}
    assert (there / "letta/.letta/memory/.git/refs").is_dir()
    assert not list(folder.glob(".letta-staging-*"))


async def test_what_stands_there_is_moved_aside_and_only_if_that_is_wanted(
    stack: Path, tmp_path: Path
) -> None:
    folder = stack.parent
    taken(stack, tmp_path / "b", servers=True)
    (folder / "workspace/later").write_text("later")
    stack.write_text(stack.read_text() + "# later\n")
    before = tree(folder)
    with pytest.raises(BackupError, match=r"stands there already: .*config.yaml.*--replace"):
        await restored(tmp_path / "b", stack)
    assert tree(folder) == before
    done = await restored(tmp_path / "b", stack, replace=True)
    (aside,) = done.aside
    assert not (folder / "workspace/later").exists()
    assert (aside / "workspace/later").read_text() == "later"
    assert (aside / "config.yaml").read_bytes() == before["config.yaml"]
    assert "later" not in stack.read_text()
    assert (folder / "stack.json").exists()
    assert not list(folder.glob(".letta-staging-*"))


async def test_nothing_is_put_where_somebody_is_at_work(stack: Path, tmp_path: Path) -> None:
    taken(stack, tmp_path / "b", servers=True)
    database = Database(database_url("sqlite:///letta-matrix.db", stack.parent))
    await database.open()
    with pytest.raises(StoreError, match="in use by another letta-matrix"):
        await restored(tmp_path / "b", stack, replace=True)
    await database.close()
    before = tree(stack.parent)
    with exclusive(stack.parent), pytest.raises(Exception, match="in use by another") as refused:
        await restored(tmp_path / "b", stack, replace=True)
    assert exit_status(refused.value) == 1
    assert tree(stack.parent) == before


async def test_what_cannot_be_put_back_touches_nothing(
    bridge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, cut = tmp_path / "b", tmp_path / "cut"
    taken(bridge, file)
    cut.write_bytes(file.read_bytes()[:-20])
    before = tree(bridge.parent)
    for given, passphrase, why in (
        (cut, SECRET, "its end is missing"),
        (file, "another one", "the passphrase is not the one"),
    ):
        done = await typed(
            *("restore", given, "-c", bridge, "--replace"),
            env={"LETTA_MATRIX_BACKUP_PASSPHRASE": passphrase},
        )
        assert isinstance(done.exception, BackupError)
        assert why in str(done.exception)
        assert exit_status(done.exception) == 1
    monkeypatch.setattr("letta_matrix.cli.backup.restoring.HEAD", "0001")
    with pytest.raises(BackupError, match=r"newer letta-matrix .*: upgrade letta-matrix"):
        await restored(file, bridge, replace=True)
    assert tree(bridge.parent) == before


async def test_a_database_elsewhere_is_put_where_somebody_says(
    bridge: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (bridge.parent / "letta-matrix.db").rename(data / "bridge.db")
    named = {"database": {"url": f"sqlite:///{data / 'bridge.db'}"}}
    take(Source(bridge, config_for(bridge.parent, **named)), tmp_path / "b", None, servers=False)
    there = tmp_path / "there/config.yaml"
    with pytest.raises(BackupError, match=f"--database {data / 'bridge.db'}"):
        await restored(tmp_path / "b", there)
    place = tmp_path / "new/bridge.db"
    words = ("restore", tmp_path / "b", "-c", there, "--database", place)
    assert (await typed(*words)).exit_code == 0
    assert place.is_file()
    assert {*tree(there.parent)} == {"config.yaml", "registration.yaml"}


def test_a_damaged_database_is_not_backed_up(bridge: Path, tmp_path: Path) -> None:
    with (bridge.parent / "letta-matrix.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)
    with pytest.raises(StoreError, match="is damaged"):
        taken(bridge, tmp_path / "b")
    assert not (tmp_path / "b").exists()


async def test_what_is_typed_wrongly_is_said(stack: Path, tmp_path: Path) -> None:
    secret, odd = tmp_path / "secret", tmp_path / "odd"
    secret.write_text(SECRET + "\n")
    odd.write_text("two\nlines\n")
    other = tmp_path / "holiday.jpg"
    other.write_text("not a backup")
    (tmp_path / "alone.yaml").write_text(stack.read_text())
    file = tmp_path / "b"
    short = {"LETTA_MATRIX_BACKUP_PASSPHRASE": "short"}
    for words, env, why in (
        (("backup", file, "-c", stack), None, "--passphrase-file"),
        (("backup", file, "-c", stack), short, "at least 8 characters"),
        (("backup", file, "-c", stack, "--passphrase-file", odd), None, "expected one line"),
        (("backup", other, "-c", stack), WORDS, "is no backup: it is not replaced"),
        (("backup", tmp_path, "-c", stack), WORDS, "is a folder"),
        (("backup", stack.parent / "workspace/b", "-c", stack), WORDS, "put it elsewhere"),
        (("backup", file, "-c", tmp_path / "alone.yaml"), WORDS, "start the bridge once"),
        (("backup", file, "-c", tmp_path / "alone.yaml", "--with-servers"), WORDS, "no servers"),
        (("backup", tmp_path / "no/b", "-c", stack), WORDS, "there is no folder"),
        (("restore", file), WORDS, "say where to"),
        (("restore", other, "-c", stack), WORDS, "no backup of letta-matrix"),
        (("backup", "--check", other), WORDS, "no backup of letta-matrix"),
    ):
        done = await typed(*words, env=env)
        assert exit_status(done.exception) in (1, 2), words
        assert why in str(done.exception), words
    assert not file.exists()
    done = await typed(
        "backup", file, "-c", stack, "--passphrase-file", secret, "--without-servers"
    )
    assert done.exit_code == 0, done.output
    assert {"synapse", "workspace"}.isdisjoint(name.split("/")[0] for name in _names(file))
    done = await typed("backup", file, "-c", stack, "--no-encryption")
    assert "NOT ENCRYPTED" in done.stdout
    assert "workspace/notes.db" in _names(file, None)


def _names(file: Path, passphrase: str | None = SECRET) -> set[str]:
    into = file.with_name("laid")
    into.mkdir()
    read(file, passphrase, into)
    names = {*tree(into)}
    shutil.rmtree(into)
    return names
