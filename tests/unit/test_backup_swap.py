"""Files and folders that take the place of others, and how that is taken back."""

import os
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from letta_matrix.cli.backup import swap as swapping
from letta_matrix.cli.backup.swap import Swap


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    folder = tmp_path / "staging"
    (folder / "servers").mkdir(parents=True)
    for name in ("new", "other", "servers/one"):
        (folder / name).write_text(f"staged {name}")
    return folder


@pytest.fixture
def there(tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "other").write_text("before")
    return folder


def names(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in files}


@contextmanager
def copied(staged: Path, place: Path) -> Generator[Path]:
    """As into another file system."""
    near = place.with_name("near")
    shutil.copyfile(staged, near)
    yield near


def test_all_is_taken_back_also_from_another_file_system(
    staging: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = Swap()
    swap.put(staging / "servers", there / "servers")
    monkeypatch.setattr(swapping, "_near", copied)
    for name in ("new", "other"):
        swap.put(staging / name, there / name)
    # Nothing leads back to where it came from.
    shutil.rmtree(staging)
    assert swap.undo() == []
    assert names(there) == {"other": "before"}
    assert [one.name for one in there.iterdir()] == ["other"]


def test_one_step_that_cannot_be_taken_back_holds_up_no_other(
    staging: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swap = Swap()
    for name in ("other", "new"):
        swap.put(staging / name, there / name)
    unlink = Path.unlink

    def refused(path: Path, missing_ok: bool = False) -> None:
        if path.name == "new":
            raise PermissionError(13, "Permission denied", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refused)
    (fault,) = swap.undo()
    assert fault.filename == str(there / "new")
    assert (there / "other").read_text() == "before"


@pytest.mark.parametrize(
    ("owner", "method", "name"),
    [
        (Path, "replace", "other"),
        (Path, "replace", "new"),
        (Path, "rename", "other"),
        (os, "link", "other"),
    ],
)
def test_who_is_ended_right_after_a_step_takes_that_back_too(
    staging: Path,
    there: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    method: str,
    name: str,
) -> None:
    """As by SIGTERM, which ends us between any two lines."""
    swap, ended, original = Swap(), list[bool](), getattr(owner, method)
    act = swap.away if method == "rename" else partial(swap.put, staging / name)

    def end(*args: Any, **named: Any) -> None:
        original(*args, **named)
        if not ended:
            ended.append(True)
            sys.exit(143)

    monkeypatch.setattr(owner, method, end)
    with pytest.raises(SystemExit):
        act(there / name)
    assert swap.undo() == []
    assert names(there) == {"other": "before"}
    assert [one.name for one in there.iterdir()] == ["other"]
