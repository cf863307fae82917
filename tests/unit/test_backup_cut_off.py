"""Backups and restores that fail or are cut off on the way."""

import os
from pathlib import Path

import pytest
from tests import kept_bridge
from tests.kept_bridge import WORDS, restored, taken, tree, typed

from letta_matrix.cli.backup import restoring, taking
from letta_matrix.cli.backup.archive import read
from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.cli.backup.swap import Swap
from letta_matrix.cli.main import exit_status

bridge, stack = kept_bridge.bridge, kept_bridge.stack


async def test_a_restore_that_fails_half_way_changes_nothing(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(stack, tmp_path / "b", servers=True)
    before, put = tree(stack.parent), Swap.put
    for number in range(6):
        done = list[Path]()

        def fail(
            self: Swap, staged: Path, place: Path, done: list[Path] = done, number: int = number
        ) -> None:
            if len(done) == number:
                raise OSError(28, "No space left on device", str(place))
            done.append(place)
            put(self, staged, place)

        monkeypatch.setattr(Swap, "put", fail)
        with pytest.raises(BackupError, match=r"all is as before: .*No space left"):
            await restored(tmp_path / "b", stack, replace=True)
        after = tree(stack.parent)
        # What was in its log stands in the database itself now.
        assert {one for one in {*before, *after} if before.get(one) != after.get(one)} <= {
            *("letta-matrix.db-wal", "letta-matrix.db-shm")
        }


async def test_a_restore_that_was_killed_is_noticed_and_can_be_run_again(
    bridge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the first of its renames: nothing is taken back."""
    taken(bridge, tmp_path / "b")
    put = Swap.put

    def killed(self: Swap, staged: Path, place: Path) -> None:
        put(self, staged, place)
        raise KeyboardInterrupt

    def nothing(*_: object) -> None:
        """A process that was killed takes nothing back."""

    with monkeypatch.context() as patched:
        patched.setattr(Swap, "put", killed)
        patched.setattr(restoring, "_take_back", nothing)
        with pytest.raises(KeyboardInterrupt):
            await restored(tmp_path / "b", bridge, replace=True)
    for words in (
        ("run", "-c", bridge),
        ("up", "--data", bridge.parent),
        ("backup", tmp_path / "other", "-c", bridge),
    ):
        refused = (await typed(*words, env=WORDS)).exception
        assert exit_status(refused) == 1, words
        assert "a restore was cut off" in str(refused)
        assert "--replace" in str(refused)
    done = await typed("restore", tmp_path / "b", "-c", bridge, "--replace", env=WORDS)
    assert done.exit_code == 0, done.output
    assert (await typed("backup", tmp_path / "other", "-c", bridge, env=WORDS)).exit_code == 0


async def test_what_could_not_be_taken_back_is_said_and_noticed_later(
    bridge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken(bridge, tmp_path / "b")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    def stuck(_: Swap) -> list[OSError]:
        return [OSError(5, "Input/output error", "letta-matrix.db")]

    with monkeypatch.context() as patched:
        patched.setattr(Swap, "put", fail)
        patched.setattr(Swap, "undo", stuck)
        with pytest.raises(BackupError, match=r"No space left.*letta-matrix.db: Input/output"):
            await restored(tmp_path / "b", bridge, replace=True)
    refused = (await typed("run", "-c", bridge)).exception
    assert "a restore was cut off" in str(refused)


def test_a_backup_that_is_interrupted_leaves_the_one_before(
    bridge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "to/b"
    file.parent.mkdir()
    taken(bridge, file)
    before = file.read_bytes()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    def spoil(path: Path, passphrase: str | None) -> None:
        os.truncate(path, path.stat().st_size - 1)
        read(path, passphrase)

    for stage, fault in (("copy_database", interrupt), ("read", interrupt), ("read", spoil)):
        with monkeypatch.context() as patched:
            patched.setattr(taking, stage, fault)
            with pytest.raises((KeyboardInterrupt, BackupError)):
                taken(bridge, file)
        assert tree(file.parent) == {"b": before}
        assert not list(bridge.parent.glob(".letta-staging-*"))


async def test_what_an_earlier_process_left_is_taken_away(bridge: Path, tmp_path: Path) -> None:
    folder = bridge.parent
    left = folder / ".letta-staging-0123abcd"
    # A backup that was killed while it wrote `backup-2026.age` beside the database.
    others = [folder / name for name in (".backup-2026.age.0123abcd", ".letta-staging-notes")]
    for other in others:
        other.write_text("whatever")
    left.mkdir()
    (left / "copy").write_text("rows")
    taken(bridge, tmp_path / "b")
    assert not left.exists()
    left.mkdir()
    await restored(tmp_path / "b", bridge, replace=True)
    assert not left.exists()
    assert all(other.read_text() == "whatever" for other in others)
