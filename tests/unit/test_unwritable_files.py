"""Files that people name and that cannot be written: one line that says so, and of which."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests import kept_bridge
from tests.kept_bridge import WORDS, typed

from letta_matrix.cli.backup.faults import BackupError
from letta_matrix.cli.main import exit_status
from letta_matrix.common.private_files import UnwritableError, make_private, write_private

bridge = kept_bridge.bridge


def named(tmp_path: Path) -> list[tuple[Path, str]]:
    """Names of files and what is to be said of them."""
    file = tmp_path / "file"
    file.touch()
    return [
        (tmp_path / "nope/x", f"there is no folder {tmp_path}/nope: make it"),
        (file / "x", f"there is no folder {file}: make it"),
        (tmp_path, "is a folder: name a file"),
        (Path("/"), "is a folder: name a file"),
    ]


@pytest.mark.parametrize("command", ["export-mappings", "backup"])
async def test_it_is_said_where_a_file_cannot_be_put(
    bridge: Path, tmp_path: Path, command: str
) -> None:
    for path, says in named(tmp_path):
        done = await typed(command, path, "-c", bridge, env=WORDS)
        fault = done.exception
        assert isinstance(fault, UnwritableError | BackupError), fault
        assert exit_status(fault) == 1
        assert str(fault).startswith(str(path))
        assert says in str(fault)
        assert f".{path.name}." not in str(fault)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_folder_that_is_closed_is_told_by_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, *_: object) -> int:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UnwritableError, match=f"{tmp_path}/x: .*{os.strerror(number)}: name"):
        write_private(tmp_path / "x", "text")


@pytest.mark.parametrize("write", [write_private, make_private])
def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Callable[[Path, str], None]
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnwritableError, match=f"{tmp_path}/x: .*No space left.*: make room"):
        write(tmp_path / "x", "text")
    assert not list(tmp_path.iterdir())
